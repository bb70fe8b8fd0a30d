"""The way `command`: a configured program that reaches the device: by a push service, or by a gateway for text messages.

The program's exit code is its answer. The page ends with it, except after a failure, which is tried again.
"""

from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Final

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.paging import CallByCommand, CommandEnded, EndCommand
from locum.roles.actions import Action, Count, Event
from locum.roles.foreign_agent.ways.reach import Attempt, Reach, Resolved
from locum.roles.foreign_agent.ways.settings import WaySettings
from locum.wire.control.paging.cause import Cause, CommandCause, EventCause, PacketCause
from locum.wire.control.paging.outcome import Outcome

RETRY_FIRST: Final = 1.0  # seconds after a program that failed; doubled each time
RETRY_MAX: Final = 30.0

# Exit codes; all others, a signal and the end of the time are failures.
TOLD, REFUSED, UNKNOWN = 0, 2, 3
_OUTCOMES: Mapping[int, Outcome] = {
    TOLD: Outcome.REACHED,
    REFUSED: Outcome.REFUSED,
    UNKNOWN: Outcome.UNKNOWN,
}


class CommandWay:
    """One command hook; programs beyond its limit wait for their turn, in order."""

    def __init__(self, settings: WaySettings, _guard: float) -> None:
        assert settings.command is not None
        self._name, self._settings = settings.name, settings.command
        self._running: dict[bytes, Reach] = {}  # by page
        self._waiting: deque[Reach] = deque()

    def refusal(self, reach: Reach) -> str | None:
        """Every device can be reached, as far as is known here."""
        return None

    def attempt(self, reach: Reach, *, now: float, ahead: float) -> Attempt:
        """Run the program, or wait until another one has ended."""
        if reach.page in self._running or reach in self._waiting:
            return Attempt([], inf)
        if now < reach.wake_at:
            return Attempt([], reach.wake_at)
        if len(self._running) >= self._settings.most:
            self._waiting.append(reach)
            return Attempt([Count("page-command-waits")], inf)
        self._running[reach.page] = reach
        reach.sent += 1
        return Attempt([self._command(reach)], inf)

    def _command(self, reach: Reach) -> CallByCommand:
        settings = self._settings
        told: dict[str, JSON] = {
            "home_address": str(reach.home_address),
            "page": reach.page.hex(),
            "attempt": reach.sent,
            "link_address": reach.way.link_address.hex(":"),
            **_told(reach.cause),
        }
        return CallByCommand(self._name, reach.page, settings.command, settings.user, settings.timeout, told)

    def happened(self, event: Event, *, now: float) -> Resolved | None:
        """The meaning of the end of a program; None: it is another way's, or another event."""
        if not isinstance(event, CommandEnded) or event.way != self._name:
            return None
        due = []
        reach = self._running.pop(event.page, None)
        if self._waiting:
            due.append(self._waiting.popleft().home_address)
        if reach is None or reach.over:
            return Resolved(tuple(due), actions=[Count("page-command-late")])
        outcome = _OUTCOMES.get(event.code) if event.code is not None else None
        if outcome is None:
            reach.wake_at = now + min(RETRY_FIRST * 2 ** (reach.sent - 1), RETRY_MAX)
            return Resolved((*due, reach.home_address), actions=[Count("page-command-failed")])
        text = (
            "" if outcome is Outcome.REACHED else event.text or f"the command of way {self._name!r} says so"
        )
        return Resolved(tuple(due), ((reach.page, reach.home_address, outcome, text),))

    def ended(self, reach: Reach) -> list[Action]:
        """The page is over: its program has no more to do."""
        reach.over = True
        if reach in self._waiting:
            self._waiting.remove(reach)
        return [EndCommand(self._name, reach.page)] if reach.page in self._running else []


def _told(cause: Cause) -> dict[str, JSON]:
    match cause:
        case PacketCause():
            return {"cause": "packet", "rule": cause.rule}
        case EventCause():
            return {"cause": "event", "app": cause.app, "event": cause.kind}
        case CommandCause():
            return {"cause": "command"}
