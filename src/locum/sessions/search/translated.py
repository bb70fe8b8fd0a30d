"""Connections of other network namespaces of this host that leave it under a home address, by address translation.

Containers on a bridge are the usual case: the peer sees the home address, and no socket of this namespace has it. Read
only. It must not know the use of its results.
"""

import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from locum.sessions.programs.process import GONE, holders
from locum.sessions.record import TcpState
from locum.sessions.search.diag import attributes, netlink_messages
from locum.wire.control import Flow

REASON = "it belongs to another network namespace of this host, such as a container's, which is not carried"

_Address = IPv4Address | IPv6Address
_Ends = tuple[_Address, int, _Address, int]  # source, port, destination, port
_NETLINK_NETFILTER = 12
_CONNTRACK_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_GENERAL = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
_TUPLE_ORIGINAL, _TUPLE_REPLY = 1, 2  # linux/netfilter/nfnetlink_conntrack.h
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_ALIVE = (TcpState.ESTABLISHED, TcpState.SYN_SENT, TcpState.CLOSE_WAIT, TcpState.FIN_WAIT1)


@dataclass(frozen=True, slots=True)
class Translated:
    """Such a connection as its peer sees it; `pids` are the processes that hold its socket, where they can be seen."""

    flow: Flow
    state: TcpState
    pids: tuple[int, ...]
    reason: str = REASON


def translated(home_addresses: Collection[_Address]) -> list[Translated]:
    """Those whose sockets are on this host now. Nothing where there are no other namespaces, or nothing is translated."""
    namespaces = _other_namespaces()
    if not namespaces:
        return []
    leaving = dict(_tracked(home_addresses))
    if not leaving:
        return []
    found: list[tuple[Flow, TcpState, int]] = []
    for pid in namespaces:
        for ends, state, inode in _sockets_seen_by(pid):
            if ends in leaving and state in _ALIVE:
                found.append((leaving[ends], state, inode))
    held = holders({inode for _, _, inode in found if inode})
    return [
        Translated(flow, state, tuple(dict.fromkeys(pid for pid, _ in held.get(inode, ()))))
        for flow, state, inode in found
    ]


def _other_namespaces() -> list[int]:
    """A process of each network namespace but the calling thread's."""
    own = os.stat("/proc/thread-self/ns/net").st_ino
    others: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                others.setdefault(os.stat(f"/proc/{entry}/ns/net").st_ino, int(entry))
            except (*GONE, PermissionError):
                continue
    return [pid for inode, pid in others.items() if inode != own]


def _tracked(home_addresses: Collection[_Address]) -> Iterator[tuple[_Ends, Flow]]:
    """The ends that the translated connections have inside, and the flows that their peers see.

    Nothing without connection tracking, or without the permission to read it.
    """
    for family in {
        socket.AF_INET if home_address.version == 4 else socket.AF_INET6 for home_address in home_addresses
    }:
        try:
            for _, message in netlink_messages(
                _NETLINK_NETFILTER, _CONNTRACK_GET, _GENERAL.pack(family, 0, 0)
            ):
                tuples = dict(attributes(message[_GENERAL.size :]))
                original, reply = _ends(tuples.get(_TUPLE_ORIGINAL)), _ends(tuples.get(_TUPLE_REPLY))
                if original and reply and reply[2] in home_addresses and original[0] != reply[2]:
                    yield original, Flow(socket.IPPROTO_TCP, reply[2], reply[3], reply[0], reply[1])
        except OSError:
            continue


def _ends(content: memoryview | None) -> _Ends | None:
    """Of a tuple of TCP."""
    parts = dict(attributes(content)) if content is not None else {}
    if _TUPLE_IP not in parts or _TUPLE_PROTOCOL not in parts:
        return None
    addresses, ports = dict(attributes(parts[_TUPLE_IP])), dict(attributes(parts[_TUPLE_PROTOCOL]))
    source = next((addresses[source] for source in _SOURCES if source in addresses), None)
    destination = next(
        (addresses[destination] for destination in _DESTINATIONS if destination in addresses), None
    )
    if (
        source is None
        or destination is None
        or bytes(ports.get(_NUMBER, b"")) != bytes((socket.IPPROTO_TCP,))
    ):
        return None
    return (
        ip_address(bytes(source)),
        int.from_bytes(ports[_SOURCE_PORT], "big"),
        ip_address(bytes(destination)),
        int.from_bytes(ports[_DESTINATION_PORT], "big"),
    )


def _sockets_seen_by(pid: int) -> Iterator[tuple[_Ends, TcpState, int]]:
    """The TCP sockets of a process's network namespace (proc_net_tcp.txt of the kernel's documentation)."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, peer, state, *rest = line.split()
            yield (*_end(local), *_end(peer)), TcpState(int(state, 16)), int(rest[5])


def _end(text: str) -> tuple[_Address, int]:
    """An end such as "0100007F:1F90": words of the address in the host's byte order, the port as a number."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found, int(port, 16)
