"""WebSocket from a client's side: ping and pong (RFC 6455 sections 5.2, 5.5.2 and 5.5.3).

Frames are followed by their headers alone: extensions of the connection are unknown, since its handshake came before the capture,
and payloads of data frames are not kept. A pong that nobody has asked for is legal, and so is a second one to the same ping, from the program.
"""

from locum.apps.keep_alive.conversation import Heard
from locum.roles.action_values.addresses import Randomness

DATA, CONTROL = (0, 1, 2), (8, 9, 10)
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
TOKEN = b"locum"
"""The payload of this proxy's pings, and of the pongs to them."""
MAX_CONTROL = 125
"""Bytes of a control frame's payload."""
_FINAL, _RESERVED, _MASKED = 0x80, 0x70, 0x80


def frame(opcode: int, payload: bytes, random: Randomness) -> bytes:
    """A whole masked frame of at most 65,535 bytes, as a client sends it."""
    key = random.getrandbits(32).to_bytes(4, "big")
    masked = bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))
    size = len(payload)
    length = bytes((_MASKED | size,)) if size < 126 else bytes((_MASKED | 126,)) + size.to_bytes(2, "big")
    return bytes((_FINAL | opcode,)) + length + key + masked


class WebSocket:
    """The server's pings are answered with their payload; pongs are no news."""

    def __init__(self, random: Randomness) -> None:
        self.lost = False
        self.data_frames = self.control_frames = 0
        self._random = random
        self._head = b""
        self._opcode = 0
        self._rest = 0
        self._payload = b""  # of a control frame
        self._at = self._start = 0  # positions of the next byte and of the frame

    @property
    def between(self) -> bool:
        """True if the last byte has ended a frame."""
        return not self._rest and not self._head

    def ping(self, random: Randomness) -> bytes:
        return frame(PING, TOKEN, random)

    def says(self, text: str, random: Randomness) -> bytes:
        """A text message."""
        return frame(TEXT, text.encode(), random)

    def received(self, data: bytes) -> Heard:
        answers: list[bytes] = []
        spent: list[tuple[int, int]] = []
        news = place = 0
        while place < len(data) and not self.lost:
            if not self._rest:
                if not self._head:
                    self._start = self._at + place
                self._head += data[place : place + 1]
                place += 1
                if (length := self._length()) is None:
                    continue
                self._opcode, self._rest, self._payload = self._head[0] & 15, length, b""
                news += len(self._head) if self._opcode in DATA else 0
                self._head = b""
                self.data_frames += self._opcode in DATA
                self.control_frames += self._opcode in CONTROL
            begin, place = place, min(place + self._rest, len(data))
            self._rest -= place - begin
            if self._opcode in DATA:
                news += place - begin
                continue
            self._payload += data[begin:place]
            if self._rest:
                continue
            if self._opcode == PING:
                answers.append(frame(PONG, self._payload, self._random))
            elif self._opcode == PONG and self._payload == TOKEN:
                spent.append((self._start, self._at + place - self._start))
        if self.lost:
            news += len(self._head)
            self._head = b""
        self._at += len(data)
        return Heard(tuple(answers), news + len(data) - place, spent=tuple(spent))

    def _length(self) -> int | None:
        """The length of the payload, once the header is there; sets `lost` where it is none of a server."""
        first, opcode = self._head[0], self._head[0] & 15
        control = opcode in CONTROL
        if opcode not in (*DATA, *CONTROL) or (control and first & (_FINAL | _RESERVED) != _FINAL):
            self.lost = True
        if len(self._head) < 2 or self.lost:
            return None
        short = self._head[1]
        if short & _MASKED or (control and short > MAX_CONTROL):
            self.lost = True
            return None
        size = {126: 2, 127: 8}.get(short, 0)
        if len(self._head) < 2 + size:
            return None
        length = int.from_bytes(self._head[2:], "big") if size else short
        if length >> 63 or (size == 2 and length < 126) or (size == 8 and length < 1 << 16):
            self.lost = True
            return None
        return length
