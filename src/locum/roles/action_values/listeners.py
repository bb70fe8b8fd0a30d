"""Actions and results about connections to a sleeping device's ports, for `actions.py`.

The stand-in opens ports and accepts; the device puts accepted connections into its programs' queues. Nothing here decides.
"""

from dataclasses import dataclass
from typing import TypeAlias

from locum.wire.control import Flow, Handshake, Listener


@dataclass(frozen=True, slots=True)
class OpenPorts:
    """Stand-in: accept or refuse new connections to these ports. Each one that is accepted: -> ConnectionAccepted.

    Those that are here already for this handover are reported again.
    """

    handover: bytes
    listeners: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class ClosePorts:
    """Stand-in: accept no connections for this handover; earlier ones are reported before this is done."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class ReplayAccepted:
    """MN: put this connection and all its bytes into the queue of the program that listens. -> Replayed.

    Its flow is suspended.
    """

    flow: Flow
    handshake: Handshake
    data: bytes
    peer_closed: bool


@dataclass(frozen=True, slots=True)
class ConnectionAccepted:
    """A new connection to a port of the sleeping device lives here, as this session of the handover."""

    handover: bytes
    session: int
    flow: Flow
    handshake: Handshake


@dataclass(frozen=True, slots=True)
class AcceptedEnded:
    """Accepted connections of this handover whose peers have reset them."""

    handover: bytes
    sessions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The connection is its program's, or there is a reason for users."""

    flow: Flow
    error: str | None = None


AcceptingAction: TypeAlias = OpenPorts | ClosePorts | ReplayAccepted
AcceptingEvent: TypeAlias = ConnectionAccepted | AcceptedEnded | Replayed
