"""The device's end of a connection that a proxy handed over: a socket with all that has come for the program (A11).

The flow is suspended meanwhile. This module must not know who waits for the socket, nor how packets are delivered.
"""

import socket
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address

from locum.sessions.record import SessionRecord, TcpState, Window
from locum.sessions.tcp import repair, stand_in
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.peer_packets import window_field
from locum.sessions.tcp.synthesis import acknowledgement, finish
from locum.wire.control import FinalState

_MOST_UNSCALED = 0xFFFF
_U32 = 0xFFFFFFFF


class Restored:
    """A connection that goes on here: its socket, and packets as if from the peer."""

    def __init__(self, record: SessionRecord, final: FinalState, data: bytes) -> None:
        """`record` is the stand-in's, `final` its last state, `data` everything received since the record.

        Raises SessionError when they contradict each other, or the kernel refuses.
        """
        queue = record.unacked + record.unsent
        if record.state not in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT):
            raise SessionError(f"{record.flow} was handed over in state {record.state.name}")
        if final.acked > len(queue) or len(data) != final.received:
            raise SessionError(f"{record.flow} does not fit its last state")
        self.flow = record.flow
        self.peer_closed = final.peer_closed or record.peer_closed
        self._start = (record.rcv_seq - record.peer_closed) & _U32  # before the peer's FIN
        self._received = len(data)
        self._acked = (record.snd_seq + final.acked) & _U32
        scale = 0 if record.window_scale is None else record.window_scale[1]
        room = min(stand_in.RECEIVE_BUFFER, _MOST_UNSCALED << scale)
        window = record.window
        now = replace(
            record,
            state=TcpState.ESTABLISHED,
            snd_seq=self._acked,
            unacked=queue[final.acked :],
            unsent=b"",
            rcv_seq=self._start,
            timestamp=record.timestamp if final.ts_value is None else final.ts_value,
            # snd_wl1 must not be in front of the window
            window=Window(self._start, window.snd_wnd, window.max_window, len(data) + room, self._start),
        )
        space = stand_in.RECEIVE_BUFFER + 2 * len(data)
        self.socket = stand_in.restore(now, received=data, receive_buffer=space)
        try:
            self._for_programs()
        except OSError:
            stand_in.drop(self.socket)
            raise

    def _for_programs(self) -> None:
        """As the socket of any program: what a stand-in's needs is taken back."""
        sock = self.socket
        if isinstance(self.flow.local, IPv4Address):
            sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 0)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, repair.IPV6_TRANSPARENT, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        with suppress(OSError):  # before Linux 5.16 the buffers stay as they are
            sock.setsockopt(socket.SOL_SOCKET, repair.SO_BUF_LOCK, 0)
        sock.setblocking(True)

    def ending(self) -> tuple[bytes, ...]:
        """The peer's FIN, if it has come: deliver it to this host."""
        if not self.peer_closed:
            return ()
        return (finish(self.flow, self._next, self._acked, self._window),)

    def nudge(self) -> tuple[bytes, ...]:
        """A packet for this host that makes it tell the peer its window; the flow's way out is open."""
        seq = (self._start + repair.info(self.socket).bytes_received - 1) & _U32
        return (acknowledgement(self.flow, seq, self._acked, self._window),)

    @property
    def _next(self) -> int:
        return (self._start + self._received) & _U32

    @property
    def _window(self) -> int:
        return window_field(self.socket, repair.info(self.socket).send_window)
