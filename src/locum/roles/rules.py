"""Flow rules at the home agent (features R5 to R8): values, owners, and order.

Values and pure functions. It must not know registrations, nor the kernel's form of a rule.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import MAX_CANDIDATES, MAX_RULES, OTHERWISE_RULE, RuleVerdict, Selector
from locum.roles.action_values.registration import RefusalReason
from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, decode_selector, selector_format

MN = "mn"  # target: the mobile node's dynamic care-of addresses; as an owner: the mobile node
STAND_IN = "mnps"  # target: its stand-ins (the one of this name if there is one), without any the default CoA
DEFAULT = "default"  # target: the default care-of address
CONFIGURATION, PROFILE, ADMIN = (
    "configuration",
    "profile",
    "admin",
)  # owners whose rules no signalling changes
DEVICE = "device"  # owner of rules that a device has left (1204)
RESERVED_NAMES = frozenset((MN, DEFAULT, CONFIGURATION, PROFILE, ADMIN, DEVICE))  # no stand-in is called so

UNNAMED = range(0x4000, 0x4100)  # identifiers given to flow bindings without a name (RFC 7629 knows none)
FIRST_ASSIGNED = 0x8000  # identifiers given to administrators' rules without one
LAST_RULE = 0xFFBF  # what follows belongs to the home agent: rules for packets of stand-ins to their device
LEFT = range(0xFEC0, 0xFFC0)  # identifiers given to rules that a device and its agents leave (1204, 1208)
LAST_PRIORITY = 0xFFFF
UNNAMED_PRIORITY = 0x8000  # the first of those given to rules without one
MAX_TARGETS = 8  # of one rule (RFC 7629 section 4.2)

_NO_TARGET = {RuleVerdict.DROP: "drops", RuleVerdict.PAGE: "pages", RuleVerdict.HOLD: "holds"}
# Of rules that rest while the device is awake (P14)
WHILE_ASLEEP = frozenset((RuleVerdict.PAGE, RuleVerdict.AGENT, RuleVerdict.HOLD))

Target: TypeAlias = int | str  # a binding identifier, MN, STAND_IN, DEFAULT or the name of one stand-in


class RuleRefused(Exception):
    """A refused change of rules. `reason` is for the registration's answer; `str()` is for users."""

    def __init__(self, reason: RefusalReason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KeptRule:
    """One flow rule of a home address. Without `share` packets go to the first target that is registered."""

    identifier: int  # 1 to LAST_RULE, unique for its home address
    priority: int  # 0 to LAST_PRIORITY, the lowest is tried first; among equals no two selectors overlap
    verdict: RuleVerdict
    selectors: tuple[Selector, ...]  # one of each family that the rule is about
    to: tuple[Target, ...] = ()
    share: bool = False
    owner: str = MN  # MN, the name of a stand-in, CONFIGURATION, PROFILE, ADMIN or DEVICE

    def selector(self, version: int) -> Selector | None:
        """Selector of the IPv4 (4) or IPv6 (6) packets that match; None: none."""
        for selector in self.selectors:
            if isinstance(selector, Ipv4Selector) == (version == 4):
                return selector
        return None

    def to_row(self) -> Mapping[str, JSON]:
        """The row of the table "rule"."""
        return {
            "priority": self.priority,
            "verdict": self.verdict.value,
            "selectors": selectors_to_row(self.selectors),
            "to": list(self.to),
            "share": self.share,
            "owner": self.owner,
        }

    @classmethod
    def from_row(cls, identifier: int, row: Mapping[str, JSON]) -> "KeptRule":
        """The rule in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        priority, listed, to = row["priority"], row["selectors"], row["to"]
        if not isinstance(priority, int) or not isinstance(listed, list) or not isinstance(to, list):
            raise ValueError("not a rule")
        rule = cls(
            identifier=identifier,
            priority=priority,
            verdict=RuleVerdict(row["verdict"]),
            selectors=selectors_of_row(listed),
            to=tuple(target if isinstance(target, int) else str(target) for target in to),
            share=bool(row["share"]),
            owner=str(row["owner"]),
        )
        try:
            check(rule)
        except RuleRefused as problem:
            raise ValueError(str(problem)) from None
        return rule


def check(rule: KeptRule) -> None:
    """Raises RuleRefused for an impossible rule."""
    poor = RefusalReason.MALFORMED
    if not 1 <= rule.identifier <= LAST_RULE:
        raise RuleRefused(poor, f"the identifier {rule.identifier} is not between 1 and {LAST_RULE}")
    if OTHERWISE_RULE <= rule.identifier < LEFT.stop:
        raise RuleRefused(poor, f"identifiers {OTHERWISE_RULE} to {LAST_RULE} are given to rules of sleepers")
    if not 0 <= rule.priority <= LAST_PRIORITY:
        raise RuleRefused(poor, f"the priority {rule.priority} is not between 0 and {LAST_PRIORITY}")
    if not rule.selectors:
        raise RuleRefused(poor, f"rule {rule.identifier} has no selector")
    if rule.verdict in _NO_TARGET:
        if rule.to:
            does = _NO_TARGET[rule.verdict]
            raise RuleRefused(poor, f"rule {rule.identifier} {does} and yet leads somewhere")
        return
    if rule.verdict is RuleVerdict.AGENT and not {MN, DEFAULT}.isdisjoint(rule.to):
        raise RuleRefused(poor, f"rule {rule.identifier} leads to an agent, which neither mn nor default is")
    most = MAX_CANDIDATES if rule.share else MAX_TARGETS
    if not 1 <= len(rule.to) <= most:
        raise RuleRefused(
            poor, f"rule {rule.identifier} has {len(rule.to)} targets; 1 to {most} are possible"
        )
    if len(set(rule.to)) != len(rule.to):
        raise RuleRefused(poor, f"rule {rule.identifier} names one way twice")


def rests(rule: KeptRule) -> bool:
    """True if the rule is in force only while the device is asleep (P14)."""
    return rule.verdict in WHILE_ASLEEP or rule.identifier in LEFT


def both_families(selector: Selector) -> tuple[Selector, ...]:
    """The selector, and its like of the other family where nothing in it belongs to one family alone.

    A selector matches both families; one for a single family names an address of it.
    """
    if selector.source is not None or selector.destination is not None:
        return (selector,)
    ports = (selector.source_port, selector.destination_port)
    if isinstance(selector, Ipv4Selector):
        if selector.protocol in ((1, 1), (2, 2)):  # ICMP and IGMP are of IPv4
            return (selector,)
        return selector, Ipv6Selector(
            None, None, selector.spi, None, *ports, selector.dscp, selector.protocol
        )
    if selector.flow_label is not None or selector.next_header == (58, 58):
        return (selector,)
    return Ipv4Selector(None, None, selector.spi, *ports, selector.dscp, selector.next_header), selector


def one_reading(selectors: tuple[Selector, ...], home_addresses: Iterable[Addr]) -> tuple[Selector, ...]:
    """Selectors of the same packets that name each family which `both_families` would miss: by the home address, which
    is the destination of all packets anyway. Raises RuleRefused without a home address of the family.
    """
    if any(both_families(selector) == selectors for selector in selectors):
        return selectors
    homes = tuple(home_addresses)
    return tuple(
        selector if both_families(selector) == (selector,) else _to_home(selector, homes)
        for selector in selectors
    )


def _to_home(selector: Selector, home_addresses: tuple[Addr, ...]) -> Selector:
    """The selector with the home address of its family as destination."""
    for home_address in home_addresses:
        if isinstance(selector, Ipv4Selector) and isinstance(home_address, IPv4Address):
            return replace(selector, destination=(home_address, home_address))
        if isinstance(selector, Ipv6Selector) and isinstance(home_address, IPv6Address):
            return replace(selector, destination=(home_address, home_address))
    version = 4 if isinstance(selector, Ipv4Selector) else 6
    problem = f"it is for IPv{version} alone, and no IPv{version} home address is known"
    raise RuleRefused(RefusalReason.MALFORMED, problem)


def spoken(selectors: tuple[Selector, ...]) -> tuple[Selector, ...]:
    """Selectors for a message, after `one_reading`: one for both families, or one for each."""
    return next(((selector,) for selector in selectors if both_families(selector) == selectors), selectors)


def added(rules: Sequence[KeptRule], rule: KeptRule, most: int = MAX_RULES) -> tuple[KeptRule, ...]:
    """The rules with this one, in the order in which they are matched. Raises RuleRefused."""
    check(rule)
    if len(rules) >= most:
        raise RuleRefused(RefusalReason.NO_RESOURCES, f"there are {len(rules)} rules, and no room for more")
    for other in rules:
        if other.identifier == rule.identifier:
            raise RuleRefused(RefusalReason.UNKNOWN_IDENTIFIER, f"rule {rule.identifier} is there already")
        if other.priority == rule.priority and _overlap(other, rule):
            raise RuleRefused(
                RefusalReason.MALFORMED,
                f"rules {other.identifier} and {rule.identifier} have the priority {rule.priority} and take the "
                "same packets; give one another priority",
            )
    return tuple(sorted((*rules, rule), key=_order))


def without(rules: Sequence[KeptRule], identifier: int, by: str) -> tuple[tuple[KeptRule, ...], KeptRule]:
    """The rules without that one, and it. Raises RuleRefused unless it is there and `by` may take it away.

    A registrant's rules are its own; those of stand-ins are the mobile node's too (R4). ADMIN takes away all that
    were signalled or are its own.
    """
    found = next((other for other in rules if other.identifier == identifier), None)
    if found is None:
        raise RuleRefused(RefusalReason.UNKNOWN_IDENTIFIER, f"there is no rule {identifier}")
    if found.owner != by and (by not in (MN, ADMIN) or found.owner in (CONFIGURATION, PROFILE, ADMIN)):
        raise RuleRefused(
            RefusalReason.PROHIBITED, f"rule {identifier} is of {found.owner}; it stays where it is"
        )
    return tuple(other for other in rules if other is not found), found


def stored(rule: KeptRule) -> bool:
    """True if it is kept in the store: rules of configuration and profiles are not."""
    return rule.owner not in (CONFIGURATION, PROFILE)


def free_identifier(rules: Sequence[KeptRule], first: int) -> int:
    """The first identifier from `first` on that no rule has. There are more identifiers than rules."""
    taken = {other.identifier for other in rules}
    return next(number for number in range(first, LAST_RULE + 1) if number not in taken)


def overlap(one: Selector, two: Selector) -> bool:
    """True if a packet can match both."""
    if type(one) is not type(two):
        return False
    for part in fields(one):
        first, second = getattr(one, part.name), getattr(two, part.name)
        if first is not None and second is not None and _apart(first, second):
            return False
    return True


def selectors_overlap(one: Sequence[Selector], two: Sequence[Selector]) -> bool:
    """True if a packet can match one of each."""
    return any(overlap(selector, other) for selector in one for other in two)


def _overlap(one: KeptRule, two: KeptRule) -> bool:
    return selectors_overlap(one.selectors, two.selectors)


def _apart(one: tuple[Any, Any], two: tuple[Any, Any]) -> bool:
    return bool(one[1] < two[0] or two[1] < one[0])


def _order(rule: KeptRule) -> tuple[int, int]:
    return rule.priority, rule.identifier


def selectors_of_row(listed: Iterable[tuple[int, str]]) -> tuple[Selector, ...]:
    """The selectors of a row of our own; raises ValueError or TypeError for anything else."""
    return tuple(_selector(int(number), bytes.fromhex(data)) for number, data in listed)


def selectors_to_row(selectors: Iterable[Selector]) -> list[JSON]:
    """Selectors as a row has them."""
    return [[selector_format(selector), selector.encode().hex()] for selector in selectors]


def _selector(number: int, data: bytes) -> Selector:
    cursor = Cursor(data)
    try:
        found = decode_selector(number, cursor)
    except WireError as problem:
        raise ValueError(str(problem)) from None
    if not isinstance(found, Ipv4Selector | Ipv6Selector):
        raise ValueError(f"selectors of format {number} are not known")
    return found


def source_selector(address: IPv4Address | IPv6Address) -> Selector:
    """All packets from that address."""
    if isinstance(address, IPv4Address):
        return Ipv4Selector(source=(address, address))
    return Ipv6Selector(source=(address, address))
