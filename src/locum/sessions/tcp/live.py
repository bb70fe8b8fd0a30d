"""The device's end of a live TCP connection: out of a running program, and back into the same program (A12, C2, C3).

The program is frozen and no packet of the flow reaches this host while the functions here work (the data plane suspends
the flow). This module must not know who freezes, how flows are held or how a record travels; it never waits.
"""

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from locum.sessions.record import SessionRecord, TcpState, TimestampUnit
from locum.sessions.search.find import Candidate
from locum.sessions.tcp import carrying, reading, receiving, renumbering, repair, timers
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.more_room import more_room
from locum.sessions.tcp.parked import Intent, Parked, ProgramOptions
from locum.sessions.tcp.peer_packets import FIN_SENT, PEER_CLOSED, answers, refusal, sequences, window_field
from locum.sessions.tcp.receiving import Injected
from locum.sessions.tcp.synthesis import acknowledgement
from locum.wire.control import Flow

_U32 = 0xFFFFFFFF
_TCP = socket.IPPROTO_TCP


class LiveSocket:
    """A second descriptor of a program's socket, and the work on it while the program is frozen.

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
        """Data to store after `capture`."""
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
        fin = now.state in PEER_CLOSED and not self.parked.peer_closed
        return now.bytes_received - self.parked.received - int(fin)

    def refuses(self) -> bool:
        """True if the program has shut both sides: this kernel would answer more bytes with a RST.

        A program that has shut its receiving side only still gets data, as always.
        """
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLRDHUP)
        shut = any(events & select.POLLRDHUP for _, events in poll.poll(0))
        return shut and self.state() in FIN_SENT

    def look(self) -> Intent:
        """Reads the options that `capture` will change, so that they can be stored before; changes nothing.

        Raises SessionError for a connection that cannot travel.
        """
        sock = self.socket
        reading.check(sock, self.flow)
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
            record = replace(reading.read(sock, self.flow), options=carried)
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
        timers.disarm(sock, self._parked, record)
        return record

    def resume(self) -> None:
        """Undoes `capture`, also one that was cut off: the program's socket goes on as it was."""
        if repair.in_repair(self.socket):
            if self._parked is not None and self._parked.microseconds:
                timers.set_clock(self.socket, self.parked, repair.timestamp(self.socket))
            repair.set_repair(self.socket, repair.REPAIR_OFF)
        if self._options is not None:
            timers.rearm(self.socket, self._options)
        repair.announce_data(self.socket)

    def hold(self) -> None:
        """Into repair mode, for `inject` or `finish`; the program is frozen."""
        repair.set_repair(self.socket, repair.REPAIR_ON)

    def let_go(self) -> None:
        """Leave repair mode without a packet, so that the thawed program reads; may be repeated.

        The program's waiting method is woken; the program notices when it runs. It may run for as long as
        needed, while the data plane suspends the flow: no timer ends the connection, and what it writes waits in its send
        queue. It may shut and close. Deliver `reassurance` every few seconds.
        """
        if repair.in_repair(self.socket):
            self._mark_record_sent()
            repair.set_repair(self.socket, repair.REPAIR_OFF_NO_PROBE)
        repair.announce_data(self.socket)

    def reassurance(self) -> tuple[bytes, ...]:
        """Packets for this host, while the program runs: acknowledgements that the peer has already sent.

        Where the host has no way to send what the program writes, the kernel probes, and ends the connection after
        tcp_retries2 probes without an answer: 7.5 seconds at the earliest by default.
        """
        parked = self.parked
        seq = (parked.rcv_seq + self.position()) & _U32
        window = window_field(self.socket, repair.info(self.socket).send_window)
        return (acknowledgement(self.flow, seq, parked.snd_una, window),)

    def tighten(self) -> None:
        """End what `let_go` began, with the program frozen again: `inject` follows."""
        self.hold()

    def inject(self, data: bytes | memoryview) -> Injected:
        """Put received bytes, the first being that of `position`, behind the program's unread data.

        Takes what fits the receive buffer, possibly nothing, and ends before every `receiving.PURGE_EVERY`th byte. That one it takes
        only as a segment from the peer, as does a socket whose sending side is shut all of them: then deliver `packets` to
        this host, and `position` tells how far they came.
        """
        state = self.state()
        if state in FIN_SENT and not self.refuses():
            return receiving.as_segments(self.socket, self.parked, data)
        if state is not TcpState.ESTABLISHED:
            return Injected(0)
        return receiving.write(self.socket, self.parked, data, self.position())

    @contextmanager
    def more_room(self, count: int) -> Iterator[None]:
        """While it lasts, `inject` takes `count` bytes more than the receive buffer does, if the kernel has the memory.

        `Injected.packets` have to arrive before it ends. With so much unread, `finish` closes the window.
        """
        with more_room(self.socket, count) as made:
            if made and self.state() in FIN_SENT:
                receiving.open_window(self.socket, self.parked, count)
            yield

    def agree(self, said: bytes, surplus: int, keep: Callable[[renumbering.Begun], None]) -> None:
        """Go on where the stand-in's proxies have left the connection; in repair mode only, the program frozen.

        Since the capture they have said `said` to the peer, and the program gets `surplus` bytes more than the peer has sent
        (negative: fewer). Both are whole, and may be given again. The bytes count as sent: the peer acknowledges them, or gets
        them again. `keep` is called before the socket is changed: with what it gets, a next run of the daemon can end it. Store
        `parked` afterwards. Raises SessionError for a connection that has ended, OSError when the kernel refuses.
        """
        begun = renumbering.plan(self.socket, self.parked, said, surplus, self.position())
        if begun is None:
            return
        keep(begun)
        begun.carry_out(self.socket)
        self._parked = begun.parked

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
            _, ack = sequences(self.socket, self.parked, final)
            progress = ack != self.parked.snd_una
            timers.set_clock(self.socket, self.parked, final.timestamp, progress=progress)
        packets_for = refusal if left > 0 else answers
        packets = packets_for(self.socket, self.parked, final)
        # A FIN, and the byte that makes the kernel refuse, count as bytes in the window.
        receiving.open_window(self.socket, self.parked, always=closed or final.peer_closed)
        self.release()
        return packets

    def release(self) -> None:
        """Leaves repair mode for good, with a window probe if established, and restores the program's options."""
        repair.set_repair(self.socket, repair.REPAIR_OFF)
        timers.rearm(self.socket, self.parked.options)
        repair.announce_data(self.socket)

    def expected(self, total: int, *, peer_closed: bool) -> int:
        """The peer's next sequence number when `total` bytes, and its FIN with `peer_closed`, have been received."""
        fin = peer_closed and not self.parked.peer_closed
        return (self.parked.rcv_seq + total + int(fin)) & _U32

    def take_clock(self, timestamp: int) -> None:
        """Lets the timestamp clock go on from the stand-in's last value; in repair mode only."""
        if repair.info(self.socket).timestamps:
            timers.set_clock(self.socket, self.parked, timestamp, progress=True)

    def timestamp_now(self) -> int | None:
        """The timestamp clock, never behind the stand-in's last value; None without timestamps."""
        return repair.timestamp(self.socket) if repair.info(self.socket).timestamps else None

    def nudge(self) -> tuple[bytes, ...]:
        """A packet for this host that makes it tell the peer its window: a probe, as if from the peer. After `finish`."""
        seq = (self.parked.rcv_seq + self.position() - 1) & _U32
        return (acknowledgement(self.flow, seq, self.parked.snd_una, 0),)

    def close(self) -> None:
        """Drops our descriptor; the connection stays the program's, and ends if no program has it any more."""
        self.socket.close()

    def _mark_record_sent(self) -> None:
        """Mark the record's data as sent by the stand-in; data written since then is ours to send."""
        if repair.queue_sequence(self.socket, repair.SEND_QUEUE) == self.parked.snd_end:
            self.mark_all_sent()


def duplicate_of(candidate: Candidate) -> socket.socket:
    """A second descriptor of the socket, from whichever holder still has it; raises SessionError when none has."""
    for pid, fd in candidate.holders:
        with suppress(OSError):
            sock = repair.duplicate(pid, fd)
            if os.fstat(sock.fileno()).st_ino == candidate.inode:
                return sock
            sock.close()
    raise SessionError(f"no process holds the socket of {candidate.flow} any more")
