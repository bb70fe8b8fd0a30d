"""The states of a wake (taking_back.py), the transitions between them, its results, and how one ends. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from locum.roles.action_values.sessions import AbandonSessions, SessionFinal, Thaw
from locum.roles.actions import Action, Emit
from locum.roles.mobile_node.handover import Handover
from locum.roles.mobile_node.wake.receiving import released
from locum.roles.mobile_node.wake.rest import Rest
from locum.roles.state_table import StateTable
from locum.wire.control import FinalState, Flow, Request634


@dataclass(frozen=True, slots=True)
class Arriving:
    """The very short registration is on its way."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A 634 is on its way."""

    request: int
    value: Request634


@dataclass(frozen=True, slots=True)
class Pausing:
    """The 634 was not answered, or programs could not be frozen (None); it is tried again at `retry_at`."""

    retry_at: float
    value: Request634 | None


@dataclass(frozen=True, slots=True)
class Tightening:
    """The node freezes the programs and puts their sockets into repair mode."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class Fetching:
    """Fetches are on their way, and there is no data to inject."""


@dataclass(frozen=True, slots=True)
class Injecting:
    """The node appends bytes to receive queues."""

    pieces: Mapping[Flow, bytes]


@dataclass(frozen=True, slots=True)
class Draining:
    """The programs read."""

    flows: frozenset[Flow]


@dataclass(frozen=True, slots=True)
class Returning:
    """The full registration is on its way."""


@dataclass(frozen=True, slots=True)
class Completing:
    """The node takes the sockets out of repair mode."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class AwaitingAccepted:
    """All is back; accepted connections are on their way into their programs' queues."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Awake, asleep again, or given up."""


State = (
    Arriving
    | Asking
    | Pausing
    | Tightening
    | Fetching
    | Injecting
    | Draining
    | Returning
    | Completing
    | AwaitingAccepted
    | Ended
)
# States that wait for another node, perhaps for ever.
WAITING = (Arriving, Asking, Pausing, Fetching, Returning)

Event = Literal[
    "ask",
    "no answer",
    "freeze",
    "not frozen",
    "fetch",
    "inject",
    "let read",
    "return",
    "complete",
    "await accepted",
    "end",
]
# One step of putting bytes back leads to any other.
_STEPS: dict[Event, type] = {
    "ask": Asking,
    "fetch": Fetching,
    "inject": Injecting,
    "let read": Draining,
    "complete": Completing,
    "await accepted": AwaitingAccepted,
    "end": Ended,
}
TABLE: StateTable[Event] = StateTable(
    "Taking sessions back at the mobile node",
    "One wake, or one `locum take`. The programs stand still while bytes are put into their sockets.",
    {
        Arriving: {"ask": Asking, "end": Ended},
        Asking: {**_STEPS, "no answer": Pausing, "freeze": Tightening, "return": Returning},
        Pausing: {"ask": Asking, "freeze": Tightening, "end": Ended},
        Tightening: {**_STEPS, "not frozen": Pausing, "return": Returning},
        Fetching: {**_STEPS, "no answer": Pausing, "freeze": Tightening},
        Injecting: _STEPS,
        Draining: {**_STEPS, "not frozen": Pausing},
        Returning: {"ask": Asking, "end": Ended},
        Completing: _STEPS,
        AwaitingAccepted: {"ask": Asking, "end": Ended},
        Ended: {},
    },
    start=(Arriving,),
)


@dataclass(frozen=True, slots=True)
class Awake:
    """All is back, or lost sessions were abandoned; or `rest` comes when its programs have read."""

    lost: int
    rest: Rest | None = None


@dataclass(frozen=True, slots=True)
class StillAsleep:
    """The wake was called off; the stand-in has the sessions."""

    handover: Handover


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The sessions were reset here; the stand-in must be told."""

    handover: Handover


def abandoned(handover: Handover, reason: str) -> list[Action]:
    """Its connections are reset here, its programs run."""
    flows = handover.flows
    reset: list[Action] = [AbandonSessions(flows)] if flows else []
    thaw: list[Action] = [Thaw(handover.processes)] if handover.processes else []
    told = [Emit("session-lost", None, flow.local, flow, {"reason": reason}) for flow in flows]
    return [*reset, *thaw, *released(flows), *told]


def final_of(flow: Flow, state: FinalState) -> SessionFinal:
    """The last state as the node takes it: all bytes are in the socket already."""
    return SessionFinal(
        session=state.session,
        flow=flow,
        total=state.received,
        acknowledged=state.acked,
        timestamp=state.ts_value,
        peer_closed=state.peer_closed,
        error=state.error,
        tail_offset=state.received,
    )
