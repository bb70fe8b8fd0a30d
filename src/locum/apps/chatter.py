"""A proxy that tells many events at once while its device sleeps, for a scenario; no entry point of this package names it."""

from collections.abc import Mapping, Sequence

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, SettingError, Tell
from locum.wire.control import Flow

KIND = "noise"
"""Of its events."""
DELAY = 2.0
"""Seconds from its begin to the first event: its device is asleep then."""
_AT_ONCE = 1_000


class Chatter:
    """Tells `events` events, numbered from 0 on, as fast as it can."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, int)
        self._events, self._told = settings, 0
        self._next: float | None = None

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> object:
        events = str(table.get("events", ""))
        if not events.isdecimal():
            raise SettingError("events", "a whole number is expected")
        return int(events)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        return False

    @staticmethod
    def needs_network(settings: object) -> bool:
        return False

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        self._next = now + DELAY
        return []

    def happened(self, event: object, *, now: float) -> list[Effect]:
        return []

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        return []

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return []

    def timeout(self, *, now: float) -> list[Effect]:
        first, self._told = self._told, min(self._told + _AT_ONCE, self._events)
        self._next = now if self._told < self._events else None
        return [Tell(KIND, detail={"number": number}) for number in range(first, self._told)]

    def deadline(self) -> float | None:
        return self._next

    def end(self, *, now: float) -> Mapping[str, object]:
        return {"result": {"done": True}}
