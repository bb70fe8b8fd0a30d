"""Actions and events of network paging: packets that wait for a device which is paged (P1, P14, P17). Values only."""

from dataclasses import dataclass

from locum.roles.action_values.addresses import Addr
from locum.wire.control import Flow

FIRST_BYTES = 128  # of the packet that caused a page: they travel with the report


@dataclass(frozen=True, slots=True)
class PageTriggered:
    """Event at a home agent: a flow rule holds a packet until the device is awake.

    Said for the first one alone: further packets of the home address wait without a word until `ReleasePaged` or `DropPaged`.
    """

    home_address: Addr
    rule: int  # its identifier
    flow: Flow  # as its home address sees it
    packet: bytes  # from its IP header on, at most FIRST_BYTES
    length: int  # of the whole packet, in bytes


@dataclass(frozen=True, slots=True)
class ReleasePaged:
    """Send the packets that wait for this device, in order; no rule pages for them again (P17)."""

    home_address: Addr


@dataclass(frozen=True, slots=True)
class DropPaged:
    """Drop and count the packets that wait for this device, and those that come in the next `quiet` seconds."""

    home_address: Addr
    quiet: float = 0.0
