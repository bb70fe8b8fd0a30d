"""What a role decides and what it is told: actions, results and the values in both.

A role returns actions; the node and the data plane perform them in the order given, which is meaning: `Persist` comes
before `Reply`, `SetFlow(HOLD)` before `Capture`, a new binding before the reply that announces it. Results are events in
the past tense and come back through the role's `happened`. Nothing here decides, sends or keeps anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

# isort: off
from locum.roles.action_values.listeners import (
    AcceptedEnded as AcceptedEnded, AcceptingAction as AcceptingAction, AcceptingEvent as AcceptingEvent, ClosePorts as ClosePorts,
    ConnectionAccepted as ConnectionAccepted, OpenPorts as OpenPorts, ReplayAccepted as ReplayAccepted,
    Replayed as Replayed,
)  # fmt: skip
from locum.roles.action_values.contexts import (
    CountInFlight as CountInFlight, DropHeld as DropHeld, InFlightCounted as InFlightCounted,
)  # fmt: skip
from locum.roles.action_values.flows import (
    Candidate as Candidate, Encapsulation as Encapsulation, Filter as Filter, FilterPlace as FilterPlace,
    FilterRule as FilterRule, FilterVerdict as FilterVerdict, FlowForwarding as FlowForwarding,
    ForwardGroup as ForwardGroup, InstallFilter as InstallFilter, InstallTranslation as InstallTranslation,
    MAX_CANDIDATES as MAX_CANDIDATES, MAX_RULES as MAX_RULES, MembershipChanged as MembershipChanged,
    OfferService as OfferService, RemoveFilter as RemoveFilter,
    RemoveTranslation as RemoveTranslation, Rule as Rule, RuleVerdict as RuleVerdict, Selector as Selector,
    Translation as Translation, Tunnel as Tunnel, UnwatchPort as UnwatchPort,
    WatchPort as WatchPort, WithdrawService as WithdrawService,
)  # fmt: skip
from locum.roles.action_values.profiles import (
    FetchProfile as FetchProfile, OwnHomeAddress as OwnHomeAddress, ProfileEvent as ProfileEvent, ProfileFetched as ProfileFetched,
    ProfileRefused as ProfileRefused, ProfileUnavailable as ProfileUnavailable,
)  # fmt: skip
from locum.roles.action_values.sessions import (
    AbandonSessions as AbandonSessions, Capture as Capture, Captured as Captured, Drained as Drained,
    DrainRound as DrainRound, DropSessions as DropSessions, FetchData as FetchData, Fetched as Fetched,
    FindSessions as FindSessions, Finished as Finished, FinishSessions as FinishSessions,
    FoundSession as FoundSession, Freeze as Freeze, HeldSession as HeldSession, InjectData as InjectData,
    Injected as Injected, Measured as Measured, MeasureSessions as MeasureSessions,
    NotPerformed as NotPerformed,
    ReleaseCaptured as ReleaseCaptured, Restored as Restored, RestoreSessions as RestoreSessions,
    ResumeSessions as ResumeSessions, SessionAction as SessionAction, SessionEvent as SessionEvent,
    FreezeFailed as FreezeFailed, LeftSession as LeftSession, Process as Process, SessionFailure as SessionFailure, SessionFinal as SessionFinal, SessionRecordItem as SessionRecordItem,
    SessionsFound as SessionsFound, SessionUse as SessionUse, Surveyed as Surveyed, SurveySessions as SurveySessions,
    Stopped as Stopped, StopSessions as StopSessions, Thaw as Thaw,
    Loosen as Loosen, Tighten as Tighten, Tightened as Tightened,
    AnswerPeers as AnswerPeers, HasRoom as HasRoom, StopAnswering as StopAnswering, WatchReading as WatchReading,
)  # fmt: skip
from locum.wire.control import Flow
from locum.wire.values import value
# isort: on

Addr: TypeAlias = IPv4Address | IPv6Address
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


class Randomness(Protocol):
    """Source of random numbers that the caller owns: `random.SystemRandom()` in a node, a seeded one in tests."""

    def random(self) -> float: ...

    def getrandbits(self, k: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where a message came from: its address and port, the link it arrived on and the address it was sent to."""

    address: Addr
    port: int
    link: str
    link_layer: bytes | None = None
    local: Addr | None = None


# Forwarding values --------------------------------------------------------------------------------------------------


class Verdict(Enum):
    """What becomes of a packet to a home address."""

    NATIVE = "native"
    ENCAPSULATE = "encapsulate"
    HOLD = "hold"
    REPORT = "report"
    DROP = "drop"
    GUARD = "guard"  # flows of the flow table and ICMP pass; the rest is dropped and counted "no-session"


class Stage(Enum):
    """Where on one host an entry decides: each part that roles play there has its own table (R17).

    A packet meets the stages in this order and each at most once, so that it cannot go round: HOME, then, if it came
    out of a tunnel for the home address or would go into one that ends on this host, VISITED, then LOCAL.
    """

    __hash__ = object.__hash__  # part of many keys; Enum would hash the name each time

    HOME = "home"  # home agent: the choice of care-of address
    VISITED = "visited"  # access node: a visitor that is elsewhere (620) or not there yet; no rules, no copies, no peer
    LOCAL = "local"  # stand-in or device: packets that end on this host, beside its flow table


