"""A program that knows nothing of Locum and waits for its socket by one method: HOW HOST PORT SIZE.

It says "connected", takes (or, when HOW is `epoll-out`, sends) SIZE bytes, and says how many, with their sum.
"""

import asyncio
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

_PIECE = 1 << 20


class Taken:
    """The bytes so far. Their sum reveals damage, whichever thread read them."""

    def __init__(self, size: int) -> None:
        self.size, self.count, self.sum = size, 0, 0
        self.lock = threading.Lock()

    def add(self, data: bytes) -> None:
        with self.lock:
            self.count += len(data)
            self.sum += sum(data)
            if self.count >= self.size or not data:
                print(self.count, self.sum, flush=True)
                os._exit(0)


def until_empty(connection: socket.socket, taken: Taken) -> None:
    try:
        while True:
            taken.add(connection.recv(_PIECE))
    except BlockingIOError:
        return


def blocking(connection: socket.socket, taken: Taken) -> None:
    while True:
        taken.add(connection.recv(_PIECE))


def timeout(connection: socket.socket, taken: Taken) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 3600, 0))
    blocking(connection, taken)


def wait_all(connection: socket.socket, taken: Taken) -> None:
    while True:
        taken.add(connection.recv(min(taken.size - taken.count, 2500), socket.MSG_WAITALL))


