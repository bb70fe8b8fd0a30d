"""Starts programs of `locum.apps`, and makes what connects them with the daemon: a channel, and a pipe for their output."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Ends:
    """The daemon's ends, which do not block, and the process's, until it has them."""

    channel: socket.socket
    output: int
    their_channel: socket.socket
    their_output: int

    @classmethod
    def made(cls) -> "Ends":
        """Raises OSError, and leaves nothing open then."""
        with contextlib.ExitStack() as undone:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undone.callback(ours.close)
            undone.callback(theirs.close)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            undone.pop_all()
        ours.setblocking(False)
        os.set_blocking(reading, False)
        return cls(ours, reading, theirs, writing)

    def give(self) -> None:
        """The process has its ends."""
        self.their_channel.close()
        if self.their_output >= 0:
            os.close(self.their_output)
            self.their_output = -1

    def close(self) -> None:
        """Close all of them."""
        self.give()
        self.channel.close()
        os.close(self.output)


def spawn(module: str, words: Sequence[str], ends: Ends) -> int:
    """The number of a new process that runs this module with `3`, its end of the channel, and these words. Raises OSError."""
    command = [
        sys.executable,
        "-P",  # nothing is imported from the directory in which the daemon was started
        "-m",
        module,
        "3",
        *words,
    ]
    with open(os.devnull, "r+b", buffering=0) as null:
        number = os.posix_spawn(
            sys.executable,
            command,
            {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, ends.their_output, 1),
                (os.POSIX_SPAWN_DUP2, ends.their_output, 2),
                (os.POSIX_SPAWN_DUP2, ends.their_channel.fileno(), 3),
            ],
            setsigdef=[signal.SIGPIPE, signal.SIGINT],
        )
    return number


def end(pid: int) -> None:
    """Kill this child, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
