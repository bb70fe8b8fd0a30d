"""Answers to the peer of a connection on its way back to its program: alive, but a zero window (C3).

The stand-in has stopped and the program has not taken everything yet, so neither kernel can answer for it. A zero-window
probe that is answered keeps the peer's connection alive for as long as it takes (RFC 9293 section 3.8.6.1). Bytes in,
bytes out: it must not know sockets, nor who holds packets.
"""

from dataclasses import dataclass

from locum.wire.errors import WireError
from locum.wire.flow import Flow
from locum.wire.ip import TCP, TcpFlag, TcpSegment, build_tcp, upper_layer

_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer is sent. `ended`: the peer has reset the connection."""

    ended: bool = False


def answer(flow: Flow, packet: bytes, expected: int, timestamp: int | None) -> bytes | Silence:
    """The IP packet to send to the peer for this one of its packets.

    It acknowledges up to `expected`, the next sequence number of the peer that is not here yet, with a window of 0.
    `timestamp` is the value of the timestamp clock now, None for a connection without the option (RFC 7323). What is
    out of order or damaged is not answered; nor is a mere acknowledgement, or two ends would answer each other for ever.
    """
    segment = _segment(packet)
    if segment is None:
        return Silence()
    if segment.flags & TcpFlag.RST:
        # Only one at exactly the expected sequence number counts (RFC 5961 section 3.2).
        return Silence(ended=segment.sequence == expected)
    says = segment.payload or segment.flags & (TcpFlag.FIN | TcpFlag.SYN) or segment.sequence != expected
    if not says or not segment.flags & TcpFlag.ACK:
        return Silence()
    stamps = segment.timestamps if timestamp is not None else None
    return build_tcp(
        flow,
        seq=segment.acknowledgement,
        ack=expected & _U32,
        flags=TcpFlag.ACK,
        window=0,
        tsval=None if stamps is None else timestamp,
        tsecr=0 if stamps is None else stamps[0],
        from_peer=False,
    )


def _segment(packet: bytes) -> TcpSegment | None:
    try:
        upper = upper_layer(packet)
        if upper.protocol != TCP or upper.fragmented:
            return None
        return TcpSegment.decode(upper.payload)
    except WireError:
        return None
