"""The configuration of a home agent as values. The role goes by them; nothing here imports its machines."""

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from locum.roles.action_values.addresses import Addr
from locum.roles.home_agent.binding import AuthorisedStandIn, Mobile
from locum.roles.profile import Pool, Profile

MAX_LIFETIME = 1800  # seconds granted at most; RFC 5944 leaves it to the home agent (section 3.8.2.2)
SHORT_LIFETIME = 10  # seconds; up to this a registration is "very short" (R2)
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
    max_lifetime: int = MAX_LIFETIME
    short_lifetime: int = SHORT_LIFETIME
    max_simultaneous: int = MAX_SIMULTANEOUS  # care-of addresses of one registrant
    reverse_tunnel_required: bool = True
    multipath: bool = True  # EnableMultipathSupport of RFC 7629
    traversal: TraversalPolicy = field(default_factory=TraversalPolicy)  # RFC 3519
    revocation: bool = True  # RFC 3543
    trigger_on_expiry: bool = False  # stand-ins are asked to take over when a registration has run out (C8)


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


def mobile_of(home_address: IPv4Address, profile: Profile) -> Mobile:
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
    )
