"""Which TCP connections of a home address this host has, and which processes hold them (sock_diag and /proc).

Read only. It sees the network namespace it runs in. It must not know what is done with the answer.
"""

import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.sessions.process import Process, process, program_names
from locum.sessions.record import TRANSFERABLE, TcpState
from locum.wire.control import Flow

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_ALL_STATES = 0xFFF
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBBI48s")  # struct inet_diag_req_v2
_CLOSED_TO_US = (FileNotFoundError, ProcessLookupError, PermissionError)
_ANSWER = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connection that can be captured: its socket's inode and every (pid, descriptor) that refers to it."""

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
    """A connection of the home address that is not captured, and why: `state`, `no-holder` or `excluded`."""

    flow: Flow
    state: TcpState
    reason: str


@dataclass(frozen=True, slots=True)
class _Socket:
    flow: Flow
    state: TcpState
    inode: int


def find(
    home_addresses: Iterable[IPv4Address | IPv6Address], exclude_pids: Collection[int] = ()
) -> tuple[list[Candidate], list[LeftAlone]]:
    """Every TCP connection whose local address is one of these, sorted into what can be captured and what cannot.

    A socket that one of `exclude_pids` (the daemon and its own children) holds is left alone, whoever shares it.
    A process that may not be looked into counts as no holder. Raises OSError when sock_diag is refused.
    """
    wanted = frozenset(home_addresses)
    found = [each for each in _sockets() if each.flow.local in wanted]
    travelling = {each.inode for each in found if each.state in TRANSFERABLE and each.inode}
    holders = _holders(travelling)
    candidates: list[Candidate] = []
    left: list[LeftAlone] = []
    for each in found:
        held = tuple(holders.get(each.inode, ()))
        if each.state not in TRANSFERABLE:
            left.append(LeftAlone(each.flow, each.state, "state"))
        elif not held:
            left.append(LeftAlone(each.flow, each.state, "no-holder"))
        elif any(pid in exclude_pids for pid, _ in held):
            left.append(LeftAlone(each.flow, each.state, "excluded"))
        else:
            candidates.append(_candidate(each, held))
    return candidates, left


def _candidate(found: _Socket, holders: tuple[tuple[int, int], ...]) -> Candidate:
    pids = dict.fromkeys(pid for pid, _ in holders)
    processes = tuple(each for each in map(process, pids) if each is not None)
    return Candidate(found.flow, found.state, found.inode, holders, processes, program_names(pids))


def _sockets() -> Iterator[_Socket]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in _dump(family):
            fields = _ANSWER.unpack_from(message)
            diag_family, state, sport, dport, source, destination = fields[0], fields[1], *fields[4:8]
            yield _Socket(
                flow=Flow(
                    protocol=socket.IPPROTO_TCP,
                    local=_address(diag_family, source),
                    local_port=int.from_bytes(sport, "big"),
                    peer=_address(diag_family, destination),
                    peer_port=int.from_bytes(dport, "big"),
                ),
                state=TcpState(state),
                inode=fields[-1],
            )


def _address(family: int, raw: bytes) -> IPv4Address | IPv6Address:
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address  # a dual-stack socket speaks IPv4


def _dump(family: int) -> Iterator[bytes]:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES, bytes(48))
    size = _HEADER.size + len(request)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.bind((0, 0))
        netlink.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + request)
        while True:
            data = netlink.recv(1 << 17)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + length]
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, f"sock_diag: {os.strerror(code)}")
                if len(body) >= _ANSWER.size:
                    yield body
                offset += (length + 3) & ~3


def _holders(inodes: Collection[int]) -> dict[int, list[tuple[int, int]]]:
    """(pid, fd) of every descriptor that refers to one of these sockets; processes that vanish are passed over."""
    holders: dict[int, list[tuple[int, int]]] = {}
    if not inodes:
        return holders
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        for fd, target in _descriptors(entry):
            if target in wanted:
                holders.setdefault(wanted[target], []).append((int(entry), fd))
    return holders


def _descriptors(pid: str) -> Iterator[tuple[int, str]]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except _CLOSED_TO_US:
        return
    for name in names:
        try:
            yield int(name), os.readlink(f"/proc/{pid}/fd/{name}")
        except _CLOSED_TO_US:
            continue
