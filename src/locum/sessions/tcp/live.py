"""The device's end of a live TCP connection: out of a running program, and back into the same program (A12, C2, C3).

The program is frozen and no packet of the flow reaches this host while the functions here work (the data plane suspends
the flow). This module must not know who freezes, how flows are held or how a record travels; it never waits.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from locum.sessions.record import (
    LONGEST_KEEP_ALIVE,
    MAX_QUEUE,
    MOST_PROBES,
    TRANSFERABLE,
    SessionRecord,
    TcpState,
    TimestampUnit,
)
from locum.sessions.search.find import Candidate
from locum.sessions.tcp import carrying, repair
from locum.sessions.tcp.more_room import more_room
from locum.sessions.tcp.parked import Intent, Parked, ProgramOptions
from locum.sessions.tcp.synthesis import acknowledgement, data_segments, finish, reset, unreachable
from locum.wire.control import Flow

LONGEST_USER_TIMEOUT = 0x7FFFFFFF  # milliseconds: 24.8 days, the kernel's largest
LONGEST_IN_MICROSECONDS = LONGEST_USER_TIMEOUT // 1000  # for a connection whose timestamps count microseconds
USUAL_TIMEOUT = 924_600  # milliseconds: after these, retransmissions end a connection (tcp_retries2 is 15)
# Bytes: far below 2 GiB, where the order of sequence numbers turns round, and more than any window that is offered.
PURGE_EVERY = 64 << 20
# Bytes a write into the receive queue: the kernel makes one buffer of each, of 17 pages at most.
_PIECE = 64 << 10
_U32 = 0xFFFFFFFF
_FIN_SENT = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2)
_PEER_CLOSED = (TcpState.CLOSE_WAIT, TcpState.CLOSING, TcpState.LAST_ACK, TcpState.TIME_WAIT)
_TCP = socket.IPPROTO_TCP


class SessionError(Exception):
    """A connection that cannot be captured or restored; the text says which and why. Nothing was changed."""


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

    look -> capture -> (asleep) -> rounds of [freeze, hold, inject, let_go, thaw, program reads] -> [freeze, hold] finish
    -> close. The program may run from `let_go` to `hold` for as long as needed. `resume` undoes a capture. Every call is
    short: an injection copies at most what the receive buffer takes.
    """

    def __init__(self, sock: socket.socket, flow: Flow, stored: Parked | Intent | None = None) -> None:
        self.socket = sock
        self.flow = flow
        self._parked = stored if isinstance(stored, Parked) else None
        self._options = stored.options if stored is not None else None

    @classmethod
    def open(cls, candidate: Candidate, stored: Parked | Intent | None = None) -> "LiveSocket":
        """Duplicates the socket from whichever holder still has it; raises SessionError when none has.

        With `stored`, a socket that an earlier run of the daemon captured, or began to, is taken over as it is.
        """
        return cls(duplicate_of(candidate), candidate.flow, stored)

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

    def refuses(self) -> bool:
        """Whether the program has shut both sides: this kernel would answer more bytes with a RST.

        One that has shut its receiving side alone is given what comes, as always.
        """
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLRDHUP)
        shut = any(events & select.POLLRDHUP for _, events in poll.poll(0))
        return shut and self.state() in _FIN_SENT

    def look(self) -> Intent:
        """Reads the options that `capture` will change, so that they can be stored before; changes nothing.

        Raises SessionError for a connection that cannot travel.
        """
        sock = self.socket
        state = self.state()
        if state not in TRANSFERABLE:
            raise SessionError(f"{self.flow} is in state {state.name}")
        if protocol := repair.upper_protocol(sock):
            raise SessionError(
                f"{self.flow} has the kernel's {protocol} on top, whose state cannot be taken out"
            )
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) != _TCP:
            raise SessionError(f"{self.flow} is a Multipath TCP connection, which cannot be taken out")
        if repair.has_authentication(sock):
            raise SessionError(
                f"{self.flow} is signed with keys of TCP-AO (RFC 5925), which cannot be taken out"
            )
        self._options = ProgramOptions(
            keepalive=sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            user_timeout=sock.getsockopt(_TCP, socket.TCP_USER_TIMEOUT),
            reuse_address=sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
        )
        return Intent(self.flow, self._options)

    def capture(self) -> SessionRecord:
        """Reads the connection and leaves its socket in repair mode with its timers disarmed.

        Raises SessionError for a connection that cannot travel, OSError when the kernel refuses; the socket is then as
        before.
        """
        sock = self.socket
        options = self.look().options
        carried = carrying.read(sock, self.flow)
        repair.set_repair(sock, repair.REPAIR_ON)  # changes SO_REUSEADDR
        try:
            record = replace(_read(sock, self.flow), options=carried)
            now = repair.info(sock)  # as it stands still: what came since the first look is in the record
            written = repair.queue_sequence(sock, repair.SEND_QUEUE)
        except (OSError, SessionError):
            repair.set_repair(sock, repair.REPAIR_OFF)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, options.reuse_address)
            raise
        self._parked = Parked(
            flow=self.flow,
            snd_seq=record.snd_seq,
            snd_una=(record.snd_seq + (record.state is TcpState.FIN_WAIT2)) & _U32,
            snd_end=written,
            rcv_seq=record.rcv_seq,
            received=now.bytes_received,
            peer_closed=record.peer_closed,
            window=record.window.rcv_wnd,
            microseconds=record.timestamp_unit is TimestampUnit.MICROSECONDS,
            options=options,
        )
        self._disarm(record)
        return record

    def resume(self) -> None:
        """Undoes `capture`, also one that was cut off: the program's socket goes on as it was."""
        if repair.in_repair(self.socket):
            if self._parked is not None and self._parked.microseconds:
                self._set_clock(repair.timestamp(self.socket))
            repair.set_repair(self.socket, repair.REPAIR_OFF)
        if self._options is not None:
            self._rearm_anew(self._options)
        repair.announce_data(self.socket)

    def hold(self) -> None:
        """Into repair mode, for `inject` or `finish`; the program is frozen."""
        repair.set_repair(self.socket, repair.REPAIR_ON)

    def let_go(self) -> None:
        """Out of repair mode without a packet, so that the thawed program reads what was injected; again, if it is out.

        Whatever the program waits with is told that there are bytes; it learns it when it runs. It may run for as long as
        needed, while the data plane suspends the flow: no timer ends the connection, and what it writes waits in its send
        queue. It may shut and close. Deliver `reassurance` every few seconds.
        """
        if repair.in_repair(self.socket):
            self._mark_record_sent()
            repair.set_repair(self.socket, repair.REPAIR_OFF_NO_PROBE)
        repair.announce_data(self.socket)

    def reassurance(self) -> tuple[bytes, ...]:
        """Packets for this host, while the program runs: an acknowledgement of what the peer has acknowledged already.

        Where the host has no way to send what the program writes, the kernel probes, and ends the connection after
        tcp_retries2 probes without an answer: 7.5 seconds at the earliest by default.
        """
        parked = self.parked
        seq = (parked.rcv_seq + self.position()) & _U32
        window = self._scaled(repair.info(self.socket).send_window)
        return (acknowledgement(self.flow, seq, parked.snd_una, window),)

    def tighten(self) -> None:
        """Ends what `let_go` began, the program being frozen again: the way back goes on with `inject`."""
        self.hold()

    def inject(self, data: bytes | memoryview) -> Injected:
        """Puts received bytes, the first being that of `position`, behind what the program has not read yet.

        Takes what fits the receive buffer, possibly nothing, and ends before every `PURGE_EVERY`th byte. That one it takes
        only as a segment from the peer, as does a socket whose sending side is shut all of them: then deliver `packets` to
        this host, and `position` tells how far they came.
        """
        state = self.state()
        if state in _FIN_SENT and not self.refuses():
            return self._inject_segments(data)
        if state is not TcpState.ESTABLISHED:
            return Injected(0)
        step = max(PURGE_EVERY, self.parked.window)
        if not (room := step - 1 - self.position() % step):
            return self._purge(data)
        view = memoryview(data)[:room]
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

    @contextmanager
    def more_room(self, count: int) -> Iterator[None]:
        """While it lasts, `inject` takes `count` bytes more than the receive buffer does, if the kernel has the memory.

        `Injected.packets` have to arrive before it ends. With so much unread, `finish` closes the window.
        """
        with more_room(self.socket, count) as made:
            if made and self.state() in _FIN_SENT:
                self._open_receive_window(count)
            yield

    def mark_all_sent(self) -> None:
        """Counts the whole send queue as sent: the stand-in has sent it. In repair mode only."""
        repair.mark_all_sent(self.socket)

    def finish(self, final: FinalTcp, *, closed: bool = False) -> tuple[bytes, ...]:
        """Gives the connection back when `position` has reached `final.received`; in repair mode, program frozen.

        Returns the packets that the peer would have sent meanwhile (acknowledgement, FIN, RST), and one that makes this
        kernel tell the peer its window: deliver them to this host in order, before the held packets, then thaw. An open
        socket leaves with a window probe, which the peer answers with its acknowledgement and window, so the flow's way out
        must be open again.

        `closed`: no program will read from this socket any more (all have closed it, or it `refuses`), so `position` may
        be anywhere. The connection then ends towards the peer as the kernel ends one whose program closes: with `close`,
        by FIN when nothing is left unread, else by RST.
        """
        left = final.received - self.position() if closed else 0
        self._mark_record_sent()
        if final.timestamp is not None and repair.info(self.socket).timestamps:
            self._set_clock(final.timestamp, progress=self._sequences(final)[1] != self.parked.snd_una)
        packets = self._refusal(final) if left > 0 else self._from_peer(final)
        # A FIN, and the byte that makes the kernel refuse, count as bytes in the window.
        self._open_receive_window(always=closed or final.peer_closed)
        self.release()
        return packets

    def release(self) -> None:
        """Leaves repair mode for good, with a window probe if established, and restores the program's options."""
        repair.set_repair(self.socket, repair.REPAIR_OFF)
        self._rearm_anew(self.parked.options)
        repair.announce_data(self.socket)

    def expected(self, total: int, *, peer_closed: bool) -> int:
        """The peer's next sequence number when `total` bytes, and its FIN with `peer_closed`, have been received."""
        fin = peer_closed and not self.parked.peer_closed
        return (self.parked.rcv_seq + total + int(fin)) & _U32

    def take_clock(self, timestamp: int) -> None:
        """Lets the timestamp clock go on from the stand-in's last value; in repair mode only."""
        if repair.info(self.socket).timestamps:
            self._set_clock(timestamp, progress=True)

    def timestamp_now(self) -> int | None:
        """The timestamp clock, never behind what the stand-in said last; None for a connection without timestamps."""
        return repair.timestamp(self.socket) if repair.info(self.socket).timestamps else None

    def nudge(self) -> tuple[bytes, ...]:
        """A packet for this host that makes it tell the peer its window: a probe, as if from the peer. After `finish`."""
        seq = (self.parked.rcv_seq + self.position() - 1) & _U32
        return (acknowledgement(self.flow, seq, self.parked.snd_una, 0),)

    def close(self) -> None:
        """Drops our descriptor; the connection stays the program's, and ends if no program has it any more."""
        self.socket.close()

    def _from_peer(self, final: FinalTcp) -> tuple[bytes, ...]:
        flow = self.flow
        seq, ack = self._sequences(final)
        window = self._scaled(final.send_window)
        packets: list[bytes] = []
        written = repair.queue_sequence(self.socket, repair.SEND_QUEUE)
        if ack != self.parked.snd_una or ack != written:  # the kernel sends what it could not send before
            packets.append(acknowledgement(flow, seq, ack, window))
        if not final.peer_closed and not final.error:
            # The stand-in may have closed the window, and ours counts as told: without a word from us the peer would wait
            # for its next probe, up to two minutes. An old sequence number is answered at once.
            packets.append(acknowledgement(flow, (seq - 1) & _U32, ack, window))
        # Otherwise it came before, or with a finish before.
        if final.peer_closed and self.state() not in _PEER_CLOSED:
            packets.append(finish(flow, seq, ack, window))
            seq = (seq + 1) & _U32
        if final.error:
            packets.append(reset(flow, seq, ack))
        elif ack != written:
            packets += self._impatience(ack)
        return tuple(packets)

    def _sequences(self, final: FinalTcp) -> tuple[int, int]:
        """Of the peer's next segment: its own number, and what it acknowledges. That never covers what only we have."""
        parked = self.parked
        seq = repair.queue_sequence(self.socket, repair.RECEIVE_QUEUE)
        ack = _latest(parked.snd_una, (parked.snd_seq + final.acked) & _U32)
        if _latest(parked.snd_end, ack) != parked.snd_end:  # more than the stand-in was given
            ack = parked.snd_una
        return seq, ack

    def _refusal(self, final: FinalTcp) -> tuple[bytes, ...]:
        """Makes this host's kernel reset a connection whose bytes nobody will read (RFC 9293 section 3.10.4)."""
        if self.state() not in _FIN_SENT:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return ()
        seq, ack = self._sequences(final)
        return data_segments(self.flow, seq, ack, b"\0")

    def _impatience(self, ack: int) -> tuple[bytes, ...]:
        """Packets that end the wait for a retransmission timer which has backed off while nothing got through.

        Each reverts one doubling, and the segment is sent when its time has come by that (RFC 6069). A program that asked
        to be told of such packets gets none, and waits.
        """
        now = repair.info(self.socket)
        if not now.retransmissions or repair.reports_errors(self.socket):
            return ()
        return (unreachable(self.flow, ack),) * now.backoff

    def _scaled(self, size: int | None) -> int:
        """The window field for a window of `size` bytes, by default as large as it was."""
        scales = repair.info(self.socket).window_scale
        known = repair.window(self.socket).snd_wnd if size is None else size
        return min(known >> (scales[0] if scales else 0), 0xFFFF)

    def _inject_segments(self, data: bytes | memoryview) -> Injected:
        seq = repair.queue_sequence(self.socket, repair.RECEIVE_QUEUE)
        part = bytes(data[: repair.window(self.socket).offered(seq)])
        window = self._scaled(None)
        return Injected(len(part), data_segments(self.flow, seq, self.parked.snd_una, part, window))

    def _purge(self, data: bytes | memoryview) -> Injected:
        """One byte as a segment: with it the kernel drops what came before the capture behind a gap (tcp_ofo_queue).

        Bytes written in repair mode fill the gap without that. What lies behind it would be in order again, and be given to
        the program, when sequence numbers come round after 4 GiB.
        """
        self._open_receive_window()
        return self._inject_segments(data[:1])

    def _open_receive_window(self, least: int = 0, *, always: bool = False) -> None:
        """Injected bytes have used up the window that was last offered; it reaches as far behind them again.

        It is 0 while the receive queue takes more than the buffer (unless `always`): what came would be dropped, by some
        kernels in silence.
        """
        now = repair.window(self.socket)
        used, size = repair.receive_memory(self.socket)
        room = max(now.rcv_wnd, self.parked.window, least) if used < size or always else 0
        seq = repair.queue_sequence(self.socket, repair.RECEIVE_QUEUE)
        with suppress(OSError):  # only saves a retransmission: the next acknowledgement opens it as well
            repair.set_window(
                self.socket,
                # snd_wl1 must not be 2 GiB behind: then no window of the peer's would count.
                replace(now, rcv_wnd=room, rcv_wup=seq, snd_wl1=(seq - 1) & _U32),
            )

    def _mark_record_sent(self) -> None:
        """The stand-in has sent what the record has; what the program wrote since is for us to send."""
        if repair.queue_sequence(self.socket, repair.SEND_QUEUE) == self.parked.snd_end:
            self.mark_all_sent()

    def _set_clock(self, value: int, *, progress: bool = False) -> None:
        """Sets the timestamp clock to `value`, so that it does not go back, in the connection's own unit.

        The kernel measures retransmissions by this clock, so the unit stays while there are any: without `progress`, that
        is an acknowledgement.
        """
        unit = TimestampUnit(self.parked.microseconds)
        now = repair.info(self.socket)
        if now.retransmissions and not progress:
            unit = now.timestamp_unit
        repair.set_timestamp(self.socket, value, unit)

    def _disarm(self, record: SessionRecord) -> None:
        """No timer may end the connection while the device sleeps."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        timeout = LONGEST_USER_TIMEOUT
        if self.parked.microseconds and record.timestamp is not None:
            # In microseconds the kernel can count 35 minutes.
            if repair.info(self.socket).retransmissions:
                timeout = LONGEST_IN_MICROSECONDS
            else:
                repair.set_timestamp(self.socket, record.timestamp, TimestampUnit.MILLISECONDS)
        self.socket.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, timeout)
        # With the peer's window at zero, probes end a connection after tcp_retries2 of them, and retransmissions end it
        # after two times the longest timeout, whatever the user timeout. Retransmissions into an open window do not.
        now = replace(record.window, snd_wnd=max(record.window.snd_wnd, record.mss))
        with suppress(OSError):
            repair.set_window(self.socket, replace(now, max_window=max(now.max_window, now.snd_wnd)))
        waiting = repair.unsent(self.socket)
        if waiting and waiting == repair.unacknowledged(self.socket):
            self.mark_all_sent()

    def _rearm_anew(self, options: ProgramOptions) -> None:
        """The program's options, and its user timeout from now on.

        Where the kernel has retransmitted meanwhile it counts from the first time, and the peer could answer none. It looks
        at the timeout when it retransmits next.
        """
        now = repair.info(self.socket)
        timeout = options.user_timeout
        if now.retransmissions:
            most = LONGEST_IN_MICROSECONDS if now.timestamp_unit else LONGEST_USER_TIMEOUT
            timeout = min(int(now.quiet * 1000) + now.timeout + (timeout or USUAL_TIMEOUT), most)
        self.socket.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, timeout)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, options.keepalive)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, options.reuse_address)


def duplicate_of(candidate: Candidate) -> socket.socket:
    """A second descriptor of the socket, from whichever holder still has it; raises SessionError when none has."""
    for pid, fd in candidate.holders:
        with suppress(OSError):
            sock = repair.duplicate(pid, fd)
            if os.fstat(sock.fileno()).st_ino == candidate.inode:
                return sock
            sock.close()
    raise SessionError(f"no process holds the socket of {candidate.flow} any more")


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
    # From the host's defaults (tcp_keepalive_time and the like) they may be more than a program can set.
    return min(idle, LONGEST_KEEP_ALIVE), min(interval, LONGEST_KEEP_ALIVE), min(count, MOST_PROBES)
