"""The states and results of handing sessions over (handing_over.py), and the transitions between the states."""

from dataclasses import dataclass
from typing import Literal

from locum.roles.action_values.addresses import Addr
from locum.roles.mobile_node.handover import Handover
from locum.roles.state_table import StateTable


@dataclass(frozen=True, slots=True)
class Finding:
    """The node lists the open connections."""


@dataclass(frozen=True, slots=True)
class Telling:
    """The home agent is told which connections go. `prepared`: the stand-in has agreed, and has named this access node."""

    prepared: bool = False
    access_node: Addr | None = None


@dataclass(frozen=True, slots=True)
class Preparing:
    """634 prepare is on its way."""

    request: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """The very short registration is on its way."""

    give_up_at: float


@dataclass(frozen=True, slots=True)
class Gathering:
    """The node freezes programs, and looks for those that they have started meanwhile."""

    generation: int = 1


@dataclass(frozen=True, slots=True)
class Extending:
    """634 prepare is on its way again, for connections opened before their programs were frozen."""

    request: int


@dataclass(frozen=True, slots=True)
class Capturing:
    """The node reads the sockets."""


@dataclass(frozen=True, slots=True)
class Transferring:
    """634 transfer is on its way."""

    request: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of it, with its `result`."""


State = Finding | Telling | Preparing | Leaving | Gathering | Extending | Capturing | Transferring | Ended

Event = Literal["tell", "prepare", "leave", "freeze", "extend", "capture", "transfer", "undo", "end"]
TABLE: StateTable[Event] = StateTable(
    "Handing sessions over at the mobile node",
    "One attempt to hand sessions over to a stand-in, for a sleep or by `locum give`.",
    {
        # Page rules must not take packets of connections that go: the home agent is told while its answer arrives.
        Finding: {"tell": Telling, "prepare": Preparing, "undo": Ended},
        Telling: {"prepare": Preparing, "leave": Leaving, "undo": Ended},
        # A stand-in that registers itself has the packets when it answers; else a short registration comes first.
        # An order that the stand-in refuses is left out, and it is asked again.
        Preparing: {
            "tell": Telling,
            "prepare": Preparing,
            "leave": Leaving,
            "freeze": Gathering,
            "undo": Ended,
        },
        Leaving: {"freeze": Gathering, "capture": Capturing, "undo": Ended},
        Gathering: {"freeze": Gathering, "extend": Extending, "capture": Capturing, "undo": Ended},
        Extending: {"capture": Capturing, "undo": Ended},
        Capturing: {"transfer": Transferring, "undo": Ended},
        Transferring: {"end": Ended, "undo": Ended},
        Ended: {},
    },
    start=(Finding,),
)


@dataclass(frozen=True, slots=True)
class Slept:
    """The stand-in has the sessions."""

    handover: Handover


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The stand-in may have the sessions: only it can tell, so they are reclaimed."""

    handover: Handover
    reason: str


@dataclass(frozen=True, slots=True)
class NotSlept:
    """Everything is as before."""

    reason: str