def low_watermark(connection: socket.socket, taken: Taken) -> None:
    """Wakes at 1,000 bytes, the size of its protocol's messages."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1000)
    epoll_edge(connection, taken)


def by_select(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    while True:
        select.select([connection], [], [])
        taken.add(connection.recv(_PIECE))


def by_poll(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        poll.poll()
        taken.add(connection.recv(_PIECE))


def epoll_level(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    poll = select.epoll()
    poll.register(connection, select.EPOLLIN)
    while True:
        poll.poll()
        taken.add(connection.recv(_PIECE))


def epoll_edge(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    poll = select.epoll()
    poll.register(connection, select.EPOLLIN | select.EPOLLET)
    while True:
        poll.poll()
        until_empty(connection, taken)


def epoll_once(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    poll = select.epoll()
    poll.register(connection, select.EPOLLIN | select.EPOLLONESHOT)
    while True:
        poll.poll()
        until_empty(connection, taken)
        poll.modify(connection, select.EPOLLIN | select.EPOLLONESHOT)


def epoll_nested(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    inner, outer = select.epoll(), select.epoll()
    inner.register(connection, select.EPOLLIN | select.EPOLLET)
    outer.register(inner.fileno(), select.EPOLLIN)
    while True:
        outer.poll()
        inner.poll(0)
        until_empty(connection, taken)


def epoll_out(connection: socket.socket, taken: Taken) -> None:
    connection.setblocking(False)
    poll = select.epoll()
    poll.register(connection, select.EPOLLOUT | select.EPOLLET)
    left = memoryview(bytes(taken.size))
    while left:
        poll.poll()
        try:
            while left:
                left = left[connection.send(left[:65536]) :]
        except BlockingIOError:
            pass
    print(taken.size, 0, flush=True)
    os._exit(0)


def by_asyncio(connection: socket.socket, taken: Taken) -> None:
    async def read() -> None:
        reader, _ = await asyncio.open_connection(sock=connection)
        while True:
            taken.add(await reader.read(_PIECE))

    asyncio.run(read())


def by_signal(connection: socket.socket, taken: Taken) -> None:
    """Each signal is an edge: the program reads all data, and waits for the next one."""
    number = signal.SIGRTMIN + 1
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, 10, number)  # F_SETSIG
    fcntl.fcntl(connection, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    while True:
        until_empty(connection, taken)
        signal.sigwaitinfo([number])


def threads(connection: socket.socket, taken: Taken) -> None:
    for _ in range(7):
        threading.Thread(target=blocking, args=(connection, taken), daemon=True).start()
    blocking(connection, taken)


class Ring:
    """Just enough of io_uring: one submission at a time."""

    POLL_ADD, RECEIVE = 6, 27

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        parameters = ctypes.create_string_buffer(120)
        self.fd = self.libc.syscall(425, 8, parameters)
        if self.fd < 0:
            code = ctypes.get_errno()
            print("refused", os.strerror(code), flush=True)
            os._exit(0)
        offsets = struct.unpack("=10I" + "8IQ" * 2, parameters.raw)
        self.sq, self.cq = offsets[10:17], offsets[19:26]
        sizes = (self.sq[6] + 4 * offsets[0], self.cq[5] + 16 * offsets[1], 64 * offsets[0])
        places = (0, 0x8000000, 0x10000000)
        self.submissions, self.completions, self.entries = (
            mmap.mmap(self.fd, size, offset=place) for size, place in zip(sizes, places, strict=True)
        )

    def submit(self, operation: int, fd: int, address: int = 0, length: int = 0, events: int = 0) -> None:
        mask = self._word(self.submissions, self.sq[2])
        tail = self._word(self.submissions, self.sq[1])
        index = tail & mask
        entry = struct.pack("=BBHiQQIIQ", operation, 0, 0, fd, 0, address, length, events, 1).ljust(64, b"\0")
        self.entries[64 * index : 64 * index + 64] = entry
        struct.pack_into("=I", self.submissions, self.sq[6] + 4 * index, index)
        struct.pack_into("=I", self.submissions, self.sq[1], tail + 1)
        self._enter(1, 0)

    def wait(self) -> int:
        """The result of the next completion."""
        head = self._word(self.completions, self.cq[0])
        while head == self._word(self.completions, self.cq[1]):
            self._enter(0, 1)
        place = self.cq[5] + 16 * (head & self._word(self.completions, self.cq[2]))
        result = struct.unpack_from("=QiI", self.completions, place)[1]
        struct.pack_into("=I", self.completions, self.cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)

    def _enter(self, submitted: int, wanted: int) -> None:
        if self.libc.syscall(426, self.fd, submitted, wanted, int(wanted > 0), None, 0) < 0:
            code = ctypes.get_errno()
            if code != 4:  # EINTR: it stood still
                raise OSError(code, os.strerror(code))

    @staticmethod
    def _word(ring: mmap.mmap, place: int) -> int:
        return int(struct.unpack_from("=I", ring, place)[0])


def uring_poll(connection: socket.socket, taken: Taken) -> None:
    """Armed once, it reports every edge."""
    connection.setblocking(False)
    ring = Ring()
    ring.submit(Ring.POLL_ADD, connection.fileno(), length=1, events=select.POLLIN)
    while True:
        ring.wait()
        until_empty(connection, taken)


def uring_receive(connection: socket.socket, taken: Taken) -> None:
    buffer = ctypes.create_string_buffer(_PIECE)
    ring = Ring()
    while True:
        ring.submit(Ring.RECEIVE, connection.fileno(), ctypes.addressof(buffer), _PIECE)
        size = ring.wait()
        taken.add(buffer.raw[:size])


WAYS = {
    "blocking": blocking,
    "timeout": timeout,
    "wait-all": wait_all,
    "low-watermark": low_watermark,
    "select": by_select,
    "poll": by_poll,
    "epoll-level": epoll_level,
    "epoll-edge": epoll_edge,
    "epoll-once": epoll_once,
    "epoll-nested": epoll_nested,
    "epoll-out": epoll_out,
    "asyncio": by_asyncio,
    "signal": by_signal,
    "threads": threads,
    "uring-poll": uring_poll,
    "uring-receive": uring_receive,
}


if __name__ == "__main__":
    way, host, port, size = sys.argv[1:]
    made = socket.create_connection((host, int(port)))
    print("connected", flush=True)
    WAYS[way](made, Taken(int(size)))
