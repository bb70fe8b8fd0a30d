"""Rest of a wake that ends before everything is back: values only."""

from collections.abc import Mapping
from dataclasses import dataclass

from locum.roles.mobile_node.handover import AwaySession, Handover
from locum.wire.control import FinalState, Flow


@dataclass(frozen=True, slots=True)
class ComingSession:
    """A session whose last state at the stand-in is known, and of which `offset` bytes are in the socket again."""

    session: AwaySession
    final: FinalState
    offset: int
    kept: bytes = b""  # fetched, and not taken yet

    @property
    def whole(self) -> bool:
        """True if every byte is in the socket."""
        return self.offset >= self.final.received

    @property
    def lacking(self) -> int:
        """Bytes that are not in the socket."""
        return self.final.received - self.offset


@dataclass(frozen=True, slots=True)
class Rest:
    """The sessions of the handover, each with how far it has come."""

    handover: Handover
    sessions: Mapping[Flow, ComingSession]
