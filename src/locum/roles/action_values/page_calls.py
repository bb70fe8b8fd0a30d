"""Calls to sleeping devices on their access links, and the answers: neutral values (P1, P11, P13)."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from locum.roles.action_values.registration import Proof


class CallReason(Enum):
    """Cause of a page, as far as the device is told."""

    PACKET = "packet"
    EVENT = "event"
    COMMAND = "command"


class CallDecision(Enum):
    """Decision of a device that has heard a call."""

    WAKING = "waking"
    AWAKE = "awake"  # already, or on its way
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class PageCall:
    """A home agent's call. `identification` is its time (RFC 5944 section 5.7.1), the same in each repetition."""

    page: bytes
    home_address: IPv4Address
    identification: int
    reason: CallReason
    proof: Proof | None = None  # of the home agent, for the device
    forwarded: bool = False  # packets come to the access node, and wait there for the answer (P10)
    # Home address and mobility agent, from now on (P9)
    allocation: tuple[IPv4Address, IPv4Address] | None = None
    detail: str = ""  # the cause in words: the flow of a packet, or proxy and kind of an event


@dataclass(frozen=True, slots=True)
class PageCallAnswer:
    """The device's answer, with the page and the identification of the call."""

    page: bytes
    home_address: IPv4Address
    identification: int
    decision: CallDecision
    proof: Proof | None = None  # of the device, for its home agent
