"""A fork server of one kind of proxies (`locum.apps.fork_server`), as the daemon sees it.

It is a child of the daemon and ends with it. When it dies, the processes that it made go on: they are the daemon's children.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence

import cbor2

from locum.node.apps.starts.spawning import Ends, end, spawn

log = logging.getLogger("locum.apps")
_PACKET = 4096
_LINES = 20


class ForkServer:
    """`gone` is called when it has ended by itself, or was killed by somebody."""

    def __init__(self, kind: str, gone: Callable[["ForkServer"], None]) -> None:
        """Start it. Raises OSError."""
        self.kind, self._gone = kind, gone
        self.is_ready, self.unfit = False, ""
        self._said: deque[str] = deque(maxlen=_LINES)
        self._loop = asyncio.get_running_loop()
        self._ends = ends = Ends.made()
        with contextlib.ExitStack() as undone:
            undone.callback(ends.close)
            self.pid = spawn("locum.apps.fork_server", [kind], ends)
            undone.callback(end, self.pid)
            self._pidfd = os.pidfd_open(self.pid)
            undone.pop_all()
        ends.give()
        self._open = True
        self._loop.add_reader(ends.channel, self.read)
        self._loop.add_reader(ends.output, self._read_output)
        self._loop.add_reader(self._pidfd, self._died)

    def ask(self, arguments: Sequence[str], ends: Ends) -> None:
        """Ask for a process with these ends. Raises OSError: it has ended, or does not read."""
        request = cbor2.dumps(list(arguments))
        socket.send_fds(
            self._ends.channel, [request], [ends.their_channel.fileno(), ends.their_output]
        )  # fmt: skip

    def read(self) -> None:
        """Take what it has told."""
        while self._open:
            try:
                data = self._ends.channel.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._ends.channel)  # `_died` follows
                return
            match cbor2.loads(data):
                case ["ready"]:
                    self.is_ready = True
                case ["unfit", str(reason)]:
                    self.is_ready, self.unfit = False, reason

    def _read_output(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._ends.output, _PACKET)
            if not data:
                self._loop.remove_reader(self._ends.output)
            self._said.extend(data.decode(errors="replace").splitlines())

    def why(self) -> str:
        """Why it makes no processes."""
        self.read()
        if self._open:
            self._read_output()
        return self.unfit or (self._said[-1] if self._said else "it has ended")

    def retire(self) -> None:
        """End it; the kernel's time for that holds up nobody."""
        if self._open:
            self._shut()
            if self._pidfd >= 0:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self._shut()
        if self._pidfd >= 0:
            self._forget()
            end(self.pid)

    def _died(self) -> None:
        expected = not self._open
        if not expected:
            self.read()
            self._read_output()
        self._forget()
        os.waitpid(self.pid, 0)
        if not expected:
            self._gone(self)
        self._shut()

    def _forget(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1

    def _shut(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._ends.channel)
            self._loop.remove_reader(self._ends.output)
            self._ends.close()