@value
class BindingEntry:
    """Packets *to* a home address: at most four tunnels (simultaneous bindings, RFC 5944 section 3.6.1.1).

    Packets whose source is `peer` take `peer_tunnel` instead: the stand-in that talks to the home address means
    the device. Then `rules`, at most MAX_RULES, the first that matches (R5); what none takes goes by verdict and
    tunnels. With `weights`, one a tunnel, flows are shared among the tunnels by weight; without, all get a copy.
    The key of an entry is its home address and `stage`; GUARD is always at LOCAL, ENCAPSULATE never.
    """

    home_address: Addr
    verdict: Verdict
    tunnels: tuple[Tunnel, ...] = ()
    peer: Addr | None = None
    peer_tunnel: Tunnel | None = None
    rules: tuple[Rule, ...] = ()
    weights: tuple[int, ...] = ()
    at: Stage = field(default=Stage.HOME, compare=False)  # tables are compared, each with its own kind

    @property
    def stage(self) -> Stage:
        """The table that the entry belongs to."""
        return Stage.LOCAL if self.verdict is Verdict.GUARD else self.at


class Side(Enum):
    """Which inner address of a tunnelled packet must be the home address."""

    __hash__ = object.__hash__  # part of many keys; Enum would hash the name each time

    TO_HOME_ADDRESS = "to"  # inner destination: at a FA, at a MN or MNPS with a co-located CoA
    FROM_HOME_ADDRESS = "from"  # inner source: at the HA, reverse tunnel (R10)


@value
class TunnelAcceptance:
    """Permission to decapsulate; with `link`, deliver to `next_hop` there, else look the inner packet up again.

    With `source_port` only what comes in UDP from that port (RFC 3519), for others may have the NAT's address too.
    With `end` only what comes to that end point of ours. It goes before the one that takes it anywhere, and stands beside
    that one, another role's (R17): a stand-in's before the visitor's that it stands in for. It has no link.
    """

    outer_source: Addr
    home_address: Addr
    side: Side
    link: str | None = None
    next_hop: Addr | None = None
    source_port: int = 0
    end: Addr | None = None


@dataclass(frozen=True, slots=True)
class OutboundEntry:
    """Packets *from* a home address that enter on `link` (FA), or of this host (None): encapsulate."""

    home_address: Addr
    link: str | None
    tunnel: Tunnel


class FlowVerdict(Enum):
    """What becomes of a flow's packets on the host that owns, takes or leaves it."""

    DELIVER = "deliver"
    HOLD = "hold"
    SUSPEND = "suspend"  # hold what comes in, drop what goes out


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """One flow, seen from its local end, and its verdict."""

    flow: Flow
    verdict: FlowVerdict


# Forwarding actions -------------------------------------------------------------------------------------------------


@value
class InstallBinding:
    """Add or replace the entry of `entry.home_address` at `entry.stage`."""

    entry: BindingEntry


@dataclass(frozen=True, slots=True)
class RemoveBinding:
    home_address: Addr
    stage: Stage = Stage.HOME


@value
class AcceptTunnel:
    """Add or replace: the key is (outer source, home address, side)."""

    acceptance: TunnelAcceptance


@value
class RefuseTunnel:
    acceptance: TunnelAcceptance


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    entry: OutboundEntry


@dataclass(frozen=True, slots=True)
class RemoveOutbound:
    home_address: Addr
    link: str | None = None  # as of the entry: roles of one host have entries of their own (R17)


@dataclass(frozen=True, slots=True)
class SetFlow:
    entry: FlowEntry


