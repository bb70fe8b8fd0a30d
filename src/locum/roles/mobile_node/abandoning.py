"""Sessions that a device has abandoned: each stand-in is told until it answers, and resets them (634).

The row stays meanwhile, so that the request outlives a restart. It must not know why the sessions were given up.
"""

from collections.abc import Callable
from dataclasses import dataclass

from locum.roles.actions import Action, Answered, Emit, Event, NoAnswer
from locum.roles.mobile_node.handover import Handover, StandInDialogue
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control import Abandon, Done, Request634, Status, decode_632
from locum.wire.errors import WireError

RETRY_FIRST = 1.0  # seconds after a request that was not answered
RETRY_MAX = 60.0

_PASSING = (Status.BUSY, Status.LIMIT, Status.WRONG_STATE)  # worth asking again


@dataclass(frozen=True, slots=True)
class _AbandonRequest:
    handover: Handover
    requests: tuple[Request634, ...]  # requests still to be sent, the first now
    attempt: int = 0


class Abandoning(Part):
    """Abandons sessions of one device; `dialogue` gives the dialogue with the stand-in of a handover."""

    def __init__(self, dialogue: Callable[[Handover], StandInDialogue]) -> None:
        self._dialogue = dialogue
        self._abandon_requests: dict[bytes, _AbandonRequest] = {}
        self._asked: dict[int, bytes] = {}
        self._retries: Deadlines[bytes] = Deadlines()

    @property
    def handovers(self) -> tuple[Handover, ...]:
        """Those of which the stand-in has not answered yet."""
        return tuple(abandon_request.handover for abandon_request in self._abandon_requests.values())

    def begin(self, handover: Handover) -> list[Action]:
        """Tell the stand-in that this handover is abandoned, as its row already has it."""
        name = handover.identifier
        requests: tuple[Request634, ...] = (Abandon(name),)
        if handover.returned:  # those live here: only the others are reset
            numbers = (*(session.session for session in handover.sessions), *handover.disowned)
            requests = (Abandon(name, numbers), Done(name)) if numbers else (Done(name),)
        return self._ask(_AbandonRequest(handover, requests))

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The answer to one of ours; None: it is another's."""
        if not isinstance(event, Answered | NoAnswer):
            return None
        name = self._asked.pop(event.request, None)
        if name is None:
            return None
        abandon_request = self._abandon_requests[name]
        status = _status(event)
        if status is None or status in _PASSING:
            delay = min(RETRY_MAX, RETRY_FIRST * 2 ** min(abandon_request.attempt, 8))
            self._abandon_requests[name] = _AbandonRequest(
                abandon_request.handover, abandon_request.requests, abandon_request.attempt + 1
            )
            self._retries.set(name, now + delay)
            return []
        if rest := abandon_request.requests[1:]:
            return self._ask(_AbandonRequest(abandon_request.handover, rest))
        del self._abandon_requests[name]
        return [abandon_request.handover.forget(), self._told(abandon_request.handover, status)]

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        return [
            action for name in self._retries.due(now) for action in self._ask(self._abandon_requests[name])
        ]

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._retries.next()

    def _ask(self, abandon_request: _AbandonRequest) -> list[Action]:
        name = abandon_request.handover.identifier
        self._abandon_requests[name] = abandon_request
        dialogue = self._dialogue(abandon_request.handover)
        actions = dialogue.ask(abandon_request.requests[0])
        self._asked[dialogue.last] = name
        return list(actions)

    def _told(self, handover: Handover, status: Status) -> Emit:
        detail = {"handover": handover.identifier.hex(), "status": status.name.lower().replace("_", "-")}
        home_address = handover.sessions[0].flow.local if handover.sessions else None
        return Emit("abandoned", "632", home_address, None, detail)


def _status(event: Answered | NoAnswer) -> Status | None:
    if isinstance(event, NoAnswer):
        return None
    try:
        return decode_632(event.body).status
    except WireError:
        return None
