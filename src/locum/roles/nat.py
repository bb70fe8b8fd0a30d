"""NAT traversal (RFC 3519): when a tunnel is packed in UDP, between which addresses and ports, and how it is kept open.

The home agent's judgement of a request, and the other end's state. It must not know bindings, links or sockets.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.actions import Action, Emit, SendRegistration
from locum.roles.registrant.attachment import Attachment
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    InnerEncapsulation,
    UdpTunnelCode,
    UdpTunnelReply,
    UdpTunnelRequest,
)
from locum.wire.mobile_ip.registration import UDP_PORT, Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.tunnel_data import keepalive

ANSWER_TIME = 2.0  # seconds for the answer to a keepalive; a NAT and two links are between
TRIES = 3  # keepalives without an answer, until the mobile node registers anew (section 4.10)


# The home agent -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outer:
    """Where the other end of a UDP tunnel is seen: the NAT's address and the port that it gave."""

    address: IPv4Address
    port: int
    forced: bool = False  # there is no NAT; the tunnel was asked for all the same

    def to_row(self) -> JSON:
        """As part of a row."""
        return [str(self.address), self.port, self.forced]

    @classmethod
    def from_row(cls, row: JSON) -> "Outer | None":
        """From part of a row of our own; raises ValueError for anything else."""
        if row is None:
            return None
        if isinstance(row, Sequence) and len(row) == 3 and isinstance(row[1], int):
            return cls(IPv4Address(str(row[0])), row[1], bool(row[2]))
        raise ValueError(f"{row!r} is no outer address")


@dataclass(frozen=True, slots=True)
class TraversalPolicy:
    """What a home agent does for nodes behind a NAT; `interval` 0 leaves keepalives to them, in seconds."""

    willing: bool = True
    forced: bool = True  # also without a NAT, for those who ask for it (firewalls)
    interval: int = 0


class TraversalRefused(Exception):
    """The registration is refused with this code (section 4.6.1)."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Traversal:
    """What follows from a request: the tunnel's other end, and what the reply says; both None without a request."""

    outer: Outer | None = None
    reply: UdpTunnelReply | None = None


_NONE = Traversal()


def traversal(
    request: RegistrationRequest, source: Source, policy: TraversalPolicy, *, agent_known: bool
) -> Traversal:
    """Section 4.6: a request that comes from elsewhere than its care-of address has come through a NAT.

    The mobile node's extension counts with a co-located care-of address, the foreign agent's only where its own
    authentication has been checked (`agent_known`). Raises TraversalRefused.
    """
    asked = _asked(request, agent_known)
    if asked is None or request.lifetime == 0:
        return _NONE
    if asked.encapsulation is not InnerEncapsulation.IP:
        raise TraversalRefused(Code.UDP_ENCAPSULATION_UNAVAILABLE)
    assert isinstance(source.address, IPv4Address)
    seen = source.address != request.care_of_address
    if not policy.willing:
        if seen:
            raise TraversalRefused(Code.ADMINISTRATIVELY_PROHIBITED)  # it would be registered and not reached
        return Traversal(None, UdpTunnelReply(UdpTunnelCode.DECLINED))
    if not seen and not (asked.force and policy.forced):
        return Traversal(None, UdpTunnelReply(UdpTunnelCode.DECLINED))
    reply = UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL, not seen, policy.interval)
    return Traversal(Outer(source.address, source.port, not seen), reply)


def _asked(request: RegistrationRequest, agent_known: bool) -> UdpTunnelRequest | None:
    said = request.protected(AuthKind.MN_HA)
    if not request.flags & Flag.D:
        said = request.protected(AuthKind.FA_HA)[len(said) :] if agent_known else ()
    return next((each for each in said if isinstance(each, UdpTunnelRequest)), None)


def udp_tunnel(source: Addr, destination: Addr, port: int = UDP_PORT) -> Tunnel:
    """From port 434, where registrations come from and go to, so that one mapping of the NAT serves both (section 4.2)."""
    return Tunnel(source, destination, Encapsulation.UDP, UDP_PORT, port)


