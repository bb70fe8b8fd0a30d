"""MQTT from a client's side: PINGREQ, and the packets of a broker by their fixed header (MQTT 3.1.1 section 2.2, MQTT 5 section 2.1)."""

from locum.apps.keep_alive.conversation import Heard
from locum.apps.keep_alive.published import MAX_HEAD, Publications, Published
from locum.roles.action_values.addresses import Randomness

PINGREQ = b"\xc0\x00"
PUBLISH, PINGRESP = 3, 13
FROM_BROKER = {2: 0, 3: None, 4: 0, 5: 0, 6: 2, 7: 0, 9: 0, 11: 0, 13: 0, 14: 0, 15: 0}
"""Packet types that a broker sends, and their flags; None: any."""


class Mqtt:
    """Everything but a PINGRESP is news. The first one may be for a PINGREQ of the program, and is left for it."""

    def __init__(self, version: int = 4) -> None:
        """`version` of the protocol: 4 is MQTT 3.1.1."""
        self._publications = Publications(version)
        self._message: bytearray | None = None  # the beginning of a PUBLISH that is not whole yet
        self._flags = self._length_of = 0  # of that
        self.lost = False
        self._head = b""
        self._rest = 0  # bytes of the packet that are still to come
        self._at = 0  # bytes received
        self._left = False  # a PINGRESP for the program

    def ping(self, random: Randomness) -> bytes:
        return PINGREQ

    def received(self, data: bytes) -> Heard:
        news = place = 0
        spent: list[tuple[int, int]] = []
        published: list[Published | None] = []
        while place < len(data) and not self.lost:
            if self._rest:
                taken = min(self._rest, len(data) - place)
                if self._message is not None:
                    self._message += data[place : place + min(taken, MAX_HEAD - len(self._message))]
                self._rest -= taken
                news += taken
                place += taken
                if not self._rest:
                    published += self._whole()
                continue
            self._head += data[place : place + 1]
            place += 1
            if (length := self._length()) is None:
                continue
            if self._head[0] >> 4 != PINGRESP:
                news += len(self._head)
            elif self._left:
                size = len(self._head)
                spent.append((self._at + place - size, size))
            else:
                self._left = True
            if self._head[0] >> 4 == PUBLISH:
                self._message, self._flags, self._length_of = bytearray(), self._head[0] & 15, length
            self._head, self._rest = b"", length
            if not length:
                published += self._whole()
        if self.lost:
            news += len(self._head)
            self._head = b""
        self._at += len(data)
        return Heard(news=news + len(data) - place, spent=tuple(spent), published=tuple(published))

    def _whole(self) -> list[Published | None]:
        """A packet has come to its end."""
        message, self._message = self._message, None
        if message is None:
            return []
        return [self._publications.read(self._flags, bytes(message), self._length_of)]

    def _length(self) -> int | None:
        """The remaining length, once the fixed header is there; sets `lost` where it is none."""
        kind, flags = self._head[0] >> 4, self._head[0] & 15
        if kind not in FROM_BROKER or FROM_BROKER[kind] not in (None, flags):
            self.lost = True
        if len(self._head) < 2 or self.lost:
            return None
        if self._head[-1] & 0x80:
            self.lost = len(self._head) == 5
            return None
        length = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(self._head[1:]))
        if kind == PINGRESP and length:
            self.lost = True
            return None
        return length
