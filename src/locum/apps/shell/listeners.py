"""The listeners of a proxy: asked for at the stand-in, read as far as there is room for connections, ended."""

import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from locum.apps.shell.channel import Questions, close
from locum.apps.shell.listener import Listener
from locum.apps.shell.names import Names
from locum.apps.shell.readiness import Readiness
from locum.roles.app_network import UDP, Ended, Happening, Listen, Opened, SendTo

_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Listeners:
    """`room` is how many connections may still be accepted; `accepted` gets each one."""

    def __init__(
        self,
        readiness: Readiness,
        questions: Questions,
        happenings: deque[Happening],
        room: Callable[[], int],
        accepted: Callable[[Listener, socket.socket, str, int], None],
    ) -> None:
        self._readiness, self._questions, self._happenings = readiness, questions, happenings
        self._room, self._accepted = room, accepted
        self._names = Names(lambda host, then: questions.ask(then, "resolve", host))
        self._all: dict[int, Listener] = {}
        self._full: list[Listener] = []  # not read until a connection ends

    def __len__(self) -> int:
        return len(self._all)

    def get(self, number: int) -> Listener | None:
        """The listener of this number."""
        return self._all.get(number)

    def listen(self, effect: Listen) -> None:
        """Ask for its sockets."""
        listener = self._all[effect.listener] = Listener(effect.listener, effect.port, effect.protocol)
        self._questions.ask(partial(self._made, listener), "listen", effect.port, effect.protocol)

    def _made(self, listener: Listener, answer: list[Any], descriptors: list[int]) -> None:
        if self._all.get(listener.number) is not listener:
            close(descriptors)
            return
        if answer[0] or not descriptors:
            del self._all[listener.number]
            self._happenings.append(Ended(listener.number, answer[0] or "the stand-in gave no socket"))
            return
        for at, descriptor in enumerate(descriptors):
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            listener.sockets.append(sock)
            self._readiness.watch(descriptor, 0, partial(self._arrived, listener, at))
        self._watch(listener)
        listener.opened()
        self._happenings.append(Opened(listener.number))

    def _watch(self, listener: Listener) -> None:
        for sock in listener.sockets:
            waits = listener.paused or listener in self._full
            self._readiness.change(sock.fileno(), 0 if waits else select.EPOLLIN)

    def pause(self, listener: Listener, *, paused: bool) -> None:
        """Read it no more, or again."""
        listener.paused = paused
        self._watch(listener)

    def send(self, effect: SendTo) -> None:
        """A datagram."""
        listener = self._all.get(effect.listener)
        if listener is not None:
            self._names.find(effect.host, lambda address: listener.send(address, effect.port, effect.data))

    def end(self, listener: Listener) -> None:
        """It listens no more; the stand-in gives the port back."""
        self.close(listener)
        del self._all[listener.number]
        if listener in self._full:
            self._full.remove(listener)
        self._questions.ask(lambda _answer, _descriptors: None, "unlisten", listener.port, listener.protocol)
        self._happenings.append(Ended(listener.number))

    def close(self, listener: Listener) -> None:
        """Its sockets."""
        for sock in listener.sockets:
            self._readiness.forget(sock.fileno())
            sock.close()

    def close_all(self) -> None:
        """The process ends."""
        for listener in self._all.values():
            self.close(listener)

    def has_room(self) -> None:
        """A connection has ended."""
        if self._full and self._room() > 0:
            full, self._full = self._full, []
            for listener in full:
                self._watch(listener)

    def _arrived(self, listener: Listener, at: int, _mask: int) -> None:
        if listener.protocol == UDP:
            for datagram in listener.datagrams(at):
                self._names.heard(datagram.peer)
                self._happenings.append(datagram)
            return
        lacking = False
        try:
            for sock, peer, port in listener.accept(at, self._room()):
                self._accepted(listener, sock, peer, port)
        except OSError as problem:
            if problem.errno not in _LACKS:
                raise
            lacking = True
        if lacking or self._room() <= 0:
            self._full.append(listener)
            self._watch(listener)
