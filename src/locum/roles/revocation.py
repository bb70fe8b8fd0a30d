"""Registration revocation (RFC 3543): common part of both ends of a tunnel.

Timestamps, what makes a revocation believable, and those under way until they are acknowledged. It must not know
bindings, visitors or a revocation's effect on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Source
from locum.roles.action_values.registration import Proof
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.actions import Action, Count, Emit, SendRegistration
from locum.roles.mobile_ipv4.keepalives import REGISTRATION_PORT
from locum.roles.mobile_ipv4.revocations import write_acknowledgment, write_revocation
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.security.association import Association
from locum.security.replay import ntp64

RETRY_FIRST = 1.0  # seconds; as registrations are retransmitted (RFC 5944 section 3.6.3), doubled each time
TRIES = 6  # the last one about half a minute after the first; then the lifetime of the registration ends it
MAX_REMEMBERED = 4096  # home addresses without a registration whose last identifier is kept

_MASK, _HALF = 0xFFFFFFFF, 1 << 31


def later(one: int, other: int) -> bool:
    """True if the 32-bit timestamp `one` is after `other`; they wrap every 136 years (RFC 1982)."""
    return 0 < (one - other) & _MASK < _HALF


@dataclass(frozen=True, slots=True)
class Revocable:
    """The peer's revocation support extension (section 3.2): it takes revocations."""

    timestamp: int  # of its clock, the last that was heard: every identifier must come after it (section 3.5)
    inform: bool = False  # I: it lets the home agent decide whether the mobile node is told

    def to_row(self) -> JSON:
        """The part of a row."""
        return [self.timestamp, self.inform]

    @classmethod
    def from_row(cls, row: JSON) -> "Revocable | None":
        """From part of a row of our own; raises ValueError for anything else."""
        if row is None:
            return None
        if isinstance(row, Sequence) and len(row) == 2 and isinstance(row[0], int):
            return cls(row[0], bool(row[1]))
        raise ValueError(f"{row!r} is not a peer's revocation support")


class Stamps:
    """Our timestamps and identifiers: steady seconds, yet each ahead of the last for its home address.

    Section 3.5 wants one clock for both; a wall clock that is set back would make all that follows a replay.
    """

    def __init__(self) -> None:
        self._last: dict[IPv4Address, int] = {}

    def next(self, home_address: IPv4Address, now: float) -> int:
        """32 bits; values never repeat, also within one second."""
        clock = ntp64(now) >> 32
        last = self._last.get(home_address)
        fresh = clock if last is None or later(clock, last) else (last + 1) & _MASK
        if len(self._last) > MAX_REMEMBERED:
            self._last = {key: value for key, value in self._last.items() if not later(clock, value)}
        self._last[home_address] = fresh
        return fresh


@dataclass(frozen=True, slots=True)
class RevocationPeer:
    """The other end: where it is, and the association that both sign with."""

    address: Addr
    association: Association
    between_agents: bool = True  # the association is one of agents, not of the mobile node
    port: int = REGISTRATION_PORT
    source: Addr | None = None  # our address that it knows


class Heard:
    """Identifiers of revocations without a registration: bounded, the oldest are dropped."""

    def __init__(self) -> None:
        self._last: dict[tuple[Addr, IPv4Address], int] = {}

    def get(self, peer: Addr, home_address: IPv4Address) -> int | None:
        """The last one of that peer for that home address."""
        return self._last.get((peer, home_address))

    def set(self, peer: Addr, home_address: IPv4Address, identifier: int) -> None:
        """Remember it."""
        self._last.pop((peer, home_address), None)
        self._last[peer, home_address] = identifier
        if len(self._last) > MAX_REMEMBERED:
            del self._last[next(iter(self._last))]


def unbelievable(
    revocation: Revocation,
    proof: Proof | None,
    association: Association | None,
    last: int | None,
    *,
    from_home_agent: bool,
) -> str | None:
    """Reason to drop a revocation, or None. `last` is the sender's last timestamp (section 3.5)."""
    if revocation.from_home_agent is not from_home_agent:
        return "revocation-reflected"
    if association is None or proof is None or not proof.holds(association):
        return "revocation-not-authentic"
    if last is not None and not later(revocation.identifier, last):
        return "revocation-replayed"
    return None


