"""Configured ways, and the way of each device that has one of its own. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from locum.wire.control.paging.way import Way

GUARD: Final = 0.002
"""Seconds by which the clocks of device and access node may differ, unless configured."""


class Kind(Enum):
    """Kinds of ways, by their names in configurations."""

    LINK = "link"
    WAKE_ON_LAN = "wake-on-lan"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """A command hook: program and arguments, as configured; times in seconds."""

    command: tuple[str, ...]
    user: str | None = None
    timeout: float = 10.0
    most: int = 4  # at once


@dataclass(frozen=True, slots=True)
class WaySettings:
    """One way by name. `password` is that of SecureOn: 0, 4 or 6 bytes."""

    name: str
    kind: Kind
    password: bytes = b""
    command: CommandSettings | None = None


@dataclass(frozen=True, slots=True)
class WaysConfiguration:
    """All ways of an access node; the kinds without settings of their own are always there."""

    ways: tuple[WaySettings, ...] = ()
    devices: Mapping[IPv4Address, Way] = field(default_factory=dict)
    guard: float = GUARD  # seconds
    default: str = Kind.LINK.value


NO_WAYS = WaysConfiguration()
