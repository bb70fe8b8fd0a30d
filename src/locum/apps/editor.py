"""A proxy that edits lines of its correspondent: it leaves out, shortens and lengthens them (A1).

It is an example of a proxy that consumes bytes, for a scenario; no entry point of this package names it. A part of a line that has arrived is kept, so that the next process of the proxy edits the whole line in its place.
"""

from collections.abc import Mapping, Sequence

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Replace, Speak
from locum.wire.control import Flow

PORT = 7010
REPEATED = 40
ANSWER = b"not here\n"
"""To a line that begins with a question mark, and is left out."""


def edited(line: bytes) -> bytes:
    """The line, which ends with a line feed, as the program gets it: its first character says what is done to it."""
    match line[:1]:
        case b"-" | b"?":
            return b""
        case b"=":
            return b"%d\n" % len(line)
        case b"+":
            return line * REPEATED
    return line


class Editor:
    """Of all connections to PORT."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        self._next: dict[int, int] = {}  # position behind the bytes that it was shown
        self._parts: dict[int, bytes] = {}  # of a line that has not ended

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> object:
        return dict(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        return flow.peer_port == PORT

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        parts = state.get("parts")
        kept = parts if isinstance(parts, dict) else {}
        self._next = {session.number: session.shown for session in sessions}
        self._parts = {number: kept.get(str(number), b"") for number in self._next}
        return []

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        *lines, self._parts[session] = (self._parts[session] + data).splitlines(keepends=True) or [b""]
        if self._parts[session].endswith(b"\n"):
            lines.append(self._parts[session])
            self._parts[session] = b""
        self._next[session] += len(data)
        start = self._next[session] - len(self._parts[session]) - sum(map(len, lines))
        effects: list[Effect] = []
        for line in lines:
            if line.startswith(b"?"):
                effects.append(Speak(session, ANSWER))
            if (instead := edited(line)) != line:
                effects.append(Replace(session, start, len(line), instead))
            start += len(line)
        parts = {str(number): part for number, part in self._parts.items() if part}
        return [*effects, Keep({"parts": parts})]

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return []

    def timeout(self, *, now: float) -> list[Effect]:
        return []

    def deadline(self) -> float | None:
        return None

    def end(self, *, now: float) -> Mapping[str, object]:
        return {}
