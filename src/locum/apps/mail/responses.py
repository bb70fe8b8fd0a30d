"""Responses of an IMAP server (RFC 9051 section 7): bytes in, values out.

Only responses that a watcher of a mailbox asks for are read closely; others come as `Other`. Every length that a server names is
bounded before bytes of it are kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_RESPONSE = 64 << 10
"""Bytes of one response with its literals: a watcher asks for 4 KiB of headers at most."""
MAX_DEPTH = 16
"""Lists within lists."""
LARGEST = (1 << 32) - 1
"""Numbers are below 2^32 (RFC 9051 section 9, number); sizes may need more."""
LARGEST_SIZE = (1 << 63) - 1

Value: TypeAlias = "bytes | list[Value]"

_LITERAL = re.compile(rb"\{(\d{1,10})\}$")
_TOKEN = re.compile(
    rb' +|(?P<open>\()|(?P<close>\))|"(?P<quoted>(?:[^"\\\r\n]|\\["\\])*)"'
    rb'|(?P<atom>[^\x00-\x20()"{\[\]]+(?:\[[^\]\r\n]*\](?:<\d+>)?)?)'
)


class ImapError(ValueError):
    """A server that does not speak IMAP; the message is for users."""


@dataclass(frozen=True, slots=True)
class Continue:
    """The server waits for more of a command (`+`)."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Status:
    """OK, NO, BAD, BYE or PREAUTH. `tag` is empty for one that answers no command; `code` is in capitals, such as `UIDNEXT`."""

    tag: str
    word: str
    code: str
    arguments: str
    text: str


@dataclass(frozen=True, slots=True)
class Capability:
    """Capabilities of the server, in capitals."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Count:
    """EXISTS, RECENT (how many messages there are) or EXPUNGE (the number of one that has gone)."""

    number: int
    word: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Attributes of one message, by name in capitals."""

    number: int
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Other:
    """A response that nothing is done with."""


Response: TypeAlias = Continue | Status | Capability | Count | Fetch | Other


@dataclass(slots=True)
class Reader:
    """Cuts a stream into responses. `behind`: bytes that are no whole response yet."""

    _buffer: bytearray = field(default_factory=bytearray)
    _pieces: list[bytes] = field(default_factory=list)  # text and literals of the response in turn
    _size: int = 0
    _literal: int | None = None  # bytes of the literal that comes

    def feed(self, data: bytes) -> Iterator[Response]:
        """Responses that these bytes complete. Raises ImapError."""
        self._buffer += data
        while (pieces := self._next()) is not None:
            yield parse(pieces)
        if self._size + len(self._buffer) > MAX_RESPONSE:
            raise ImapError(f"a response has more than {MAX_RESPONSE} bytes")

    @property
    def behind(self) -> bool:
        """True if bytes are left of which no response was made."""
        return bool(self._buffer or self._pieces)

    def _next(self) -> list[bytes] | None:
        while True:
            if self._literal is not None:
                if len(self._buffer) < self._literal:
                    return None
                self._take(self._literal)
                self._literal = None
            end = self._buffer.find(b"\n")
            if end < 0:
                return None
            line = self._take(end + 1).rstrip(b"\r\n")
            if found := _LITERAL.search(line):
                self._literal = int(found[1])
                self._pieces[-1] = line[: found.start()]
                if self._size + self._literal > MAX_RESPONSE:
                    raise ImapError(f"a literal of {self._literal} bytes was not asked for")
                continue
            self._pieces[-1] = line
            pieces, self._pieces, self._size = self._pieces, [], 0
            return pieces

    def _take(self, count: int) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._pieces.append(piece)
        self._size += count
        return piece


