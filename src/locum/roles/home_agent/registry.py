"""Registrants of the home agent, their registrations, and rows for users (features R1, R4, R7).

State without decisions: `admission.py` decides about registrations, the effect on packets is in
`forwarding_choice.py`.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Table
from locum.roles.home_agent.binding import AuthorisedStandIn, Binding, CareOf, Mobile
from locum.roles.home_agent.forwarding_choice import NOTHING, Registered, in_force, live_rules
from locum.roles.rules import MN, KeptRule

TABLE: Final = "binding"
# Registrations of stand-ins; the key is the home address and the stand-in's name.
STAND_IN_TABLE: Final = "stand_in"


class Registrant:
    """A stand-in that may register, and its binding. Looked up once for a message; hashed by identity."""

    __slots__ = ("association", "binding", "home", "key", "name", "stand_in", "table")
    stand_in: AuthorisedStandIn | None  # None: the mobile node
    table: Table
    key: str  # of its row in `table`

    def __init__(self, home: "Home", stand_in: AuthorisedStandIn) -> None:
        self.home, self.stand_in = home, stand_in
        self.name, self.association = stand_in.name, stand_in.association
        self.table, self.key = STAND_IN_TABLE, f"{home.key} {stand_in.name}"
        self.binding = Binding(home.mobile.home_address)


class Home(Registrant):
    """A mobile node that the home agent serves: the first registrant of its home address, its stand-ins and rules."""

    __slots__ = ("mobile", "rules", "stand_ins", "v4", "v6")

    def __init__(self, mobile: Mobile) -> None:
        self.home, self.stand_in, self.name, self.table = self, None, MN, TABLE
        self.key = str(mobile.home_address)
        self.binding = Binding(mobile.home_address)
        self.v4 = self.v6 = NOTHING  # state of the data plane
        self.configure(mobile)

    def configure(self, mobile: Mobile) -> None:
        """Change the configuration, without touching registrations."""
        self.mobile, self.association, self.rules = mobile, mobile.association, mobile.rules
        self.stand_ins = tuple([Registrant(self, stand_in) for stand_in in mobile.stand_ins])

    def registered(self) -> Registered:
        binding, stand_ins = self.binding, self.stand_ins
        if not stand_ins:
            return Registered(self.mobile, binding, (), self.rules)
        present = [
            (stand_in.stand_in, stand_in.binding)
            for stand_in in stand_ins
            if stand_in.binding.care_of and stand_in.stand_in
        ]
        return Registered(self.mobile, binding, tuple(present), self.rules)


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


def rule_lines(home: Home) -> tuple[RuleLine, ...]:
    """The rules of a home address, in the order in which they are matched."""
    live = {4: live_rules(home.v4), 6: live_rules(home.v6)}
    return tuple(
        RuleLine(
            home.mobile.home_address,
            rule,
            tuple(version for version, known in live.items() if rule.identifier in known),
        )
        for rule in home.rules
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
        in_force=in_force(home.v4),
        spi=mobile.association.spi,
        ipv6=binding.ipv6,
        stand_ins=tuple(_registrant_line(stand_in, now) for stand_in in home.stand_ins),
        rules=rule_lines(home),
    )
