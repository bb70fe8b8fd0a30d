"""Home addresses that a home agent serves beside configured ones: from profiles and pools (R3, C9).

A request for an unknown home address, or for none with a NAI (RFC 2794), waits here for a profile: few at a time and not
for long. Profiles are kept for their lifetime and fetched again; one that cannot be fetched goes on, one that is refused
is withdrawn. It must not know bindings or replies: the home agent performs its results.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final, TypeAlias

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.registration import Received, RefusalReason, Registration
from locum.roles.actions import Action, Count, Emit, Forget, Persist
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import ProfileHomesConfiguration, mobile_of
from locum.roles.home_agent.forwarding_choice import most_rules
from locum.roles.home_agent.pools import NotAssigned, PoolExhausted, Pools, UnknownPool
from locum.roles.parts import readable
from locum.roles.profile import SHORTEST_LIFETIME, Profile, ProfileChange
from locum.roles.profile_requests import (
    AnswerPush,
    FetchProfile,
    ProfileEvent,
    ProfileFetched,
    ProfilePushed,
    ProfileRefused,
    PushOutcome,
    Session,
)
from locum.roles.timers import Deadlines

TABLE: Final = "profile"
TOO_MANY_RULES: Final = "profile-too-many-rules"
MAX_ASKED = 256  # mobile nodes that the policy server is asked about at once: strangers can make us ask
# Requests of one mobile node (RFC 5944 section 3.6.3: it repeats itself), each of another sender
MAX_WAITING = 4
PATIENCE = 6.5  # seconds that a request waits; a foreign agent gives up after 7 (RFC 5944 section 3.7.2.2)
REFUSAL_KEPT = 5.0  # seconds in which a refused registrant is refused without a query
MAX_REFUSALS = 1024
FETCH_AGAIN = 30.0  # seconds until a profile that could not be fetched is tried again

Prefix: TypeAlias = IPv4Network | IPv6Network
Asker: TypeAlias = tuple[str | None, IPv4Address]  # NAI and home address as a request has them


class Unserved(Exception):
    """A registration that need not wait: `reason` is its answer."""

    def __init__(self, reason: RefusalReason, counter: str) -> None:
        super().__init__(counter)
        self.reason = reason
        self.counter = counter


@dataclass(frozen=True, slots=True)
class Admitted:
    """This home address is served from now on, and these requests can be handled."""

    home_address: IPv4Address
    profile: Profile
    waiting: tuple[Received, ...]


@dataclass(frozen=True, slots=True)
class Altered:
    """The profile of a served home address has changed."""

    home_address: IPv4Address
    profile: Profile


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """This home address is not served any more."""

    home_address: IPv4Address
    reason: str


@dataclass(frozen=True, slots=True)
class Declined:
    """These registrations are refused."""

    waiting: tuple[Received, ...]
    reason: RefusalReason


Outcome: TypeAlias = Admitted | Altered | Withdrawn | Declined


@dataclass(frozen=True, slots=True)
class KnownHome:
    """A home address that is served because of a profile. Times are steady seconds."""

    home_address: IPv4Address
    nai: str | None
    profile: Profile
    fetched_at: float
    fetch_at: float | None  # when it is fetched again

    def to_row(self) -> Mapping[str, JSON]:
        """The row of the table "profile"."""
        return {
            "nai": self.nai,
            "profile": self.profile.to_row(),
            "fetched_at": self.fetched_at,
            "fetch_at": self.fetch_at,
        }

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "KnownHome":
        """From a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        profile, nai, fetched_at, fetch_at = row["profile"], row["nai"], row["fetched_at"], row["fetch_at"]
        if not isinstance(profile, Mapping) or not isinstance(nai, str | None):
            raise ValueError("not a profile")
        if not isinstance(fetched_at, int | float) or not isinstance(fetch_at, int | float | None):
            raise ValueError("times are numbers")
        return cls(IPv4Address(key), nai, Profile.from_row(profile), fetched_at, fetch_at)


