"""A registration and its answer, in the terms of neither signalling version (R1 to R8; RFC 5944, RFC 6275, RFC 7629).

A Registration Request and a Binding Update both become a `Registration`; roles decide on it and never ask which of the
two it was. This file must not know messages or their numbers. Bytes are read and written elsewhere, for Mobile IPv4 in
`roles/mobile_ipv4`.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.flows import Encapsulation, RuleVerdict, Selector
from locum.security.association import Algorithm, Association, Replay
from locum.wire.values import value


class RefusalReason(IntEnum):
    """Reason of a refused registration. Counters and events show the number of RFC 5944 for it."""

    UNSPECIFIED = 128
    PROHIBITED = 129
    NO_RESOURCES = 130
    NOT_AUTHENTIC = 131  # or no such registrant: a stranger does not learn which
    AGENT_NOT_AUTHENTIC = 132
    NOT_FRESH = 133
    MALFORMED = 134
    TOO_MANY_CARE_OF_ADDRESSES = 135
    OTHER_HOME_AGENT = 136
    REVERSE_TUNNEL_REQUIRED = 138
    ENCAPSULATION_UNAVAILABLE = 139
    UNKNOWN_CRITICAL_OPTION = 140
    UNKNOWN_CRITICAL_OPTION_OF_AGENT = 141
    UDP_UNAVAILABLE = 142
    REDIRECTED = 143  # to another home agent (RFC 4433)
    AAA_NOT_AUTHENTIC = 144  # the proof for the AAA server (RFC 4721)
    MULTIPATH_NOT_ALLOWED = 152
    UNKNOWN_IDENTIFIER = 153  # of a rule or a binding


class Refusal(Exception):
    """A registration that is refused and changes nothing."""

    def __init__(self, reason: RefusalReason, redirect: IPv4Address | None = None) -> None:
        """`redirect` is the home agent to be asked instead."""
        super().__init__(reason)
        self.reason, self.redirect = reason, redirect


class RegistrationFlag(IntFlag):
    """Properties of a registration and its tunnel. Rows of the store have the number."""

    SIMULTANEOUS = 0x80  # beside the care-of addresses that are registered, not in their place
    BROADCAST = 0x40
    CO_LOCATED = 0x20  # the tunnel ends at the registrant itself, not at a foreign agent
    MINIMAL_ENCAPSULATION = 0x10
    GRE = 0x08
    REVERSE_TUNNEL = 0x02


ENCAPSULATIONS = int(RegistrationFlag.MINIMAL_ENCAPSULATION | RegistrationFlag.GRE)  # flags that ask for one
FLAG_OF = {
    Encapsulation.GRE: RegistrationFlag.GRE,
    Encapsulation.MINIMAL: RegistrationFlag.MINIMAL_ENCAPSULATION,
}


def encapsulation_of(flags: int) -> Encapsulation:
    """The encapsulation that a registration with these flags asks for; GRE if it asks for both."""
    if not flags & ENCAPSULATIONS:
        return Encapsulation.IPIP
    return Encapsulation.GRE if flags & RegistrationFlag.GRE else Encapsulation.MINIMAL


@value
class Proof:
    """An authenticator, the bytes that it covers, and the SPI of the association that its sender names."""

    spi: int
    covered: bytes = field(repr=False)
    authenticator: bytes = field(repr=False)

    def holds(self, association: Association) -> bool:
        """True if it was made with the key of this association."""
        return self.spi == association.spi and association.verify(self.covered, self.authenticator)


@dataclass(frozen=True, slots=True)
class HomePrefix:
    """An IPv6 home address (128), or a prefix, that is to be bound together with the IPv4 home address."""

    prefix: IPv6Address
    length: int = 128


@dataclass(frozen=True, slots=True)
class BindingIdentifier:
    """The care-of address is one of several and known by this number (RFC 7629 section 4.1, RFC 5648)."""

    number: int
    bulk: bool = False  # all bindings of the registrant get the lifetime of this registration
    overwrite: bool = False  # this binding takes the place of all others


@dataclass(frozen=True, slots=True)
class StandInRole:
    """The registrant is a stand-in of the home address (R4)."""

    interface_address: Addr  # its own
    ruled: bool = False  # it takes only packets that rules send there (R6)


class RuleOperation(Enum):
    """Operation on a flow rule."""

    ADD = "add"  # it must not be there yet
    REPLACE = "replace"  # it must be there
    REMOVE = "remove"  # it must be there


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A change of one flow rule. After REMOVE only the identifier counts.

    Rules without an identifier are all that the registrant says without one: they take the place of those it said before.
    """

    identifier: int | None
    operation: RuleOperation = RuleOperation.ADD
    priority: int = 0
    share: bool = False  # flows are shared by weight among all of `to` (R8)
    verdict: RuleVerdict = RuleVerdict.FORWARD
    selectors: tuple[Selector, ...] = ()  # as they were said, one or two
    to: tuple[int, ...] = ()  # binding identifiers, best first
    problem: str | None = None  # the rule cannot be made: its selectors are unknown or contradict each other


