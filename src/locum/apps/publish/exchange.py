"""One connection of a peer: requests in, answers out, in order (RFC 9112). h11 reads and frames; time comes in."""

from collections import deque
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Protocol

import h11

from locum.apps.publish.answers import Answer, Extent, Piece, plain
from locum.roles.app_network import Abort, Finish, NetworkEffect, Pause, Resume, Send, SendFile

MAX_HEAD = 16 << 10
"""Bytes of a request's head: 431 for more."""
MAX_BODY = 64 << 10
"""Bytes of a request's body, which nobody reads: 413 for more."""
PIECE = 128 << 10
"""Bytes of a body that are sent at a time; a peer takes each within `stall_seconds`."""
WINDOW = 256 << 10
"""Bytes that wait for a peer; meanwhile nothing of it is read."""
REMEMBERED = 2048
"""Bytes of a request that may be answered from memory the next time."""


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was answered."""

    method: str
    target: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer to the same bytes on any idle connection: `before`, the date, `after`, `body`."""

    served: Served
    before: bytes
    after: bytes
    body: bytes


class Server(Protocol):
    """The requests' side of an exchange."""

    def answer(self, request: h11.Request) -> Answer:
        """Decide."""

    def date(self) -> bytes:
        """The Date of an answer that begins now."""

    def served(self, exchange: "Exchange", served: Served) -> None:
        """Count."""

    def remember(self, raw: bytes, remembered: Remembered) -> None:
        """These bytes have this answer while the content is the same."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for a request from its first byte on, between requests, and for a piece of an answer."""

    request: float
    idle: float
    stall: float


