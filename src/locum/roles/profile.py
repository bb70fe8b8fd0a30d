"""A policy server's data about a mobile node (features R3, C9, R20): a profile, and its pools.

Values only. Others decide about service, and about changed and removed profiles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import (
    MAX_RULES,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    RuleVerdict,
    Selector,
)
from locum.roles.rules import KeptRule
from locum.security.association import AaaAssociation, Algorithm, Association, Replay
from locum.wire.control.context_blocks import PagingBlock, PolicyBlock, RuleEntry, RuleList
from locum.wire.control.paging.entry import Entry
from locum.wire.cursor import Cursor
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, decode_selector, selector_format

Row: TypeAlias = Mapping[str, JSON]

SHORTEST_LIFETIME = 5  # seconds; a profile that says less would be asked for all the time


@dataclass(frozen=True, slots=True)
class Pool:
    """Home addresses that are assigned: `first` to `last`, both included."""

    name: str
    first: IPv4Address
    last: IPv4Address

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPv4Address) and self.first <= address <= self.last

    def addresses(self) -> Iterator[IPv4Address]:
        """All of them, in order."""
        return map(IPv4Address, range(int(self.first), int(self.last) + 1))


@dataclass(frozen=True, slots=True)
class GrantedStandIn:
    """A stand-in that may register for the home address, with its own association (R4)."""

    name: str
    address: IPv4Address  # its interface address
    association: Association
    address_v6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class Policing:
    """Rules of a filter for packets of both families, first match wins; `otherwise` for the rest (R20, P16)."""

    rules: tuple[FilterRule, ...] = ()
    otherwise: FilterVerdict = FilterVerdict.ALLOW

    @property
    def idle(self) -> bool:
        """Lets everything pass."""
        return not self.rules and self.otherwise is FilterVerdict.ALLOW

    def filter(self, home_address: Addr, place: FilterPlace) -> Filter:
        """The filter for one home address: rules of its family."""
        kind = Ipv4Selector if isinstance(home_address, IPv4Address) else Ipv6Selector
        rules = tuple(rule for rule in self.rules if isinstance(rule.selector, kind))
        return Filter(home_address, place, rules, self.otherwise)


class Policies(Protocol):
    """Policing and paging classifier, of whatever source."""

    @property
    def to_visitor(self) -> Policing: ...

    @property
    def from_visitor(self) -> Policing: ...

    @property
    def paging(self) -> Policing: ...


def policy_blocks(profile: Policies) -> tuple[PolicyBlock, PagingBlock]:
    """Policing and classifier as blocks of a context or of a page."""
    policy = PolicyBlock(rule_list(profile.to_visitor), rule_list(profile.from_visitor))
    return policy, classifier_block(profile.paging)


def rule_list(policing: Policing) -> RuleList:
    """Rules as they travel."""
    entries = (RuleEntry(rule.identifier, rule.selector, not rule.verdict.drops) for rule in policing.rules)
    return RuleList(tuple(entries), not policing.otherwise.drops)


def classifier_block(policing: Policing) -> PagingBlock:
    """A classifier as it travels, with its rules that ask for a page."""
    asking = dict.fromkeys(rule.identifier for rule in policing.rules if rule.verdict.pages)
    return PagingBlock(rule_list(policing), tuple(asking))


@dataclass(frozen=True, slots=True)
class Profile:
    """Data about one mobile node. At an access node no association and no home address are needed."""

    lifetime: int | None = None  # seconds after which it is fetched again; None: never by itself
    home_address: IPv4Address | None = None
    home_address_v6: IPv6Address | None = None
    pool: str | None = None  # where the home address comes from, if it is not given
    association: Association | None = None
    default_care_of: IPv4Address | None = None
    stand_ins: tuple[GrantedStandIn, ...] = ()
    rules: tuple[KeptRule, ...] = ()
    to_visitor: Policing = Policing()
    from_visitor: Policing = Policing()
    paging: Policing = Policing()  # classifier at the access node of a stand-in (P16)
    asleep_otherwise: RuleVerdict | None = None  # for packets to a sleeper that nothing names
    version: int | None = None  # of the policy server's; orders fetched and pushed profiles (P7)

    def newer_than(self, other: "Profile") -> bool:
        """True unless the versions of both say that this one is older."""
        return self.version is None or other.version is None or self.version >= other.version

    def after(self, other: "Profile") -> "Profile":
        """This profile, fetched when `other` was in force: without a version it leaves that of `other`."""
        return replace(self, version=other.version) if self.version is None else self

    def to_row(self) -> Row:
        """The part of a row of the store."""
        return {
            "lifetime": self.lifetime,
            "home_address": _text(self.home_address),
            "home_address_v6": _text(self.home_address_v6),
            "pool": self.pool,
            "association": None if self.association is None else association_row(self.association),
            "default_care_of": _text(self.default_care_of),
            "stand_ins": [_stand_in_row(stand_in) for stand_in in self.stand_ins],
            "rules": [{"id": rule.identifier, **rule.to_row()} for rule in self.rules],
            "to_visitor": _policing_row(self.to_visitor),
            "from_visitor": _policing_row(self.from_visitor),
            "paging": _policing_row(self.paging),
            "asleep_otherwise": None if self.asleep_otherwise is None else self.asleep_otherwise.value,
            "version": self.version,
        }

    @classmethod
    def from_row(cls, row: Row) -> "Profile":
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        lifetime, pool, association = row["lifetime"], row["pool"], row["association"]
        version, asleep = (
            row.get("version"),
            row.get("asleep_otherwise"),
        )  # rows of earlier programs have none
        if not isinstance(version, int | None):
            raise ValueError("version is a number")
        if not isinstance(lifetime, int | None) or not isinstance(pool, str | None):
            raise ValueError("lifetime is a number, pool a name")
        return cls(
            lifetime=lifetime,
            home_address=_optional4(row["home_address"]),
            home_address_v6=_optional6(row["home_address_v6"]),
            pool=pool,
            association=None if association is None else association_from(_row(association)),
            default_care_of=_optional4(row["default_care_of"]),
            stand_ins=tuple(_stand_in(_row(stand_in)) for stand_in in _list(row["stand_ins"])),
            rules=tuple(_rule(_row(rule)) for rule in _list(row["rules"])),
            to_visitor=_policing(_row(row["to_visitor"])),
            from_visitor=_policing(_row(row["from_visitor"])),
            paging=_policing(_row(row["paging"])),
            asleep_otherwise=None if asleep is None else RuleVerdict(asleep),
            version=version,
        )


@dataclass(frozen=True, slots=True)
class PolicingChange:
    """New rules, or a new verdict on the rest; None: as they were."""

    rules: tuple[FilterRule, ...] | None = None
    otherwise: FilterVerdict | None = None

    def of(self, policing: Policing) -> Policing:
        """The changed policing."""
        return Policing(
            policing.rules if self.rules is None else self.rules,
            policing.otherwise if self.otherwise is None else self.otherwise,
        )


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """Parts of a profile that the policy server has pushed (P7); others stay as they were."""

    version: int
    rules: tuple[KeptRule, ...] | None = None
    to_visitor: PolicingChange = PolicingChange()
    from_visitor: PolicingChange = PolicingChange()
    paging: PolicingChange = PolicingChange()
    asleep_otherwise: RuleVerdict | None = None
    entries: tuple[Entry, ...] | None = None  # of the event table at a stand-in; no part of a profile

    @property
    def empty(self) -> bool:
        """True if no part of a profile changes."""
        return replace(self, entries=None) == ProfileChange(self.version)

    def follows(self, profile: Profile) -> bool:
        """True if it is later than all that is known."""
        return profile.version is None or self.version > profile.version

    def of(self, profile: Profile) -> Profile:
        """The changed profile. Raises ValueError for too many filter rules of one filter."""
        changed = replace(
            profile,
            rules=profile.rules if self.rules is None else self.rules,
            to_visitor=self.to_visitor.of(profile.to_visitor),
            from_visitor=self.from_visitor.of(profile.from_visitor),
            paging=self.paging.of(profile.paging),
            asleep_otherwise=self.asleep_otherwise or profile.asleep_otherwise,
            version=self.version,
        )
        if too_many_filter_rules(changed.to_visitor, changed.paging):
            raise ValueError(f"the filter to the visitor and the classifier have at most {MAX_RULES} rules")
        return changed


def too_many_filter_rules(to_visitor: Policing, paging: Policing) -> bool:
    """True if the two do not fit one filter: at a stand-in the classifier stands before the policing."""
    rules = (len({rule.identifier for rule in policing.rules}) for policing in (to_visitor, paging))
    return sum(rules) > MAX_RULES


def association_row(association: Association) -> Row:
    """An association as part of a row; the store is readable by its owner alone."""
    return {
        "spi": association.spi,
        "key": association.key.hex(),
        "algorithm": association.algorithm.value,
        "replay": association.replay.value,
        **({} if association.sent_spi is None else {"sent_spi": association.sent_spi}),
        **({"short_key": True} if association.short_key else {}),
        **({"with_aaa": True} if isinstance(association, AaaAssociation) else {}),
    }


def association_from(row: Row) -> Association:
    """The association in such a part; raises ValueError, KeyError or TypeError."""
    kind = AaaAssociation if row.get("with_aaa", False) else Association
    return kind(
        spi=_number(row["spi"]),
        key=bytes.fromhex(str(row["key"])),
        algorithm=Algorithm(row["algorithm"]),
        replay=Replay(row["replay"]),
        sent_spi=None if row.get("sent_spi") is None else _number(row["sent_spi"]),
        short_key=bool(row.get("short_key", False)),
    )


def _stand_in_row(granted: GrantedStandIn) -> Row:
    return {
        "name": granted.name,
        "address": str(granted.address),
        "address_v6": _text(granted.address_v6),
        "association": association_row(granted.association),
    }


def _stand_in(row: Row) -> GrantedStandIn:
    return GrantedStandIn(
        name=str(row["name"]),
        address=IPv4Address(str(row["address"])),
        association=association_from(_row(row["association"])),
        address_v6=_optional6(row["address_v6"]),
    )


def _rule(row: Row) -> KeptRule:
    return KeptRule.from_row(_number(row["id"]), row)


def _policing_row(policing: Policing) -> Row:
    return {
        "rules": [
            {
                "id": rule.identifier,
                "format": selector_format(rule.selector),
                "selector": rule.selector.encode().hex(),
                "verdict": rule.verdict.value,
            }
            for rule in policing.rules
        ],
        "otherwise": policing.otherwise.value,
    }


def _policing(row: Row) -> Policing:
    rules = tuple(_filter_rule(_row(rule)) for rule in _list(row["rules"]))
    return Policing(rules, FilterVerdict(row["otherwise"]))


def _filter_rule(row: Row) -> FilterRule:
    selector = selector_from(_number(row["format"]), str(row["selector"]))
    return FilterRule(_number(row["id"]), selector, FilterVerdict(row["verdict"]))


def selector_from(number: int, encoded: str) -> Selector:
    """The selector of that format in hexadecimal; raises ValueError."""
    found = decode_selector(number, Cursor(bytes.fromhex(encoded)))
    if not isinstance(found, Ipv4Selector | Ipv6Selector):
        raise ValueError(f"selectors of format {number} are not known")
    return found


def _row(value: JSON) -> Row:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not an object")
    return value


def _list(value: JSON) -> Sequence[JSON]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    return value


def _number(value: JSON) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _text(address: Addr | None) -> str | None:
    return None if address is None else str(address)


def _optional4(value: JSON) -> IPv4Address | None:
    return None if value is None else IPv4Address(str(value))


def _optional6(value: JSON) -> IPv6Address | None:
    return None if value is None else IPv6Address(str(value))
