"""Home addresses served because of profiles: requests that wait for one, and effects of changed profiles.

This module must not know how a profile is fetched or checked (`profile_homes.py`).
"""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Protocol

from locum.roles.action_values.registration import Received
from locum.roles.actions import Action, Count, Event, Persist
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.profile_homes import (
    Admitted,
    Altered,
    Declined,
    Homes,
    Outcome,
    Unserved,
    Withdrawn,
)
from locum.roles.home_agent.registry import Home
from locum.roles.home_agent.replies import Replies
from locum.roles.parts import Part
from locum.roles.profile_requests import (
    AnswerPush,
    DisconnectAsked,
    ProfileFetched,
    ProfilePushed,
    ProfileRefused,
    ProfileUnavailable,
    PushOutcome,
)


class Server(Protocol):
    """The home agent, as far as profiles change it."""

    def serve(self, mobile: Mobile, *, now: float) -> list[Action]:
        """Serve this home address from now on, by `mobile`."""

    def withdraw(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """Serve this home address no longer."""

    def disconnect(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """End the registrations of this home address; no action if there are none."""


Request = Callable[[Received, Home, float], list[Action]]  # a request for a home address that is served


class ServedByProfile(Part):
    """Home addresses in `served` that come from `profiles`."""

    def __init__(
        self,
        profiles: Homes,
        served: MutableMapping[IPv4Address, Home],
        replies: Replies,
        server: Server,
        request: Request,
    ) -> None:
        self.profiles = profiles
        self._served, self._replies, self._server, self._request = served, replies, server, request

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Serve the home addresses whose profiles are known from an earlier run."""
        actions = self.profiles.restore(rows, now=now)
        for known in self.profiles.known():
            self._served[known.home_address] = Home(self.profiles.mobile(known.home_address, known.profile))
        return actions

    def receive(self, waiting: Received, *, now: float) -> list[Action]:
        """A request for a home address that is not configured: of a profile, or to wait for one."""
        registration = waiting.registration
        home_address = self.profiles.address(registration)
        home = self._served.get(home_address)
        if home is not None:
            asked = replace(registration, home_address=home_address)
            return self._request(replace(waiting, registration=asked), home, now)
        try:
            return self.profiles.ask(waiting, now=now)
        except Unserved as unserved:
            return [Count(unserved.counter), *self._replies.unsigned(waiting, unserved.reason)]

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers and requests of the policy server; None for anything else."""
        if isinstance(event, ProfilePushed):
            actions, outcomes = self.profiles.pushed(event)
            answer = actions.pop()
            return [*self._follow(actions, outcomes, now), answer]
        if isinstance(event, DisconnectAsked):
            return self._disconnect(event, now)
        if not isinstance(event, ProfileFetched | ProfileRefused | ProfileUnavailable):
            return None
        return self._follow(*self.profiles.happened(event, now=now), now)

    def _disconnect(self, event: DisconnectAsked, now: float) -> list[Action]:
        """End the registrations of a mobile node, configured or of a profile."""
        home_address = self.profiles.meant(event.session)
        if home_address is None and event.session.nai in (None, str(event.session.home_address)):
            home_address = event.session.home_address
        if home_address is None or home_address not in self._served:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "it is not served here")]
        ended = self._server.disconnect(home_address, now=now)
        if not ended:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "it is not registered")]
        return [*ended, AnswerPush(event.push, PushOutcome.DONE)]

    def timeout(self, *, now: float) -> list[Action]:
        """Refuse requests that waited too long, and fetch profiles again whose lifetime is over."""
        return self._follow(*self.profiles.timeout(now=now), now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self.profiles.deadline()

    def _follow(self, actions: list[Action], outcomes: Iterable[Outcome], now: float) -> list[Action]:
        """The changes that an answer of the policy server leads to."""
        for outcome in outcomes:
            match outcome:
                case Admitted():
                    mobile = self.profiles.mobile(outcome.home_address, outcome.profile)
                    actions += self._server.serve(mobile, now=now)
                    for waiting in outcome.waiting:
                        actions += self.receive(waiting, now=now)
                case Altered():
                    mobile = self.profiles.mobile(outcome.home_address, outcome.profile)
                    actions += self._server.serve(mobile, now=now)
                case Withdrawn():
                    actions += self._server.withdraw(outcome.home_address, now=now)
                case Declined():
                    for waiting in outcome.waiting:
                        actions += self._replies.unsigned(waiting, outcome.reason)
        return actions
