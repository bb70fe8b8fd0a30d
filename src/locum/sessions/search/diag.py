"""The TCP and UDP sockets of a network namespace, as the kernel lists them (sock_diag(7)). Read only.

It must not know whose they are.
"""

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.sessions.record import TcpState
from locum.wire.control import Flow

MPTCP = 262

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_ALL_STATES = 0xFFF
_EXTENSIONS = 1 << 1  # INET_DIAG_INFO: only with it the kernel tells upper protocols and keys
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBBI48s")  # struct inet_diag_req_v2
_ANSWER = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
# Attributes of an answer, and of the upper-layer protocol in one (linux/inet_diag.h).
_REQ_PROTOCOL, _MD5SIG, _ULP_INFO, _ULP_NAME = 3, 18, 19, 1
_KIND = 0x3FFF  # without the bits for nesting and byte order


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket; a UDP socket is ESTABLISHED when it is connected, else CLOSE. `inode` is 0 where no program has it; `upper` is a protocol on top of TCP, such as "tls" or "mptcp".

    `signed`: it has keys of TCP-MD5 (RFC 2385).
    """

    flow: Flow
    state: TcpState
    inode: int
    upper: str = ""
    signed: bool = False


def sockets(protocol: int = socket.IPPROTO_TCP) -> Iterator[Socket]:
    """Every socket of this protocol in the calling thread's network namespace; MPTCP's own, not its paths, by `MPTCP`.

    Raises OSError when the kernel refuses, for instance a protocol that it does not have.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in _dump(family, protocol):
            yield _parse(message, protocol)


def netlink_messages(
    protocol: int, kind: int, body: bytes, size: int = 1 << 17
) -> Iterator[tuple[int, memoryview]]:
    """The answers to a netlink request for a dump: their types and contents. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.bind((0, 0))
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST_DUMP, 1, 0) + body)
        while True:
            data = memoryview(netlink.recv(size))
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, answer, *_ = _HEADER.unpack_from(data, offset)
                content = data[offset + _HEADER.size : offset + length]
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise OSError(code, os.strerror(code))
                yield answer, content
                offset += (length + 3) & ~3


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The netlink attributes in these bytes: kinds and contents."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _KIND, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _dump(family: int, protocol: int) -> Iterator[memoryview]:
    request = _REQUEST.pack(family, protocol & 0xFF, _EXTENSIONS, 0, _ALL_STATES, bytes(48))
    if protocol > 0xFF:
        request += _ATTRIBUTE.pack(8, _REQ_PROTOCOL) + struct.pack("=I", protocol)
    try:
        for _, content in netlink_messages(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
            if len(content) >= _ANSWER.size:
                yield content
    except OSError as problem:
        raise OSError(
            problem.errno, f"the kernel does not list its sockets (sock_diag): {problem.strerror}"
        ) from None


def _parse(message: memoryview, protocol: int) -> Socket:
    fields = _ANSWER.unpack_from(message)
    family, state, sport, dport, source, destination = fields[0], fields[1], *fields[4:8]
    upper, signed = "", False
    for kind, content in attributes(message[_ANSWER.size :]):
        if kind == _ULP_INFO:
            names = [bytes(name) for part, name in attributes(content) if part == _ULP_NAME]
            upper = names[0].rstrip(b"\0").decode(errors="replace") if names else ""
        signed = signed or kind == _MD5SIG
    return Socket(
        flow=Flow(
            protocol=socket.IPPROTO_TCP if protocol == MPTCP else protocol,
            local=_address(family, source),
            local_port=int.from_bytes(sport, "big"),
            peer=_address(family, destination),
            peer_port=int.from_bytes(dport, "big"),
        ),
        state=TcpState(state),
        inode=fields[-1],
        upper=upper,
        signed=signed,
    )


def _address(family: int, raw: bytes) -> IPv4Address | IPv6Address:
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address  # a dual-stack socket speaks IPv4
