"""The network and the files of one proxy together, for the loop of its process.

Effects are carried out at once or begun; happenings wait here until the loop takes them, a bounded number at a time.
"""

import errno
import select
from collections.abc import Callable, Iterator
from typing import Any

from locum.apps.shell.channel import Channel
from locum.apps.shell.files import Files
from locum.apps.shell.network import Network
from locum.apps.shell.trust import Trust
from locum.roles.app_contract import Effect
from locum.roles.app_network import (
    Append,
    Decode,
    Decoded,
    Failed,
    Load,
    Loaded,
    Remove,
    Rename,
    Sync,
    Synced,
    Truncate,
)
from locum.roles.app_network import Files as Listed

_IN_A_TURN = 256  # happenings


class Driver:
    """`room`: bytes of its files; `trust`: authorities of its connections."""

    def __init__(self, room: int, trust: Trust) -> None:
        self._room, self._trust = room, trust

    def open(self, directory: int) -> None:
        """The directory of its files, after the process was confined there."""
        self._files = Files(directory, self._room)

    def begin(self, channel: Channel, poll: select.epoll) -> None:
        """Before the first packet."""
        self._network = Network(channel, poll, self._files, self._trust)
        self.flush, self.event = self._network.flush, self._network.event
        self.answer, self.deadline, self.close = (
            self._network.answer,
            self._network.deadline,
            self._network.close,
        )

    @property
    def busy(self) -> bool:
        """True if it has something to do without any event."""
        return self._network.is_busy

    def list_files(self) -> None:
        """The proxy has begun: it is told of the files that are there."""
        self._network.happenings.append(Listed(tuple(self._files.listing())))

    def look(self) -> None:
        """The device has sent a file."""
        self._files.look()
        self.list_files()

    def turn(self, now: float) -> Iterator[Any]:
        """Happenings for the proxy, in order; each one's effects are carried out before the next."""
        network = self._network
        network.due(now)
        network.again()
        for _ in range(_IN_A_TURN):
            if not network.happenings:
                break
            yield network.happenings.popleft()

    def perform(self, effect: Effect) -> None:
        """Carry it out. Raises ValueError or TypeError for one that no proxy may return."""
        match effect:
            case Append(file, data):
                self._on_file(file, lambda: self._files.append(file, data))
            case Truncate(file, size):
                self._on_file(file, lambda: self._files.truncate(file, size))
            case Rename(file, to):
                self._on_file(file, lambda: self._files.rename(file, to))
            case Remove(file):
                self._on_file(file, lambda: self._files.remove(file))
            case Load(file, offset, length):
                self._on_file(
                    file, lambda: self._tell(Loaded(file, offset, self._files.load(file, offset, length)))
                )
            case Decode(file):
                self._on_file(file, lambda: self._decode(effect))
            case Sync(file):
                self._on_file(file, lambda: self._sync(file))
            case _:
                self._network.perform(effect)

    def _tell(self, event: Any) -> None:
        self._network.happenings.append(event)

    def _sync(self, file: str) -> None:
        """The stand-in waits for the disk."""
        opened, size = self._files.opened(file), self._files.size(file)

        def over(answer: list[Any], _: list[int]) -> None:
            reason, *error = answer
            self._tell(
                Failed(file, error[0] if error and error[0] else errno.EIO) if reason else Synced(file, size)
            )

        self._network.questions.ask(over, "sync", descriptors=(opened.fd, self._files.directory))

    def _decode(self, effect: Decode) -> None:
        """The stand-in starts a program."""
        files, source = self._files, self._files.opened(effect.file)
        files.truncate(effect.to, 0)
        target = files.opened(effect.to)

        def over(answer: list[Any], _: list[int]) -> None:
            self._tell(Decoded(effect.file, effect.to, files.measure(effect.to), answer[0]))

        most = min(effect.most, files.left)
        self._network.questions.ask(over, "decode", effect.form, most, descriptors=(source.fd, target.fd))

    def _on_file(self, file: str, carry_out: Callable[[], None]) -> None:
        try:
            carry_out()
        except OSError as problem:
            self._tell(Failed(file, problem.errno or errno.EIO))
