"""Requests of devices (1206) that wait until the home agent has taken the rules that came with them, for a while (P2, P12).

Values and one deadline for each device. It must not know tables, nor how rules reach the home agent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Answer
from locum.roles.mnps.paging.agent_rules import about_rules
from locum.roles.timers import Deadlines
from locum.wire.control.paging.event_table import EventTable1206
from locum.wire.control.paging.status import MAX_ITEMS, StatusAnswer, encode_status_answer

PATIENCE: Final = 6.0
"""Seconds for the home agent to take rules; the device is answered then in any case."""
MAX_WAITING: Final = 8
"""Requests of one device; the oldest ones get no answer, and CoAP gives them up."""


@dataclass(slots=True)
class WaitingRequests:
    """Those of all devices. The first request of a device says until when all of them wait."""

    _waiting: dict[Addr, list[tuple[int, StatusAnswer, EventTable1206]]] = field(default_factory=dict)
    _due: Deadlines[Addr] = field(default_factory=Deadlines)

    def add(
        self, device: Addr, exchange: int, answer: StatusAnswer, change: EventTable1206, *, now: float
    ) -> None:
        """Let a request wait; `answer` is the one about the table."""
        waiting = self._waiting.setdefault(device, [])
        if not waiting:
            self._due.set(device, now + PATIENCE)
        waiting.append((exchange, answer, change))
        del waiting[:-MAX_WAITING]

    def answer(self, device: Addr, said: StatusAnswer | None) -> list[Action]:
        """Answer everyone who has changed this table, with what the home agent says of the rules; None: it is silent."""
        self._due.cancel(device)
        actions: list[Action] = []
        for exchange, answer, change in self._waiting.pop(device, ()):
            items = (*answer.items, *about_rules(said, change.rules))[:MAX_ITEMS]
            lifetime = None if said is None or not change.rules else said.lifetime
            whole = replace(answer, items=items, lifetime=lifetime)
            actions.append(Answer(exchange, encode_status_answer(whole)))
        return actions

    def due(self, now: float) -> Iterator[Addr]:
        """Devices that have waited for the home agent long enough."""
        return self._due.due(now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()
