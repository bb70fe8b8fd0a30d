"""The states of a device that falls asleep and wakes (Fig. 6), and the transitions between them. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from locum.roles.mobile_node.handing_over import FallingAsleep
from locum.roles.mobile_node.handover import Handover, OwnStandIn
from locum.roles.mobile_node.wake.taking_back import Waking
from locum.roles.state_table import StateTable


@dataclass(frozen=True, slots=True)
class Up:
    """Sessions are this host's; `last` describes the last handover's end, for users."""

    last: str | None = None


@dataclass(frozen=True, slots=True)
class SendingBack:
    """About to fall asleep: sessions of an earlier wake, which are still coming, go back to the stand-in before."""

    stand_in: OwnStandIn
    wake_after: float | None
    configuration: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class GoingDown:
    """Falling asleep. `wake_after`: seconds to sleep; `turn_back`: wake as soon as owners are known."""

    machine: FallingAsleep
    wake_after: float | None = None
    turn_back: bool = False


@dataclass(frozen=True, slots=True)
class Down:
    """The stand-in has the sessions."""

    handover: Handover


@dataclass(frozen=True, slots=True)
class ComingUp:
    """Waking."""

    machine: Waking


SleepState = Up | SendingBack | GoingDown | Down | ComingUp

SleepEvent = Literal[
    "sleep",
    "nothing is coming",
    "cancel",
    "slept",
    "failed",
    "take back",
    "abandon",
    "still asleep",
    "awake",
    "restore asleep",
    "restore awake",
    "host restarted",
]
TABLE: StateTable[SleepEvent] = StateTable(
    "Sleep at the mobile node",
    "A device with a stand-in: its sessions are here, on their way, or at the stand-in.",
    {
        Up: {
            "sleep": SendingBack,
            # Rows of an earlier run.
            "take back": ComingUp,
            "restore asleep": Down,
            "restore awake": ComingUp,
            "host restarted": Up,
        },
        SendingBack: {"nothing is coming": GoingDown, "cancel": Up},
        # The stand-in may have the sessions: only taking them back tells.
        GoingDown: {"slept": Down, "failed": Up, "cancel": GoingDown, "take back": ComingUp},
        Down: {"take back": ComingUp, "abandon": ComingUp},
        ComingUp: {"awake": Up, "still asleep": Down},
    },
    start=(Up,),
)
