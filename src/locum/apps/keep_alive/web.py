"""A connection at a port of HTTP: an idle one, in which nothing may be said, or a WebSocket, once its frames show it.

HTTP/1.1 has no word that a client could say between two requests (RFC 9112 section 9.8): its server ends idle connections when it likes.
A WebSocket's frames have no mark of their own, and payloads may be compressed. They are believed when everything since the capture has
been whole frames, for so long that other bytes would be taken for them less than once in a million times. A pause behind a ping is evidence
too: a server that waits for the pong sends nothing else. A connection that was a WebSocket in an earlier sleep is still one.
"""

from locum.apps.keep_alive.conversation import Heard, is_tls
from locum.apps.keep_alive.websocket import WebSocket
from locum.roles.action_values.addresses import Randomness

SURE = 20
"""Bits of evidence."""
DATA_BITS, CONTROL_BITS, FIT_BITS = 5, 8, 7
"""Evidence in the first byte of a data frame and a control frame, and in an arrival that begins and ends with frames."""
QUIET, QUIET_BITS = 1.0, 5
"""Seconds without a byte behind a ping, and the evidence in them: a body of so few bytes, of just this length, is rare and goes on sooner."""
PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a picture, which a ping may have as well."""
MAX_PINGS = 8
"""Pings of the server that wait for `SURE`."""


class Web:
    """Silent until `sure`."""

    def __init__(self, random: Randomness) -> None:
        self.sure = False
        self._socket = WebSocket(random)
        self._head = b""
        self._bits = 0
        self._waiting: tuple[bytes, ...] = ()

    @property
    def lost(self) -> bool:
        """HTTP has nothing that is followed."""
        return self.sure and self._socket.lost

    @property
    def waits(self) -> bool:
        """True if a ping may have been the last that arrived: `quiet` follows unless something comes in QUIET seconds."""
        return bool(self._waiting) and self._socket.between and not self._head.startswith(PNG)

    def quiet(self) -> tuple[bytes, ...]:
        """Answers to be sent at once, if the pause makes it sure."""
        self._bits += QUIET_BITS
        return self._answers()

    def trust(self) -> None:
        """It was a WebSocket before."""
        self.sure = True

    def ping(self, random: Randomness) -> bytes:
        return self._socket.ping(random) if self.sure and not self._socket.lost else b""

    def says(self, text: str, random: Randomness) -> bytes:
        """A text message, once it is sure that there is a WebSocket; empty before."""
        return self._socket.says(text, random) if self.sure and not self._socket.lost else b""

    def received(self, data: bytes) -> Heard:
        if self.sure:
            return self._socket.received(data)
        if len(self._head) < len(PNG):
            self._head += data[: len(PNG)]
            if is_tls(self._head):
                return Heard(leave="it is encrypted (TLS): a keep-alive would need the connection's keys")
        if self._socket.lost:
            return Heard(news=len(data))
        answers, news = self._weigh(data)
        return Heard(answers, news)

    def _weigh(self, data: bytes) -> tuple[tuple[bytes, ...], int]:
        """Take the bytes as frames; answers to earlier pings come with the bytes that make it sure."""
        one = self._socket
        began, data_frames, control_frames = one.between, one.data_frames, one.control_frames
        heard = one.received(data)
        if one.lost:
            self._waiting = ()
            return (), heard.news
        self._waiting = (*self._waiting, *heard.answers)[-MAX_PINGS:]
        self._bits += DATA_BITS * (one.data_frames - data_frames)
        self._bits += CONTROL_BITS * (one.control_frames - control_frames)
        self._bits += FIT_BITS if began and one.between else 0
        return self._answers(), heard.news

    def _answers(self) -> tuple[bytes, ...]:
        self.sure = self._bits >= SURE
        answers, self._waiting = (self._waiting, ()) if self.sure else ((), self._waiting)
        return answers
