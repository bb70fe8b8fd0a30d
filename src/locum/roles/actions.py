"""The actions of a role and its events. Those of one subject are in action_values/.

A role returns actions; the node and the data plane perform them in the order given, which is meaning: `Persist` comes
before `Reply`, `SetFlow(HOLD)` before `Capture`, a new binding before the reply that announces it. Results are events in
the past tense and come back through the role's `happened`. Nothing here decides, sends or keeps anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal, Protocol, TypeAlias, get_args

from locum.roles.action_values.addresses import JSON, Addr, Source
from locum.roles.action_values.apps import AppAction, AppEvent
from locum.roles.action_values.contexts import CountInFlight, InFlightCounted
from locum.roles.action_values.direct_pages import DecidePage, PageDecided
from locum.roles.action_values.event_tables import EventTableAction, EventTableEvent
from locum.roles.action_values.flows import MembershipChanged
from locum.roles.action_values.forwarding import ForwardingAction, HostAction
from locum.roles.action_values.handed import HandedAction, HandedEvent
from locum.roles.action_values.listeners import AcceptingAction, AcceptingEvent
from locum.roles.action_values.locations import LocationTold, TellLocation
from locum.roles.action_values.paging import (
    ArmCard,
    CallByCommand,
    CardArmed,
    CommandEnded,
    EndCommand,
    PageAsked,
    PageTriggered,
    RestoreCard,
    SendMagicPacket,
)
from locum.roles.action_values.sessions import SessionAction, SessionEvent
from locum.roles.profile_requests import AnswerPush, FetchProfile, OwnHomeAddress, ProfileEvent, PushEvent
from locum.wire.control import Flow
from locum.wire.values import value

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
class SendPacket:
    """A whole IPv4 packet from this host's own address."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class ForwardPacket:
    """A whole IP packet that is forwarded as if it had arrived: the data plane decides about it."""

    packet: bytes


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


# The tables of roles in the store; each role has its own of each name.
Table: TypeAlias = Literal[
    "binding", "stand_in", "rule", "visitor", "context", "lost", "triggered", "registration", "handover",
    "profile", "pool", "key", "order", "entry", "left", "event", "wish", "direct_page", "direct_call",
]  # fmt: skip
TABLES: tuple[Table, ...] = get_args(Table)


@value
class Persist:
    """Write a row; rows given to `restore` look the same."""

    table: Table
    key: str
    value: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Forget:
    table: Table
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
    """Something was refused or dropped for this reason, as many times as `number` says."""

    reason: str
    number: int = 1


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
    ForwardingAction
    | HostAction
    | SessionAction
    | AcceptingAction
    | HandedAction
    | AppAction
    | Reply
    | SendRegistration
    | SendPacket
    | ForwardPacket
    | Advertise
    | Solicit
    | Persist
    | Forget
    | Emit
    | Count
    | Ask
    | Answer
    | FetchProfile
    | AnswerPush
    | OwnHomeAddress
    | Probe
    | CountInFlight
    | TellLocation
    | SendMagicPacket
    | CallByCommand
    | EndCommand
    | EventTableAction
    | DecidePage
    | ArmCard
    | RestoreCard
)


# Events: messages of the node to a role ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The CoAP answer to an `Ask`."""

    request: int
    body: bytes


@dataclass(frozen=True, slots=True)
class HomeBroadcast:
    """A datagram to all hosts came on a link of the home network (RFC 5944 section 4.3); from its IP header on."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """An `Ask` failed: no answer, no fitting association, or an error of the peer."""

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
    """An ICMP error about a registration message that this host sent to `to`; `quoted` is its quoted part.

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
class ForwardingRefused:
    """The data plane has not made the last changes of these home addresses; their earlier forwarding goes on.

    The changes wait and are tried again, together with later ones of the same home address.
    """

    home_addresses: tuple[Addr, ...]


@dataclass(frozen=True, slots=True)
class WallClockStepped:
    """The wall clock is so many seconds ahead of the role's `now`: at the start, and after each step."""

    ahead: float


Event: TypeAlias = (
    Answered
    | NoAnswer
    | Asked
    | LinkUp
    | LinkDown
    | DeliveryMoved
    | MembershipChanged
    | ProbeAnswered
    | EchoAnswered
    | InFlightCounted
    | LocationTold
    | RegistrationUnreachable
    | HomeBroadcast
    | WallClockStepped
    | ForwardingRefused
    | PageTriggered
    | CommandEnded
    | PageAsked
    | PageDecided
    | CardArmed
    | SessionEvent
    | AcceptingEvent
    | HandedEvent
    | AppEvent
    | EventTableEvent
    | ProfileEvent
    | PushEvent
)


class Role(Protocol):
    """The shape of every role. `now` is steady seconds: about those since 1970, but setting the wall clock does not move them.

    Time spent suspended counts, and they go on over restarts, so that times in rows stay right. A timestamp for
    others is `now` plus the last `WallClockStepped`.
    """

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the rows of an earlier run (or none): the actions give the whole forwarding state it wants."""
        ...

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]: ...

    def happened(self, event: Event, *, now: float) -> list[Action]: ...

    def timeout(self, *, now: float) -> list[Action]: ...

    def deadline(self) -> float | None:
        """Time of the next `timeout`, or None."""
        ...
