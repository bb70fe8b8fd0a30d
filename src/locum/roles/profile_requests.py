"""Requests of a role to the policy server, and the answers: profiles (features R3, C9, R20); and what the server pushes (P7).

Values only. The node decides which server is asked, how and how often, and knows a profile's encoding.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, TypeAlias

from locum.roles.action_values.flows import Address

if TYPE_CHECKING:  # a profile has rules, and rules are made of what actions are made of
    from locum.roles.profile import Profile, ProfileChange


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


@dataclass(frozen=True, slots=True)
class Session:
    """The mobile node that a policy server means: by its NAI, its home address or both, which then have to agree."""

    nai: str | None = None
    home_address: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class ProfilePushed:
    """Event: the policy server changes a profile (CoA-Request, RFC 5176). `AnswerPush` with its number answers."""

    push: int
    session: Session
    change: "ProfileChange"


@dataclass(frozen=True, slots=True)
class DisconnectAsked:
    """Event: the policy server ends the registrations of a mobile node (Disconnect-Request). `AnswerPush` answers."""

    push: int
    session: Session


@dataclass(frozen=True, slots=True)
class EntriesFetched:
    """Event at a stand-in: the profile that it fetched a key from has entries for the device's event table too."""

    home_address: IPv4Address
    change: "ProfileChange"


class PushOutcome(Enum):
    """The outcome of a push; the earlier one here counts if several roles of a node answer."""

    DONE = "done"
    STALE = "stale"  # not later than what is known
    INVALID = "invalid"
    NO_ROOM = "no-room"
    NOT_REMOVABLE = "not-removable"  # the mobile node is known, and no registration of it is here
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AnswerPush:
    """Action: the answer to `ProfilePushed` or `DisconnectAsked`; it leaves when its writes are in the store."""

    push: int
    outcome: PushOutcome
    text: str = ""  # for people


PushEvent: TypeAlias = ProfilePushed | DisconnectAsked | EntriesFetched
ProfileEvent: TypeAlias = ProfileFetched | ProfileRefused | ProfileUnavailable