# The other end --------------------------------------------------------------------------------------------------------


class TraversalMode(Enum):
    """Whether a UDP tunnel is asked for; the value is the configuration's spelling."""

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
        self.home_address, self._home_agent = home_address, home_agent
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
        """There is no tunnel any more."""
        self._probe = None

    def answered(self, identifier: int, sequence: int, now: float) -> None:
        """An echo reply came through the tunnel."""
        probe = self._probe
        if probe is not None and probe.tries and (identifier, sequence) == (self._identifier, probe.sequence):
            probe.tries = 0
            probe.next_at = max(now, probe.sent_at + self._interval)

    def lost(self, now: float) -> bool:
        """Whether the last of TRIES has gone unanswered; the caller registers anew, and `start` begins again."""
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
        return keepalive(self.home_address, self._home_agent, self._identifier, probe.sequence).encode()

    def deadline(self) -> float | None:
        """When the next is due, or the last counts as lost."""
        return None if self._probe is None else self._probe.next_at


class MobileTraversal:
    """A mobile node's share, with a co-located care-of address: rides in its registrations and keeps the tunnel open.

    `interval` in seconds overrides what the home agent says.
    """

    def __init__(
        self,
        home_address: IPv4Address,
        home_agent: IPv4Address,
        mode: TraversalMode,
        interval: float | None,
        randomness: Randomness,
    ) -> None:
        self._home_address, self._home_agent = home_address, home_agent
        self._mode = mode
        self._override = interval
        self._tunnel: UdpTunnelReply | None = None
        self._keep_alive = KeepAlive(home_address, home_agent, randomness)

    def at_home(self, home_address: IPv4Address) -> None:
        """The mobile node's home address from now on."""
        self._home_address = home_address
        self._keep_alive.home_address = home_address

    @property
    def udp(self) -> bool:
        """Whether the tunnel is packed in UDP, as the home agent said last."""
        return self._tunnel is not None

    # As a part of registrations

    def extensions(self, attachment: Attachment, lifetime: int) -> Sequence[UdpTunnelRequest]:
        """Section 4.4: with a co-located care-of address only, and where no agent stands between (section 4.11)."""
        if self._mode is TraversalMode.OFF or not attachment.direct or not lifetime:
            return ()
        return (UdpTunnelRequest(force=self._mode is TraversalMode.FORCE),)

    def replied(self, reply: RegistrationReply, attachment: Attachment) -> Sequence[Action]:
        """Without an extension in it the home agent knows nothing of UDP tunnels (section 4.4)."""
        if not isinstance(reply.code, Code) or not reply.code.accepted:
            return ()
        said = reply.protected(AuthKind.MN_HA) if attachment.direct and reply.lifetime else ()
        found = next((each for each in said if isinstance(each, UdpTunnelReply) and each.accepted), None)
        before, self._tunnel = self._tunnel, found if self._mode is not TraversalMode.OFF else None
        if (before is None) is (self._tunnel is None):
            return ()
        detail: dict[str, JSON] = {"udp": self.udp, "forced": bool(self._tunnel and self._tunnel.forced)}
        return (Emit("nat-traversal", None, self._home_address, None, detail),)

    # In time

    def settled(self, registered: bool, now: float) -> None:
        """A registration has been answered: keepalives are counted from here, or there are none."""
        if self._tunnel is None or not registered:
            self._keep_alive.stop()
        else:
            self._keep_alive.start(self._override or self._tunnel.interval, now)

    def answered(self, identifier: int, sequence: int, now: float) -> None:
        """An echo reply came to the home address from the home agent."""
        self._keep_alive.answered(identifier, sequence, now)

    def lost(self, now: float) -> bool:
        """Whether the NAT has forgotten the tunnel, as far as can be told. Said once: register anew."""
        lost = self._keep_alive.lost(now)
        if lost:
            self._keep_alive.stop()
        return lost

    def timeout(self, attachment: Attachment, now: float) -> list[Action]:
        """The keepalive that is due, by the way of the registration and from its port."""
        message = self._keep_alive.timeout(now)
        if message is None:
            return []
        return [SendRegistration(message, self._home_agent, link=attachment.link, source=attachment.care_of)]

    def deadline(self) -> float | None:
        """Steady seconds of the next thing to do."""
        return self._keep_alive.deadline()

    # Rows

    def to_row(self) -> JSON:
        """As part of a row; None without a UDP tunnel."""
        return None if self._tunnel is None else [self._tunnel.forced, self._tunnel.keepalive]

    def from_row(self, row: JSON, now: float) -> None:
        """From part of a row of our own; raises ValueError for anything else."""
        if row is None:
            return
        if not isinstance(row, Sequence) or len(row) != 2 or not isinstance(row[1], int):
            raise ValueError(f"{row!r} is no UDP tunnel")
        self._tunnel = UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL, bool(row[0]), row[1])
        self.settled(True, now)


