"""A captured HTTP/1.1 connection of the device: when is the body that it waits for complete (A4)?

The program has sent its request before it fell asleep. The proxy reads the answer from its first byte, if none had arrived by
then: its framing tells the end (RFC 9112 section 6). Of an answer in whose middle the device fell asleep the proxy does not
know the length.
"""

from collections.abc import Mapping

from locum.apps.download.digests import Digests, Running, of_representation
from locum.apps.download.response import End, Head, HttpError, Response
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Effect, Leave, Note, Tell

_BEGINNING = b"HTTP/1."
MIDDLE = "the device fell asleep in the middle of an answer, whose length is not known"


class Following:
    """One connection; `quiet` in seconds: an answer of unknown length that has stopped for so long counts as quiet; 0: never."""

    def __init__(self, number: int, quiet: float, position: int = 0, kept: object = None) -> None:
        """`position` in the received stream: not 0 after an earlier process, which has kept `kept`."""
        self.number, self._quiet, self._position = number, quiet, position
        self._known = _known(kept, position) if position else None
        self._middle = bool(position) and self._known is None
        self._first = b""
        self._response: Response | None = None
        self._head: Head | None = None
        self._running: Running | None = None
        self._told: Digests = {}
        self._size = 0
        self._last: float | None = None  # of an answer of unknown length
        self.left = False
        self.results: list[Mapping[str, JSON]] = []

    def received(self, data: bytes, *, now: float) -> list[Effect]:
        """Bytes of the server."""
        self._position += len(data)
        return self._heard(data, now)

    def _heard(self, data: bytes, now: float) -> list[Effect]:
        if self._known is not None:
            return self._counted(self._known, data, now)
        if self._last is not None:
            self._size += len(data)
            self._last = now
            return []
        if self._response is None:
            self._first += data
            if not self._middle and len(self._first) < len(_BEGINNING) and _BEGINNING.startswith(self._first):
                return []
            data, self._first = self._first, b""
            if self._middle or not data.startswith(_BEGINNING):
                return self._in_the_middle(data, now)
            self._response = Response({})
        return self._read(self._response, data, now)

    def _in_the_middle(self, data: bytes, now: float) -> list[Effect]:
        if not self._quiet:
            self.left = True
            return [Leave(self.number, MIDDLE)]
        self._size, self._last = len(data), now
        return [Note(f"session {self.number}: {MIDDLE}")]

    def _read(self, response: Response, data: bytes, now: float) -> list[Effect]:
        effects: list[Effect] = []
        try:
            for piece in response.receive(data):
                effects += self._take(piece)
        except HttpError as problem:
            self.left = True
            return [*effects, Leave(self.number, str(problem))]
        if response.over:
            self._response = None
            if response.rest:
                effects += self._heard(response.rest, now)
        return effects

    def kept(self) -> Mapping[str, int] | None:
        """For a later process: the end of the present body in the stream, if its length is known."""
        if self._known is not None:
            return self._known
        head = self._head
        if self._response is None or head is None or head.length is None:
            return None
        end = self._position - self._size + head.length
        return {"end": end, "status": head.status, "size": head.length}

    def _counted(self, known: Mapping[str, int], data: bytes, now: float) -> list[Effect]:
        """Bytes of a body whose beginning an earlier process has read."""
        beyond = self._position - known["end"]
        if beyond < 0:
            return []
        self._known = None
        effects = self._delivered({"status": known["status"], "size": known["size"], "framing": "length"})
        return effects + (self._heard(data[len(data) - beyond :], now) if beyond else [])

    def _take(self, piece: Head | bytes | End) -> list[Effect]:
        match piece:
            case Head():
                self._head, self._size = piece, 0
                told = of_representation(piece.fields) if piece.status == 200 else {}
                self._told = {name: value for name, value in told.items() if name == "sha-256"}
                self._running = Running(*self._told) if self._told else None
                length = "" if piece.length is None else f" of {piece.length} bytes"
                return [Note(f"session {self.number}: an answer {piece.status}{length}")]
            case bytes():
                self._size += len(piece)
                if self._running is not None:
                    self._running.update(piece)
                return []
            case End():
                return self._complete(piece)

    def _complete(self, end: End) -> list[Effect]:
        head = self._head
        assert head is not None
        framing = "length" if head.length is not None else "chunked" if end.told else "close"
        detail: dict[str, JSON] = {"status": head.status, "size": self._size, "framing": framing}
        if self._running is not None:
            if problem := self._running.against(self._told):
                detail["damaged"] = problem
            detail["sha256"] = self._running.hexadecimal("sha-256")
        return self._delivered(detail)

    def _delivered(self, detail: Mapping[str, JSON]) -> list[Effect]:
        self.results.append(detail)
        del self.results[:-8]
        return [Tell("delivered", self.number, detail)]

    def closed(self, error: int) -> list[Effect]:
        """The server has ended the connection."""
        self._last = self._known = None
        if self._response is not None and not error:
            response, self._response = self._response, None
            try:
                return [effect for piece in response.finish() for effect in self._take(piece)]
            except HttpError as problem:
                return [
                    Tell(
                        "session_ended",
                        self.number,
                        {"error": error, "reason": str(problem), "size": self._size},
                    )
                ]
        return [Tell("session_ended", self.number, {"error": error, "size": self._size})]

    def deadline(self) -> float | None:
        """Steady seconds."""
        return None if self._last is None else self._last + self._quiet

    def timeout(self, *, now: float) -> list[Effect]:
        """The answer of unknown length may have stopped."""
        at = self.deadline()
        if at is None or now < at:
            return []
        self._last = None
        self.left = True
        return [
            Tell("quiet", self.number, {"size": self._size, "seconds": self._quiet}),
            Leave(self.number, f"nothing has arrived for {self._quiet:.0f} seconds"),
        ]


def _known(kept: object, position: int) -> Mapping[str, int] | None:
    match kept:
        case {"end": int(end), "status": int(status), "size": int(size)} if end >= position:
            return {"end": end, "status": status, "size": size}
    return None
