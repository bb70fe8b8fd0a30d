"""IRC from a client's side: PING in both directions (RFC 1459 section 4.6.2, RFC 2812 section 3.7.2)."""

from locum.apps.keep_alive.conversation import Heard
from locum.roles.action_values.addresses import Randomness

TOKEN = "locum"
MAX_SAID = 510
"""Bytes of a line that a client sends, without its end (RFC 2812 section 2.3)."""
MAX_LINE = 8191 + 512
"""Bytes of a line with its tags (IRCv3 message tags); a longer one is passed over."""


class Irc:
    """A server's PING is answered with its own words; a PONG to this proxy is no news."""

    lost = False

    def __init__(self) -> None:
        self._line = b""
        self._skipping = False
        self._at = 0  # bytes received before the line that has not ended

    def ping(self, random: Randomness) -> bytes:
        return f"PING :{TOKEN}\r\n".encode()

    def says(self, text: str, random: Randomness) -> bytes:
        """The first line of the text, a command of the protocol such as "AWAY :asleep"."""
        line = next(iter(text.splitlines()), "").encode()[:MAX_SAID]
        return line + b"\r\n" if line else b""

    def received(self, data: bytes) -> Heard:
        answers: list[bytes] = []
        news = 0
        spent: list[tuple[int, int]] = []
        *lines, rest = data.split(b"\n")
        for piece in lines:
            line, self._line = self._line + piece, b""
            start, self._at = self._at, self._at + len(line) + 1
            if self._skipping:
                self._skipping = False
            elif (answer := _answer(line)) is not None:
                answers.append(answer)
                continue
            elif _is_pong(line):
                spent.append((start, len(line) + 1))
                continue
            news += len(line) + 1
        self._line += rest
        if len(self._line) > MAX_LINE:
            news += len(self._line)
            self._at += len(self._line)
            self._line, self._skipping = b"", True
        return Heard(tuple(answers), news, spent=tuple(spent))


def _words(line: bytes) -> tuple[bytes, bytes]:
    """The command in capitals, and everything behind it; tags and prefix are left out."""
    rest = line.rstrip(b"\r")
    for mark in (b"@", b":"):
        if rest.startswith(mark):
            rest = rest.partition(b" ")[2].lstrip(b" ")
    command, _, words = rest.partition(b" ")
    return command.upper(), words.strip(b" ")


def _answer(line: bytes) -> bytes | None:
    command, words = _words(line)
    return b"PONG " + words + b"\r\n" if command == b"PING" and words else None


def _is_pong(line: bytes) -> bool:
    command, words = _words(line)
    return command == b"PONG" and words.endswith(TOKEN.encode())