@dataclass(slots=True)
class _Asked:
    """A pending request to the policy server, and waiting senders; `known` for a repeated fetch."""

    asker: Asker
    until: float
    known: IPv4Address | None = None
    waiting: list[Received] = field(default_factory=list)


class Homes:
    """The home addresses of one home agent that come from profiles."""

    def __init__(self, configuration: ProfileHomesConfiguration) -> None:
        self._configured = frozenset(configuration.configured)
        self._care_of = frozenset(configuration.care_of)
        self._prefixes = configuration.prefixes
        self._pools = Pools(configuration.pools)
        self._asleep_otherwise = configuration.asleep_otherwise
        self._known: dict[IPv4Address, KnownHome] = {}
        self._by_nai: dict[str, IPv4Address] = {}
        self._asked: dict[int, _Asked] = {}
        self._numbers: dict[Asker, int] = {}
        self._refused: dict[Asker, float] = {}  # until when
        self._timers: Deadlines[IPv4Address | int] = Deadlines()
        self._next_request = 1

    def mobile(self, home_address: IPv4Address, profile: Profile) -> Mobile:
        """The mobile node that a profile describes. Raises ValueError for one without a key."""
        return mobile_of(home_address, profile, self._asleep_otherwise)

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Restore the profiles of an earlier run; `known` returns them then."""
        actions = self._pools.restore(rows)
        found, unreadable = readable(rows, TABLE, self._from_row, Unserved)
        for _row, known in found:
            self._remember(known)
        return actions + unreadable

    def _from_row(self, row: Persist) -> KnownHome:
        known = KnownHome.from_row(row.key, row.value)
        self._check(known.home_address, known.nai, known.profile)
        return known

    # Reading -----------------------------------------------------------------------------------------------------

    def known(self) -> Collection[KnownHome]:
        """Every home address served because of a profile."""
        return self._known.values()

    def of(self, home_address: IPv4Address) -> KnownHome | None:
        """The home address, if it is served because of a profile."""
        return self._known.get(home_address)

    def address(self, registration: Registration) -> IPv4Address:
        """The home address that a registration is about: its own, else that of its NAI, else 0.0.0.0 (RFC 2794)."""
        nai = registration.options.nai
        if not registration.home_address.is_unspecified or nai is None:
            return registration.home_address
        return self._by_nai.get(nai, registration.home_address)

    def meant(self, session: Session) -> IPv4Address | None:
        """The home address that a policy server means; None: it comes from no profile here."""
        home_address, nai = session.home_address, session.nai
        if home_address is None and nai is not None:
            home_address = self._by_nai.get(nai) or _as_address(nai)
        known = None if home_address is None else self._known.get(home_address)
        if known is None or nai not in (None, known.nai, str(known.home_address)):
            return None
        return known.home_address

    def deadline(self) -> float | None:
        """Steady seconds of whatever comes first."""
        return self._timers.next()

    # Asking ------------------------------------------------------------------------------------------------------

    def ask(self, waiting: Received, *, now: float) -> list[Action]:
        """Let a request for an unknown home address wait for a profile. Raises Unserved."""
        registration = waiting.registration
        asker = (registration.options.nai, registration.home_address)
        self._check_asker(asker, now)
        number = self._numbers.get(asker)
        if number is not None:
            _join(self._asked[number].waiting, waiting)
            return []
        if len(self._asked) >= MAX_ASKED:
            raise Unserved(RefusalReason.NO_RESOURCES, "profile-too-many-asked")
        return self._fetch(_Asked(asker, now + PATIENCE, None, [waiting]))

    def refresh(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """Fetch the profile of a home address again. Raises KeyError for one that has none."""
        known = self._known[home_address]
        self._timers.cancel(home_address)
        asker = (known.nai, known.home_address)
        if asker in self._numbers:
            return []
        return self._fetch(_Asked(asker, now + PATIENCE, home_address))

    def _check_asker(self, asker: Asker, now: float) -> None:
        nai, home_address = asker
        if home_address.is_unspecified:
            if nai is None:
                raise Unserved(RefusalReason.MALFORMED, "neither-home-address-nor-nai")
        elif not self._at_home(home_address):
            raise Unserved(RefusalReason.NOT_AUTHENTIC, "home-address-unknown")
        if self._refused.get(asker, now) > now:
            raise Unserved(RefusalReason.NOT_AUTHENTIC, "profile-refused-before")

    def _fetch(self, asked: _Asked) -> list[Action]:
        number, self._next_request = self._next_request, self._next_request + 1
        self._asked[number] = asked
        self._numbers[asked.asker] = number
        self._timers.set(number, asked.until)
        nai, home_address = asked.asker
        return [FetchProfile(number, nai, None if home_address.is_unspecified else home_address)]

    # What follows ------------------------------------------------------------------------------------------------

    def timeout(self, *, now: float) -> tuple[list[Action], list[Outcome]]:
        """Requests that waited too long (code 130), profiles whose lifetime is over: fetch them again."""
        actions: list[Action] = []
        outcomes: list[Outcome] = []
        for key in self._timers.due(now):
            if isinstance(key, int):
                asked = self._asked[key]  # its answer still counts when it comes
                outcomes += _declined(asked, RefusalReason.NO_RESOURCES)
                asked.waiting = []
            elif len(self._asked) >= MAX_ASKED:
                self._timers.set(key, now + FETCH_AGAIN)
            else:
                actions += self.refresh(key, now=now)
        return actions, outcomes

    def happened(self, event: ProfileEvent, *, now: float) -> tuple[list[Action], list[Outcome]]:
        """Handle the policy server's answer."""
        asked = self._asked.pop(event.request, None)
        if asked is None:
            return [], []
        self._timers.cancel(event.request)
        del self._numbers[asked.asker]
        if isinstance(event, ProfileFetched):
            return self._fetched(asked, event.profile, now)
        if isinstance(event, ProfileRefused):
            return self._refuse(asked, event.reason, now)
        if asked.known is not None and asked.known in self._known:
            known = self._known[asked.known]
            self._timers.set(known.home_address, now + FETCH_AGAIN)
            detail: dict[str, JSON] = {"nai": known.nai, "reason": event.reason}
            return [Emit("profile-stale", None, known.home_address, None, detail)], []
        return [Count("profile-unavailable")], _declined(asked, RefusalReason.NO_RESOURCES)

    def _fetched(self, asked: _Asked, profile: Profile, now: float) -> tuple[list[Action], list[Outcome]]:
        nai = asked.asker[0]
        try:
            self._check(profile.home_address, nai, profile)
            home_address, actions = self._place(asked, profile)
        except Unserved as unserved:
            detail: dict[str, JSON] = {"nai": nai, "reason": unserved.counter}
            refused: list[Action] = [
                Count(unserved.counter),
                Emit("profile-unusable", None, asked.known, None, detail),
            ]
            if asked.known is not None:  # the one that is in force stays
                self._timers.set(asked.known, now + FETCH_AGAIN)
            return refused, _declined(asked, unserved.reason)
        outcomes: list[Outcome] = []
        if asked.known is not None and asked.known != home_address:
            more, outcomes = self._withdraw(asked.known, "the profile names another home address")
            actions = more + actions
        before = self._known.get(home_address)
        if before is not None:
            if not profile.newer_than(before.profile):
                more, outcomes = self._older(asked, before, now)
                return actions + more, outcomes
            profile = profile.after(before.profile)
        lifetime = None if profile.lifetime is None else max(profile.lifetime, SHORTEST_LIFETIME)
        known = KnownHome(home_address, nai, profile, now, None if lifetime is None else now + lifetime)
        self._remember(known)
        actions.append(Persist(TABLE, str(home_address), known.to_row()))
        said: dict[str, JSON] = {"nai": nai, "lifetime": lifetime}
        if before is None:
            actions.append(Emit("profile-fetched", None, home_address, None, said))
            outcomes.append(Admitted(home_address, profile, tuple(asked.waiting)))
            return actions, outcomes
        if replace(before.profile, lifetime=profile.lifetime, version=profile.version) != profile:
            actions.append(Emit("profile-changed", None, home_address, None, said))
            outcomes.append(Altered(home_address, profile))
        if asked.waiting:
            outcomes.append(Admitted(home_address, profile, tuple(asked.waiting)))
        return actions, outcomes

    def _older(self, asked: _Asked, known: KnownHome, now: float) -> tuple[list[Action], list[Outcome]]:
        """A server that has not learnt of a push yet: the profile in force stays, and is fetched again later."""
        self._timers.set(known.home_address, now + FETCH_AGAIN)
        detail: dict[str, JSON] = {"nai": known.nai, "reason": "the server has an older version"}
        actions: list[Action] = [
            Count("profile-older"),
            Emit("profile-stale", None, known.home_address, None, detail),
        ]
        admitted: list[Outcome] = []
        if asked.waiting:
            admitted.append(Admitted(known.home_address, known.profile, tuple(asked.waiting)))
        return actions, admitted

    def pushed(self, event: ProfilePushed) -> tuple[list[Action], list[Outcome]]:
        """The policy server changes a profile (P7). The answer stands last: what the change leads to comes before it."""
        home_address, change = self.meant(event.session), event.change
        if change.empty:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "nothing in it is for a home agent")], []
        if home_address is None:
            return [AnswerPush(event.push, PushOutcome.UNKNOWN, "no profile of it is here")], []
        known = self._known[home_address]
        refusal = self._refusal(known, change)
        if refusal is not None:
            return [Count(f"push-{refusal[0].value}"), AnswerPush(event.push, *refusal)], []
        profile = change.of(known.profile)
        known = replace(known, profile=profile)
        self._known[home_address] = known
        detail: dict[str, JSON] = {"nai": known.nai, "version": change.version}
        actions: list[Action] = [
            Persist(TABLE, str(home_address), known.to_row()),
            Emit("profile-pushed", None, home_address, None, detail),
            AnswerPush(event.push, PushOutcome.DONE),
        ]
        return actions, [Altered(home_address, profile)]

    def _refusal(self, known: KnownHome, change: ProfileChange) -> tuple[PushOutcome, str] | None:
        if not change.follows(known.profile):
            return PushOutcome.STALE, f"version {known.profile.version} is in force"
        try:
            self._check(known.home_address, known.nai, change.of(known.profile))
        except ValueError as problem:
            return PushOutcome.NO_ROOM, str(problem)
        except Unserved as unserved:
            room = unserved.reason is RefusalReason.NO_RESOURCES or unserved.counter == TOO_MANY_RULES
            return (PushOutcome.NO_ROOM if room else PushOutcome.INVALID), unserved.counter
        return None

    def _refuse(self, asked: _Asked, reason: str, now: float) -> tuple[list[Action], list[Outcome]]:
        self._refused[asked.asker] = now + REFUSAL_KEPT
        if len(self._refused) > MAX_REFUSALS:
            del self._refused[next(iter(self._refused))]
        outcomes = _declined(asked, RefusalReason.NOT_AUTHENTIC)
        actions: list[Action] = [Count("profile-refused")]
        if asked.known is not None and asked.known in self._known:
            more, gone = self._withdraw(asked.known, reason)
            actions += more
            if asked.asker[0] is not None:
                actions += self._pools.release(asked.asker[0])
            outcomes += gone
        return actions, outcomes

    def _withdraw(self, home_address: IPv4Address, reason: str) -> tuple[list[Action], list[Outcome]]:
        known = self._known.pop(home_address)
        self._timers.cancel(home_address)
        actions: list[Action] = [Forget(TABLE, str(home_address))]
        if known.nai is not None:
            del self._by_nai[known.nai]
        detail: dict[str, JSON] = {"nai": known.nai, "reason": reason}
        actions.append(Emit("profile-withdrawn", None, home_address, None, detail))
        return actions, [Withdrawn(home_address, reason)]

    # Home addresses ----------------------------------------------------------------------------------------------

    def _place(self, asked: _Asked, profile: Profile) -> tuple[IPv4Address, list[Action]]:
        """The home address that a profile means: its own, else one of its pool. Raises Unserved."""
        nai, asked_for = asked.asker
        again = asked.known is not None  # a profile may give up the address it gave
        wanted = None if again or asked_for.is_unspecified else asked_for
        if profile.home_address is not None:
            if wanted not in (None, profile.home_address):
                raise Unserved(RefusalReason.PROHIBITED, "profile-of-another-home-address")
            return profile.home_address, [] if nai is None else self._pools.release(nai)
        if profile.pool is None:
            raise Unserved(RefusalReason.UNSPECIFIED, "profile-without-home-address")
        if nai is None:
            raise Unserved(RefusalReason.PROHIBITED, "pool-without-nai")
        try:
            return self._pools.assign(profile.pool, nai, wanted, self._taken)
        except UnknownPool:
            raise Unserved(RefusalReason.UNSPECIFIED, "pool-unknown") from None
        except PoolExhausted:
            raise Unserved(RefusalReason.NO_RESOURCES, "pool-exhausted") from None
        except NotAssigned:
            raise Unserved(RefusalReason.PROHIBITED, "profile-of-another-home-address") from None

    def _check(self, home_address: IPv4Address | None, nai: str | None, profile: Profile) -> None:
        """Check that the profile can be served. Raises Unserved."""
        if profile.association is None:
            raise Unserved(RefusalReason.UNSPECIFIED, "profile-without-key")
        mobile = self.mobile(home_address or IPv4Address(0), profile)
        if len(profile.rules) > most_rules(mobile):
            raise Unserved(RefusalReason.UNSPECIFIED, TOO_MANY_RULES)
        for address in (home_address, profile.home_address_v6):
            if address is None:
                continue
            if not self._at_home(address):
                raise Unserved(RefusalReason.UNSPECIFIED, "profile-not-at-home")
            if address in self._configured or address in self._care_of or self._is_of_another(address, nai):
                raise Unserved(RefusalReason.PROHIBITED, "profile-of-another-home-address")
        if self._loops(home_address, profile):
            raise Unserved(RefusalReason.UNSPECIFIED, "profile-default-coa-loops")

    def _loops(self, home_address: IPv4Address | None, profile: Profile) -> bool:
        """True if its default care-of address leads back to a home address, or to this host."""
        care_of = profile.default_care_of
        if care_of is None:
            return False
        if care_of == home_address or care_of in self._known or care_of in self._pools:
            return True
        lives_here = any(care_of == stand_in.address for stand_in in profile.stand_ins)  # on this host (R17)
        return care_of in self._configured and not lives_here

    def _is_of_another(self, address: Addr, nai: str | None) -> bool:
        if isinstance(address, IPv4Address):
            known = self._known.get(address)
            return known is not None and nai is not None and known.nai not in (None, nai)
        return any(
            known.profile.home_address_v6 == address and known.nai != nai for known in self._known.values()
        )

    def _taken(self, address: IPv4Address) -> bool:
        return address in self._configured or address in self._known or address in self._care_of

    def _at_home(self, address: Addr) -> bool:
        return any(address.version == prefix.version and address in prefix for prefix in self._prefixes)

    def _remember(self, known: KnownHome) -> None:
        self._known[known.home_address] = known
        if known.nai is not None:
            self._by_nai[known.nai] = known.home_address
        if known.fetch_at is None:
            self._timers.cancel(known.home_address)
        else:
            self._timers.set(known.home_address, known.fetch_at)


def _as_address(text: str) -> IPv4Address | None:
    """A home address as the name of a mobile node without a NAI."""
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _join(waiting: list[Received], new: Received) -> None:
    """Add a waiting request; it replaces an earlier one of its sender, and displaces no other sender's."""
    sender = (new.source.address, new.source.port)
    for index, received in enumerate(waiting):
        if (received.source.address, received.source.port) == sender:
            waiting[index] = new
            return
    if len(waiting) < MAX_WAITING:
        waiting.append(new)


def _declined(asked: _Asked, reason: RefusalReason) -> list[Outcome]:
    return [Declined(tuple(asked.waiting), reason)] if asked.waiting else []
