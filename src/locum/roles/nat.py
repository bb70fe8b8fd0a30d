"""NAT traversal (RFC 3519): when a tunnel is packed in UDP, between which addresses and ports, and how it is kept open.

The home agent's judgement of a request, and the other end's state. It must not know bindings, links or sockets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.mobile_ipv4.keepalives import REGISTRATION_PORT, write_keepalive

ANSWER_TIME = 2.0  # seconds for the answer to a keepalive; a NAT and two links are between
TRIES = 3  # keepalives without an answer, until the mobile node registers anew (section 4.10)


# The home agent -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outer:
    """Outer address of a UDP tunnel's other end: the NAT's address and port."""

    address: IPv4Address
    port: int
    forced: bool = False  # there is no NAT; the tunnel was asked for all the same

    def to_row(self) -> JSON:
        """The part of a row."""
        return [str(self.address), self.port, self.forced]

    @classmethod
    def from_row(cls, row: JSON) -> "Outer | None":
        """From part of a row of our own; raises ValueError for anything else."""
        if row is None:
            return None
        if isinstance(row, Sequence) and len(row) == 3 and isinstance(row[1], int):
            return cls(IPv4Address(str(row[0])), row[1], bool(row[2]))
        raise ValueError(f"{row!r} is no outer address")


def udp_tunnel(source: Addr, destination: Addr, port: int = REGISTRATION_PORT) -> Tunnel:
    """From port 434, where registrations come from and go to, so that one mapping of the NAT serves both (section 4.2)."""
    return Tunnel(source, destination, Encapsulation.UDP, REGISTRATION_PORT, port)


# The other end --------------------------------------------------------------------------------------------------------


class TraversalMode(Enum):
    """Request for a UDP tunnel; the value is the configuration's spelling."""

    OFF = "off"
    AUTO = "auto"  # where the home agent sees a NAT
    FORCE = "force"  # always


@dataclass(slots=True)
class _Probe:
    sequence: int
    tries: int  # since the last answer
    sent_at: float
    next_at: float


class KeepAlive:
    """Echo requests through one tunnel, so that the NAT remembers it, and notice when it does not (sections 4.9, 4.10).

    Times are steady seconds, intervals seconds.
    """

    def __init__(self, home_address: IPv4Address, home_agent: IPv4Address, randomness: Randomness) -> None:
        self.home_address, self.home_agent = home_address, home_agent
        self._identifier = randomness.getrandbits(16)
        self._interval = 0.0
        self._sequence = 0  # the last; an answer that belongs to an earlier tunnel says nothing of this one
        self._probe: _Probe | None = None

    @property
    def identifier(self) -> int:
        """Of the echo messages, 16 bits."""
        return self._identifier

    def start(self, interval: float, now: float) -> None:
        """The tunnel stands from now on; a registration is as good as an answer."""
        self._interval = interval
        self._probe = _Probe(self._sequence, 0, now, now + interval)

    def stop(self) -> None:
        """Stop: there is no tunnel any more."""
        self._probe = None

    def answered(self, identifier: int, sequence: int, now: float) -> None:
        """An echo reply came through the tunnel."""
        probe = self._probe
        if probe is not None and probe.tries and (identifier, sequence) == (self._identifier, probe.sequence):
            probe.tries = 0
            probe.next_at = max(now, probe.sent_at + self._interval)

    def lost(self, now: float) -> bool:
        """True if the last of TRIES is unanswered; the caller registers anew, and `start` begins again."""
        probe = self._probe
        return probe is not None and probe.tries >= TRIES and probe.next_at <= now

    def timeout(self, now: float) -> bytes | None:
        """The keepalive that is due, as a message for the home agent's port 434."""
        probe = self._probe
        if probe is None or probe.next_at > now or probe.tries >= TRIES:
            return None
        probe.sequence = self._sequence = (self._sequence + 1) & 0xFFFF
        probe.tries, probe.sent_at = probe.tries + 1, now
        probe.next_at = now + min(ANSWER_TIME, self._interval)
        return write_keepalive(self.home_address, self.home_agent, self._identifier, probe.sequence)

    def deadline(self) -> float | None:
        """Time of the next keepalive, or of declaring the last one lost."""
        return None if self._probe is None else self._probe.next_at


def outer_of(row: Mapping[str, JSON]) -> Outer | None:
    """Outer address in the row of a care-of address; None in rows of an earlier version."""
    return Outer.from_row(row.get("outer"))
