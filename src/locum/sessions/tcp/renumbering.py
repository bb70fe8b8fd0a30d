"""A program's socket goes on where the stand-in's proxies have left the connection, and is the program's socket as before (A1, C3).

Bytes that proxies have said go into its send queue: behind the others, or between those that the stand-in has sent and those
that the program has written since. Where proxies have left received bytes out, or put others in their place, the program has
more or fewer bytes than its peer has sent, and the socket gets other sequence numbers. For both, unless appending is enough, the
connection is taken out of the socket, the socket is disconnected in repair mode, which sends nothing, and the connection is put
into it again. Options that a program sets stay with a socket. The program is frozen, and the flow is suspended.

A daemon that is killed in between leaves a part of it undone, or a socket without a connection. So everything is written to a file
before, and the next run ends what was begun. This module must not know why bytes were said or replaced.
"""

import errno
import os
import select
import socket
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from locum.sessions.record import SessionRecord, TcpState
from locum.sessions.tcp import reading, repair
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.more_room import more_room, more_to_send
from locum.sessions.tcp.parked import Parked
from locum.sessions.tcp.peer_packets import FIN_SENT
from locum.wire import cbor
from locum.wire.control import Flow

SUFFIX = ".renumbering"
_MOST = 64 << 20  # bytes of a file: unread bytes and a send queue are less
_U32 = 0xFFFFFFFF
_TCP = socket.IPPROTO_TCP


@dataclass(frozen=True, slots=True)
class Appending:
    """Bytes that go behind those of the send queue, which ends at `written` before. `parked` belongs to the socket afterwards."""

    inode: int
    data: bytes
    written: int
    parked: Parked

    def carry_out(self, sock: socket.socket) -> None:
        """Do it, or what is left of it; the socket stays in repair mode, and the bytes count as sent. Raises OSError."""
        repair.set_repair(sock, repair.REPAIR_ON)
        there = (repair.queue_sequence(sock, repair.SEND_QUEUE) - self.written) & _U32
        if not there:
            repair.mark_all_sent(sock)
        rest = self.data[there:]
        with more_to_send(sock, len(rest)):
            repair.select_queue(sock, repair.SEND_QUEUE)
            _write(sock, rest)

    def is_done(self, sock: socket.socket) -> bool:
        """True if an earlier run of the daemon came to the end of it."""
        there = (repair.queue_sequence(sock, repair.SEND_QUEUE) - self.written) & _U32
        return there >= len(self.data)


@dataclass(frozen=True, slots=True)
class Renumbering:
    """All that the socket is to have afterwards: `record` has the numbers and the send queue, `parked` belongs to them."""

    inode: int
    record: SessionRecord
    unread: bytes
    parked: Parked
    clamp: int  # TCP_WINDOW_CLAMP
    deaf: bool  # the program has shut its receiving side

    def carry_out(self, sock: socket.socket) -> None:
        """Do it, or do it again; the socket stays in repair mode. Raises OSError: the connection is lost then."""
        record = self.record
        repair.set_repair(sock, repair.REPAIR_ON)
        repair.disconnect(sock)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # that of the disconnection is not the program's
        _connect(sock, record, len(self.unread))
        _set_options(sock, record)
        with more_to_send(sock, len(record.unacked)):
            repair.select_queue(sock, repair.SEND_QUEUE)
            _write(sock, record.unacked)
        with more_room(sock, len(self.unread)):
            repair.select_queue(sock, repair.RECEIVE_QUEUE)
            _write(sock, self.unread)
        repair.set_window(sock, record.window)
        sock.setsockopt(_TCP, socket.TCP_WINDOW_CLAMP, self.clamp)
        if record.fin_sent:
            repair.select_queue(sock, repair.SEND_QUEUE)  # no packet leaves
            sock.shutdown(socket.SHUT_WR)
        if self.deaf:
            sock.shutdown(socket.SHUT_RD)

    def is_done(self, sock: socket.socket) -> bool:
        """True if an earlier run of the daemon came to the end of it."""
        record = self.record
        if repair.info(sock).state is TcpState.CLOSE:
            return False
        end = (record.snd_seq + len(record.unacked) + record.fin_sent) & _U32
        there = [repair.queue_sequence(sock, queue) for queue in (repair.SEND_QUEUE, repair.RECEIVE_QUEUE)]
        # With empty queues the numbers are there before the options; the window and what follows it come last.
        last = (repair.window(sock), sock.getsockopt(_TCP, socket.TCP_WINDOW_CLAMP), _is_deaf(sock))
        return there == [end, record.rcv_seq] and last == (record.window, self.clamp, self.deaf)


Begun = Appending | Renumbering