# In a request: whichever home agent, in the home network or in the visited one (RFC 4433 section 2)
ANY_HOME_AGENT = (IPv4Address(0), IPv4Address("255.255.255.255"))

ANYWHERE = IPv4Address(0)  # as an access node: wherever the device is; the home agent knows


@dataclass(frozen=True, slots=True)
class ContextTransferRequest:
    """The context of the device is to come from this access node, or to go there (C4).

    A stand-in that does not know the access node says ANYWHERE.
    """

    access_node: Addr
    towards: bool = False


@dataclass(frozen=True, slots=True)
class UdpTunnelRequest:
    """The end of the tunnel asks for packets in UDP (RFC 3519)."""

    forced: bool = False  # also without a NAT
    plain_ip: bool = True  # IP packets in UDP, without another encapsulation between


@dataclass(frozen=True, slots=True)
class UdpTunnelAnswer:
    """Answer to the request for a UDP tunnel."""

    accepted: bool
    forced: bool = False  # there is no NAT
    interval: int = 0  # seconds between keepalives; 0 leaves it to the other end


@dataclass(frozen=True, slots=True)
class RevocationSupport:
    """The sender takes revocations of this registration (RFC 3543, RFC 5846)."""

    timestamp: int  # 32 bits of its clock: identifiers of its revocations come after it
    inform: bool = False  # it lets the home agent decide whether the mobile node is told


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """The means by which a mobile node derives the key of an association with an agent (RFC 3957)."""

    lifetime: int  # seconds of the key
    aaa_spi: int  # of the association from which the key is derived
    spi: int  # of messages to the home agent, or the foreign agent
    algorithm: Algorithm
    replay: Replay
    nonce: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """Options beside the fixed part. All but `udp`, `revocations` and `agent_spi` is under the registrant's proof.

    These are said by the end of the tunnel under its own proof: the registrant with a co-located
    care-of address, else the foreign agent.
    """

    nai: str | None = None
    prefixes: tuple[HomePrefix, ...] = ()
    binding: BindingIdentifier | None = None
    weight: int = 1  # share of flows among equals (R8)
    stand_in: StandInRole | None = None
    default: Addr | None = None  # default care-of address (R3); the unspecified address takes it back
    rules: tuple[RuleChange, ...] = ()
    transfer: ContextTransferRequest | None = None
    udp: UdpTunnelRequest | None = None
    revocations: RevocationSupport | None = None
    proposed: IPv4Address | None = None  # a home agent, with ANY_HOME_AGENT in the request
    # SPI of messages to the registrant, under the key that it asks for (RFC 3957); its proof is then that for AAA
    key_spi: int | None = None
    agent_key_spi: int | None = None  # the same with the foreign agent; its proof is any of the registrant
    agent_spi: int | None = None  # of messages to the foreign agent, which takes that key; it says so itself
    # The reason for refusing once the proof holds, where an option is unreadable
    problem: RefusalReason | None = None


