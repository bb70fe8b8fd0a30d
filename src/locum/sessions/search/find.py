"""TCP connections and connected UDP sockets of a home address on this host, their processes, and reasons for leaving some alone.

Read only. `find` sees the network namespace it runs in, `find_elsewhere` others of this host. It must not know
the use of its results.
"""

import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from locum.sessions.datagram_flows import why_not_held
from locum.sessions.programs.exclusions import NOTHING_EXCLUDED, Exclusions
from locum.sessions.programs.process import Process, holders, process, program_names
from locum.sessions.record import TRANSFERABLE, TcpState
from locum.sessions.search.diag import MPTCP, Socket, sockets
from locum.sessions.search.translated import translated
from locum.wire.control import Flow

_ANY = (IPv4Address(0), IPv6Address(0))
# These lose no data: no program waits for them, or they are no connections.
_OVER = frozenset({TcpState.TIME_WAIT, TcpState.CLOSE, TcpState.LISTEN})
_REASONS = {
    TcpState.SYN_SENT: "it is still being opened; the kernel repeats its SYN for about two minutes, then gives up",
    TcpState.SYN_RECV: "its peer is still opening it, and repeats unanswered segments",
    TcpState.NEW_SYN_RECV: "its peer is still opening it, and repeats unanswered segments",
}
_ITSELF = "both of its ends are on this host"
_ON_TOP = {
    "tls": "the kernel encrypts it (kTLS), and the keys cannot be taken out",
    "mptcp": "it is a path of a Multipath TCP connection, which cannot be taken out",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connection that can be captured: its socket's inode and every (pid, descriptor) that refers to it.

    `programs` are names for users.
    """

    flow: Flow
    state: TcpState
    inode: int
    holders: tuple[tuple[int, int], ...]
    processes: tuple[Process, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes to freeze, each once."""
        return tuple(dict.fromkeys(pid for pid, _ in self.holders))


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A connection of the home address that is not captured, the reason, and its program if known."""

    flow: Flow
    state: TcpState
    reason: str
    pids: tuple[int, ...] = ()
    programs: tuple[str, ...] = ()


def find(
    home_addresses: Iterable[IPv4Address | IPv6Address],
    exclude_pids: Collection[int] = (),
    exclusions: Exclusions = NOTHING_EXCLUDED,
) -> tuple[list[Candidate], list[LeftAlone]]:
    """Every TCP connection and UDP socket with one of these local addresses: capturable or with a reason.

    Sockets that one of `exclude_pids` (the daemon) holds are passed over, also shared ones, and so are ended ones. A process that may not be looked into counts as no holder. Raises OSError when the kernel refuses.
    """
    wanted = frozenset(home_addresses)
    everything = [*sockets(), *sockets(socket.IPPROTO_UDP)]
    listening = [sock for sock in everything if sock.state is TcpState.LISTEN]
    found = [sock for sock in everything if sock.flow.local in wanted and not _is_over(sock)]
    sorting = _Sorting(wanted, found, listening, exclude_pids, exclusions)
    sorting.sort()
    return sorting.candidates, sorting.left


def find_elsewhere(home_addresses: Iterable[IPv4Address | IPv6Address]) -> list[LeftAlone]:
    """Connections of other network namespaces of this host that leave it under one of these addresses.

    Slower than `find`: the kernel's whole table of tracked connections is read.
    """
    return [
        LeftAlone(
            connection.flow,
            connection.state,
            connection.reason,
            connection.pids,
            program_names(connection.pids),
        )
        for connection in translated(frozenset(home_addresses))
    ]


def _is_over(found: Socket) -> bool:
    return found.state in _OVER and found.flow.protocol == socket.IPPROTO_TCP


class _Sorting:
    """One search: its results go into `candidates` and `left`."""

    def __init__(
        self,
        wanted: frozenset[IPv4Address | IPv6Address],
        found: list[Socket],
        listening: list[Socket],
        exclude_pids: Collection[int],
        exclusions: Exclusions,
    ) -> None:
        self.candidates: list[Candidate] = []
        self.left: list[LeftAlone] = []
        self._wanted, self._found = wanted, found
        self._paths = _masters(found)
        self._listeners = {(sock.flow.local, sock.flow.local_port): sock.inode for sock in listening}
        asked = [sock.inode for sock in found if sock.inode]
        waiting = len(asked) < len(found)  # perhaps in the queue of a listening socket
        self._holders = holders(
            {*asked, *self._paths.values(), *(self._listeners.values() if waiting else ())}
        )
        self._excluded = exclusions.judge()
        self._exclude_pids = frozenset(exclude_pids)
        self._names = cache(program_names)
        self._processes: dict[int, Process | None] = {}

    def sort(self) -> None:
        for sock in self._found:
            held = tuple(self._holders.get(self._paths.get(sock.flow, sock.inode), ()))
            pids = tuple(dict.fromkeys(pid for pid, _ in held))
            if not self._exclude_pids.isdisjoint(pids):
                continue
            reason = self._why_left(sock, pids)
            if reason is None:
                self.candidates.append(self._candidate(sock, held, pids))
            elif reason:
                pids = pids or self._accepting(sock)
                self.left.append(LeftAlone(sock.flow, sock.state, reason, pids, self._names(pids)))

    def _why_left(self, found: Socket, pids: tuple[int, ...]) -> str | None:
        """None: it can be captured; an empty text: it has ended, and is not reported."""
        if found.flow.peer in self._wanted:
            return _ITSELF
        if (reason := why_left(found) or self._excluded(found.flow, pids)) is not None:
            return reason
        return None if pids else self._why_nobodys(found)

    def _why_nobodys(self, found: Socket) -> str:
        if found.inode:
            return "no process holds it: it is the kernel's own, or its process cannot be looked into"
        if found.state is TcpState.FIN_WAIT2:
            return ""  # everything has been acknowledged
        if self._accepting(found) and found.state in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT):
            return "its program has not accepted it yet"
        return "its program has closed it, and its last bytes are not acknowledged yet"

    def _accepting(self, found: Socket) -> tuple[int, ...]:
        """The processes in whose queue it may wait to be accepted."""
        flow = found.flow
        inodes = [self._listeners.get((address, flow.local_port), 0) for address in (flow.local, *_ANY)]
        return tuple(dict.fromkeys(pid for inode in inodes for pid, _ in self._holders.get(inode, ())))

    def _candidate(
        self, found: Socket, held: tuple[tuple[int, int], ...], pids: tuple[int, ...]
    ) -> Candidate:
        for pid in pids:
            if pid not in self._processes:
                self._processes[pid] = process(pid)
        processes = tuple(holder for pid in pids if (holder := self._processes[pid]) is not None)
        return Candidate(found.flow, found.state, found.inode, held, processes, self._names(pids))


def why_left(found: Socket) -> str | None:
    """Reason why a connection or UDP socket cannot be captured, whatever its program; None if it can be."""
    if found.flow.protocol == socket.IPPROTO_UDP:
        return why_not_held(found.flow)
    if found.upper:
        return _ON_TOP.get(
            found.upper, f"the kernel runs {found.upper} on top of it, whose state cannot be taken out"
        )
    if found.signed:
        return "it is signed with keys of TCP-MD5 (RFC 2385), which cannot be taken out"
    if found.state not in TRANSFERABLE:
        return _REASONS.get(found.state, f"it is in state {found.state.name}")
    return None


def _masters(found: Iterable[Socket]) -> dict[Flow, int]:
    """The sockets that programs have of the Multipath TCP connections among these, by the flow of the first path."""
    masters: dict[Flow, int] = {}
    if any(sock.upper == "mptcp" for sock in found):
        with suppress(OSError):
            masters = {sock.flow: sock.inode for sock in sockets(MPTCP)}
    return masters