def plan(sock: socket.socket, parked: Parked, said: bytes, surplus: int, position: int) -> Begun | None:
    """How the socket, in repair mode, is to go on: proxies have said `said` since the capture, and the program gets `surplus`
    bytes more than the peer has sent. None: it is so already.

    `position` bytes have been put into the socket since the capture. Raises SessionError for a connection that has ended, and
    when unread bytes cannot be read, OSError when the kernel refuses.
    """
    rest = said[parked.spoken :]
    if not rest and surplus == parked.renumbered:
        return None
    inode = os.fstat(sock.fileno()).st_ino
    after = replace(parked, snd_end=(parked.snd_end + len(rest)) & _U32, spoken=max(len(said), parked.spoken))
    written = repair.queue_sequence(sock, repair.SEND_QUEUE)
    if surplus == parked.renumbered and written == parked.snd_end:
        return Appending(inode, rest, written, after)
    if repair.info(sock).state not in (TcpState.ESTABLISHED, *FIN_SENT):
        raise SessionError(f"{parked.flow} has ended")
    record = reading.read(sock, parked.flow)
    repair.select_queue(sock, repair.RECEIVE_QUEUE)
    unread = repair.peek_receive_queue(sock, record.unread) if record.unread else b""
    if len(unread) < record.unread:
        raise SessionError(f"{parked.flow} has an urgent mark among its unread bytes: Linux 6.10 is needed")
    less = surplus - parked.renumbered
    return Renumbering(
        inode=inode,
        record=_renumbered(record, less, parked.snd_end, rest),
        unread=unread,
        parked=replace(
            after,
            rcv_seq=(parked.rcv_seq - less) & _U32,
            received=len(unread) - position,  # the kernel counts anew, and the unread bytes with it
            renumbered=surplus,
        ),
        clamp=sock.getsockopt(_TCP, socket.TCP_WINDOW_CLAMP),
        deaf=_is_deaf(sock),
    )


def to_bytes(begun: Begun) -> bytes:
    """For a file."""
    parked = asdict(begun.parked) | {"flow": None}
    common: list[object] = [begun.inode, begun.parked.flow.to_cbor(), parked]
    if isinstance(begun, Appending):
        return cbor.encode([*common, begun.data, begun.written])
    return cbor.encode([*common, begun.record.to_cbor(), begun.unread, begun.clamp, begun.deaf])


def from_bytes(content: bytes) -> Begun:
    """The inverse of `to_bytes`; raises ValueError (WireError is one), KeyError or TypeError for anything else."""
    parts = cbor.decode(content, limit=_MOST, field="renumbering")
    if not isinstance(parts, list) or len(parts) < 5:
        raise ValueError("it is no list of what was begun")
    inode, told, values, *rest = parts
    flow = Flow.from_cbor(told, "renumbering.flow")
    ends = [flow.protocol, str(flow.local), flow.local_port, str(flow.peer), flow.peer_port]
    parked = Parked.from_json(values | {"flow": ends})
    if len(rest) == 2:
        data, written = rest
        return Appending(inode, data, written, parked)
    record, unread, clamp, deaf = rest
    return Renumbering(inode, SessionRecord.from_cbor(record), unread, parked, clamp, deaf)


def store(directory: Path, begun: Begun) -> Path:
    """Write it to a file, whose path is returned. Raises OSError."""
    path = directory / f"{begun.inode}{SUFFIX}"
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(to_bytes(begun))
    new.rename(path)
    return path


def _renumbered(record: SessionRecord, less: int, end: int, said: bytes) -> SessionRecord:
    """The record with received bytes `less` further back, and `said` where the stand-in's send queue ends.

    Everything in the send queue counts as sent: what was not is repeated as if it had been lost.
    """
    queue = record.unacked + record.unsent
    own = min((end - record.snd_seq) & _U32, len(queue))
    window = record.window
    return replace(
        record,
        rcv_seq=(record.rcv_seq - less) & _U32,
        unacked=queue[:own] + said + queue[own:],
        unsent=b"",
        window=replace(
            window, snd_wl1=(window.snd_wl1 - less) & _U32, rcv_wup=(window.rcv_wup - less) & _U32
        ),
    )


def _is_deaf(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return any(events & select.POLLRDHUP for _, events in poll.poll(0))


def _connect(sock: socket.socket, record: SessionRecord, unread: int) -> None:
    flow = record.flow
    local, peer = str(flow.local), str(flow.peer)
    if sock.family == socket.AF_INET6 and isinstance(flow.local, IPv4Address):
        local, peer = f"::ffff:{local}", f"::ffff:{peer}"
    try:
        sock.bind((local, flow.local_port))
    except (
        OSError
    ) as problem:  # a port that its program has bound stays bound, as after an earlier renumbering
        if problem.errno != errno.EINVAL:
            raise
    repair.set_queue_sequence(sock, repair.SEND_QUEUE, record.snd_seq)
    repair.set_queue_sequence(sock, repair.RECEIVE_QUEUE, (record.rcv_seq - unread) & _U32)
    sock.connect((peer, flow.peer_port))
    if (now := sock.getsockname()[:2]) != (local, flow.local_port):
        # Its program has bound a port and no address, which the host's routes chose then, and now otherwise.
        raise OSError(errno.EADDRNOTAVAIL, f"its address is {now[0]} now")


def _set_options(sock: socket.socket, record: SessionRecord) -> None:
    send, receive = record.window_scale or (0, 0)
    options = [(repair.OPTION_MSS, record.mss), (repair.OPTION_WINDOW_SCALE, send | receive << 16)]
    if record.sack:
        options.append((repair.OPTION_SACK, 0))
    if record.timestamp is not None:
        options.append((repair.OPTION_TIMESTAMPS, 0))
    repair.set_options(sock, options)
    if record.timestamp is not None and record.timestamp_unit is not None:
        repair.set_timestamp(sock, record.timestamp, record.timestamp_unit)


def _write(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[sock.send(view[: 64 << 10], socket.MSG_DONTWAIT) :]
