"""Layouts of flow rules and filters in the maps: values of `roles.action_values.flows` <-> bytes, as bpf/locum.h has them.

All rules of a home address are one value, in one of two sizes. Knows no map and no packet.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address

from locum.dataplane.layout import maps
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    Rule,
    RuleVerdict,
    Selector,
    Tunnel,
)
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, Range

FEW, MANY = 8, 80
FEW_TUNNELS, MANY_TUNNELS = 8, 256
MAX_CANDIDATES = 4

HEAD = struct.Struct("<II")
MATCH = struct.Struct("<BBBB2B2B2H2H2I2I4Q4Q")
WAYS = struct.Struct("<4B4HH2x")
RULE_SIZE = MATCH.size + WAYS.size
FILTER_KEY = struct.Struct("<16sII")
RULE_KEY = struct.Struct("<16sHHI")
FRAGMENT_KEY = struct.Struct("<16sII")
FRAGMENT = struct.Struct("<16s16sQ4sIHHBBBxQ")
FRAGMENT_PEERS, FRAGMENT_NUMBERS = 7, 9  # places of one home address: by peer, and by the packet's number
FRAGMENT_PLACES = FRAGMENT_PEERS * FRAGMENT_NUMBERS

FEW_SIZE = HEAD.size + FEW * RULE_SIZE + FEW_TUNNELS * maps.TUNNEL.size
MANY_SIZE = HEAD.size + MANY * RULE_SIZE + MANY_TUNNELS * maps.TUNNEL.size
FILTER_FEW_SIZE = HEAD.size + FEW * RULE_SIZE
FILTER_MANY_SIZE = HEAD.size + MANY * RULE_SIZE

_ANY = (0, 0)
_ANYWHERE = (0, 0, 0, 0)


class Part(IntFlag):
    """Fields that a selector compares, and fields that are known of a packet."""

    SOURCE = 1
    DESTINATION = 2
    SPI = 4
    FLOW_LABEL = 8
    SOURCE_PORT = 16
    DESTINATION_PORT = 32
    DSCP = 64
    PROTOCOL = 128


PORTS = Part.SOURCE_PORT | Part.DESTINATION_PORT
_SOURCE, _DESTINATION, _SPI, _FLOW_LABEL, _SOURCE_PORT, _DESTINATION_PORT, _DSCP, _PROTOCOL = map(int, Part)


class Place(IntEnum):
    """Place of rules (`enum locum_place`); VISITED has no rules, only a counter."""

    FLOW_RULES = 0
    TO_VISITOR = 1
    FROM_VISITOR = 2
    EMISSION = 3
    VISITED = 4


PLACES: Mapping[FilterPlace, Place] = {
    FilterPlace.TO_VISITOR: Place.TO_VISITOR,
    FilterPlace.FROM_VISITOR: Place.FROM_VISITOR,
    FilterPlace.EMISSION: Place.EMISSION,
}
_FILTER_PLACES = {number: place for place, number in PLACES.items()}
# The programs hold a packet by either of the last two; the daemon pages for the one, and not for the other.
_RULE_VERDICTS = {RuleVerdict.FORWARD: 0, RuleVerdict.DROP: 1, RuleVerdict.PAGE: 3, RuleVerdict.HOLD: 3}
_HOLDS = 1  # the first weight of a rule that holds without a page, for whoever reads it back
_FILTER_VERDICTS = {
    FilterVerdict.DROP: 1,
    FilterVerdict.ALLOW: 2,
    FilterVerdict.PAGE: 4,
    FilterVerdict.PAGE_AND_DROP: 5,
}
_RULE_VERDICT_OF = {0: RuleVerdict.FORWARD, 1: RuleVerdict.DROP, 3: RuleVerdict.PAGE}
_FILTER_VERDICT_OF = {number: verdict for verdict, number in _FILTER_VERDICTS.items()}


def uses(place: FilterPlace) -> int:
    """Flag of the settings: there are filters at this place (`LOCUM_FILTERED`)."""
    return 4 << PLACES[place]


def _halves(bounds: tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]) -> tuple[int, ...]:
    """Two addresses as the four 64-bit numbers that compare like them."""
    packed = b"".join(maps.address(bound) for bound in bounds)
    return struct.unpack(">4Q", packed)


def parts_of(selector: Selector) -> Part:
    """The parts that the selector compares."""
    return Part(_bits(selector))


def _bits(selector: Selector) -> int:
    """The same as a number: operators of flags are slow."""
    label = None if isinstance(selector, Ipv4Selector) else selector.flow_label
    protocol = selector.protocol if isinstance(selector, Ipv4Selector) else selector.next_header
    return (
        (selector.source is not None and _SOURCE)
        | (selector.destination is not None and _DESTINATION)
        | (selector.spi is not None and _SPI)
        | (label is not None and _FLOW_LABEL)
        | (selector.source_port is not None and _SOURCE_PORT)
        | (selector.destination_port is not None and _DESTINATION_PORT)
        | (selector.dscp is not None and _DSCP)
        | (protocol is not None and _PROTOCOL)
    )


def match_part(selector: Selector, verdict: int, candidates: int) -> bytes:
    """The first part of `struct locum_rule`: the compared fields."""
    v4 = isinstance(selector, Ipv4Selector)
    label = None if isinstance(selector, Ipv4Selector) else selector.flow_label
    protocol = selector.protocol if isinstance(selector, Ipv4Selector) else selector.next_header
    return MATCH.pack(
        _bits(selector),
        4 if v4 else 6,
        verdict,
        candidates,
        *(protocol or _ANY),
        *(selector.dscp or _ANY),
        *(selector.source_port or _ANY),
        *(selector.destination_port or _ANY),
        *(selector.spi or _ANY),
        *(label or _ANY),
        *(_halves(selector.source) if selector.source else _ANYWHERE),
        *(_halves(selector.destination) if selector.destination else _ANYWHERE),
    )


def _selector_of(fields: Sequence[int]) -> Selector:
    parts = Part(fields[0])

    def numbers(part: Part, at: int) -> Range | None:
        return (fields[at], fields[at + 1]) if part in parts else None

    def addresses(part: Part, at: int) -> tuple[Addr, Addr] | None:
        packed = struct.pack(">4Q", *fields[at : at + 4])
        return (maps.address_of(packed[:16]), maps.address_of(packed[16:])) if part in parts else None

    source, destination = addresses(Part.SOURCE, 16), addresses(Part.DESTINATION, 20)
    common = {
        "source": source,
        "destination": destination,
        "spi": numbers(Part.SPI, 12),
        "source_port": numbers(Part.SOURCE_PORT, 8),
        "destination_port": numbers(Part.DESTINATION_PORT, 10),
        "dscp": numbers(Part.DSCP, 6),
    }
    protocol = numbers(Part.PROTOCOL, 4)
    if fields[1] == 4:
        return Ipv4Selector(**common, protocol=protocol)  # type: ignore[arg-type]
    return Ipv6Selector(**common, flow_label=numbers(Part.FLOW_LABEL, 14), next_header=protocol)  # type: ignore[arg-type]


Packed = tuple[Rule, bytes, list[int], bytes]
"""A rule, its compared part, the places of its tunnels, and its other part with these places."""


def rules(
    value: Sequence[Rule],
    endpoints: Collection[Addr] = (),
    known: Mapping[int, Packed] | None = None,
) -> tuple[bytes, dict[int, Packed]]:
    """Value of `rules_few` or (if need be) `rules_many`, and its rules as they were packed, by `id`.

    `known` has those that were packed before; a rule that is the same object is not packed again. ValueError for more than
    fits, or for a rule that forwards to nowhere.
    """
    places: dict[Tunnel, int] = {}
    found: dict[int, int] = {}  # the same by identity: many rules lead to few tunnels
    body, packed = [], {}
    for rule in value:
        at = id(rule)
        before = known.get(at) if known else None
        leads: list[int] | None = None
        if before is None:
            _check(rule)
            part, ways = match_part(rule.selector, _RULE_VERDICTS[rule.verdict], len(rule.candidates)), b""
        else:
            _, part, leads, ways = before
        tunnels = []
        for candidate in rule.candidates:
            tunnel = candidate.tunnel
            place = found.get(id(tunnel))
            if place is None:
                place = found[id(tunnel)] = places.setdefault(tunnel, len(places))
            tunnels.append(place)
        if tunnels != leads:
            ways = _ways(rule, tunnels)
        packed[at] = rule, part, tunnels, ways
        body += [part, ways]
    few = len(value) <= FEW and len(places) <= FEW_TUNNELS
    room, most = (FEW, FEW_TUNNELS) if few else (MANY, MANY_TUNNELS)
    if len(value) > room or len(places) > most:
        raise ValueError(f"{len(value)} rules with {len(places)} tunnels; the most are {room} and {most}")
    content = b"".join([HEAD.pack(len(value), 0), *body]).ljust(HEAD.size + room * RULE_SIZE, b"\x00")
    content += b"".join([maps.tunnel(place, endpoints) for place in places])
    return content.ljust(FEW_SIZE if few else MANY_SIZE, b"\x00"), packed


def _check(rule: Rule) -> None:
    if not 1 <= rule.identifier <= 0xFFFF:
        raise ValueError(f"{rule.identifier} is no identifier of a rule")
    if len(rule.candidates) > MAX_CANDIDATES:
        raise ValueError(f"rule {rule.identifier} has more than {MAX_CANDIDATES} candidates")
    if rule.verdict not in _RULE_VERDICTS:
        raise ValueError(
            f"rule {rule.identifier} has the verdict {rule.verdict.value}, which the kernel lacks"
        )
    if rule.verdict is RuleVerdict.HOLD and rule.candidates:
        raise ValueError(f"rule {rule.identifier} holds, and yet leads somewhere")
    if rule.verdict is RuleVerdict.FORWARD and not rule.candidates:
        raise ValueError(f"rule {rule.identifier} forwards to nowhere")


def _ways(rule: Rule, tunnels: Sequence[int]) -> bytes:
    if tunnels and max(tunnels) >= MANY_TUNNELS:
        raise ValueError(f"more than {MANY_TUNNELS} tunnels in the rules of one home address")
    weights = [candidate.weight for candidate in rule.candidates]
    missing = MAX_CANDIDATES - len(tunnels)
    if rule.verdict is RuleVerdict.HOLD:
        return WAYS.pack(*(0,) * MAX_CANDIDATES, _HOLDS, *(0,) * (MAX_CANDIDATES - 1), rule.identifier)
    return WAYS.pack(*tunnels, *(0,) * missing, *weights, *(0,) * missing, rule.identifier)


def rules_of(value: bytes) -> tuple[Rule, ...]:
    """The rules in a value of either size."""
    many = len(value) == MANY_SIZE
    at_tunnels = HEAD.size + (MANY if many else FEW) * RULE_SIZE
    size = maps.TUNNEL.size
    found = []
    for place in range(HEAD.unpack_from(value)[0]):
        at = HEAD.size + place * RULE_SIZE
        fields = MATCH.unpack_from(value, at)
        ways = WAYS.unpack_from(value, at + MATCH.size)
        candidates = []
        for number in range(fields[3]):
            start = at_tunnels + ways[number] * size
            tunnel = maps.tunnel_of(value[start : start + size])
            candidates.append(Candidate(tunnel, ways[MAX_CANDIDATES + number]))
        verdict = _RULE_VERDICT_OF[fields[2]]
        if verdict is RuleVerdict.PAGE and ways[MAX_CANDIDATES] == _HOLDS:
            verdict = RuleVerdict.HOLD
        found.append(Rule(ways[8], _selector_of(fields), verdict, tuple(candidates)))
    return tuple(found)


def filter_key(home_address: Addr, place: FilterPlace) -> bytes:
    return place_key(home_address, PLACES[place])


def place_key(home_address: Addr, place: Place) -> bytes:
    """Key of the filter at a place that has one."""
    return FILTER_KEY.pack(maps.address(home_address), place, 0)


def filter_value(value: Filter) -> bytes:
    """Value of `filters_few` or (if need be) `filters_many`; ValueError for more rules than fit."""
    if len(value.rules) > MANY:
        raise ValueError(f"{len(value.rules)} rules of a filter; the most are {MANY}")
    body = HEAD.pack(len(value.rules), _FILTER_VERDICTS[value.otherwise])
    for rule in value.rules:
        body += match_part(rule.selector, _FILTER_VERDICTS[rule.verdict], 0)
        body += WAYS.pack(*(0,) * 8, rule.identifier)
    few = len(value.rules) <= FEW
    return body.ljust(FILTER_FEW_SIZE if few else FILTER_MANY_SIZE, b"\x00")


def filter_of(key: bytes, value: bytes) -> Filter:
    home, place, _ = FILTER_KEY.unpack(key)
    count, otherwise = HEAD.unpack_from(value)
    found = []
    for number in range(count):
        at = HEAD.size + number * RULE_SIZE
        fields = MATCH.unpack_from(value, at)
        identifier = WAYS.unpack_from(value, at + MATCH.size)[8]
        found.append(FilterRule(identifier, _selector_of(fields), _FILTER_VERDICT_OF[fields[2]]))
    place_of = _FILTER_PLACES[Place(place)]
    return Filter(maps.address_of(home), place_of, tuple(found), _FILTER_VERDICT_OF[otherwise])


def rule_key(home_address: Addr, place: Place, identifier: int = 0) -> bytes:
    """Key of a counter; identifier 0 counts packets that matched no rule."""
    return RULE_KEY.pack(maps.address(home_address), place, identifier, 0)


def sealed_fragment(key: bytes, value: bytes) -> bytes:
    """The value of a first fragment with the seal over its key and itself (`fragment_seal`)."""
    content = value[: FRAGMENT.size - 8]
    seal = 1
    for (word,) in struct.iter_unpack("<Q", key + content):
        seal = (seal ^ word) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        seal ^= seal >> 32
    return content + struct.pack("<Q", seal)
