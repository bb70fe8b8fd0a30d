"""Packets to this host in the peer's name when a connection comes back: its segments meanwhile (A12).

They are built from the socket in repair mode and from the parked data; the caller delivers them.
"""

import socket
import struct

from locum.sessions.record import TcpState
from locum.sessions.tcp import repair
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.parked import Parked
from locum.sessions.tcp.synthesis import acknowledgement, data_segments, finish, reset, unreachable
from locum.wire.control import Flow

FIN_SENT = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2)
PEER_CLOSED = (TcpState.CLOSE_WAIT, TcpState.CLOSING, TcpState.LAST_ACK, TcpState.TIME_WAIT)
_U32 = 0xFFFFFFFF


def answers(sock: socket.socket, parked: Parked, final: FinalTcp) -> tuple[bytes, ...]:
    """The packets that the peer would have sent meanwhile: acknowledgement, FIN, RST."""
    flow = parked.flow
    seq, ack = sequences(sock, parked, final)
    window = window_field(sock, final.send_window)
    packets: list[bytes] = []
    written = repair.queue_sequence(sock, repair.SEND_QUEUE)
    if ack != parked.snd_una or ack != written:  # the kernel sends data that it could not send before
        packets.append(acknowledgement(flow, seq, ack, window))
    if not final.peer_closed and not final.error:
        # The stand-in may have closed the window, and ours counts as announced: without a packet from us the peer would wait
        # for its next probe, up to two minutes. An old sequence number is answered at once.
        packets.append(acknowledgement(flow, (seq - 1) & _U32, ack, window))
    # Otherwise it came before, or with a finish before.
    if final.peer_closed and repair.info(sock).state not in PEER_CLOSED:
        packets.append(finish(flow, seq, ack, window))
        seq = (seq + 1) & _U32
    if final.error:
        packets.append(reset(flow, seq, ack))
    elif ack != written:
        packets += _impatience(sock, flow, ack)
    return tuple(packets)


def sequences(sock: socket.socket, parked: Parked, final: FinalTcp) -> tuple[int, int]:
    """Sequence and acknowledgement number of the peer's next segment; it acknowledges our copy only."""
    seq = repair.queue_sequence(sock, repair.RECEIVE_QUEUE)
    ack = _latest(parked.snd_una, (parked.snd_seq + final.acked) & _U32)
    if _latest(parked.snd_end, ack) != parked.snd_end:  # more than the stand-in was given
        ack = parked.snd_una
    return seq, ack


def refusal(sock: socket.socket, parked: Parked, final: FinalTcp) -> tuple[bytes, ...]:
    """Make this host's kernel reset a connection with unreadable data (RFC 9293 section 3.10.4)."""
    if repair.info(sock).state not in FIN_SENT:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return ()
    seq, ack = sequences(sock, parked, final)
    return data_segments(parked.flow, seq, ack, b"\0")


def _impatience(sock: socket.socket, flow: Flow, ack: int) -> tuple[bytes, ...]:
    """Packets that end the wait for a retransmission timer which has backed off while nothing got through.

    Each reverts one doubling, and the segment is sent when its time has come by that (RFC 6069). A program that asked
    for reports of such packets gets none, and waits.
    """
    now = repair.info(sock)
    if not now.retransmissions or repair.reports_errors(sock):
        return ()
    return (unreachable(flow, ack),) * now.backoff


def window_field(sock: socket.socket, size: int | None = None) -> int:
    """The window field for a window of `size` bytes, by default as large as it was."""
    scales = repair.info(sock).window_scale
    known = repair.window(sock).snd_wnd if size is None else size
    return min(known >> (scales[0] if scales else 0), 0xFFFF)


def _latest(first: int, second: int) -> int:
    """The later of two sequence numbers (RFC 9293 section 3.4)."""
    return first if (first - second) & 0x80000000 == 0 else second
