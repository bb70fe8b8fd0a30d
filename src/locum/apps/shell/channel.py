"""The packets between a proxy's process and its stand-in: CBOR arrays over a pair of SOCK_SEQPACKET sockets.

Descriptors of sockets come with answers (SCM_RIGHTS), and go with connections that the device takes over.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cbor2

from locum.roles.app_contract import (
    MAX_REPLACEMENT,
    Effect,
    Keep,
    Leave,
    Note,
    Replace,
    Speak,
    Tell,
    checked_state,
)
from locum.roles.app_network import Capture

PACKET = 192 << 10
"""Bytes, more than any packet has."""
PIECE = 64 << 10
"""Bytes of effects in one packet, or little more."""
MAX_NOTE = 1000
"""Characters."""
MOST_DESCRIPTORS = 4
"""In one packet."""

Answered = Callable[[list[Any], list[int]], None]
"""Gets an answer, whose first item is empty or a reason, and the descriptors that came with it, which it owns."""


class Channel:
    """The process's end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._kept = b""

    def fileno(self) -> int:
        """To wait for packets."""
        return self._socket.fileno()

    def receive(self) -> tuple[list[Any], list[int]] | None:
        """The next packet and the descriptors that came with it, which are the caller's; None: the stand-in is gone."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, PACKET, MOST_DESCRIPTORS)
        return (cbor2.loads(data), descriptors) if data else None

    def send(self, *packet: object, descriptors: Sequence[int] = ()) -> None:
        """Waits while the stand-in has other work."""
        data = cbor2.dumps(list(packet), canonical=True)
        if descriptors:
            socket.send_fds(self._socket, [data], list(descriptors))
        else:
            self._socket.send(data)

    def _changed(self, effects: Sequence[Effect]) -> Iterator[Effect | bytes]:
        """The effects without states that another replaces, and with a state as CBOR, if it is not the one before."""
        last = max((place for place, one in enumerate(effects) if isinstance(one, Keep)), default=-1)
        for place, effect in enumerate(effects):
            if not isinstance(effect, Keep):
                yield effect
            elif place == last and (state := cbor2.dumps(checked_state(dict(effect.state)))) != self._kept:
                self._kept = state
                yield state

    def effects(self, name: str, effects: Iterable[Effect], *more: object) -> None:
        """Send them in pieces (`more`); the stand-in carries all of them out when the last piece is there, or none.

        The last piece has further items.
        """
        piece: list[list[object]] = []
        size = 0
        for effect in self._changed(list(effects)):
            for item in _items(effect):
                length = len(cbor2.dumps(item))
                if piece and size + length > PIECE:
                    self.send("more", piece)
                    piece, size = [], 0
                piece.append(item)
                size += length
        self.send(name, piece, *more)


class Questions:
    """Requests for sockets and names, which the stand-in answers in any order. They are not repeated for another process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asked: dict[int, Answered] = {}
        self._last = 0

    def ask(self, then: Answered, *question: object, descriptors: Sequence[int] = ()) -> None:
        """Call `then` with the answer; the stand-in gets these descriptors with the question."""
        self._last += 1
        self._asked[self._last] = then
        self._channel.send("ask", self._last, *question, descriptors=descriptors)

    def answer(self, number: int, answer: list[Any], descriptors: list[int]) -> None:
        """The answer to one of them has come."""
        then = self._asked.pop(number, None)
        if then is None:
            close(descriptors)
        else:
            then(answer, descriptors)


def close(descriptors: Iterable[int]) -> None:
    """Close descriptors that nobody wants any more."""
    for descriptor in descriptors:
        os.close(descriptor)


def _items(effect: Effect | bytes) -> list[list[object]]:
    """The effect as arrays of at most PIECE bytes each, or little more."""
    match effect:
        case Speak(session, data):
            starts = range(0, max(len(data), 1), PIECE)
            return [["speak", session, data[start : start + PIECE]] for start in starts]
        case Replace(session, start, length, data):
            if len(data) > MAX_REPLACEMENT:
                raise ValueError(f"a replacement has at most {MAX_REPLACEMENT} bytes")
            return [["replace", session, start, length, data]]
        case Tell(kind, session, detail):
            return [["tell", kind, session, dict(detail)]]
        case Note(text):
            return [["note", text[:MAX_NOTE]]]
        case bytes(state):
            return [["keep", state]]
        case Capture(per_second):
            return [["capture", per_second]]
        case Leave(session, reason):
            return [["leave", session, reason[:MAX_NOTE]]]
        case _:
            raise TypeError(f"no effect of the contract: {type(effect).__name__}")
