"""systemd-logind on the system bus: the delay lock, and what it says of suspends. Decides nothing."""

import contextlib
import os

from locum.node.moving.bus import DBUS, BusFailed, Signal, SystemBus

SERVICE = "org.freedesktop.login1"
_PATH, _MANAGER = "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
USUAL_DELAY = 5.0  # seconds, InhibitDelayMaxSec of logind.conf(5)


class Logind:
    """logind, and our lock of it. The kernel takes the lock away with the process."""

    def __init__(self, bus: SystemBus, node: str) -> None:
        self._bus, self._node = bus, node
        self._lock: int | None = None

    async def follow(self) -> None:
        """Ask for its signals, and for its end and its return. Raises BusFailed."""
        for member in ("PrepareForSleep", "PrepareForShutdown"):
            await self._bus.follow(sender=SERVICE, path=_PATH, interface=_MANAGER, member=member)
        await self._bus.follow(sender=DBUS, interface=DBUS, member="NameOwnerChanged", arg0=SERVICE)

    async def take(self) -> None:
        """Take the lock, if we have none. Raises BusFailed; a suspend in progress is a reason."""
        if self._lock is None:
            why = "sessions go to the stand-in"
            self._lock = await self._bus.descriptor(
                SERVICE, _PATH, f"{_MANAGER}.Inhibit", ("sleep", f"locum {self._node}", why, "delay")
            )

    def release(self) -> None:
        """Let the suspend go on."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            with contextlib.suppress(OSError):
                os.close(lock)

    async def delay(self) -> float:
        """The seconds for which a lock delays a suspend. Raises BusFailed when the bus has gone."""
        try:
            microseconds = await self._bus.read(SERVICE, _PATH, f"{_MANAGER}.InhibitDelayMaxUSec")
        except BusFailed:
            return USUAL_DELAY
        return microseconds / 1e6 if isinstance(microseconds, int) and microseconds > 0 else USUAL_DELAY

    async def preparing(self) -> bool:
        """True between the two signals of a suspend. Raises BusFailed."""
        return bool(await self._bus.read(SERVICE, _PATH, f"{_MANAGER}.PreparingForSleep"))


def sleep_told(signal: Signal) -> bool | None:
    """Tell whether a suspend begins (True) or has ended (False); None: the signal is another."""
    return _flag(signal, "PrepareForSleep")


def shutdown_told(signal: Signal) -> bool | None:
    """The same of the end of the whole system."""
    return _flag(signal, "PrepareForShutdown")


def owner_told(signal: Signal) -> bool | None:
    """Tell whether logind runs after a change of its owner; None: the signal is another."""
    if (signal.interface, signal.member) != (DBUS, "NameOwnerChanged") or len(signal.body) != 3:
        return None
    name, _, owner = signal.body
    return bool(owner) if name == SERVICE else None


def _flag(signal: Signal, member: str) -> bool | None:
    if (signal.path, signal.interface, signal.member) != (_PATH, _MANAGER, member):
        return None
    return signal.body[0] if len(signal.body) == 1 and isinstance(signal.body[0], bool) else None
