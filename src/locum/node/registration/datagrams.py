"""Many datagrams in one system call, recvmmsg(2) and sendmmsg(2), which Python's sockets do not have. UDP over IPv4.

At a home agent a system call a message, with the interpreter let go and taken back around each, is a good part of what a
registration costs. Sockets and bytes only; it must not know their content.
"""

import ctypes
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from mmap import mmap

_TRUNCATED = int(socket.MSG_TRUNC)
IP_PKTINFO = 8  # not in the socket module of Python 3.11
ANY = b"\0\0\0\0"

_NAME = struct.Struct("@H2s4s8x")  # struct sockaddr_in
_CONTROL = struct.Struct("@Nii")  # struct cmsghdr
_PKTINFO = struct.Struct("@I4s4s")  # struct in_pktinfo: interface index, local address, address in the header
_CONTROL_BYTES = socket.CMSG_SPACE(_PKTINFO.size)
_PKTINFO_AT = socket.CMSG_LEN(0)
_TRAFFIC_CLASS_AT = _CONTROL_BYTES + socket.CMSG_LEN(0)  # the kernel puts it behind the other
_ARRIVED_BYTES = _CONTROL_BYTES + socket.CMSG_SPACE(1)

# (message, source address, source port, destination address, interface index, traffic class)
Arrived = tuple[bytes, str, int, bytes, int, int]
# (message, to, port, local address or ANY, interface index or 0: routing decides)
Datagram = tuple[bytes, str, int, bytes, int]


class _Vector(ctypes.Structure):
    """`struct iovec`: two words."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """`struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Slot(ctypes.Structure):
    """`struct mmsghdr`."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_WORDS = ctypes.sizeof(_Slot) // 4  # of a slot, and where in it
_FLAGS, _LENGTH = _Header.flags.offset // 4, _Slot.length.offset // 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


class _Room:
    """Memory for `count` datagrams of up to `size` bytes, with slots whose headers point into it; used again and again."""

    def __init__(self, count: int, size: int = 0, control_bytes: int = _CONTROL_BYTES) -> None:
        self.count, self.size = count, size
        self.controls = count * _NAME.size  # where in `memory`; the names are before them
        self.data = self.controls + count * control_bytes
        self.memory = mmap(-1, self.data + count * size)  # pages that are never used cost nothing
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.vectors = (_Vector * count)()
        self.slots = (_Slot * count)()
        for number in range(count):
            self.vectors[number] = _Vector(base + self.data + number * size, size)
            self.slots[number].header = _Header(
                base + number * _NAME.size,
                _NAME.size,
                ctypes.addressof(self.vectors) + number * ctypes.sizeof(_Vector),
                1,
                base + self.controls + number * control_bytes,
                control_bytes,
            )
        self.at = ctypes.addressof(self.slots)


class Inbox:
    """Takes datagrams from sockets that have IP_PKTINFO and IP_RECVTOS set, without waiting: at most `count` at once, of `size` bytes each."""

    def __init__(self, count: int, size: int) -> None:
        self._room = _Room(count, size, _ARRIVED_BYTES)
        self._fresh = bytes(self._room.slots)  # the kernel writes its results into slots
        self._words = memoryview(self._room.slots).cast("B").cast("I")

    def receive(self, fileno: int) -> tuple[list[Arrived], int]:
        """Received datagrams, and the number of oversized ones. Raises OSError, also if there are none."""
        room, words = self._room, self._words
        ctypes.memmove(room.at, self._fresh, len(self._fresh))
        found = _libc.recvmmsg(fileno, room.at, room.count, socket.MSG_DONTWAIT, None)
        if found < 0:
            raise _last_error()
        memory, size = room.memory, room.size
        name, control, data = 0, room.controls, room.data
        arrived: list[Arrived] = []
        for at in range(0, found * _WORDS, _WORDS):
            if not words[at + _FLAGS] & _TRUNCATED:
                message = memory[data : data + words[at + _LENGTH]]
                address, port = _peer(memory[name : name + _NAME.size])
                information = control + _PKTINFO_AT
                index, destination = _arrival(memory[information : information + _PKTINFO.size])
                traffic_class = memory[control + _TRAFFIC_CLASS_AT]
                arrived.append((message, address, port, destination, index, traffic_class))
            name, control, data = name + _NAME.size, control + _ARRIVED_BYTES, data + size
        return arrived, found - len(arrived)


class Outbox:
    """Sends datagrams, `count` with a system call."""

    def __init__(self, count: int) -> None:
        self._room = _Room(count)
        self._vectors = memoryview(self._room.vectors).cast("B").cast("L")

    def send(self, fileno: int, datagrams: Sequence[Datagram]) -> list[tuple[int, OSError]]:
        """Send these in their order. The result has the places of those that were not sent, with reasons."""
        failed: list[tuple[int, OSError]] = []
        done = 0
        while done < len(datagrams):
            sent = self._send(fileno, datagrams[done : done + self._room.count])
            done += max(sent, 0)
            if sent <= 0:  # the first of them was not sent; the kernel says why only then
                failed.append((done, _last_error()))
                done += 1
        return failed

    def _send(self, fileno: int, some: Sequence[Datagram]) -> int:
        room, count = self._room, len(some)
        names = b"".join([_name(to, port) for _, to, port, _, _ in some])
        controls = b"".join([_control(source, index) for _, _, _, source, index in some])
        room.memory[: len(names)] = names
        room.memory[room.controls : room.controls + len(controls)] = controls
        messages = (ctypes.c_char_p * count)(*[datagram[0] for datagram in some])
        self._vectors[: 2 * count : 2] = memoryview(messages).cast("B").cast("L")
        self._vectors[1 : 2 * count : 2] = memoryview(array("L", [len(datagram[0]) for datagram in some]))
        return int(_libc.sendmmsg(fileno, room.at, count, socket.MSG_DONTWAIT))


# Few hosts send and get most messages: access nodes, and the home agents behind them.


@lru_cache(4096)
def _peer(name: bytes) -> tuple[str, int]:
    _, port, address = _NAME.unpack(name)
    return socket.inet_ntoa(address), int.from_bytes(port, "big")


@lru_cache(4096)
def _name(address: str, port: int) -> bytes:
    return _NAME.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_aton(address))


@lru_cache(256)
def _arrival(information: bytes) -> tuple[int, bytes]:
    index, _, destination = _PKTINFO.unpack(information)
    return index, destination


@lru_cache(256)
def _control(source: bytes, index: int) -> bytes:
    head = _CONTROL.pack(socket.CMSG_LEN(_PKTINFO.size), socket.IPPROTO_IP, IP_PKTINFO)
    return (head + _PKTINFO.pack(index, source, ANY)).ljust(_CONTROL_BYTES, b"\0")


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
