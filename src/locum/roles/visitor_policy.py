"""Profiles at an access node: policing and paging classifier of those whom it serves (features R20, P16).

Asked for when somebody becomes a visitor, and again when the profile's lifetime is over. What they lead to is the
context's. It must not know registrations.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.roles.actions import JSON, Action, Count, Emit, Event, FetchProfile
from locum.roles.context_book import ContextBook
from locum.roles.profile import SHORTEST_LIFETIME
from locum.roles.profile_actions import ProfileFetched, ProfileRefused, ProfileUnavailable
from locum.roles.timers import Deadlines
from locum.wire.context_blocks import BlockKind

LONGEST = 86_400  # seconds until a profile without a lifetime is asked for again
FETCH_AGAIN = 30.0  # seconds until a profile that could not be had is tried again


@dataclass(slots=True)
class _Policed:
    """Somebody whose profile was asked for; `request` while it is under way."""

    nai: str | None
    request: int | None


class VisitorPolicy:
    """`served` tells whether a home address is served; `refresh` makes the data plane follow its context."""

    def __init__(
        self,
        contexts: ContextBook,
        served: Callable[[IPv4Address], bool],
        refresh: Callable[[IPv4Address], Collection[Action]],
        *,
        enabled: bool,
    ) -> None:
        self._contexts, self._served, self._refresh, self._enabled = contexts, served, refresh, enabled
        self._policed: dict[IPv4Address, _Policed] = {}
        self._asked: dict[int, IPv4Address] = {}
        self._timers: Deadlines[IPv4Address] = Deadlines()
        self._next_request = 1

    def start(self, home_addresses: Iterable[IPv4Address]) -> list[Action]:
        """Those who are served from the beginning."""
        return [each for home_address in home_addresses for each in self.registered(home_address, None)]

    def registered(self, home_address: IPv4Address, nai: str | None) -> list[Action]:
        """Somebody is served, or goes on being served; asked for once, unless the context went elsewhere meanwhile."""
        known = self._policed.get(home_address)
        if not self._enabled:
            return []
        if known is not None and known.nai == nai and (known.request is not None or self._has(home_address)):
            return []
        if known is not None and known.request is not None:
            del self._asked[known.request]
        return self._fetch(home_address, nai)

    def timeout(self, *, now: float) -> list[Action]:
        """Profiles whose lifetime is over, of those who are still served."""
        actions: list[Action] = []
        for home_address in self._timers.due(now):
            known = self._policed.pop(home_address)
            if self._served(home_address):
                actions += self._fetch(home_address, known.nai)
        return actions

    def deadline(self) -> float | None:
        """Wall-clock seconds at which the next is asked for again."""
        return self._timers.next()

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """What the policy server said; None for what it did not say."""
        if not isinstance(event, ProfileFetched | ProfileRefused | ProfileUnavailable):
            return None
        home_address = self._asked.pop(event.request, None)
        if home_address is None:
            return []
        self._policed[home_address].request = None
        if not self._served(home_address):
            del self._policed[home_address]
            return []
        if not isinstance(event, ProfileFetched):
            self._timers.set(home_address, now + FETCH_AGAIN)
            refused = isinstance(event, ProfileRefused)
            return [Count("profile-refused" if refused else "profile-unavailable")]
        lifetime = event.profile.lifetime or LONGEST
        self._timers.set(home_address, now + max(lifetime, SHORTEST_LIFETIME))
        detail: dict[str, JSON] = {"nai": self._policed[home_address].nai, "lifetime": lifetime}
        return [
            *self._contexts.learn(home_address, event.profile),
            *self._refresh(home_address),
            Emit("profile-fetched", None, home_address, None, detail),
        ]

    def _has(self, home_address: IPv4Address) -> bool:
        return self._contexts.content(home_address, BlockKind.POLICY) is not None

    def _fetch(self, home_address: IPv4Address, nai: str | None) -> list[Action]:
        number, self._next_request = self._next_request, self._next_request + 1
        self._policed[home_address] = _Policed(nai, number)
        self._asked[number] = home_address
        self._timers.cancel(home_address)
        return [FetchProfile(number, nai, home_address)]
