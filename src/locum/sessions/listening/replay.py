"""Puts a connection that a stand-in accepted into the accept queue of the program that listens on this host (A12).

Linux has no call for that, so the handshake is repeated with packets from the peer that are made here. The program's
connection must begin with the sequence number that the stand-in chose; a kernel lets no program choose one, with one
exception: a SYN that meets a connection in TIME-WAIT opens a new one whose initial sequence number is the old one's next
plus 65537 (RFC 9293 section 3.6.1; tcp_timewait_state_process; not before Linux 6.10). So a connection in TIME-WAIT is made first, by TCP_REPAIR.

The data plane suspends the flow meanwhile: no packet of it leaves this host and none comes in but those made here. The
bytes that the kernel does not take are given again, as the program reads. This module must not know who suspends.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.sessions.programs.process import any_holds
from locum.sessions.record import TcpState, Window
from locum.sessions.search.lookup import Seen, look, queue
from locum.sessions.tcp import repair
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.synthesis import acknowledgement, data_segments, finish, opening, reset
from locum.wire.control import Flow, Handshake

Deliver = Callable[[bytes], None]

FIRST_KERNEL = (6, 10)  # those before lose the sequence number between TIME-WAIT and the listener

_ISN_STEP = 65537  # from the next sequence number of a connection in TIME-WAIT to the one that follows it
_SETTLING = 0.5  # seconds within which delivered packets have had their effect
_POLL = 0.002
_LONGEST_FROZEN = 60.0  # seconds that a frozen program is waited for, beside the patience
_LOOK = 0.05  # until untaken data is delivered again
_MOST_WINDOW = 0xFFFF  # without scaling
_OPENING = (TcpState.SYN_RECV, TcpState.NEW_SYN_RECV)
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that the peer sees as open: how it began, all that the peer has sent, and whether its FIN followed."""

    flow: Flow
    handshake: Handshake
    data: bytes = b""
    peer_closed: bool = False


class Interrupted(Exception):
    """The replay was stopped; the connection stays as it is, and a later call continues it."""


