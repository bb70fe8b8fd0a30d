"""MQTT from a client's side: PINGREQ, and the packets of a broker by their fixed header (MQTT 3.1.1 section 2.2, MQTT 5 section 2.1)."""

from locum.apps.keep_alive.conversation import Heard
from locum.roles.action_values.addresses import Randomness

PINGREQ = b"\xc0\x00"
PINGRESP = 13
FROM_BROKER = {2: 0, 3: None, 4: 0, 5: 0, 6: 2, 7: 0, 9: 0, 11: 0, 13: 0, 14: 0, 15: 0}
"""Packet types that a broker sends, and their flags; None: any."""


class Mqtt:
    """Everything but a PINGRESP is news. The first one may be for a PINGREQ of the program, and is left for it."""

    def __init__(self) -> None:
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
        while place < len(data) and not self.lost:
            if self._rest:
                taken = min(self._rest, len(data) - place)
                self._rest -= taken
                news += taken
                place += taken
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
            self._head, self._rest = b"", length
        if self.lost:
            news += len(self._head)
            self._head = b""
        self._at += len(data)
        return Heard(news=news + len(data) - place, spent=tuple(spent))

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
