"""State of one connection of this host, by its addresses and ports alone (sock_diag), without its process.

A connection that waits in an accept queue has no descriptor; this is the only way to look at it. Read only.
"""

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.sessions.record import TcpState
from locum.wire.control import Flow

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ALL_STATES = 0xFFF
_NO_COOKIE = b"\xff" * 8
_INFO = 2  # INET_DIAG_INFO
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBBIHH16s16sI8s")  # struct inet_diag_req_v2; the ports are in network order
_ANSWER_BYTES = 72  # struct inet_diag_msg
_QUEUES, _QUEUES_AT = struct.Struct("=II"), 56  # idiag_rqueue and idiag_wqueue in it
_INODE, _INODE_AT = struct.Struct("=I"), 68  # idiag_inode in it
_BYTES_RECEIVED = 128  # offset in struct tcp_info

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Seen:
    """A connection as the kernel has it."""

    state: TcpState
    received: int  # bytes; a FIN counts as one


@dataclass(frozen=True, slots=True)
class Queue:
    """The accept queue of a listener."""

    waiting: int
    most: int
    inode: int  # of the listener

    @property
    def full(self) -> bool:
        """No connection is added (sk_acceptq_is_full)."""
        return self.waiting > self.most


def look(flow: Flow) -> Seen | None:
    """The connection of this flow, None without one, or for a listener. OSError if sock_diag refuses."""
    body = _ask(flow.local, flow.local_port, flow.peer, flow.peer_port)
    if body is None or TcpState(body[1]) is TcpState.LISTEN:
        return None
    return Seen(TcpState(body[1]), _received(body[_ANSWER_BYTES:]))


def queue(flow: Flow) -> Queue | None:
    """Queue of the listener for a new connection of this flow, None without a listener. Raises OSError."""
    body = _ask(flow.local, flow.local_port, type(flow.peer)(0), 0)
    if body is None or TcpState(body[1]) is not TcpState.LISTEN:
        return None
    return Queue(*_QUEUES.unpack_from(body, _QUEUES_AT), *_INODE.unpack_from(body, _INODE_AT))


def _ask(local: Address, local_port: int, peer: Address, peer_port: int) -> bytes | None:
    """struct inet_diag_msg and its attributes, for the socket that a packet from that peer would meet."""
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    ports = socket.htons(local_port), socket.htons(peer_port)
    request = _REQUEST.pack(
        family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _ALL_STATES, *ports, local.packed, peer.packed, 0, _NO_COOKIE
    )  # fmt: skip
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.bind((0, 0))
        netlink.send(
            _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + request
        )
        data = netlink.recv(1 << 14)
    length, kind, *_ = _HEADER.unpack_from(data)
    body = data[_HEADER.size : length]
    if kind != _NLMSG_ERROR:
        return body
    code = -int(struct.unpack_from("=i", body)[0])
    if code == errno.ENOENT:
        return None
    raise OSError(code, f"sock_diag: {os.strerror(code)}")


def _received(attributes: bytes) -> int:
    at = 0
    while at + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if kind == _INFO and length >= 4 + _BYTES_RECEIVED + 8:
            return int(struct.unpack_from("=Q", attributes, at + 4 + _BYTES_RECEIVED)[0])
        at += max(4, (length + 3) & ~3)
    return 0