def replay(
    accepted: Accepted,
    deliver: Deliver,
    *,
    patience: float,
    frozen: Callable[[], Collection[int]] = tuple,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Makes the connection and gives it its bytes; a connection that is here already, by an earlier call, is continued.

    `patience`: seconds that a program may take to make room in its full queue, and to read what does not fit its receive
    buffer; they begin when no process that listens is among those that `frozen` gives. Raises SessionError when no process
    listens, the addresses and ports are in use, or the patience is over; nothing of the connection is left here then but
    the connections that its program has accepted. `stopping`, asked again and again, ends the wait for the program: raises Interrupted.
    """
    if (reason := impossible(os.uname().release)) is not None:
        raise SessionError(f"it cannot be opened: {reason}")
    if not _exists(look(accepted.flow)):
        _open_in_time(accepted, deliver, _Patience(accepted.flow, patience, frozen), stopping)
    try:
        _feed(accepted, deliver, _Patience(accepted.flow, patience, frozen), stopping)
    except SessionError:
        _close(accepted, deliver)
        raise


def impossible(release: str) -> str | None:
    """Reason why the kernel of this release (as in `uname -r`) cannot do it; None if it can."""
    version = tuple(int(term) for term in re.findall(r"\d+", release)[:2])
    if version >= FIRST_KERNEL:
        return None
    return f"Linux {release} gives a connection another sequence number; Linux {FIRST_KERNEL[0]}.{FIRST_KERNEL[1]} is needed"


def _exists(seen: Seen | None) -> bool:
    return seen is not None and seen.state not in (TcpState.TIME_WAIT, TcpState.CLOSE, *_OPENING)


class _NoRoom(SessionError):
    """The program has to accept others first."""


class _Patience:
    """Time that passes only while the program that listens can run."""

    def __init__(self, flow: Flow, seconds: float, frozen: Callable[[], Collection[int]]) -> None:
        self._flow, self._seconds, self._frozen = flow, seconds, frozen
        self._until = time.monotonic() + seconds
        self._longest = time.monotonic() + _LONGEST_FROZEN

    @property
    def over(self) -> bool:
        now = time.monotonic()
        if now < self._longest and self._stands():
            self._until = now + self._seconds
        return now > self._until

    def _stands(self) -> bool:
        if not (pids := self._frozen()):
            return False
        found = queue(self._flow)
        return found is not None and any_holds(pids, found.inode)


def _open_in_time(
    accepted: Accepted, deliver: Deliver, patience: _Patience, stopping: Callable[[], bool]
) -> None:
    while True:
        try:
            return _open(accepted, deliver)
        except _NoRoom:
            if stopping():
                raise Interrupted from None
            if patience.over:
                raise
        _wait(lambda: not _full(accepted.flow), _LOOK)


def _open(accepted: Accepted, deliver: Deliver) -> None:
    flow, handshake = accepted.flow, accepted.handshake
    _check_listener(flow)
    try:
        _clear(accepted, deliver)
        _leave_time_wait(accepted, deliver)
    except OSError as problem:
        raise SessionError(f"it cannot be opened: {problem}") from problem
    deliver(opening(flow, handshake.peer_isn, handshake.mss, sack=handshake.sack))
    if not _wait(lambda: _state(flow) in (*_OPENING, TcpState.ESTABLISHED)):
        _clear(accepted, deliver)
        kind = _NoRoom if _full(flow) else SessionError
        raise kind("the program that listens does not answer")
    deliver(acknowledgement(flow, *_next(handshake), handshake.window))
    if first := _packets(
        accepted, 0
    ):  # with TCP_DEFER_ACCEPT it opens the connection; without one it waits for the peer's
        deliver(first[0])
    if not _wait(lambda: _exists(look(flow)) or not first) or (_state(flow) in _OPENING and _full(flow)):
        _clear(accepted, deliver)
        raise _NoRoom("the program that listens has no room in its queue")


def _full(flow: Flow) -> bool:
    found = queue(flow)
    return found is None or found.full


def _check_listener(flow: Flow) -> None:
    found = queue(flow)
    if found is None:
        raise SessionError("no program listens on its port")
    if found.full:
        raise _NoRoom(f"the program that listens has a full queue of {found.most}")


def _clear(accepted: Accepted, deliver: Deliver) -> None:
    """Remove remains of an earlier call that was interrupted between two steps."""
    state = _state(accepted.flow)
    if state is TcpState.TIME_WAIT:
        deliver(_end_of_time_wait(accepted))
    elif state in _OPENING:
        deliver(reset(accepted.flow, *_next(accepted.handshake)))


def _leave_time_wait(accepted: Accepted, deliver: Deliver) -> None:
    """A connection in TIME-WAIT of these addresses and ports, so that the next SYN gets the wanted sequence number."""
    flow, handshake = accepted.flow, accepted.handshake
    family = socket.AF_INET if isinstance(flow.local, IPv4Address) else socket.AF_INET6
    written = (handshake.local_isn - _ISN_STEP - 1) & _U32  # the FIN takes one number
    expected = (handshake.peer_isn - 2) & _U32  # so does the peer's; the SYN must be later
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        repair.set_repair(sock, repair.REPAIR_ON)
        try:
            sock.bind((str(flow.local), flow.local_port))
            repair.set_queue_sequence(sock, repair.SEND_QUEUE, written)
            repair.set_queue_sequence(sock, repair.RECEIVE_QUEUE, expected)
            sock.connect((str(flow.peer), flow.peer_port))
            open_window = Window(expected, _MOST_WINDOW, _MOST_WINDOW, repair.window(sock).rcv_wnd, expected)
            repair.set_window(sock, open_window)  # else the FIN would not be sent
            # The host's own filters see a connection (the probe) that ends (the FIN), before the data plane drops both.
            repair.set_repair(sock, repair.REPAIR_OFF)
            sock.shutdown(socket.SHUT_WR)
            repair.set_repair(sock, repair.REPAIR_ON)
            repair.mark_all_sent(sock)
            repair.set_repair(sock, repair.REPAIR_OFF_NO_PROBE)
            deliver(finish(flow, expected, (written + 1) & _U32, _MOST_WINDOW))
            if not _wait(lambda: _state(flow) is TcpState.TIME_WAIT):
                raise OSError("the kernel keeps no connections in TIME-WAIT (net.ipv4.tcp_max_tw_buckets)")
        except OSError:
            repair.set_repair(sock, repair.REPAIR_ON)  # closed silently
            raise


def _end_of_time_wait(accepted: Accepted) -> bytes:
    handshake = accepted.handshake
    return reset(accepted.flow, (handshake.peer_isn - 1) & _U32, (handshake.local_isn - _ISN_STEP) & _U32)


def _feed(accepted: Accepted, deliver: Deliver, patience: _Patience, stopping: Callable[[], bool]) -> None:
    flow = accepted.flow
    total = len(accepted.data) + accepted.peer_closed
    while total and (position := _position(flow)) < total:
        if stopping():
            raise Interrupted
        for packet in _packets(accepted, position):
            deliver(packet)
        if not _wait(lambda before=position: _position(flow) > before, _LOOK) and patience.over:  # type: ignore[misc]
            raise SessionError(f"the program takes {position} of {total} bytes")


def _packets(accepted: Accepted, position: int) -> tuple[bytes, ...]:
    """Data after `position`, as far as a window reaches, and the FIN behind the last byte."""
    flow, handshake, data = accepted.flow, accepted.handshake, accepted.data
    seq, ack = _next(handshake)
    part = data[position : position + _MOST_WINDOW]
    packets = data_segments(flow, (seq + position) & _U32, ack, part, handshake.window)
    if accepted.peer_closed and position + len(part) >= len(data):
        packets += (finish(flow, (seq + len(data)) & _U32, ack, handshake.window),)
    return packets


def _close(accepted: Accepted, deliver: Deliver) -> None:
    seq, ack = _next(accepted.handshake)
    deliver(reset(accepted.flow, (seq + _position(accepted.flow)) & _U32, ack))


def _next(handshake: Handshake) -> tuple[int, int]:
    """The peer's next sequence number behind its SYN, and ours."""
    return (handshake.peer_isn + 1) & _U32, (handshake.local_isn + 1) & _U32


def _state(flow: Flow) -> TcpState | None:
    seen = look(flow)
    return None if seen is None else seen.state


def _position(flow: Flow) -> int:
    """Bytes (and the FIN) that the connection has; raises SessionError when it is there no more."""
    seen = look(flow)
    if not _exists(seen):
        raise SessionError("it was closed by its program")
    assert seen is not None
    return seen.received


def _wait(done: Callable[[], bool], seconds: float = _SETTLING) -> bool:
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True
