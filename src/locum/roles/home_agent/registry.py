"""Registrants of the home agent, their registrations, and rows for users (features R1, R4, R7).

State without decisions: `admission.py` decides about registrations, the effect on packets is in
`forwarding_choice.py`.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding_order import HomeEntries
from locum.roles.actions import Table
from locum.roles.home_agent.binding import AuthorisedStandIn, Binding, CareOf, Mobile
from locum.roles.home_agent.forwarding_choice import (
    NOTHING,
    Redirect,
    Registered,
    in_force,
    installed,
    is_asleep,
    live_rules,
    matched,
    most_rules,
    otherwise_rule,
    places,
    sleeping,
)
from locum.roles.paging.left_rules import NOTHING_LEFT, Left
from locum.roles.rules import MN, KeptRule
from locum.security.association import AaaAssociation, DerivedAssociation

TABLE: Final = "binding"
# Registrations of stand-ins; the key is the home address and the stand-in's name.
STAND_IN_TABLE: Final = "stand_in"


BothFamilies = tuple[HomeEntries, HomeEntries]  # of the IPv4 and the IPv6 home address
NOWHERE: Final = (NOTHING, NOTHING)


class Registrant:
    """A stand-in that may register, and its binding. Looked up once for a message; hashed by identity."""

    __slots__ = ("association", "binding", "home", "stand_in")
    stand_in: AuthorisedStandIn | None  # None: the mobile node

    def __init__(self, home: "Home", stand_in: AuthorisedStandIn) -> None:
        self.home, self.stand_in = home, stand_in
        self.association = stand_in.association
        self.binding = Binding(home.mobile.home_address)

    @property
    def name(self) -> str:
        """The name by which rules and configuration call it."""
        return MN if self.stand_in is None else self.stand_in.name

    @property
    def table(self) -> Table:
        """The table of its row."""
        return TABLE if self.stand_in is None else STAND_IN_TABLE

    @property
    def key(self) -> str:
        """The key of its row."""
        return self.home.key if self.stand_in is None else f"{self.home.key} {self.stand_in.name}"


class Home(Registrant):
    """A mobile node that the home agent serves: the first registrant of its home address, its stand-ins and rules."""

    # Without `_forwarded` the data plane's state is what follows from the registrations: most home addresses need no more.
    __slots__ = ("_forwarded", "left", "mobile", "redirect", "rules", "stand_ins")
    _forwarded: BothFamilies | None
    left: Left  # by the device and its agents
    redirect: Redirect | None  # of packets that would page the device; `Bindings` alone changes it

    def __init__(self, mobile: Mobile) -> None:
        self.home, self.stand_in = self, None
        self.binding = Binding(mobile.home_address)
        self._forwarded = NOWHERE
        self.redirect = None
        self.association = mobile.association
        self.left = NOTHING_LEFT
        self.configure(mobile)

    def forwarded(self, home_agent: IPv4Address) -> BothFamilies:
        """State of the data plane for both home addresses."""
        return self.wanted(home_agent) if self._forwarded is None else self._forwarded

    def wanted(self, home_agent: IPv4Address) -> BothFamilies:
        """The state that follows from the registrations and rules."""
        registered, mobile = self.registered(), self.mobile
        v4 = installed(registered, mobile.home_address, home_agent)
        if mobile.home_address_v6 is None:
            return v4, NOTHING
        return v4, installed(registered, mobile.home_address_v6, home_agent)

    def changing(self, home_agent: IPv4Address) -> None:
        """Registrations or rules are about to change: until `forward` the data plane's state is another one."""
        self._forwarded = self.forwarded(home_agent)

    def forward(self, home_agent: IPv4Address) -> tuple[BothFamilies, BothFamilies]:
        """The data plane's state follows the registrations: as it was, and as it is to be."""
        before, after = self.forwarded(home_agent), self.wanted(home_agent)
        self._forwarded = None if self._is_simple() else NOWHERE if after == NOWHERE else after
        return before, after

    def in_force(self, home_agent: IPv4Address) -> tuple[Addr, ...]:
        """Destinations of packets that match no rule; none: natively."""
        if self._forwarded is None:
            return (self.binding.care_of[0].seen_at,)
        return in_force(self._forwarded[0])

    def _is_simple(self) -> bool:
        care_of = self.binding.care_of
        if len(care_of) != 1 or care_of[0].brief or self.rules or self.left.asleep:
            return False
        return not (self.stand_ins and any(stand_in.binding.care_of for stand_in in self.stand_ins))

    @property
    def key(self) -> str:
        """The key of its row."""
        return str(self.mobile.home_address)

    def configure(self, mobile: Mobile) -> None:
        """Change the configuration, without touching registrations."""
        self.mobile, self.rules = mobile, mobile.rules
        held = self.association
        if not isinstance(held, DerivedAssociation) or held.source != mobile.association:
            self.association = mobile.association
        self.stand_ins = tuple([Registrant(self, stand_in) for stand_in in mobile.stand_ins])

    def signs(self, now: float) -> bool:
        """True if `association` is one with the home agent, and holds (RFC 3957)."""
        held = self.association
        if isinstance(held, DerivedAssociation):
            return now < held.until
        return not isinstance(held, AaaAssociation)

    def asleep(self, now: float) -> bool:
        """True if the device is asleep: by its registration, or because it has said so (P14)."""
        return self.left.asleep or is_asleep(self.binding.without_expired(now))

    @property
    def most_rules(self) -> int:
        """Largest number of `rules`, beside those that were left."""
        return most_rules(self.mobile) - (0 if self.left is NOTHING_LEFT else places(self.mobile, self.left))

    def matched(self) -> tuple[KeptRule, ...]:
        """All rules, in the order in which they are matched."""
        return self.rules if self.left is NOTHING_LEFT else matched(self.mobile, self.rules, self.left)

    def registered(self) -> Registered:
        """All that the choice of destinations depends on."""
        binding, stand_ins, rules, mobile = self.binding, self.stand_ins, self.matched(), self.mobile
        if self.left.asleep:
            binding = sleeping(binding)
        otherwise = otherwise_rule(mobile, self.left)
        redirect = self.redirect if self.redirect is not None and is_asleep(binding) else None
        if not stand_ins:
            return Registered(mobile, binding, (), rules, otherwise, redirect)
        present = [
            (stand_in.stand_in, stand_in.binding)
            for stand_in in stand_ins
            if stand_in.binding.care_of and stand_in.stand_in
        ]
        return Registered(mobile, binding, tuple(present), rules, otherwise, redirect)


