"""The network as NetworkManager tells of it: its state, and how far packets get. It is not needed."""

from enum import Enum

from locum.node.moving.bus import PROPERTIES, BusFailed, Signal, SystemBus

SERVICE = "org.freedesktop.NetworkManager"
_PATH = "/org/freedesktop/NetworkManager"
_MOST_CHANGES = 64  # properties of one signal that are read


class Connectivity(Enum):
    """NMConnectivityState; UNKNOWN too if it does not check."""

    UNKNOWN = "unknown"
    NONE = "none"
    PORTAL = "portal"
    LIMITED = "limited"
    FULL = "full"

    @property
    def may_reach(self) -> bool:
        """True if packets may get to the home agent."""
        return self in (Connectivity.LIMITED, Connectivity.FULL)


_BY_NUMBER = dict(enumerate(Connectivity))


async def follow(bus: SystemBus) -> Connectivity | None:
    """Ask for its signals, and what it says now; None: it does not run. Raises BusFailed when the bus has gone."""
    await bus.follow(sender=SERVICE, path=_PATH, interface=PROPERTIES, member="PropertiesChanged")
    if not await bus.has(SERVICE):
        return None
    try:
        return _known(await bus.read(SERVICE, _PATH, f"{SERVICE}.Connectivity"))
    except BusFailed:
        return None


def told(signal: Signal) -> Connectivity | None:
    """Read the connectivity from a signal; None: the signal is another."""
    if (signal.path, signal.interface, signal.member) != (_PATH, PROPERTIES, "PropertiesChanged"):
        return None
    if len(signal.body) < 2 or signal.body[0] != SERVICE or len(signal.body[1]) > _MOST_CHANGES:
        return None
    changed = signal.body[1].get("Connectivity")
    return None if changed is None else _known(changed.value)


def _known(number: object) -> Connectivity:
    return _BY_NUMBER.get(number, Connectivity.UNKNOWN) if isinstance(number, int) else Connectivity.UNKNOWN
