"""Requests of a role to the policy server, and the answers: profiles (features R3, C9, R20).

Values only. The node decides which server is asked, how and how often, and knows a profile's encoding.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from locum.roles.action_values.flows import Address

if TYPE_CHECKING:  # a profile has rules, and rules are made of what actions are made of
    from locum.roles.profile import Profile


@dataclass(frozen=True, slots=True)
class FetchProfile:
    """Ask for the profile of a mobile node: by its NAI (RFC 2794) if it has one, else by its home address.

    Exactly one of the events below comes back with the same `request`. Request numbers are the role's own.
    """

    request: int
    nai: str | None
    home_address: Address | None


@dataclass(frozen=True, slots=True)
class ProfileFetched:
    """The policy server knows the mobile node."""

    request: int
    profile: "Profile"


@dataclass(frozen=True, slots=True)
class ProfileRefused:
    """The policy server does not know the mobile node, or refuses it."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProfileUnavailable:
    """No policy server answered, or the answer is no profile."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class OwnHomeAddress:
    """MN: this home address, assigned by the home agent, belongs to this host now; `before` does no more."""

    home_address: Address
    before: Address | None = None


ProfileEvent: TypeAlias = ProfileFetched | ProfileRefused | ProfileUnavailable