@dataclass(frozen=True, slots=True)
class RegistrantLine:
    """Registration of a stand-in, for users."""

    name: str
    address: IPv4Address  # its interface address
    care_of: tuple[CareOf, ...]
    spi: int
    ipv6: bool


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of a home address, for users."""

    home_address: IPv4Address
    rule: KeptRule
    live: tuple[int, ...]  # IP versions for whose packets the kernel has it
    item: int | None = None  # of one that was left: the sender's identifier


@dataclass(frozen=True, slots=True)
class VisitorListEntry:
    """A line of `locum binding list`."""

    home_address: IPv4Address
    home_agent: IPv4Address
    home_address_v6: Addr | None
    care_of: tuple[CareOf, ...]
    default_care_of: Addr | None
    in_force: tuple[Addr, ...]  # where packets go now that no rule takes; empty: natively
    spi: int
    ipv6: bool
    stand_ins: tuple[RegistrantLine, ...]
    rules: tuple[RuleLine, ...]


def _registrant_line(registrant: Registrant, now: float) -> RegistrantLine:
    assert registrant.stand_in is not None
    binding = registrant.binding.without_expired(now)
    return RegistrantLine(
        registrant.name,
        registrant.stand_in.address,
        binding.care_of,
        registrant.association.spi,
        binding.ipv6,
    )


def rule_lines(home: Home, home_agent: IPv4Address) -> tuple[RuleLine, ...]:
    """The rules of a home address, in the order in which they are matched."""
    v4, v6 = home.forwarded(home_agent)
    live = {4: live_rules(v4), 6: live_rules(v6)}
    items = {rule.number: rule.item for rule in home.left.rules}
    rest = otherwise_rule(home.mobile, home.left)
    return tuple(
        RuleLine(
            home.mobile.home_address,
            rule,
            tuple(version for version, known in live.items() if rule.identifier in known),
            items.get(rule.identifier),
        )
        for rule in (*home.matched(), *(() if rest is None else (rest,)))
    )


def line(home: Home, home_agent: IPv4Address, now: float) -> VisitorListEntry:
    """The line of a home address in the list of bindings (R1)."""
    binding, mobile = home.binding.without_expired(now), home.mobile
    return VisitorListEntry(
        home_address=mobile.home_address,
        home_agent=home_agent,
        home_address_v6=mobile.home_address_v6,
        care_of=binding.care_of,
        default_care_of=home.registered().default,
        in_force=home.in_force(home_agent),
        spi=mobile.association.spi,
        ipv6=binding.ipv6,
        stand_ins=tuple(_registrant_line(stand_in, now) for stand_in in home.stand_ins),
        rules=rule_lines(home, home_agent),
    )
