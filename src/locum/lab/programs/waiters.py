"""Programs with ways of waiting that no stock program has; `main` describes the arguments.

Each reads one connection until the line LAST has come, and writes all lines to OUT. No data follows that line, so
that a program which the kernel does not tell of it would wait for ever. `threads` has a connection for each thread, and all
have to read the same.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_BLOCK = 65536
_THREADS = 4
LAST = b"asleep\n"
_PATIENCE = struct.pack("ll", 300, 0)
"""SO_RCVTIMEO: five minutes, in which every read gets something."""
_O_ASYNC, _IO_URING_SETUP, _IO_URING_ENTER = 0o20000, 425, 426
_POLL_ADD, _GET_EVENTS = 6, 1
_RING_BYTES, _ENTRY = 4096, 64


def drained(connection: socket.socket, got: bytearray) -> bool:
    """Read until no data is left; return whether it was the end, or the last line."""
    with contextlib.suppress(BlockingIOError):
        while block := connection.recv(_BLOCK):
            got += block
        return True
    return got.endswith(LAST)


def blocking(connection: socket.socket) -> bytes:
    """Blocking reads, one after the other."""
    got = bytearray()
    while not got.endswith(LAST) and (block := connection.recv(_BLOCK)):
        got += block
    return bytes(got)


def with_timeout(connection: socket.socket) -> bytes:
    """Blocking reads with a time-out of the kernel's; Python asks again after EINTR, as a careful program does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
    return blocking(connection)


def by_asyncio(connection: socket.socket) -> bytes:
    """asyncio's streams, on epoll."""

    async def read() -> bytes:
        reader, writer = await asyncio.open_connection(sock=connection)
        got = await reader.readuntil(LAST)
        writer.close()
        return got

    return asyncio.run(read())


def by_epoll(flags: int) -> Callable[[socket.socket], bytes]:
    """epoll with these flags besides EPOLLIN; a one-shot registration is renewed after each event."""

    def read(connection: socket.socket) -> bytes:
        connection.setblocking(False)
        got, wanted = bytearray(), select.EPOLLIN | flags
        with select.epoll() as poller:
            poller.register(connection, wanted)
            while not (poller.poll() and drained(connection, got)):
                poller.modify(connection, wanted)
        return bytes(got)

    return read


def by_edges(connection: socket.socket) -> bytes:
    """Edge-triggered epoll, registered once: a missed edge means waiting for ever."""
    connection.setblocking(False)
    got = bytearray()
    with select.epoll() as poller:
        poller.register(connection, select.EPOLLIN | select.EPOLLET)
        while not (poller.poll() and drained(connection, got)):
            pass
    return bytes(got)


def by_signal(connection: socket.socket) -> bytes:
    """O_ASYNC: the kernel sends SIGIO when there is something to read."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    connection.setblocking(False)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | _O_ASYNC)
    got = bytearray()
    while not drained(connection, got):
        signal.sigwait({signal.SIGIO})
    return bytes(got)


class Ring:
    """An io_uring with room for a few requests (io_uring(7)), as far as a poll request needs one."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        parameters = ctypes.create_string_buffer(120)
        self._descriptor = self._call(_IO_URING_SETUP, 4, parameters)
        submission, completion = (struct.unpack_from("10I", parameters, at) for at in (40, 80))
        self._tail, self._mask, self._array = submission[1], submission[2], submission[6]
        self._done_head, self._done_tail = completion[0], completion[1]
        self._rings = mmap.mmap(self._descriptor, _RING_BYTES)
        self._requests = mmap.mmap(self._descriptor, _RING_BYTES, offset=0x10000000)

    def _call(self, number: int, *arguments: object) -> int:
        while (result := int(self._libc.syscall(number, *arguments))) < 0:
            problem = ctypes.get_errno()
            if problem != 4:  # EINTR: again
                raise OSError(problem, os.strerror(problem))
        return result

    def wait_readable(self, descriptor: int) -> None:
        """Ask once for POLLIN, and sleep in the ring until the kernel completes it."""
        tail = self._number(self._tail)
        slot = tail & self._number(self._mask)
        request = struct.pack("BBHiQQII", _POLL_ADD, 0, 0, descriptor, 0, 0, 0, select.POLLIN).ljust(
            _ENTRY, b"\0"
        )
        self._requests[slot * _ENTRY : (slot + 1) * _ENTRY] = request
        struct.pack_into("I", self._rings, self._array + 4 * slot, slot)
        struct.pack_into("I", self._rings, self._tail, tail + 1)
        self._call(_IO_URING_ENTER, self._descriptor, 1, 0, 0, None, 0)
        while self._number(self._done_head) == self._number(self._done_tail):
            self._call(_IO_URING_ENTER, self._descriptor, 0, 1, _GET_EVENTS, None, 0)
        struct.pack_into("I", self._rings, self._done_head, self._number(self._done_head) + 1)

    def _number(self, at: int) -> int:
        return int(struct.unpack_from("I", self._rings, at)[0])


def by_ring(connection: socket.socket) -> bytes:
    """A poll request of io_uring before each read."""
    connection.setblocking(False)
    ring, got = Ring(), bytearray()
    while not drained(connection, got):
        ring.wait_readable(connection.fileno())
    return bytes(got)


KINDS: dict[str, Callable[[socket.socket], bytes]] = {
    "asyncio": by_asyncio,
    "epoll-edge": by_edges,
    "epoll-oneshot": by_epoll(select.EPOLLONESHOT),
    "io_uring": by_ring,
    "sigio": by_signal,
    "timeout": with_timeout,
    "threads": blocking,
}


def main(kind: str, host: str, port: int, out: Path) -> None:
    """Read all connections of a kind to their ends, and write the data of each."""
    found: list[bytes] = []

    def read() -> None:
        with socket.create_connection((host, port)) as connection:
            found.append(KINDS[kind](connection))

    if kind != "threads":
        read()
    else:
        threads = [threading.Thread(target=read) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if len(found) != (_THREADS if kind == "threads" else 1) or len(set(found)) != 1:
        sys.exit(f"{kind}: the connections have not brought the same")
    out.write_bytes(found[0])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
