"""The states and results of sessions that come later (coming.py), and the transitions between the states."""

from dataclasses import dataclass
from typing import Literal

from locum.roles.mobile_node.handover import Handover
from locum.roles.state_table import StateTable
from locum.wire.control import Flow, Request634


@dataclass(frozen=True, slots=True)
class Watching:
    """No socket has room; at `alive_at` a byte is fetched, as a sign of life for the stand-in."""

    alive_at: float


@dataclass(frozen=True, slots=True)
class Asking:
    """A 634 is on its way."""

    request: int
    value: Request634


@dataclass(frozen=True, slots=True)
class Pausing:
    """It was not answered, and is tried again."""

    retry_at: float


@dataclass(frozen=True, slots=True)
class Tightening:
    """The node freezes a program, to put something into its socket, or all of them, to send them back."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class Injecting:
    """The node appends bytes."""

    flow: Flow
    data: bytes


@dataclass(frozen=True, slots=True)
class Completing:
    """The node gives the socket back."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of it, with its `result`."""


State = Watching | Asking | Pausing | Tightening | Injecting | Completing | Ended

Event = Literal["watch", "ask", "wait", "freeze", "inject", "complete", "end"]
_NEXT: dict[Event, type] = {"watch": Watching, "ask": Asking, "freeze": Tightening, "end": Ended}
TABLE: StateTable[Event] = StateTable(
    "Sessions that come later at the mobile node",
    "The rest of a wake: sessions whose programs have to read before more fits into their sockets.",
    {
        Watching: _NEXT,
        Asking: {**_NEXT, "wait": Pausing},
        Pausing: _NEXT,
        Tightening: {**_NEXT, "wait": Pausing, "inject": Injecting, "complete": Completing},
        Injecting: {**_NEXT, "complete": Completing},
        Completing: _NEXT,
        Ended: {},
    },
    start=(Watching,),
)


@dataclass(frozen=True, slots=True)
class Back:
    """Everything is back, or was given up."""


@dataclass(frozen=True, slots=True)
class Rests:
    """The stand-in goes on with the sessions, and the programs stand still."""

    handover: Handover


@dataclass(frozen=True, slots=True)
class Unsure:
    """The stand-in is to be asked from the beginning."""

    handover: Handover
