"""The configuration of a home agent as values. The role goes by them; nothing here imports its machines."""

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.paging import PageForwarding, PageProfile
from locum.roles.home_agent.binding import AuthorisedStandIn, Mobile
from locum.roles.paging.limits import PageLimits
from locum.roles.profile import Pool, Profile
from locum.roles.room import Places
from locum.security.replay import DEFAULT_TOLERANCE

MAX_LIFETIME = 1800  # seconds granted at most; RFC 5944 leaves it to the home agent (section 3.8.2.2)
SHORT_LIFETIME = 10  # seconds; up to this a registration is "very short" (R2)
LEFT_LIFETIME = 604_800  # seconds: a week, as long as a device that sleeps asks a location server for
KEY_LIFETIME = 86_400  # seconds; RFC 3957 leaves it to the AAA server
MAX_SIMULTANEOUS = 4  # section 3.8.3.1, code 135: the room in the data plane


@dataclass(frozen=True, slots=True)
class TraversalPolicy:
    """Service of a home agent for nodes behind a NAT; `interval` 0 leaves keepalives to them, in seconds."""

    willing: bool = True
    forced: bool = True  # also without a NAT, for nodes that ask for it (firewalls)
    interval: int = 0


@dataclass(frozen=True, slots=True)
class HomeAgentConfiguration:
    """Times in seconds."""

    address: IPv4Address
    public_address: IPv4Address | None = None  # under which a 1:1 NAT before this host makes it known
    max_lifetime: int = MAX_LIFETIME
    short_lifetime: int = SHORT_LIFETIME
    max_simultaneous: int = MAX_SIMULTANEOUS  # care-of addresses of one registrant
    reverse_tunnel_required: bool = True
    minimal_encapsulation: bool = True  # M bit (RFC 2004)
    multipath: bool = True  # EnableMultipathSupport of RFC 7629
    traversal: TraversalPolicy = field(default_factory=TraversalPolicy)  # RFC 3519
    revocation: bool = True  # RFC 3543
    assigned: bool = True  # it serves mobile nodes with an NAI that name no home agent (RFC 4433)
    redirect: IPv4Address | None = None  # where those are sent instead
    # Seconds that a registrant's clock may differ (section 5.7.1)
    timestamp_tolerance: float = DEFAULT_TOLERANCE
    key_lifetime: int = KEY_LIFETIME  # of keys that follow from AAA associations (RFC 3957)
    located: bool = False  # a location server on this host is told of registrations (1202)
    trigger_on_expiry: bool = False  # stand-ins are asked to take over when a registration has run out (C8)
    networks: tuple[IPv4Network, ...] = ()  # whose broadcasts mobile nodes may ask for (B bit, section 4.3)
    pages: PageLimits = field(default_factory=PageLimits)
    page_forwarding: PageForwarding = PageForwarding.REGISTRATION  # of packets that page a device (P10)
    page_profile: PageProfile = PageProfile.NONE  # that a page brings to the access node (P8)
    policy_server: IPv4Address | None = None  # to which pages point
    location_server: Addr | None = None  # is asked where a device is (1135)
    left_lifetime: int = LEFT_LIFETIME  # seconds granted at most to rules that are left (1204, 1208)
    room: Places | None = None  # of the data plane, for this role; None: no bounds

    @property
    def addresses(self) -> tuple[IPv4Address, ...]:
        """Its addresses, first the one that others know."""
        return (self.address,) if self.public_address is None else (self.public_address, self.address)


@dataclass(frozen=True, slots=True)
class ProfileHomesConfiguration:
    """Bounds on the home addresses that come from profiles.

    `configured` are addresses that are taken anyway, `prefixes` those of the home network; `care_of` are configured
    default care-of addresses, which cannot be home addresses.
    """

    configured: Collection[Addr]
    prefixes: tuple[IPv4Network | IPv6Network, ...]
    pools: tuple[Pool, ...] = ()
    care_of: Collection[Addr] = ()
    asleep_otherwise: RuleVerdict = RuleVerdict.AGENT  # of every device


def mobile_of(
    home_address: IPv4Address, profile: Profile, asleep_otherwise: RuleVerdict = RuleVerdict.AGENT
) -> Mobile:
    """The mobile node that a profile describes, at this home address. Raises ValueError for one without a key.

    Its first stand-in is also the one that need not register (Fig. 6).
    """
    if profile.association is None:
        raise ValueError("a profile without a key serves no registrant")
    first = profile.stand_ins[0] if profile.stand_ins else None
    return Mobile(
        home_address=home_address,
        association=profile.association,
        home_address_v6=profile.home_address_v6,
        default_care_of=profile.default_care_of,
        stand_in=None if first is None else first.address,
        stand_in_v6=None if first is None else first.address_v6,
        stand_ins=tuple(
            AuthorisedStandIn(stand_in.name, stand_in.association, stand_in.address, stand_in.address_v6)
            for stand_in in profile.stand_ins
        ),
        rules=profile.rules,
        asleep_otherwise=profile.asleep_otherwise or asleep_otherwise,
    )
