"""Actions and events of paging: packets that wait for a paged device (P1, P14, P17), and ways to reach it (P13). Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from locum.roles.action_values.addresses import JSON, Addr
from locum.wire.control import Flow

FIRST_BYTES = 128  # of the packet that caused a page: they travel with the report


class PageForwarding(Enum):
    """Time at which packets that page a device begin to go to its access node (P10)."""

    BEFORE = "before"  # the page is sent
    WITH = "with"  # the page, at the same time
    AFTER = "after"  # the answer to the page
    REGISTRATION = "registration"  # the device has registered


class PageProfile(Enum):
    """Form in which a page brings the device's profile to its access node (P8)."""

    NONE = "none"
    WHOLE = "profile"
    POINTER = "pointer"  # the policy server, and the device's name there


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
class PageAsked:
    """Event at an access node: a packet to a visitor matched a filter rule that asks for a page (P16)."""

    home_address: Addr
    rule: int  # its identifier in the filter
    flow: Flow  # as its home address sees it
    length: int  # of the packet, in bytes
    further: int = 0  # packets that the rule took without a report since the last one


@dataclass(frozen=True, slots=True)
class ReleasePaged:
    """Send the packets that wait for this device, in order; no rule pages for them again (P17)."""

    home_address: Addr


@dataclass(frozen=True, slots=True)
class DropPaged:
    """Drop and count the packets that wait for this device, and those that come in the next `quiet` seconds."""

    home_address: Addr
    quiet: float = 0.0


@dataclass(frozen=True, slots=True)
class SendMagicPacket:
    """AN: wake the machine with this card by Wake-on-LAN, as a frame of its own type and by UDP; both are broadcast."""

    link: str
    card: bytes  # link-layer address
    password: bytes = b""  # of SecureOn: 0, 4 or 6 bytes


@dataclass(frozen=True, slots=True)
class CallByCommand:
    """AN: run a configured program that tells a device of its page. `CommandEnded` comes in any case."""

    way: str
    page: bytes
    command: tuple[str, ...]
    user: str | None
    timeout: float  # seconds
    told: Mapping[str, JSON]  # by the environment, and as JSON on the standard input


@dataclass(frozen=True, slots=True)
class EndCommand:
    """AN: the page is over; end its program, if it still runs."""

    way: str
    page: bytes


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """Event: the exit code of that program; None: it was not started, ran too long, or was ended by a signal."""

    way: str
    page: bytes
    code: int | None
    text: str = ""  # the first line that it has written, for people


@dataclass(frozen=True, slots=True)
class ArmCard:
    """Device: let magic packets wake this machine by the card of a link. `CardArmed` comes."""

    link: str
    password: bytes = b""  # of SecureOn


@dataclass(frozen=True, slots=True)
class RestoreCard:
    """Device: give the card of a link the setting that it had before."""

    link: str


@dataclass(frozen=True, slots=True)
class CardArmed:
    """Event: the card is armed, or the reason why it is not, and its own link-layer address."""

    link: str
    card: bytes
    reason: str = ""
