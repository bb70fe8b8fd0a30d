"""One attempt to reach a sleeping device, and the interface of all ways to do so. Values only."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, Protocol

from locum.roles.actions import Action, Event
from locum.wire.control.paging.cause import Cause
from locum.wire.control.paging.outcome import Outcome
from locum.wire.control.paging.way import Way

REPEAT_FIRST: Final = 0.25  # seconds between two calls; doubled each time
REPEAT_MAX: Final = 2.0
CARD_BYTES: Final = 6  # of a link-layer address of Ethernet
EVERYBODY: Final = b"\xff" * CARD_BYTES  # link-layer address


@dataclass(slots=True, eq=False)
class Reach:
    """A device that is being called until `until`, in steady seconds. What is below `way` belongs to the way."""

    page: bytes
    home_address: IPv4Address
    call: bytes  # signed for the device
    cause: Cause
    places: tuple[tuple[str, bytes], ...]  # links and link-layer addresses
    way: Way
    until: float
    wait: float = REPEAT_FIRST
    sent: int = 0  # calls
    planned: float | None = None  # of a call in a slot: milliseconds since 1970
    woken: int = 0  # magic packets
    wake_at: float = 0.0  # steady seconds of the next one, or of the next run of a program
    over: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """Messages that are sent now, and the time at which the way is asked again, in steady seconds; infinity: after an event alone."""

    actions: list[Action]
    at: float


@dataclass(frozen=True, slots=True)
class Resolved:
    """Meaning of an event for devices: those to be asked about at once, and outcomes that the way has learnt."""

    due: tuple[IPv4Address, ...] = ()
    outcomes: tuple[tuple[bytes, IPv4Address, Outcome, str], ...] = ()
    actions: list[Action] = field(default_factory=list)


class WayKind(Protocol):
    """A kind of way with its configuration, for all devices of an access node. It has neither a clock nor sockets."""

    def refusal(self, reach: Reach) -> str | None:
        """The reason why this device cannot be reached in this way."""
        ...

    def attempt(self, reach: Reach, *, now: float, ahead: float) -> Attempt:
        """Do what is due. `ahead`: seconds that the wall clock is ahead of `now`."""
        ...

    def happened(self, event: Event, *, now: float) -> Resolved | None:
        """The meaning of an event; None: it is about something else."""
        ...

    def ended(self, reach: Reach) -> list[Action]:
        """The page has an outcome, or its time is over."""
        ...
