"""Reads the kernel's notifications about rules, routes, addresses, neighbours, devices and filters that went (rtnetlink).

A notification becomes a key, without the index of the link: its owner knows whether it made that, and makes it again.
The kernel filters messages by type, so that a router with many routes does not wake the daemon for new ones.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

Key = tuple[str | int | bytes, ...]
"""Kind of setting, and its identity; see `rule_key` and its siblings."""

# RTPROT_KERNEL: systemd-networkd leaves rules and routes of this protocol alone (networkd.conf(5)).
KERNEL = 2

_NEWLINK, _DELADDR, _DELROUTE, _DELNEIGH, _DELRULE = 16, 21, 25, 29, 33
_DELQDISC, _NEWTFILTER, _DELTFILTER = 37, 44, 45
_WANTED = (_NEWLINK, _DELADDR, _DELROUTE, _DELNEIGH, _DELRULE, _DELQDISC, _NEWTFILTER, _DELTFILTER)
# RTNLGRP_: LINK, NEIGH, TC; IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, and the same of IPv6.
_GROUPS = (1, 3, 4, 5, 7, 8, 9, 11, 19)
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_LONGEST = 1 << 16
_TURN = 64  # messages that are read in one turn: other programs may flush any number of routes
_IFF_UP = 1
_SO_ATTACH_FILTER = 26
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE = 1, 2, 3, 6, 10, 15
_FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 23, 24
_RTA_DST, _RTA_TABLE = 1, 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST = 1


def rule_key(
    family: int,
    priority: int,
    table: int,
    *,
    mark: int = 0,
    iif: str = "",
    source: bytes = b"",
    destination: bytes = b"",
    ports: tuple[int, int] = (0, 0),
) -> Key:
    """Key of a policy rule. `ports`: source and destination, 0 for any."""
    return ("rule", family, priority, table, mark, iif, source, destination, *ports)


def route_key(family: int, table: int, destination: str) -> Key:
    """Key of a route to a prefix, or to "default"."""
    if destination == "default":
        return ("route", family, table, b"", 0)
    prefix = ip_network(destination)
    return ("route", family, table, prefix.network_address.packed, prefix.prefixlen)


def address_key(address: str) -> Key:
    """Key of an address of this host, or of a group that it joined."""
    return ("address", ip_address(address).packed)


def neighbour_key(address: str) -> Key:
    """Key of a neighbour entry."""
    return ("neighbour", ip_address(address).packed)


def device_key(index: int) -> Key:
    """Key of a device that must be up."""
    return ("device", index)


def filter_key(index: int) -> Key:
    """Key of the tc filters of an interface."""
    return ("filter", index)


class LossSocket:
    """A netlink socket on which the kernel tells of losses, in the namespace of its maker."""

    def __init__(self) -> None:
        """Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            _filter(self._socket)
            self._socket.bind((0, sum(1 << (group - 1) for group in _GROUPS)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> tuple[set[Key], bool]:
        """Keys of losses since the last call, of a turn's messages, and whether the kernel had to leave some out.

        The socket stays readable while there are more.
        """
        datagrams, missed = received(self._socket)
        return {key for datagram in datagrams for key in losses(datagram)}, missed

    def close(self) -> None:
        self._socket.close()


def received(netlink: socket.socket) -> tuple[list[bytes], bool]:
    """The datagrams that wait at a netlink socket, those of one turn, and whether the kernel had to leave some out."""
    found: list[bytes] = []
    missed = False
    for _ in range(_TURN):
        try:
            found.append(netlink.recv(_LONGEST))
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            missed = True
    return found, missed


def losses(datagram: bytes) -> Iterator[Key]:
    """Keys of the losses in a datagram of rtnetlink; messages that are cut short are left out."""
    start = 0
    while start + _MESSAGE.size <= len(datagram):
        length, kind, *_ = _MESSAGE.unpack_from(datagram, start)
        if length < _MESSAGE.size or start + length > len(datagram):
            return
        try:
            key = _key(kind, datagram[start + _MESSAGE.size : start + length])
        except (struct.error, IndexError):
            key = None
        if key is not None:
            yield key
        start += length + 3 & ~3


def _key(kind: int, body: bytes) -> Key | None:
    if kind in (_DELQDISC, _NEWTFILTER, _DELTFILTER):
        return filter_key(struct.unpack_from("=i", body, 4)[0])
    if kind == _NEWLINK:
        _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
        return None if flags & _IFF_UP else device_key(index)
    if kind == _DELADDR:
        found = _attributes(body, 8)
        address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        return None if address is None else ("address", address)
    if kind == _DELNEIGH:
        neighbour = _attributes(body, 12).get(_NDA_DST)
        return None if neighbour is None else ("neighbour", neighbour)
    if kind not in (_DELROUTE, _DELRULE):
        return None
    family, length, _, _, short = struct.unpack_from("=BBBBB", body)
    found = _attributes(body, 12)
    table = _word(found.get(_RTA_TABLE)) or short  # FRA_TABLE has the same number
    if kind == _DELROUTE:
        return ("route", family, table, found.get(_RTA_DST, b"") if length else b"", length)
    return rule_key(
        family,
        _word(found.get(_FRA_PRIORITY)),
        table,
        mark=_word(found.get(_FRA_FWMARK)),
        iif=found.get(_FRA_IIFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        source=found.get(_FRA_SRC, b""),
        destination=found.get(_FRA_DST, b""),
        ports=(_port(found.get(_FRA_SPORT_RANGE)), _port(found.get(_FRA_DPORT_RANGE))),
    )


def _attributes(body: bytes, start: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while start + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, start)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[start + 4 : start + length]
        start += length + 3 & ~3
    return found


def _word(value: bytes | None) -> int:
    return 0 if value is None else int(struct.unpack_from("=I", value)[0])


def _port(value: bytes | None) -> int:
    return 0 if value is None else int(struct.unpack_from("=H", value)[0])


def _filter(netlink: socket.socket) -> None:
    """Have the kernel drop messages of other types (a classic BPF program)."""
    program = [(0x28, 0, 0, 4)]  # load the 16 bits of nlmsg_type, as if they were in network order
    for at, kind in enumerate(_WANTED):
        program.append((0x15, len(_WANTED) - at, 0, socket.htons(kind)))  # equal: go to the last instruction
    program += [(0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]  # leave out; take all of it
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    netlink.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(code))
    )