NO_OPTIONS = Options()


@value
class Registration:
    """One registration as it was received or is to be sent."""

    home_address: IPv4Address  # 0.0.0.0: that of the NAI
    home_agent: IPv4Address
    care_of: Addr  # the home address itself: all care-of addresses are cancelled
    lifetime: int  # seconds asked for; 0 cancels
    identification: (
        int  # 64 bits that prove freshness: a timestamp, or two nonces (RFC 5944 section 5.7, RFC 4285)
    )
    flags: RegistrationFlag = RegistrationFlag(0)
    proof: Proof | None = None  # of the registrant, for the home agent
    agent_proof: Proof | None = None  # of the foreign agent that relayed it, for the home agent
    options: Options = NO_OPTIONS
    aaa_proof: Proof | None = None  # of the registrant, for its AAA server; read where `proof` is None


@dataclass(frozen=True, slots=True)
class PrefixAnswer:
    """Answer to the request for an IPv6 home address or prefix."""

    prefix: HomePrefix
    bound: bool


@value
class RegistrationAnswer:
    """Answer of a home agent to a registration."""

    refused: RefusalReason | None  # None: accepted
    lifetime: int  # seconds granted
    identification: int  # proves to the registrant that this is the answer to its registration
    prefixes: tuple[PrefixAnswer, ...] = ()
    device_at: Addr | None = None  # for a stand-in: the access node that serves the device (C4)
    udp: UdpTunnelAnswer | None = None  # this and the next are for the end of the tunnel
    revocations: RevocationSupport | None = None
    redirect: IPv4Address | None = None  # refused: the home agent to be asked instead
    key: KeyGrant | None = None  # the answer is signed with the key that follows from it
    agent_key: KeyGrant | None = None  # of the association with the foreign agent
    agent_key_wrapped: bytes = field(default=b"", repr=False)  # for the foreign agent alone


class AgentRefusal(Enum):
    """Reason of a foreign agent's own refusal, as far as a registrant acts on it."""

    LIFETIME_TOO_LONG = "lifetime"  # the answer has the longest that it grants
    CHALLENGE = "challenge"  # the last challenge is missing, unknown or used already (RFC 4721)
    ENCAPSULATION = "encapsulation"  # it has no such tunnels
    NETWORK_UNREACHABLE = "network"  # it has heard so of the home network
    HOME_AGENT_UNREACHABLE = "home-agent"
    OTHER = "other"


@value
class ReceivedAnswer:
    """An answer that has arrived at a registrant."""

    home_address: IPv4Address
    answer: RegistrationAnswer
    code: int  # as events and counters show it: the number in the message
    by_agent: AgentRefusal | None = None  # the answer of a foreign agent, without a home agent's proof
    proof: Proof | None = None  # of the home agent, for the registrant
    agent_proof: Proof | None = None  # of the foreign agent, for the registrant
    critical: bool = False  # it has an option that must be understood, and is not
    home_agent: IPv4Address = IPv4Address(0)  # that has answered

    @property
    def accepted(self) -> bool:
        """True if the home agent has registered the request."""
        return self.answer.refused is None

    @property
    def lifetime(self) -> int:
        """Seconds granted."""
        return self.answer.lifetime


class WriteAnswer(Protocol):
    """Spells answers in the signalling version in which a registration came."""

    def __call__(
        self,
        registration: Registration,
        answer: RegistrationAnswer,
        home_agent: IPv4Address,
        *,
        mobile: Association | None,
        agent: Association | None,
    ) -> bytes:
        """The message, signed for the registrant with `mobile` and for the foreign agent with `agent`, None: unsigned."""


@value
class Received:
    """A registration that has arrived."""

    registration: Registration
    source: Source
    size: int  # bytes of its message
    write: WriteAnswer
