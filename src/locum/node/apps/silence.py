"""Ends the TCP sockets that a proxy's process has left in the kernel: orphans go on sending what their peers have not acknowledged.

A process that ends in order leaves none that could speak. Sockets are found by the proxy's mark, and reset (sock_diag(7)).
"""

import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from ipaddress import ip_address

from locum.dataplane.layout.maps import MARK_PROXY
from locum.sessions.search.diag import attributes, netlink_messages
from locum.wire.control import Flow

log = logging.getLogger("locum.apps")
_SOCK_DIAG, _BY_FAMILY, _DESTROY = 4, 20, 21
_REQUEST_AND_ACKNOWLEDGE, _ERROR = 0x5, 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBBI48s")  # struct inet_diag_req_v2
_ATTRIBUTE = struct.Struct("=HH")
_CONDITION = struct.Struct("=BBHII")  # struct inet_diag_bc_op, struct inet_diag_markcond
_BYTECODE, _BY_MARK = 1, 10  # INET_DIAG_REQ_BYTECODE, INET_DIAG_BC_MARK_COND
_ALL, _ANY_PROXY = 0xFFFFFFFF, 0xFFFF0000
_MARK = 15  # INET_DIAG_MARK
# The bits of the states in which something of ours may be sent: not FIN-WAIT-2, TIME-WAIT, CLOSE, LISTEN.
_SPEAKING = sum(1 << state for state in (1, 2, 3, 4, 8, 9, 11))
_IDENTITY = slice(4, 52)  # in struct inet_diag_msg
_MESSAGE = 72  # bytes of it


def silence(numbers: Collection[int]) -> int:
    """Reset the connections of the proxies with these numbers; how many there were. A kernel that cannot is logged.

    The kernel looks through all its sockets for it, which takes milliseconds: callers use a thread, and ask once for many proxies.
    """
    ended = 0
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            for identity in tuple(_orphans(family, numbers)):
                _destroy(family, identity)
                ended += 1
    except OSError as problem:
        log.warning("connections of a proxy that has ended are left to the kernel: %s", problem)
    return ended


def flows(number: int) -> frozenset[Flow]:
    """TCP connections of the proxy with this number, in any state. Raises OSError."""
    found = [
        _flow(identity)
        for family in (socket.AF_INET, socket.AF_INET6)
        for identity in _orphans(family, (number,), _ALL)
    ]
    return frozenset(flow for flow in found if flow.peer_port)  # kernels list bound sockets as well


def _flow(identity: bytes) -> Flow:
    """Of a struct inet_diag_sockid."""
    local, peer = struct.unpack_from("!HH", identity)
    size = 4 if not any(identity[8:20]) and not any(identity[24:36]) else 16
    return Flow(
        socket.IPPROTO_TCP,
        ip_address(identity[4 : 4 + size]),
        local,
        ip_address(identity[20 : 20 + size]),
        peer,
    )


def _orphans(family: int, numbers: Collection[int], states: int = _SPEAKING) -> Iterator[bytes]:
    condition = _CONDITION.pack(_BY_MARK, _CONDITION.size, _CONDITION.size + 4, MARK_PROXY, _ANY_PROXY)
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(condition), _BYTECODE) + condition
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states, bytes(48)) + attribute
    for _, content in netlink_messages(_SOCK_DIAG, _BY_FAMILY, request):
        marks = [value for kind, value in attributes(content[_MESSAGE:]) if kind == _MARK]
        if marks and int.from_bytes(marks[0], sys.byteorder) & ~_ANY_PROXY in numbers:
            yield bytes(content[_IDENTITY])


def _destroy(family: int, identity: bytes) -> None:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL, identity)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as netlink:
        netlink.bind((0, 0))
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _DESTROY, _REQUEST_AND_ACKNOWLEDGE, 1, 0) + body)
        answer = netlink.recv(1 << 16)
    _, kind, *_ = _HEADER.unpack_from(answer)
    (code,) = struct.unpack_from("=i", answer, _HEADER.size)
    if kind == _ERROR and code and -code != errno.ENOENT:  # it has ended by itself
        raise OSError(-code, os.strerror(-code))
