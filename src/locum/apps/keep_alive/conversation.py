"""One captured connection as a keep-alive proxy sees it: what is said when, and what arriving bytes mean.

A capture may begin in the middle of a message of the correspondent. A conversation that cannot follow the bytes any more
says so by `lost`: it answers nothing from then on.
"""

from dataclasses import dataclass
from typing import Protocol

from locum.apps.keep_alive.published import Published
from locum.roles.action_values.addresses import Randomness

TLS_VERSIONS = (b"\x03\x00", b"\x03\x01", b"\x03\x02", b"\x03\x03", b"\x03\x04")


@dataclass(frozen=True, slots=True)
class Heard:
    """Arriving bytes: the answers to be sent at once, and how many bytes are news for the program.

    `leave` is why nothing may be said in this connection after all. `spent` are answers to this proxy's own words, each by its
    position in the bytes that the conversation has received, and its length. `published` are messages of a broker; None: one that
    could not be read.
    """

    answers: tuple[bytes, ...] = ()
    news: int = 0
    leave: str = ""
    spent: tuple[tuple[int, int], ...] = ()
    published: tuple[Published | None, ...] = ()


class Conversation(Protocol):
    """A connection of one protocol, seen from the client."""

    @property
    def lost(self) -> bool:
        """True if arriving bytes cannot be followed."""

    def ping(self, random: Randomness) -> bytes:
        """The bytes of a keep-alive; empty: nothing may be said now."""

    def received(self, data: bytes) -> Heard:
        """Bytes of the correspondent, in order."""


def is_tls(data: bytes) -> bool:
    """True if the bytes begin as a TLS record does (RFC 8446 section 5.1), of a length that a record can have."""
    return (
        len(data) >= 5
        and 20 <= data[0] <= 23
        and data[1:3] in TLS_VERSIONS
        and 0 < int.from_bytes(data[3:5], "big") <= (1 << 14) + 2048
    )


class Fixed:
    """The same words each time, whatever arrives: a payload of the user, or white space."""

    lost = False

    def __init__(self, words: bytes) -> None:
        self._words = words

    def ping(self, random: Randomness) -> bytes:
        return self._words

    def received(self, data: bytes) -> Heard:
        return Heard(news=len(data))


class Sip:
    """SIP over TCP: double CRLF, answered by CRLF (RFC 5626 section 4.4.1)."""

    lost = False

    def ping(self, random: Randomness) -> bytes:
        return b"\r\n\r\n"

    def received(self, data: bytes) -> Heard:
        return Heard(news=len(data.strip(b"\r\n")))