class AgentTraversal:
    """A foreign agent's share (section 4.5), when it stands behind a NAT itself.

    It asks on behalf of its visitors, and keeps the one mapping that all tunnels to a home agent share. The answers to
    its keepalives go to a visitor, so it cannot tell when they cease; the visitor's next registration opens a new one.
    """

    def __init__(
        self,
        care_of_address: IPv4Address,
        mode: TraversalMode,
        interval: float | None,
        home_agents: Container[Addr],
    ) -> None:
        self._care_of_address = care_of_address
        self._mode = mode
        self._override = interval
        self._home_agents = home_agents
        self._mappings: dict[IPv4Address, tuple[float, float]] = {}  # interval, time of the next keepalive
        self._sequence = 0

    @property
    def enabled(self) -> bool:
        """The U bit of advertisements (section 3.4)."""
        return self._mode is not TraversalMode.OFF

    def request(self, request: RegistrationRequest) -> bytes:
        """What goes into a relayed request before the foreign-home authentication; nothing without an association."""
        if not self.enabled or not request.lifetime or request.home_agent not in self._home_agents:
            return b""
        return UdpTunnelRequest(force=self._mode is TraversalMode.FORCE).encode()

    def agreed(self, reply: RegistrationReply, now: float) -> bool:
        """Whether the tunnel to that home agent is packed in UDP; its authentication has been checked."""
        said = reply.protected(AuthKind.FA_HA)[len(reply.protected(AuthKind.MN_HA)) :]
        found = next((each for each in said if isinstance(each, UdpTunnelReply) and each.accepted), None)
        if found is None or not self.enabled:
            return False
        interval = self._override or float(found.interval)
        self._mappings[reply.home_agent] = (interval, now + interval)
        return True

    def timeout(self, visitors: Mapping[IPv4Address, IPv4Address], now: float) -> list[Action]:
        """The keepalives that are due; `visitors` has a home address for each home agent that still serves one."""
        actions: list[Action] = []
        for home_agent, (interval, at) in tuple(self._mappings.items()):
            if at > now:
                continue
            if home_agent not in visitors:
                del self._mappings[home_agent]
                continue
            self._mappings[home_agent] = (interval, now + interval)
            self._sequence = (self._sequence + 1) & 0xFFFF
            message = keepalive(visitors[home_agent], home_agent, 0, self._sequence).encode()
            actions.append(SendRegistration(message, home_agent, source=self._care_of_address))
        return actions

    def deadline(self) -> float | None:
        """Steady seconds of the next keepalive."""
        return min((at for _, at in self._mappings.values()), default=None)


def outer_of(row: Mapping[str, JSON]) -> Outer | None:
    """Where the other end is seen, in the row of a care-of address; rows of an earlier version have nothing."""
    return Outer.from_row(row.get("outer"))
