"""One HTTP/1.1 response as it arrives (RFC 9112): bytes in, its head, its body and its end out.

h11 reads heads and chunks. A body with a length, or one that lasts until the connection ends, is passed on as it came.
A server that goes on for ever is stopped by a bound, and `HttpError` says by which.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import h11

MAX_HEAD = 32 << 10
"""Bytes of one head, of trailers, or of one chunk's first line; Apache and nginx take 8 to 32 KiB of a client."""
MAX_INFORMATIONAL = 16
"""Responses 1xx before the final one: 103 comes several times, nothing else does (RFC 9110 section 15.2)."""
_PIECE = 16 << 10  # bytes of a head at a time: h11 bounds only heads that are not complete


class HttpError(Exception):
    """The response cannot be followed; the message is for users."""


@dataclass(frozen=True, slots=True)
class Head:
    """Names of fields are in lower case; fields of the same name are joined by commas. `length` None: not told."""

    status: int
    fields: Mapping[str, str]
    length: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The body is complete. `told` is False where only the end of the connection says so."""

    trailers: Mapping[str, str] = field(default_factory=dict)
    told: bool = True


Piece: TypeAlias = Head | bytes | End


class Response:
    """The response to a request, which `request` has as bytes."""

    def __init__(
        self, fields: Mapping[str, str], *, method: str = "GET", target: str = "/", host: str = "captured"
    ) -> None:
        self._head_only = method == "HEAD"
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        named = {"Host": host, **fields}
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in named.items()]
        asked = self._h11.send(h11.Request(method=method, target=target, headers=headers))
        self.request = (asked or b"") + (self._h11.send(h11.EndOfMessage()) or b"")
        self._informational = 0
        self._left: int | None = None  # bytes of a body with a length
        self._until_end = False
        self._chunked = False
        self.headed = False
        self.over = False
        self.rest = b""
        """Bytes behind its end."""

    def receive(self, data: bytes) -> list[Piece]:
        """Bytes of the server. Raises HttpError."""
        if self.over:
            self.rest += data[:MAX_HEAD]
            return []
        if self._until_end or self._left is not None:
            return self._plain(data)
        found: list[Piece] = []
        start = 0
        while start < len(data):
            piece = data[start : start + (len(data) if self.headed else _PIECE)]
            start += len(piece)
            self._h11.receive_data(piece)
            found += self._events()
            if found and isinstance(found[-1], Head) and not self._chunked:
                waiting, _ = self._h11.trailing_data
                return found + self._plain(waiting + data[start:])
            if found and isinstance(found[-1], End):
                waiting, _ = self._h11.trailing_data
                self.rest = waiting + data[start:]
                break
        return found

    def finish(self) -> list[Piece]:
        """The server sends no more. Raises HttpError if something is missing."""
        if self.over:
            return []
        if self._until_end:
            self.over = True
            return [End(told=False)]
        raise HttpError(
            "the server ended the connection " + ("in the body" if self.headed else "without an answer")
        )

    def _plain(self, data: bytes) -> list[Piece]:
        if self._left is None:
            return [data] if data else []
        found: list[Piece] = []
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        if data:
            found.append(data)
        if self._left == 0:
            self.over = True
            found.append(End())
        return found

    def _events(self) -> list[Piece]:
        found: list[Piece] = []
        body: list[bytes] = []
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as problem:
                raise HttpError(f"the server's answer is no HTTP: {problem}"[:200]) from problem
            match event:
                case h11.InformationalResponse():
                    self._informational += 1
                    if self._informational > MAX_INFORMATIONAL:
                        raise HttpError("the server goes on with answers 1xx")
                    continue
                case h11.Response():
                    found.append(self._head(event))
                    if self._until_end or self._left is not None:
                        return found
                    continue
                case h11.Data(data=data):
                    body.append(bytes(data))
                    continue
                case h11.EndOfMessage():
                    self.over = True
            if body:
                found.append(b"".join(body))
            if isinstance(event, h11.EndOfMessage):
                found.append(End(_joined(event.headers)))
            return found

    def _head(self, event: h11.Response) -> Head:
        self.headed = True
        fields = _joined(event.headers)
        if "transfer-encoding" in fields and not self._head_only:
            self._chunked = True
            return Head(event.status_code, fields)
        length = int(fields["content-length"]) if "content-length" in fields else None
        if self._head_only or event.status_code in (204, 304):
            self._left = 0
        elif length is None:
            self._until_end = True
        else:
            self._left = length
        return Head(event.status_code, fields, length)


def _joined(headers: object) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for name, value in headers:  # type: ignore[attr-defined]
        key, text = name.decode("latin-1"), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields
