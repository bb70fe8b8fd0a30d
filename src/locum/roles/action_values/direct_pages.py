"""Direct pages at a device: its directions as configured, and a command that decides (P5). Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from locum.roles.action_values.addresses import Addr
from locum.security.sealing import SealingKeys
from locum.wire.control.paging.direct_page import NO_DIRECTIONS, Decision, DirectDecision, Directions
from locum.wire.control.paging.entry import Pattern


@dataclass(frozen=True, slots=True)
class Direction:
    """The decision about an event that matches one of these patterns, and the directions that go back with it."""

    patterns: tuple[Pattern, ...]
    decision: Decision
    directions: Directions = NO_DIRECTIONS


@dataclass(frozen=True, slots=True)
class DeciderCommand:
    """A program that decides about events that no direction is for."""

    command: tuple[str, ...]
    seconds: float = 5.0  # that it may take


@dataclass(frozen=True, slots=True)
class DirectedDevice:
    """`keys`: of the association with each stand-in, by its address. The first direction that matches counts."""

    keys: Mapping[Addr, SealingKeys] = field(default_factory=dict)
    directions: tuple[Direction, ...] = ()
    command: DeciderCommand | None = None


NOT_DIRECTED = DirectedDevice()


@dataclass(frozen=True, slots=True)
class DecidePage:
    """MN: run the program; it gets `told` as JSON. -> PageDecided, in any case"""

    page: bytes
    command: tuple[str, ...]
    seconds: float
    told: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PageDecided:
    """The program's decision; None: it has made none, for this reason."""

    page: bytes
    decision: DirectDecision | None
    reason: str = ""
