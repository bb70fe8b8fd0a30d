"""Packets that the peer would have sent to the device while it slept (A12): built here, delivered to its own kernel.

They carry no timestamps option: the kernel then checks sequence numbers only (its PAWS test needs the option), so the peer's
clock need not be known. It must not know who delivers them.
"""

from ipaddress import IPv4Address

from locum.wire.control import Flow
from locum.wire.ip import ICMP, ICMPV6, TcpFlag, build_ip, build_tcp, checksum, transport_checksum

SEGMENT = 1200  # payload bytes: fits any link, also behind a tunnel of IPv6


def opening(flow: Flow, seq: int, mss: int, *, sack: bool) -> bytes:
    """The peer's SYN with the largest segment it takes; neither timestamps nor window scaling."""
    options = b"\x02\x04" + mss.to_bytes(2, "big") + (b"\x01\x01\x04\x02" if sack else b"")
    return build_tcp(flow, seq=seq, ack=0, flags=TcpFlag.SYN, window=0xFFFF, options=options)


def acknowledgement(flow: Flow, seq: int, ack: int, window: int) -> bytes:
    """An empty segment from the peer; `window` is the header's field, scaled down."""
    return build_tcp(flow, seq=seq, ack=ack, flags=TcpFlag.ACK, window=window)


def finish(flow: Flow, seq: int, ack: int, window: int) -> bytes:
    """The peer's FIN, at the sequence number that is expected next."""
    return build_tcp(flow, seq=seq, ack=ack, flags=TcpFlag.FIN | TcpFlag.ACK, window=window)


def reset(flow: Flow, seq: int, ack: int) -> bytes:
    """The peer's RST; only one at exactly the expected sequence number counts (RFC 5961 section 3)."""
    return build_tcp(flow, seq=seq, ack=ack, flags=TcpFlag.RST | TcpFlag.ACK)


def unreachable(flow: Flow, seq: int) -> bytes:
    """A router's error that the device's segment at `seq` had no route: reverts a backoff (RFC 6069).

    Its source is the peer's address; a kernel does not look at it.
    """
    lost = build_tcp(flow, seq=seq, ack=0, flags=TcpFlag.ACK, from_peer=False)
    if isinstance(flow.local, IPv4Address):
        body = b"\3\1\0\0" + bytes(4) + lost  # host unreachable
        return build_ip(flow.peer, flow.local, ICMP, _checked(body, checksum(body)))
    body = b"\1\0\0\0" + bytes(4) + lost  # no route
    return build_ip(
        flow.peer, flow.local, ICMPV6, _checked(body, transport_checksum(flow.peer, flow.local, ICMPV6, body))
    )


def _checked(body: bytes, value: int) -> bytes:
    return body[:2] + value.to_bytes(2, "big") + body[4:]


def data_segments(flow: Flow, seq: int, ack: int, data: bytes, window: int = 0xFFFF) -> tuple[bytes, ...]:
    """`data` as segments from the peer, beginning at `seq`."""
    return tuple(
        build_tcp(
            flow,
            seq=(seq + start) & 0xFFFFFFFF,
            ack=ack,
            flags=TcpFlag.ACK | TcpFlag.PSH,
            window=window,
            payload=data[start : start + SEGMENT],
        )
        for start in range(0, len(data), SEGMENT)
    )