def parse(pieces: Sequence[bytes]) -> Response:
    """One response: text, literal, text, and so on. Raises ImapError."""
    first = pieces[0]
    tag, _, rest = first.partition(b" ")
    if tag == b"+":
        return Continue(rest)
    if not tag.isascii() or not tag or not rest:
        raise ImapError(f"this is no response of an IMAP server: {_shown(first)}")
    word, _, text = rest.partition(b" ")
    name = word.upper().decode("ascii", "replace")
    owner = "" if tag == b"*" else tag.decode("ascii")
    if name in ("OK", "NO", "BAD", "BYE", "PREAUTH"):
        return _status(owner, name, text)
    if owner:
        raise ImapError(f"a command has another end than OK, NO and BAD: {_shown(first)}")
    if name == "CAPABILITY":
        return Capability(_names(text))
    if word.isdigit():
        kind, _, text = text.partition(b" ")
        return _numbered(_number(word, LARGEST), kind.upper(), [text, *pieces[1:]])
    return Other()


def _status(tag: str, word: str, text: bytes) -> Status:
    code = arguments = b""
    if text.startswith(b"["):
        inner, bracket, text = text[1:].partition(b"]")
        if not bracket:
            raise ImapError(f"a response code has no end: {_shown(inner)}")
        code, _, arguments = inner.partition(b" ")
    return Status(tag, word, _shown(code.upper()), _shown(arguments), _shown(text.strip()))


def _names(text: bytes) -> frozenset[str]:
    return frozenset(_shown(text.upper()).split())


def capabilities(status: Status) -> frozenset[str] | None:
    """The capabilities in a response code, if it has them (RFC 9051 section 7.1)."""
    return frozenset(status.arguments.upper().split()) if status.code == "CAPABILITY" else None


def _numbered(number: int, kind: bytes, pieces: Sequence[bytes]) -> Response:
    if kind in (b"EXISTS", b"RECENT", b"EXPUNGE"):
        return Count(number, kind.decode())
    if kind != b"FETCH":
        return Other()
    values = _values(pieces)
    if len(values) != 1 or not isinstance(values[0], list) or len(values[0]) % 2:
        raise ImapError("FETCH has no list of pairs")
    items = values[0]
    attributes: dict[str, Value] = {}
    for name, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(name, bytes):
            raise ImapError("an attribute of FETCH has no name")
        attributes[_shown(name.upper())] = value
    return Fetch(number, attributes)


def _values(pieces: Sequence[bytes]) -> list[Value]:
    """Atoms, strings and lists (RFC 9051 section 4); pieces at odd places are literals."""
    top: list[Value] = []
    open_lists = [top]
    for place, piece in enumerate(pieces):
        if place % 2:
            open_lists[-1].append(piece)
            continue
        position = 0
        while position < len(piece):
            found = _TOKEN.match(piece, position)
            if found is None:
                raise ImapError(f"neither an atom nor a string: {_shown(piece[position : position + 20])}")
            position = found.end()
            _add(open_lists, found)
    if len(open_lists) > 1:
        raise ImapError("a list has no end")
    return top


def _add(open_lists: list[list[Value]], found: re.Match[bytes]) -> None:
    match found.lastgroup:
        case "open":
            if len(open_lists) > MAX_DEPTH:
                raise ImapError(f"lists are nested more than {MAX_DEPTH} deep")
            inner: list[Value] = []
            open_lists[-1].append(inner)
            open_lists.append(inner)
        case "close":
            if len(open_lists) == 1:
                raise ImapError("a list ends that has not begun")
            open_lists.pop()
        case "quoted":
            open_lists[-1].append(re.sub(rb"\\(.)", rb"\1", found["quoted"]))
        case "atom":
            open_lists[-1].append(found["atom"])


def number(value: "Value | None", largest: int = LARGEST) -> int | None:
    """The value as a number; None if it is none. Raises ImapError for one that is too large."""
    return _number(value, largest) if isinstance(value, bytes) and value.isdigit() else None


def _number(digits: bytes, largest: int) -> int:
    if len(digits) > 20 or (found := int(digits)) > largest:
        raise ImapError(f"a number is too large: {_shown(digits[:30])}")
    return found


def _shown(text: bytes) -> str:
    """Printable characters, at most 200."""
    said = text[:200].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in said)
