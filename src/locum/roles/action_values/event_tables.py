"""Actions and events of a stand-in's event tables: packets as events, and texts for correspondents (P3, P15). Values only."""

from dataclasses import dataclass
from typing import TypeAlias

from locum.roles.action_values.addresses import Addr
from locum.wire.control import Flow

PACKETS_A_SECOND = 10
"""Packets of one device that are compared with its event table; those beyond are counted."""


@dataclass(frozen=True, slots=True)
class WatchPackets:
    """Stand-in: report packets to these home addresses that nothing here takes. -> PacketsSeen

    `per_second` 0: no more.
    """

    home_addresses: tuple[Addr, ...]
    per_second: int


@dataclass(frozen=True, slots=True)
class TellCorrespondent:
    """Stand-in: the proxy `app` sends a text in its session with this flow. -> CorrespondentTold"""

    handover: bytes
    app: str
    flow: Flow
    text: str


EventTableAction: TypeAlias = WatchPackets | TellCorrespondent


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """The first bytes of a packet, from its IP header on, and the length of the whole."""

    head: bytes
    length: int


@dataclass(frozen=True, slots=True)
class PacketsSeen:
    """Packets to one of these home addresses; `left_out` more came since the last time."""

    home_addresses: tuple[Addr, ...]
    packets: tuple[SeenPacket, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class CorrespondentTold:
    """The text was given to the proxy; with a reason it was not."""

    handover: bytes
    app: str
    flow: Flow
    reason: str = ""


EventTableEvent: TypeAlias = PacketsSeen | CorrespondentTold