class Exchange:
    """`since`: when it was last idle, began a request, or made progress, in steady seconds."""

    def __init__(self, number: int, peer: str, server: Server, now: float) -> None:
        self.number, self.peer, self.since = number, peer, now
        self.idle = True  # nothing read, nothing to be sent
        self.ending = False
        self.pinned: set[str] = set()  # archives of which bytes are on their way
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None
        self._body = 0
        self._pieces: deque[Piece] = deque()
        self._unsent = 0  # bytes that the kernel has not taken yet
        self._last = False  # no request follows
        self._paused = False

    @property
    def blocked(self) -> bool:
        """True while the peer has to take what it asked for before it may ask for more."""
        return bool(self._pieces) or self._unsent >= WINDOW

    def received(self, data: bytes, *, ready: bool, now: float) -> list[NetworkEffect]:
        """Bytes of the peer; empty: it sends no more. `ready` False: answer later (`go_on`)."""
        if self.ending:
            return []
        raw = data if self.idle and 0 < len(data) <= REMEMBERED else b""
        if self.idle:
            self.idle, self.since = False, now
        self._http.receive_data(data)
        if ready and not self.blocked:
            return self.go_on(now=now, raw=raw)
        if self._paused or not data:
            return []
        self._paused = True
        return [Pause(self.number)]

    def drained(self, *, now: float) -> list[NetworkEffect]:
        """The kernel has taken everything that was sent."""
        self._unsent, self.since = 0, now
        if not self._pieces:
            self.pinned.clear()
        if self.idle:
            return []
        return [] if self.ending else self.go_on(now=now)

    def said(self, length: int, *, now: float) -> None:
        """So many bytes were sent past this object, while it was idle."""
        self.since = now
        self._unsent += length
        self.idle = self._unsent < WINDOW

    def go_on(self, *, now: float, raw: bytes = b"") -> list[NetworkEffect]:
        """Send what waits, then answer what was asked, as far as the peer takes it. `raw`: all that is unread."""
        effects = self._push()
        while not self.blocked and not self._last:
            answer = self._read()
            if answer is None:
                effects += self._push()
                break
            effects += self._answer(answer, raw)
            self.since, raw = now, b""
        self.idle = not self.ending and not self.blocked and self._is_between()
        if self._paused and not self.ending and not self.blocked:
            self._paused = False
            effects.append(Resume(self.number))
        return effects

    def overdue(self, patience: Patience, *, now: float) -> list[NetworkEffect]:
        """End it if its time is over."""
        passed = now - self.since
        if self.ending or self.blocked:
            return self._end(Abort(self.number)) if passed >= patience.stall else []
        if self.idle:
            return self.finish() if passed >= patience.idle else []
        if passed < patience.request:
            return []
        return self._answer(plain(HTTPStatus.REQUEST_TIMEOUT, close=True), b"")

    def finish(self) -> list[NetworkEffect]:
        """End it after everything that was sent."""
        return self._end(Finish(self.number))

    def _end(self, effect: Finish | Abort) -> list[NetworkEffect]:
        self.ending, self.idle = True, False
        self._pieces.clear()
        return [effect]

    def _is_between(self) -> bool:
        """True if nothing of a next request is there."""
        return self._http.their_state is h11.IDLE and not self._http.trailing_data[0]

    def _read(self) -> Answer | None:
        """The answer to the next request, once it is whole."""
        try:
            return self._read_request()
        except h11.RemoteProtocolError as problem:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                return plain(problem.error_status_hint, close=True)
            self._last = True
            return None

    def _read_request(self) -> Answer | None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request, self._body = event, 0
                if self._http.they_are_waiting_for_100_continue:  # the body is of no use
                    return replace(self._server.answer(event), close=True)
            elif isinstance(event, h11.Data):
                self._body += len(event.data)
                if self._body > MAX_BODY:
                    return plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, close=True)
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                return self._server.answer(self._request)
            else:
                self._last = self._last or isinstance(event, h11.ConnectionClosed)
                return None

    def _answer(self, answer: Answer, raw: bytes) -> list[NetworkEffect]:
        """Send it, or its beginning. `raw` are the bytes of its request if they are all that came."""
        if self._request is not None and self._request.method == b"HEAD":
            answer = replace(answer, pieces=())
        date = self._server.date()
        close = (("Connection", "close"),) if answer.close else ()
        head = self._http.send(
            h11.Response(
                status_code=answer.status,
                reason=HTTPStatus(answer.status).phrase,
                headers=[("Date", date), *answer.fields, *close],
            )
        )
        assert head is not None
        for piece in answer.pieces:
            self._http.send_with_data_passthrough(h11.Data(data=piece))  # type: ignore[arg-type]
        self._http.send(h11.EndOfMessage())
        served = Served(*self._asked(), answer)
        self._request = None
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            if raw and answer.status in (200, 304) and self._is_between():
                self._remember(raw, served, head, date)
        else:
            self._last = True
        self._server.served(self, served)
        self.pinned |= {piece.site.file for piece in answer.pieces if isinstance(piece, Extent)}
        match answer.pieces:
            case (bytes(first), *rest):
                self._pieces += (head + first, *rest)
            case _:
                self._pieces += (head, *answer.pieces)
        return self._push()

    def _asked(self) -> tuple[str, str]:
        if self._request is None:
            return "-", "-"
        return self._request.method.decode("ascii"), self._request.target.decode("ascii")

    def _remember(self, raw: bytes, served: Served, head: bytes, date: bytes) -> None:
        body = b"".join(piece for piece in served.answer.pieces if isinstance(piece, bytes))
        if len(body) == served.answer.length:
            before, _date, after = head.partition(date)
            self._server.remember(raw, Remembered(served, before, after, body))

    def _push(self) -> list[NetworkEffect]:
        """As much as the window has room for."""
        effects: list[NetworkEffect] = []
        while self._pieces and self._unsent < WINDOW:
            piece = self._pieces.popleft()
            length = min(len(piece), PIECE)
            if isinstance(piece, bytes):
                effects.append(Send(self.number, piece[:length]))
                rest: Piece = piece[length:]
            else:
                effects.append(SendFile(self.number, piece.site.file, piece.offset, length))
                rest = Extent(piece.site, piece.offset + length, piece.length - length)
            self._unsent += length
            if len(rest):
                self._pieces.appendleft(rest)
        if self._last and not self._pieces and not self.ending:
            effects += self.finish()
        return effects
