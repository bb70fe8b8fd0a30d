"""The device's end of a live TCP connection: out of a running program, and back into the same program (A12, C2, C3).

The program is frozen and no packet of the flow reaches this host while the functions here work (the data plane suspends
the flow). This module must not know who freezes, how flows are held or how a record travels; it never waits.
"""

import errno
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address

from locum.sessions import repair
from locum.sessions.find import Candidate
from locum.sessions.record import MAX_QUEUE, TRANSFERABLE, SessionRecord, TcpState
from locum.sessions.synthesis import acknowledgement, data_segments, finish, reset
from locum.wire.control import Flow

LONGEST_USER_TIMEOUT = 0x7FFFFFFF  # milliseconds: 24.8 days, the kernel's largest
# Bytes a write into the receive queue: the kernel makes one buffer of each, of 17 pages at most.
_PIECE = 64 << 10
_U32 = 0xFFFFFFFF
_FIN_SENT = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2)
_PEER_CLOSED = (TcpState.CLOSE_WAIT, TcpState.CLOSING, TcpState.LAST_ACK, TcpState.TIME_WAIT)
_TCP = socket.IPPROTO_TCP


class SessionError(Exception):
    """A connection that cannot be captured or restored; the text says which and why. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Parked:
    """What the original socket needs to come back: the device's node stores it (JSON) until the session is done."""

    flow: Flow
    snd_seq: int  # the record's
    snd_una: int  # first unacknowledged sequence number at the capture, behind a FIN that is acknowledged
    rcv_seq: int  # the record's
    received: int  # the kernel's count of received bytes at the capture
    peer_closed: bool
    window: int  # receive window that was last offered before the capture, bytes
    keepalive: int
    user_timeout: int  # milliseconds, 0 for the kernel's default
    reuse_address: int

    def to_json(self) -> dict[str, object]:
        """Only JSON types; `from_json` takes it back."""
        flow = self.flow
        ends = [flow.protocol, str(flow.local), flow.local_port, str(flow.peer), flow.peer_port]
        return asdict(self) | {"flow": ends}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Parked":
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        fields = dict(value)
        ends = fields.pop("flow")
        if not isinstance(ends, (list, tuple)) or len(ends) != 5:
            raise ValueError("the flow of a parked session is not five items")
        protocol, local, local_port, peer, peer_port = ends
        flow = Flow(int(protocol), ip_address(local), int(local_port), ip_address(peer), int(peer_port))
        return cls(flow=flow, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Injected:
    """What came of one `inject`: bytes taken, and packets that must be delivered to this host for them (else none)."""

    accepted: int
    packets: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FinalTcp:
    """The stand-in's last word on a connection. Counts start at the capture; a FIN is not a byte of `received`."""

    received: int
    acked: int = 0  # sequence numbers of the captured send queue that the peer has acknowledged; the own FIN counts one
    timestamp: int | None = None  # the stand-in's TCP timestamp clock, in whatever unit
    peer_closed: bool = False  # the peer's FIN has come, before or after the capture
    error: int = 0  # errno that ended the connection
    send_window: int | None = None  # the peer's window in bytes; None when not known


class LiveSocket:
    """A second descriptor of a program's socket, and what is done to it while the program is frozen.

    capture -> (asleep) -> rounds of [freeze, hold, inject, let_go, thaw, program reads] -> [freeze, hold] finish -> close.
    `resume` undoes a capture. Every call is short: an injection copies at most what the receive buffer takes.
    """

    def __init__(self, sock: socket.socket, flow: Flow, parked: Parked | None = None) -> None:
        self.socket = sock
        self.flow = flow
        self._parked = parked

    @classmethod
    def open(cls, candidate: Candidate, parked: Parked | None = None) -> "LiveSocket":
        """Duplicates the socket from whichever holder still has it; raises SessionError when none has.

        With `parked`, a socket that an earlier run of the daemon captured is taken over as it is.
        """
        for pid, fd in candidate.holders:
            with suppress(OSError):
                sock = repair.duplicate(pid, fd)
                if os.fstat(sock.fileno()).st_ino == candidate.inode:
                    return cls(sock, candidate.flow, parked)
                sock.close()
        raise SessionError(f"no process holds the socket of {candidate.flow} any more")

    @property
    def parked(self) -> Parked:
        """What to store after `capture`."""
        if self._parked is None:
            raise RuntimeError("the socket has not been captured")
        return self._parked

    def state(self) -> TcpState:
        """The TCP state now."""
        return repair.info(self.socket).state

    def unread(self) -> int:
        """Bytes that the program has still to read."""
        return repair.unread(self.socket)

    def position(self) -> int:
        """Payload bytes put into this socket since the capture: where the next injection starts."""
        now = repair.info(self.socket)
        fin = now.state in _PEER_CLOSED and not self.parked.peer_closed
        return now.bytes_received - self.parked.received - int(fin)

    def capture(self) -> SessionRecord:
        """Reads the connection and leaves its socket in repair mode with its timers disarmed.

        Raises SessionError for a state that cannot travel, OSError when the kernel refuses; the socket is then as before.
        """
        sock = self.socket
        now = repair.info(sock)
        if now.state not in TRANSFERABLE:
            raise SessionError(f"{self.flow} is in state {now.state.name}")
        if protocol := repair.upper_protocol(sock):
            raise SessionError(
                f"{self.flow} has the kernel's {protocol} on top, whose state cannot be taken out"
            )
        reuse = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        repair.set_repair(sock, repair.REPAIR_ON)  # changes SO_REUSEADDR
        try:
            record = _read(sock, self.flow)
            now = repair.info(sock)  # as it stands still: what came since the first look is in the record
        except (OSError, SessionError):
            repair.set_repair(sock, repair.REPAIR_OFF)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            raise
        self._parked = Parked(
            flow=self.flow,
            snd_seq=record.snd_seq,
            snd_una=(record.snd_seq + (record.state is TcpState.FIN_WAIT2)) & _U32,
            rcv_seq=record.rcv_seq,
            received=now.bytes_received,
            peer_closed=record.peer_closed,
            window=record.window.rcv_wnd,
            keepalive=sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            user_timeout=sock.getsockopt(_TCP, socket.TCP_USER_TIMEOUT),
            reuse_address=reuse,
        )
        self._disarm(record)
        return record

    def resume(self) -> None:
        """Undoes `capture`, also one that was cut off: the program's socket goes on as it was."""
        if repair.in_repair(self.socket):
            repair.set_repair(self.socket, repair.REPAIR_OFF)
        if self._parked is not None:
            self._rearm()

    def hold(self) -> None:
        """Into repair mode, for `inject` or `finish`; the program is frozen."""
        repair.set_repair(self.socket, repair.REPAIR_ON)

    def let_go(self) -> None:
        """Out of repair mode without a packet, so that the thawed program reads what was injected."""
        repair.set_repair(self.socket, repair.REPAIR_OFF_NO_PROBE)

    def inject(self, data: bytes | memoryview) -> Injected:
        """Puts received bytes, the first being that of `position`, behind what the program has not read yet.

        Takes what fits the receive buffer, possibly nothing. A socket whose sending side is shut takes them only as
        segments from the peer: then deliver `packets` to this host, and `position` tells how far they came.
        """
        state = self.state()
        if state in _FIN_SENT:
            return self._inject_segments(data)
        if state is not TcpState.ESTABLISHED:
            return Injected(0)
        view = memoryview(data)
        done = 0
        repair.select_queue(self.socket, repair.RECEIVE_QUEUE)
        while done < len(view):
            try:
                done += self.socket.send(view[done : done + _PIECE], socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno in (errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN):
                    break
                raise
        return Injected(done)

    def mark_all_sent(self) -> None:
        """Counts the whole send queue as sent: the stand-in has sent it. In repair mode only."""
        repair.mark_all_sent(self.socket)

    def set_timestamp(self, value: int) -> None:
        """Sets the timestamp clock, so that it does not go back behind the stand-in's. In repair mode only.

        The connection keeps its unit, also when the stand-in's kernel could not count in it.
        """
        repair.set_timestamp(self.socket, value, repair.info(self.socket).timestamp_unit)

    def finish(self, final: FinalTcp) -> tuple[bytes, ...]:
        """Gives the connection back when `position` has reached `final.received`; in repair mode, program frozen.

        Returns the packets that the peer would have sent meanwhile (acknowledgement, FIN, RST): deliver them to this host
        in order, before the held packets, then thaw. An open socket leaves with a window probe, which the peer answers
        with its acknowledgement and window, so the flow's way out must be open again.
        """
        self.mark_all_sent()
        if final.timestamp is not None and repair.info(self.socket).timestamps:
            self.set_timestamp(final.timestamp)
        packets = self._from_peer(final)
        self._open_receive_window()
        self.release()
        return packets

    def release(self) -> None:
        """Leaves repair mode for good, with a window probe if established, and restores the program's options."""
        repair.set_repair(self.socket, repair.REPAIR_OFF)
        self._rearm()

    def close(self) -> None:
        """Drops our descriptor; the connection stays the program's."""
        self.socket.close()

    def _from_peer(self, final: FinalTcp) -> tuple[bytes, ...]:
        flow, parked = self.flow, self.parked
        written = repair.queue_sequence(self.socket, repair.SEND_QUEUE)
        seq = repair.queue_sequence(self.socket, repair.RECEIVE_QUEUE)
        ack = _latest(parked.snd_una, (parked.snd_seq + final.acked) & _U32)
        if _latest(written, ack) != written:  # more than was ever written
            ack = parked.snd_una
        window = self._scaled(final.send_window)
        packets: list[bytes] = []
        if ack != parked.snd_una:
            packets.append(acknowledgement(flow, seq, ack, window))
        # Otherwise it came before, or with a finish before.
        if final.peer_closed and self.state() not in _PEER_CLOSED:
            packets.append(finish(flow, seq, ack, window))
            seq = (seq + 1) & _U32
        if final.error:
            packets.append(reset(flow, seq, ack))
        return tuple(packets)

    def _scaled(self, size: int | None) -> int:
        """The window field for a window of `size` bytes, by default as large as it was."""
        scales = repair.info(self.socket).window_scale
        known = repair.window(self.socket).snd_wnd if size is None else size
        return min(known >> (scales[0] if scales else 0), 0xFFFF)

    def _inject_segments(self, data: bytes | memoryview) -> Injected:
        seq = repair.queue_sequence(self.socket, repair.RECEIVE_QUEUE)
        part = bytes(data[: repair.window(self.socket).offered(seq)])
        return Injected(len(part), data_segments(self.flow, seq, self.parked.snd_una, part))

    def _open_receive_window(self) -> None:
        """Injected bytes have used up the window that was last offered; it reaches as far behind them again."""
        now = repair.window(self.socket)
        seq = repair.queue_sequence(self.socket, repair.RECEIVE_QUEUE)
        with suppress(OSError):  # only saves a retransmission: the next acknowledgement opens it as well
            repair.set_window(
                self.socket, replace(now, rcv_wnd=max(now.rcv_wnd, self.parked.window), rcv_wup=seq)
            )

    def _disarm(self, record: SessionRecord) -> None:
        """No timer may end the connection while the device sleeps."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        self.socket.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, LONGEST_USER_TIMEOUT)
        if record.unsent and not record.unacked:
            # Zero-window probes end a connection after tcp_retries2 of them, whatever the user timeout; a retransmission
            # into an open window does not.
            now = replace(record.window, snd_wnd=max(record.window.snd_wnd, record.mss))
            with suppress(OSError):
                repair.set_window(self.socket, replace(now, max_window=max(now.max_window, now.snd_wnd)))
            self.mark_all_sent()

    def _rearm(self) -> None:
        parked = self.parked
        self.socket.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, parked.user_timeout)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, parked.keepalive)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, parked.reuse_address)


def _latest(first: int, second: int) -> int:
    """The later of two sequence numbers (RFC 9293 section 3.4)."""
    return first if (first - second) & 0x80000000 == 0 else second


def _read(sock: socket.socket, flow: Flow) -> SessionRecord:
    now = repair.info(sock)
    rcv_seq = repair.queue_sequence(sock, repair.RECEIVE_QUEUE)
    written = repair.queue_sequence(sock, repair.SEND_QUEUE)
    unacknowledged, unsent = repair.unacknowledged(sock), repair.unsent(sock)
    fin_queued = now.state in (TcpState.FIN_WAIT1, TcpState.LAST_ACK, TcpState.CLOSING)
    data = unacknowledged - fin_queued
    unsent_data = max(unsent - fin_queued, 0)
    if data > MAX_QUEUE:
        raise SessionError(f"{flow} has {data} bytes in its send queue, more than {MAX_QUEUE}")
    queue = repair.peek_send_queue(sock, data)
    unread = repair.unread(sock)
    buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    scales = now.window_scale
    return SessionRecord(
        flow=flow,
        state=now.state,
        snd_seq=(written - unacknowledged - (now.state is TcpState.FIN_WAIT2)) & _U32,
        rcv_seq=rcv_seq,
        unacked=queue[: data - unsent_data],
        unsent=queue[data - unsent_data :],
        unread=unread,
        window=repair.window(sock),
        timestamp=repair.timestamp(sock) if now.timestamps else None,
        timestamp_unit=now.timestamp_unit if now.timestamps else None,
        mss=sock.getsockopt(_TCP, socket.TCP_MAXSEG),
        window_scale=scales,
        sack=now.sack,
        keepalive=_keepalive(sock),
        intake=(max(now.bytes_received - unread, 0), buffer),
    )


def _keepalive(sock: socket.socket) -> tuple[int, int, int] | None:
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return None
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    idle, interval, count = (sock.getsockopt(_TCP, name) for name in names)
    return idle, interval, count
