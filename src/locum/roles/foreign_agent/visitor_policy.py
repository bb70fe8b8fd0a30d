"""Profiles at an access node: policing and paging classifier of its visitors (features R20, P16).

Fetched when a device becomes a visitor, again when the profile's lifetime is over, and on command. The
context has their content; a profile stays in force if a fetch fails. It must not know registrations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON
from locum.roles.actions import Action, Count, Emit, Event, Persist
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part
from locum.roles.profile import SHORTEST_LIFETIME, Policing, Profile
from locum.roles.profile_requests import (
    AnswerPush,
    DisconnectAsked,
    FetchProfile,
    ProfileFetched,
    ProfilePushed,
    ProfileRefused,
    ProfileUnavailable,
    PushOutcome,
    Session,
)
from locum.roles.timers import Deadlines
from locum.wire.control.context_blocks import BlockKind

LONGEST = 86_400  # seconds until a profile without a lifetime is asked for again
FETCH_AGAIN = 30.0  # seconds until a profile that could not be had is tried again


@dataclass(frozen=True, slots=True)
class PolicedVisitor:
    """A visitor whose profile was requested, and the last answer. Times are steady seconds."""

    home_address: IPv4Address
    nai: str | None
    request: int | None = None  # while it is under way
    profile: Profile | None = None  # None: it could not be had yet
    fetched_at: float | None = None
    fetch_at: float | None = None  # when it is asked for again, unless it is under way


class VisitorPolicy(Part):
    """The profiles of the visitors in `visitors`, including preconfigured ones."""

    def __init__(
        self,
        contexts: ContextBook,
        visitors: VisitorList,
        *,
        enabled: bool,
    ) -> None:
        self._contexts, self._visitors, self._enabled = contexts, visitors, enabled
        self._policed: dict[IPv4Address, PolicedVisitor] = {}
        self._asked: dict[int, IPv4Address] = {}
        self._timers: Deadlines[IPv4Address] = Deadlines()
        self._next_request = 1
        # Ends a visit: the role does.
        self.revoke: Callable[[IPv4Address, float], list[Action]] = lambda _home_address, _now: []

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Fetch the profiles of the preconfigured visitors."""
        listed = [visitor.home_address for visitor in self._visitors.all_static()]
        listed += [visitor.home_address for visitor in self._visitors.all()]
        return [action for home_address in listed for action in self.registered(home_address, None)]

    def registered(self, home_address: IPv4Address, nai: str | None) -> list[Action]:
        """Note a new or renewed visitor; fetch its profile once, or again after its context has left."""
        known = self._policed.get(home_address)
        if not self._enabled:
            return []
        if known is not None and known.nai == nai and (known.request is not None or self._has(home_address)):
            return []
        if known is not None and known.request is not None:
            del self._asked[known.request]
        return self._fetch(home_address, nai)

    @property
    def asked(self) -> int:
        """How many home addresses have a request for their first profile under way."""
        return sum(self._policed[home_address].profile is None for home_address in self._asked.values())

    def known(self) -> list[PolicedVisitor]:
        """Visitors whose profile was requested."""
        return [visitor for visitor in self._policed.values() if self._served(visitor.home_address)]

    def refresh(self, home_address: IPv4Address) -> list[Action]:
        """Fetch again now, unless a request is pending. Raises KeyError for unknown addresses."""
        known = self._policed[home_address]
        if not self._served(home_address):
            raise KeyError(home_address)
        return [] if known.request is not None else self._fetch(home_address, known.nai)

    def timeout(self, *, now: float) -> list[Action]:
        """Fetch expired profiles of present visitors."""
        actions: list[Action] = []
        for home_address in self._timers.due(now):
            if self._served(home_address):
                actions += self._fetch(home_address, self._policed[home_address].nai)
            else:
                del self._policed[home_address]
        return actions

    def deadline(self) -> float | None:
        """Steady seconds at which the next is asked for again."""
        return self._timers.next()

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Handle the policy server's answers and requests; None for other events."""
        if isinstance(event, ProfilePushed):
            return self._pushed(event)
        if isinstance(event, DisconnectAsked):
            return self._disconnect(event, now)
        if not isinstance(event, ProfileFetched | ProfileRefused | ProfileUnavailable):
            return None
        home_address = self._asked.pop(event.request, None)
        if home_address is None:
            return []
        known = replace(self._policed[home_address], request=None)
        if not self._served(home_address):
            del self._policed[home_address]
            return []
        if not isinstance(event, ProfileFetched):
            self._again(known, now + FETCH_AGAIN)
            return self._not_had(known, event)
        before, profile = known.profile, event.profile
        if before is not None:
            if not profile.newer_than(before):  # the server has not learnt of a push yet
                self._again(known, now + FETCH_AGAIN)
                detail: dict[str, JSON] = {"nai": known.nai, "reason": "the server has an older version"}
                return [Count("profile-older"), Emit("profile-stale", None, home_address, None, detail)]
            profile = profile.after(before)
        lifetime = profile.lifetime or LONGEST
        known = replace(known, profile=profile, fetched_at=now)
        self._again(known, now + max(lifetime, SHORTEST_LIFETIME))
        actions = [*self._contexts.learn(home_address, profile), *self._visitors.refresh(home_address)]
        if before is None or _filters(before) != _filters(profile):
            kind = "profile-fetched" if before is None else "profile-changed"
            detail = {"nai": known.nai, "lifetime": lifetime}
            actions.append(Emit(kind, None, home_address, None, detail))
        return actions

    def _meant(self, session: Session) -> PolicedVisitor | None:
        """The visitor that a policy server means."""
        for known in self._policed.values():
            names = (known.nai, str(known.home_address))
            if session.home_address in (None, known.home_address) and (session.nai or names[1]) in names:
                return known if self._served(known.home_address) else None
        return None

    def _pushed(self, event: ProfilePushed) -> list[Action]:
        """The policy server changes the profile of a visitor (P7)."""
        known = self._meant(event.session)
        if event.change.empty:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "nothing in it is for an access node")]
        if known is None or known.profile is None:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "no profile of it is here")]
        home_address, version = known.home_address, known.profile.version
        if not event.change.follows(known.profile):
            stale = AnswerPush(event.push, PushOutcome.STALE, f"version {version} is in force")
            return [Count("push-stale"), stale]
        try:
            profile = event.change.of(known.profile)
        except ValueError as problem:
            return [Count("push-no-room"), AnswerPush(event.push, PushOutcome.NO_ROOM, str(problem))]
        self._policed[home_address] = replace(known, profile=profile)
        detail: dict[str, JSON] = {"nai": known.nai, "version": profile.version}
        return [
            *self._contexts.learn(home_address, profile),
            *self._visitors.refresh(home_address),
            Emit("profile-pushed", None, home_address, None, detail),
            AnswerPush(event.push, PushOutcome.DONE),
        ]

    def _disconnect(self, event: DisconnectAsked, now: float) -> list[Action]:
        """The policy server ends the visit of a mobile node."""
        known = self._meant(event.session)
        ended = [] if known is None else self.revoke(known.home_address, now)
        if not ended:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "it is no visitor")]
        return [*ended, AnswerPush(event.push, PushOutcome.DONE)]

    def _again(self, known: PolicedVisitor, at: float) -> None:
        self._policed[known.home_address] = replace(known, fetch_at=at)
        self._timers.set(known.home_address, at)

    def _not_had(self, known: PolicedVisitor, event: ProfileRefused | ProfileUnavailable) -> list[Action]:
        refused = isinstance(event, ProfileRefused)
        actions: list[Action] = [Count("profile-refused" if refused else "profile-unavailable")]
        if known.profile is not None:
            detail: dict[str, JSON] = {"nai": known.nai, "reason": event.reason}
            actions.append(Emit("profile-stale", None, known.home_address, None, detail))
        return actions

    def _served(self, home_address: IPv4Address) -> bool:
        return home_address in self._visitors or self._visitors.static(home_address) is not None

    def _has(self, home_address: IPv4Address) -> bool:
        return self._contexts.content(home_address, BlockKind.POLICY) is not None

    def _fetch(self, home_address: IPv4Address, nai: str | None) -> list[Action]:
        number, self._next_request = self._next_request, self._next_request + 1
        known = self._policed.get(home_address)
        if known is None or known.nai != nai:
            known = PolicedVisitor(home_address, nai)
        self._policed[home_address] = replace(known, request=number, fetch_at=None)
        self._asked[number] = home_address
        self._timers.cancel(home_address)
        return [FetchProfile(number, nai, home_address)]


def _filters(profile: Profile) -> tuple[Policing, ...]:
    """The filters of a profile."""
    return profile.to_visitor, profile.from_visitor, profile.paging
