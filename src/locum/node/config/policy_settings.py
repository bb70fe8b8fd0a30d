"""The configuration of policy servers as values (feature C9). Values only."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

RADIUS_PORT = 1812  # RFC 2865 section 3
CHANGES_PORT = 3799  # RFC 5176 section 2.3


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """One RADIUS server, and the secret it shares with this node."""

    address: IPv4Address
    port: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PushClient:
    """A policy server that may push changes, and the secret it shares with this node."""

    address: IPv4Address
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PushSettings:
    """The port for pushed changes (RFC 5176); `window` is how far a request's time may be off, in seconds."""

    port: int
    window: float
    clients: tuple[PushClient, ...]


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The policy servers, in the order in which they are asked. Times in seconds."""

    servers: tuple[PolicyServer, ...]
    nas_identifier: str
    timeout: float  # until the first retransmission; doubled for each that follows
    retries: int  # retransmissions to one server before the next one is asked
    dead_time: float  # for which a silent server is asked only when no other answers
    dictionary: Path | None  # of the attributes; None: the one that comes with the program
    changes: PushSettings | None = None
