"""Actions and results about connections that proxies hand over to their device (A11), for `actions.py`. Nothing here decides."""

from dataclasses import dataclass
from typing import TypeAlias

from locum.wire.control import FinalState, Flow, Handed


@dataclass(frozen=True, slots=True)
class ConnectionOffered:
    """A proxy of this handover hands over a connection, which waits under this number in the node."""

    handover: bytes
    number: int
    flow: Flow
    label: str


@dataclass(frozen=True, slots=True)
class TakeOffered:
    """Stand-in: make it a session of the handover; its flow is held. -> ConnectionHanded or OfferEnded."""

    handover: bytes
    number: int


@dataclass(frozen=True, slots=True)
class RefuseOffered:
    """Stand-in: reset it."""

    handover: bytes
    number: int


@dataclass(frozen=True, slots=True)
class ConnectionHanded:
    """It lives here, as this session of the handover; told again after a restart."""

    handover: bytes
    session: int
    flow: Flow
    label: str


@dataclass(frozen=True, slots=True)
class OfferEnded:
    """It could not become a session, and has ended; `reason` is for users."""

    handover: bytes
    flow: Flow
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class RestoreHanded:
    """MN: make the socket of this connection with all its bytes, for the program that waits under its label. -> Replayed.

    Its flow is suspended.
    """

    flow: Flow
    handed: Handed
    final: FinalState
    data: bytes


HandedAction: TypeAlias = TakeOffered | RefuseOffered | RestoreHanded
HandedEvent: TypeAlias = ConnectionOffered | ConnectionHanded | OfferEnded