@dataclass(frozen=True, slots=True)
class ClearFlow:
    flow: Flow


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Deliver, in order, what is held for this address and is now allowed (verdict DELIVER or no entry).

    With `ahead` also what is not yet: it leaves by the host's routes while newcomers still wait behind it.
    """

    home_address: Addr
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """`address` is an end point of tunnels on this host."""

    address: Addr


@dataclass(frozen=True, slots=True)
class RemoveLocalEndpoint:
    address: Addr


@dataclass(frozen=True, slots=True)
class NeighbourEntry:
    """FA: `address` is reached on `link` at this link-layer address."""

    link: str
    address: Addr
    link_layer: bytes


@dataclass(frozen=True, slots=True)
class RemoveNeighbour:
    link: str
    address: Addr


@dataclass(frozen=True, slots=True)
class UseAgent:
    """MN: send the packets of its home addresses by this agent on this link (`care_of` is the CoA in use)."""

    link: str
    agent: Addr
    link_layer: bytes | None
    home_addresses: tuple[Addr, ...]
    care_of: Addr
    colocated: bool


@dataclass(frozen=True, slots=True)
class LeaveAgent:
    link: str


ForwardingAction: TypeAlias = (
    InstallBinding | RemoveBinding | AcceptTunnel | RefuseTunnel | InstallOutbound | RemoveOutbound
    | SetFlow | ClearFlow | ReleaseHeld | DropHeld | LocalEndpoint | RemoveLocalEndpoint
    | NeighbourEntry | RemoveNeighbour | UseAgent | LeaveAgent | FlowForwarding
)  # fmt: skip


# Messages, store and events -----------------------------------------------------------------------------------------


@value
class Reply:
    """Answer a UDP message where it came from, from the address and port it was sent to."""

    to: Source
    message: bytes


@dataclass(frozen=True, slots=True)
class SendRegistration:
    """A registration message from port 434, on `link` and from `source` where they matter."""

    message: bytes
    to: Addr
    port: int = 434
    link: str | None = None
    source: Addr | None = None
    link_layer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Advertise:
    """ICMP Agent Advertisement; without `to` it goes to 224.0.0.1."""

    link: str
    message: bytes
    to: Addr | None = None
    link_layer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Solicit:
    """ICMP Agent Solicitation to 224.0.0.2 (TTL 1)."""

    link: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """AN: ask the visitor at this link-layer address, by unicast ARP, whether it still has `address`."""

    link: str
    address: IPv4Address
    link_layer: bytes


@value
class Persist:
    """Write a row (tables "binding", "visitor", "registration", "handover"); rows given to `restore` look the same."""

    table: str
    key: str
    value: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Forget:
    table: str
    key: str


@value
class Emit:
    """One event for the stream; `message` is the number of the source text ("601") where there is one."""

    kind: str
    message: str | None = None
    home_address: Addr | None = None
    flow: Flow | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Count:
    """Something was refused or dropped for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """CoAP request to `peer`; `Answered` or `NoAnswer` with the same `request` comes back within `timeout` seconds.

    `path` is the message number ("634", "618"). Request numbers are the role's own: the node keeps (role, request).
    A bulk request may use a connection meant for large bodies.
    """

    request: int
    peer: Addr
    path: str
    body: bytes
    timeout: float
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the CoAP request that came as `Asked` with this exchange number."""

    exchange: int
    body: bytes


Action: TypeAlias = (
    ForwardingAction | SessionAction | AcceptingAction
    | Reply | SendRegistration | Advertise | Solicit | Persist | Forget | Emit | Count | Ask | Answer
    | FetchProfile | OwnHomeAddress | Probe | CountInFlight
)  # fmt: skip


# Events: what the node tells a role ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The CoAP answer to an `Ask`."""

    request: int
    body: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """An `Ask` failed: nobody answered, the association does not fit, or the peer answered with an error."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A CoAP request arrived under an OSCORE association that is authorised for these home addresses.

    The role answers with `Answer(exchange, …)`, at once or later.
    """

    exchange: int
    path: str
    body: bytes
    peer: Addr
    authorised: tuple[Addr, ...]
    may_trigger: bool = False  # the association lets the peer make a stand-in take and release (C8)


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The link has carrier; `addresses` are its own (a co-located CoA is taken from them)."""

    link: str
    addresses: tuple[Addr, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkDown:
    link: str


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """AN: on this link `address` answers at this link-layer address."""

    link: str
    address: IPv4Address
    link_layer: bytes


@dataclass(frozen=True, slots=True)
class RegistrationUnreachable:
    """An ICMP error about a registration message that this host sent to `to`; `quoted` is what it repeats of it.

    RFC 792 asks for no byte of the message to be repeated, RFC 1812 section 4.3.2.3 for as many as fit.
    """

    to: IPv4Address
    icmp_type: int
    icmp_code: int
    quoted: bytes


@dataclass(frozen=True, slots=True)
class EchoAnswered:
    """MN: the home agent has answered an echo request of its keepalives (RFC 3519 section 4.9)."""

    identifier: int
    sequence: int


@dataclass(frozen=True, slots=True)
class DeliveryMoved:
    """AN: packets of a preconfigured home address began (`active`) or ceased to be delivered (counters, R11)."""

    home_address: Addr
    active: bool


@dataclass(frozen=True, slots=True)
class WallClockStepped:
    """The wall clock is so many seconds ahead of the role's `now`: told at the start, and whenever it was set."""

    ahead: float


Event: TypeAlias = (
    Answered | NoAnswer | Asked | LinkUp | LinkDown | DeliveryMoved | MembershipChanged | ProbeAnswered
    | EchoAnswered | InFlightCounted | RegistrationUnreachable | WallClockStepped
    | SessionEvent | AcceptingEvent | ProfileEvent
)  # fmt: skip


class Role(Protocol):
    """The shape of every role. `now` is steady seconds: about those since 1970, but setting the wall clock does not move them.

    Time spent suspended counts, and they go on over restarts, so that times in rows stay right. What is a timestamp for
    others is `now` plus what `WallClockStepped` said last.
    """

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the rows of an earlier run (or none): the actions give the whole forwarding state it wants."""
        ...

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]: ...

    def happened(self, event: Event, *, now: float) -> list[Action]: ...

    def timeout(self, *, now: float) -> list[Action]: ...

    def deadline(self) -> float | None:
        """When `timeout` wants to be called, or None."""
        ...
