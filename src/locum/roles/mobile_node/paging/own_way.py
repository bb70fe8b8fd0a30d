"""The way to reach this device while it sleeps, as it tells the network (P13); and its card, armed for Wake-on-LAN meanwhile."""

from collections.abc import Callable
from ipaddress import IPv4Address
from zlib import crc32

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.paging import ArmCard, CardArmed, RestoreCard
from locum.roles.actions import Action, Emit, Event
from locum.roles.mobile_node.states import SleepState, Up
from locum.roles.parts import Part
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.wire.control.paging.way import Way

WAKE_ON_LAN = "wake-on-lan"
LINK = "link"


def spread(home_address: IPv4Address, cycle: int) -> int:
    """The offset of a device's slots, in milliseconds: that of neighbours in a network is another one."""
    return crc32(home_address.packed) % cycle if cycle else 0


class OwnWay(Part):
    """Of one device. `configuration` gives the present one: the home address may be assigned later."""

    def __init__(self, configuration: Callable[[], MobileNodeConfiguration]) -> None:
        self._configuration = configuration
        self._wanted = False  # the card is to be armed
        self._due = False
        self._failed = False  # it could not be armed
        self._card = b""

    def way(self) -> Way | None:
        """The way to tell; None if the device has nothing to say: its radio always listens."""
        configuration = self._configuration()
        own = configuration.own_way
        if own.wake_link is not None and not self._failed:
            return Way(WAKE_ON_LAN, self._card)
        if own.name == LINK and not own.cycle:
            return None
        offset = spread(configuration.home_address, own.cycle)
        return Way(own.name, b"", own.cycle, offset, own.length if own.cycle else 0)

    def entered(self, state: SleepState) -> None:
        """Handle a new state: the card is armed as long as the device is not awake."""
        wanted = not isinstance(state, Up)
        if self._configuration().own_way.wake_link is not None and wanted is not self._wanted:
            self._wanted, self._due = wanted, True

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The result for the card."""
        if not isinstance(event, CardArmed):
            return None
        self._failed, self._card = bool(event.reason), event.card
        detail: dict[str, JSON] = {
            "link": event.link,
            "armed": not event.reason,
            "card": event.card.hex(":"),
        }
        if event.reason:
            detail["reason"] = event.reason
        return [Emit("card-armed", None, self._configuration().home_address, None, detail)]

    def timeout(self, *, now: float) -> list[Action]:
        """Arm the card, or restore it."""
        own = self._configuration().own_way
        if not self._due or own.wake_link is None:
            return []
        self._due = False
        return [ArmCard(own.wake_link, own.password) if self._wanted else RestoreCard(own.wake_link)]

    def deadline(self) -> float | None:
        """Steady seconds; what is due is due at once."""
        return 0.0 if self._due else None
