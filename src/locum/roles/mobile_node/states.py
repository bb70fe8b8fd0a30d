"""The states of a device that falls asleep and wakes (Fig. 6). Values only."""

from collections.abc import Mapping
from dataclasses import dataclass

from locum.roles.mobile_node.handing_over import FallingAsleep
from locum.roles.mobile_node.handover import Handover, OwnStandIn
from locum.roles.mobile_node.wake.taking_back import Waking


@dataclass(frozen=True, slots=True)
class Up:
    """Sessions are this host's; `last` says how the last handover ended, for people."""

    last: str | None = None


@dataclass(frozen=True, slots=True)
class SendingBack:
    """About to fall asleep: sessions of an earlier wake, which are still coming, go back to the stand-in before."""

    stand_in: OwnStandIn
    wake_after: float | None
    configuration: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class GoingDown:
    """Falling asleep. `wake_after`: seconds to sleep; `turn_back`: wake as soon as it can be told who has what."""

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
