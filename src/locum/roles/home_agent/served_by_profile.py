"""Conversion of a profile to a home agent's configuration (features R3, C9). Values only."""

from ipaddress import IPv4Address

from locum.roles.home_agent.binding import AuthorisedStandIn, Mobile
from locum.roles.profile import Profile


def mobile_of(home_address: IPv4Address, profile: Profile) -> Mobile:
    """The mobile node that a profile describes, at this home address. Raises ValueError for one without a key.

    Its first stand-in is also the one that need not register (Fig. 6).
    """
    if profile.association is None:
        raise ValueError("a profile without a key serves nobody")
    first = profile.stand_ins[0] if profile.stand_ins else None
    return Mobile(
        home_address=home_address,
        association=profile.association,
        home_address_v6=profile.home_address_v6,
        default_care_of=profile.default_care_of,
        stand_in=None if first is None else first.address,
        stand_in_v6=None if first is None else first.address_v6,
        stand_ins=tuple(
            AuthorisedStandIn(each.name, each.association, each.address, each.address_v6)
            for each in profile.stand_ins
        ),
        rules=profile.rules,
    )
