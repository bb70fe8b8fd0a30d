"""Triggers that a role sends (C8): to one stand-in after the other until one has done it, and again until one answers.

Access nodes, home agents and devices use it alike; the latest word about a home address is the one that counts. It must
not know why a trigger is sent, nor a stand-in's use of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, NoAnswer
from locum.roles.timers import Deadlines
from locum.wire.control.answer import Status
from locum.wire.control.trigger import PATH, Operation, Trigger, decode_trigger_answer, encode_trigger
from locum.wire.errors import WireError

ANSWER_TIMEOUT = 8.0  # seconds; the stand-in answers when its registration is through
RETRY_FIRST = 0.5  # seconds after a missing answer
RETRY_MAX = 30.0  # seconds
# Rounds after which a release is given up, about two minutes; a take goes on until it is dropped
MAX_RELEASES = 10
FIRST_REQUEST = 1 << 32  # above the numbers that a role gives its other requests

_FINAL = (Status.OK, Status.WRONG_STATE)
_PASSING = (Status.BUSY, Status.LIMIT)  # worth asking again

Key = tuple[Addr, tuple[Addr, ...]]  # home address, stand-ins


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """One pending trigger: the stand-in at `place` is being asked, or will be asked later."""

    trigger: Trigger
    stand_ins: tuple[Addr, ...]
    place: int = 0
    attempt: int = 0  # rounds that were in vain

    @property
    def home_address(self) -> Addr:
        """The home address, by its first one."""
        return self.trigger.home_addresses[0]

    @property
    def key(self) -> Key:
        """Key: one trigger request at a time for a home address and its stand-ins."""
        return self.home_address, self.stand_ins

    @property
    def stand_in(self) -> Addr:
        """The stand-in that is asked now."""
        return self.stand_ins[self.place]


Concluded = Callable[[TriggerRequest, Status | None], list[Action]]


def _unnoticed(trigger_request: TriggerRequest, status: Status | None) -> list[Action]:
    return []


class TriggerRequests:
    """Pending triggers. `concluded` handles the end of one: its status, None without an answer."""

    def __init__(self, concluded: Concluded = _unnoticed) -> None:
        self._concluded = concluded
        self._trigger_requests: dict[Key, TriggerRequest] = {}
        self._asked: dict[int, Key] = {}
        self._retries: Deadlines[Key] = Deadlines()
        self._numbers = count(FIRST_REQUEST)

    def ask_one(self, trigger: Trigger, stand_ins: Iterable[Addr]) -> list[Action]:
        """Ask `stand_ins` until one accepts. A pending request for the home address ends."""
        self.drop(trigger.home_addresses[0])
        order = tuple(stand_ins)
        return self._ask(TriggerRequest(trigger, order)) if order else []

    def ask_all(self, trigger: Trigger, stand_ins: Iterable[Addr]) -> list[Action]:
        """Ask every one of `stand_ins`. A pending request for the home address ends."""
        self.drop(trigger.home_addresses[0])
        actions: list[Action] = []
        for stand_in in stand_ins:
            actions += self._ask(TriggerRequest(trigger, (stand_in,)))
        return actions

    def drop(self, home_address: Addr) -> None:
        """Stop asking for this home address; later answers are ignored."""
        for key in [request for request in self._trigger_requests if request[0] == home_address]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        del self._trigger_requests[key]
        self._retries.cancel(key)
        self._asked = {number: asked_key for number, asked_key in self._asked.items() if asked_key != key}

    def happened(self, event: Answered | NoAnswer, *, now: float) -> list[Action] | None:
        """The answer to one of ours; None: it is another's."""
        if event.request < FIRST_REQUEST:
            return None
        key = self._asked.pop(event.request, None)
        if key is None:
            return []
        trigger_request = self._trigger_requests[key]
        if isinstance(event, NoAnswer):
            return [Count("trigger-unanswered"), *self._next(trigger_request, None, now)]
        try:
            status = decode_trigger_answer(event.body)
        except WireError as error:
            return [Count(f"trigger-{error.reason}"), *self._next(trigger_request, None, now)]
        if status in _FINAL:
            return self._end(trigger_request, status)
        return [Count(f"trigger-{word(status)}"), *self._next(trigger_request, status, now)]

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        actions: list[Action] = []
        for key in self._retries.due(now):
            actions += self._ask(self._trigger_requests[key])
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._retries.next()

    def _ask(self, trigger_request: TriggerRequest) -> list[Action]:
        number = next(self._numbers)
        self._trigger_requests[trigger_request.key] = trigger_request
        self._asked[number] = trigger_request.key
        trigger = trigger_request.trigger
        detail: dict[str, JSON] = {
            "to": str(trigger_request.stand_in),
            "operation": trigger.operation.name.lower(),
            "reason": trigger.reason.name.lower(),
        }
        return [
            Ask(number, trigger_request.stand_in, PATH, encode_trigger(trigger), ANSWER_TIMEOUT),
            Emit("sent", PATH, trigger_request.home_address, None, detail),
        ]

    def _next(self, trigger_request: TriggerRequest, status: Status | None, now: float) -> list[Action]:
        """The next stand-in; after the last one, from the first on once more, later and later."""
        if trigger_request.place + 1 < len(trigger_request.stand_ins):
            return self._ask(replace(trigger_request, place=trigger_request.place + 1))
        again = replace(trigger_request, place=0, attempt=trigger_request.attempt + 1)
        refused = status is not None and status not in _PASSING and len(trigger_request.stand_ins) == 1
        releasing = trigger_request.trigger.operation is Operation.RELEASE
        if refused or (releasing and again.attempt >= MAX_RELEASES):
            return self._end(trigger_request, status)
        self._trigger_requests[trigger_request.key] = again
        self._retries.set(
            trigger_request.key, now + min(RETRY_MAX, RETRY_FIRST * 2 ** min(trigger_request.attempt, 8))
        )
        return []

    def _end(self, trigger_request: TriggerRequest, status: Status | None) -> list[Action]:
        self._drop(trigger_request.key)
        detail: dict[str, JSON] = {
            "by": str(trigger_request.stand_in),
            "operation": trigger_request.trigger.operation.name.lower(),
            "status": "no-answer" if status is None else word(status),
        }
        kind = "trigger-done" if status is Status.OK else "trigger-failed"
        return [
            Emit(kind, PATH, trigger_request.home_address, None, detail),
            *self._concluded(trigger_request, status),
        ]


def word(status: Status) -> str:
    """A status as events and counters have it."""
    return status.name.lower().replace("_", "-")