def acknowledgment(
    revocation: Revocation, association: Association, *, between_agents: bool, inform: bool
) -> bytes:
    """The signed answer (section 3.4)."""
    answer = Acknowledgment(revocation.home_address, revocation.identifier, inform)
    return write_acknowledgment(answer, association, between_agents=between_agents)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    notice: Revocation
    to: RevocationPeer
    identifiers: tuple[int, ...]  # of every time it was sent: an acknowledgment of any of them will do
    interval: float  # seconds until the next retransmission
    reason: str  # for users

    def told(self) -> Emit:
        """Note that it has been sent for the first time."""
        detail: dict[str, JSON] = {
            "to": str(self.to.address),
            "care_of": str(self.notice.care_of),
            "reason": self.reason,
        }
        return Emit("revocation-sent", None, self.notice.home_address, None, detail)


_Key = tuple[IPv4Address, Addr]  # home address, care-of address


class Revocations(Part):
    """Revocations of our own, repeated until they are acknowledged."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps
        self._under_way: dict[_Key, _UnderWay] = {}
        self._timers: Deadlines[_Key] = Deadlines()

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(
        self,
        notice: Revocation,
        to: RevocationPeer,
        *,
        now: float,
        reason: str,
        after: float = 0.0,
    ) -> list[Action]:
        """Send it, in `after` seconds if it is not cancelled until then; its identifier is made here.

        `reason` is for users.
        """
        key = (notice.home_address, notice.care_of)
        held = self._under_way[key] = _UnderWay(notice, to, (), RETRY_FIRST, reason)
        if after:
            self._timers.set(key, now + after)
            return []
        return [self._send(key, now), held.told()]

    def cancel(self, home_address: IPv4Address, care_of: Addr) -> None:
        """A new registration there is in force: the old revocation must not be repeated against it."""
        if self._under_way:  # mostly there is none at all
            self._timers.cancel((home_address, care_of))
            self._under_way.pop((home_address, care_of), None)

    def acknowledged(self, message: Acknowledgment, source: Source) -> tuple[Revocation | None, list[Action]]:
        """The revocation that this ends, if it answers one of ours, and the actions."""
        for key, held in self._under_way.items():
            ours = message.home_address == key[0] and message.identifier in held.identifiers
            if not ours or source.address != held.to.address:
                continue
            proof = message.agent_proof if held.to.between_agents else message.proof
            if proof is None or not proof.holds(held.to.association):
                return None, [Count("revocation-acknowledgment-not-authentic")]
            self.cancel(*key)
            detail: dict[str, JSON] = {"by": str(source.address), "inform": message.inform}
            return held.notice, [Emit("revocation-acknowledged", None, message.home_address, None, detail)]
        return None, [Count("revocation-acknowledgment-unexpected")]

    def timeout(self, *, now: float) -> list[Action]:
        """Retransmission with back-off, each under a new identifier; after TRIES the peer is left to the lifetime."""
        actions: list[Action] = []
        for key in self._timers.due(now):
            held = self._under_way[key]
            if len(held.identifiers) >= TRIES:
                del self._under_way[key]
                detail: dict[str, JSON] = {"to": str(held.to.address)}
                actions.append(Emit("revocation-unanswered", None, key[0], None, detail))
                continue
            if held.identifiers:
                self._under_way[key] = replace(held, interval=2 * held.interval)
            else:
                actions.append(held.told())
            actions.append(self._send(key, now))
        return actions

    def deadline(self) -> float | None:
        """Steady seconds of the next retransmission."""
        return self._timers.next()

    def _send(self, key: _Key, now: float) -> Action:
        held = self._under_way[key]
        identifier = self._stamps.next(key[0], now)
        self._under_way[key] = replace(held, identifiers=(*held.identifiers, identifier))
        self._timers.set(key, now + held.interval)
        notice, to = replace(held.notice, identifier=identifier), held.to
        message = write_revocation(notice, to.association, between_agents=to.between_agents)
        return SendRegistration(message, to.address, to.port, source=to.source)


def said_by(row: Mapping[str, JSON]) -> Revocable | None:
    """Data of a peer in a row of a binding or visitor; None in rows of an earlier version."""
    return Revocable.from_row(row.get("revocable"))
