"""Judges chains of a packet filter for a packet of which only its interfaces, and perhaps its protocol and port, are known. Pure.

A rule with another condition is left out: the usual `ct state established accept` admits no new packet, and the usual drop of
something in particular drops no other. One that accepts the very protocol or port is believed: its other condition is about
hosts that are known to whoever wrote it. Reads nft's JSON and the listing of iptables-legacy.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

_DEPTH = 16  # as deep as nftables lets chains jump (NFT_JUMP_STACK_SIZE)
_ARRIVING, _LEAVING = ("iifname", "iif"), ("oifname", "oif")
_CARRIED = ("l4proto", "dport")
_VERDICTS = ("accept", "drop", "reject", "return")
_IGNORED = ("counter", "log", "comment")
_BOTH = frozenset((4, 6))
_VERSIONS = {"ip": frozenset((4,)), "ip6": frozenset((6,))}  # of tables of one family
_PROTOCOLS = {"ipv4": 4, "ip": 4, "ipv6": 6, "ip6": 6}  # as `meta nfproto` and `meta protocol` say
_NUMBERS = {
    "icmp": 1, "ipencap": 4, "ipip": 4, "ipv4": 4, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
}  # fmt: skip
_ALL = frozenset(range(256))
_INGRESS = re.compile(r"hook ingress devices? (?:= \{ *)?([^{}]*?) *\}? priority ")
_OF_INTERFACES = ("ifname", "iface_index")  # types of sets


@dataclass(frozen=True, slots=True)
class Transit:
    """Packets of this IP version that arrive on `interface` and leave by one of `ours`; without `ours` they stay here.

    `protocol` and `port`, the destination's, are None where they are not known.
    """

    interface: str
    ours: Collection[str]
    version: int
    protocol: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """`arriving` and `leaving`: names or patterns of interfaces, None for any. `certain`: it has no other condition.

    `protocols` and `ports` (of the destination, by first and last): None for any.
    """

    verdict: str  # accept, drop, reject, return, jump, goto; empty: goes on
    target: str = ""
    arriving: tuple[str, ...] | None = None
    leaving: tuple[str, ...] | None = None
    inverted: bool = False  # `arriving` names interfaces that do not match
    certain: bool = True
    versions: frozenset[int] = _BOTH
    protocols: frozenset[int] | None = None
    ports: tuple[tuple[int, int], ...] | None = None

    def matches(self, packet: Transit) -> bool:
        """True if it decides about such packets."""
        if packet.version not in self.versions or not (self.certain or self._admits(packet)):
            return False
        if self.protocols is not None and packet.protocol not in self.protocols:
            return False
        if self.ports is not None and not _within(packet.port, self.ports):
            return False
        if self.arriving is not None and _among(packet.interface, self.arriving) == self.inverted:
            return False
        return self.leaving is None or any(_among(name, self.leaving) for name in packet.ours)

    def _admits(self, packet: Transit) -> bool:
        """True if it accepts the packet's port, or the protocol of one without ports, beside another condition."""
        named = self.protocols if packet.port is None else self.ports
        return self.verdict == "accept" and packet.protocol is not None and named is not None


@dataclass(slots=True)
class Chain:
    """`policy` and `hook` are set for a chain that the kernel calls."""

    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = "accept"
    rules: list[Rule] = field(default_factory=list)
    devices: tuple[str, ...] = ()  # of an ingress hook


Table = Mapping[str, Chain]


def drops(table: Table, chain: Chain, interface: str, ours: Collection[str]) -> bool:
    """True if packets of an IP version that arrive on `interface`, and leave by one of `ours`, are dropped by the chain."""
    return any(
        drops_packet(table, chain, Transit(interface, ours, version))
        for version in _VERSIONS.get(chain.family, _BOTH)
    )


def drops_packet(table: Table, chain: Chain, packet: Transit) -> bool:
    """True if the chain meets such packets, and drops them."""
    if chain.devices and not _among(packet.interface, chain.devices):
        return False
    if packet.version not in _VERSIONS.get(chain.family, _BOTH):
        return False
    return (_walk(table, chain, packet, 0) or chain.policy) in ("drop", "reject")


def _walk(table: Table, chain: Chain, packet: Transit, depth: int) -> str:
    """Verdict of the rules; empty if none of them has decided."""
    for rule in chain.rules:
        if not rule.matches(packet):
            continue
        if rule.verdict in ("accept", "drop", "reject"):
            return rule.verdict
        if rule.verdict == "return":
            return ""
        called = table.get(rule.target)
        if called is not None and depth < _DEPTH:
            verdict = _walk(table, called, packet, depth + 1)
            if verdict or rule.verdict == "goto":
                return verdict
    return ""


def _among(interface: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(interface, pattern) for pattern in patterns)


def _within(port: int | None, ranges: Collection[tuple[int, int]]) -> bool:
    return port is not None and any(first <= port <= last for first, last in ranges)


def of_nft(*listings: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Chain]]:
    """Tables by family and name, from `nft -j list ...`; later listings may have the elements of sets and maps."""
    tables: dict[tuple[str, str], dict[str, Chain]] = {}
    items = [item for listing in listings for item in listing.get("nftables", ())]
    elements = {
        (found["family"], found["table"], f"@{found['name']}"): found["elem"]
        for item in items
        for found in (item.get("set") or item.get("map"),)
        if found is not None and "elem" in found
    }
    for item in items:
        if "chain" in item:
            found = item["chain"]
            chain = Chain(
                found["family"],
                found["table"],
                found["name"],
                found.get("hook", ""),
                found.get("policy", "accept"),
                devices=(device,) if isinstance(device := found.get("dev", ()), str) else tuple(device),
            )
            tables.setdefault((chain.family, chain.table), {}).setdefault(chain.name, chain)
        elif "rule" in item:
            found = item["rule"]
            place = found["family"], found["table"]
            owner = tables.get(place, {}).get(found["chain"])
            if owner is not None:
                named = {name: held for (*of, name), held in elements.items() if tuple(of) == place}
                owner.rules += _of_expressions(found.get("expr", ()), named)
    return tables


def sets_of_interfaces(listing: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind ("set" or "map") and name of those of a table whose keys are interfaces, from `nft -t -j list table`."""
    return [
        (kind, item[kind]["name"])
        for item in listing.get("nftables", ())
        for kind in ("set", "map")
        if kind in item and item[kind].get("type") in _OF_INTERFACES
    ]


def devices_of_ingress(text: str) -> dict[str, tuple[str, ...]]:
    """The devices of chains of the ingress hook by name, from `nft -t list table`: some versions leave them out of JSON."""
    found, chain = {}, ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
        elif (place := _INGRESS.search(line)) is not None:
            found[chain] = tuple(name.strip(' "') for name in place.group(1).split(","))
    return found


def has_flags(listing: Mapping[str, Any]) -> bool:
    """True if the table has flags: it may be dormant. Their values are wrong in the JSON of some versions of nft."""
    return any("flags" in item["table"] for item in listing.get("nftables", ()) if "table" in item)


def is_dormant(text: str) -> bool:
    """True if the kernel does not use the table of `nft -t list table`."""
    flags = (line.split() for line in text.splitlines())
    return any(
        words[:1] == ["flags"] and "dormant" in words[1].split(",") for words in flags if len(words) == 2
    )


def _of_expressions(
    expressions: Collection[Mapping[str, Any]], elements: Mapping[str, Any]
) -> Iterator[Rule]:
    """The rule; one for each element of a verdict map."""
    rule, verdicts = Rule(""), None
    for expression in expressions:
        kind = next(iter(expression), "")
        if kind in _VERDICTS or kind in ("jump", "goto"):
            rule = _decided(rule, expression)
        elif kind == "match":
            rule = _conditional(rule, expression["match"], elements)
        elif kind == "vmap" and _subject(expression["vmap"]["key"]) in (*_ARRIVING, *_LEAVING, *_CARRIED):
            verdicts = expression["vmap"]
        elif kind not in _IGNORED:
            rule = replace(rule, certain=False)
    if verdicts is None:
        yield rule
        return
    data, key = verdicts["data"], _subject(verdicts["key"])
    pairs = elements.get(data, ()) if isinstance(data, str) else data.get("set", ())
    for pair in pairs:
        if key in _CARRIED:
            about = {"op": "==", "left": verdicts["key"], "right": pair[0]}
            yield _decided(_conditional(rule, about, elements), pair[1])
            continue
        names = _names(pair[0], elements)
        if names is not None and key in _ARRIVING and rule.arriving is None:
            yield _decided(replace(rule, arriving=names), pair[1])
        elif names is not None and key in _LEAVING and rule.leaving is None:
            yield _decided(replace(rule, leaving=names), pair[1])


def _decided(rule: Rule, verdict: Mapping[str, Any]) -> Rule:
    kind = next(iter(verdict), "")
    return replace(rule, verdict=kind, target=verdict[kind]["target"] if kind in ("jump", "goto") else "")


def _conditional(rule: Rule, condition: Mapping[str, Any], elements: Mapping[str, Any]) -> Rule:
    names, meta, op = _names(condition["right"], elements), _subject(condition["left"]), condition["op"]
    if meta in _CARRIED:
        return _carrying(rule, meta, _ranges(condition["right"], elements), inverted=op == "!=")
    if names is None or op not in ("==", "!=", "in"):
        return replace(rule, certain=False)
    if meta in _ARRIVING:
        return replace(rule, arriving=names, inverted=op == "!=")
    if meta in _LEAVING and op != "!=":
        return replace(rule, leaving=names)
    if meta in ("nfproto", "protocol") and all(name in _PROTOCOLS for name in names):
        named = frozenset(_PROTOCOLS[name] for name in names)
        return replace(rule, versions=rule.versions & (_BOTH - named if op == "!=" else named))
    return replace(rule, certain=False)


def _carrying(rule: Rule, subject: str, ranges: list[tuple[int, int]] | None, *, inverted: bool) -> Rule:
    """The rule with a condition on the protocol or the destination's port; None: on values that are not known."""
    if ranges is None:
        return replace(rule, certain=False)
    if subject == "dport":
        if inverted:
            edges = sorted(ranges)
            firsts = [0, *(last + 1 for _, last in edges)]
            ranges = list(zip(firsts, [*(first - 1 for first, _ in edges), 0xFFFF], strict=True))
        return replace(rule, ports=tuple(ranges) if rule.ports is None else rule.ports)
    named = frozenset(number for number in _ALL if _within(number, ranges))
    return replace(rule, protocols=(rule.protocols or _ALL) & (_ALL - named if inverted else named))


def _ranges(value: object, elements: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    """Numbers of protocols or ports on the right side of a match, by first and last; None where one is not known."""
    if isinstance(value, str) and value.startswith("@"):
        return None
    members = value["set"] if isinstance(value, dict) and "set" in value else [value]
    ranges = []
    for member in map(_plain, members):
        ends = member["range"] if isinstance(member, dict) and "range" in member else [member, member]
        first, last = (_NUMBERS.get(end, end) if isinstance(end, str) else end for end in ends)
        if not isinstance(first, int) or not isinstance(last, int):
            return None
        ranges.append((first, last))
    return ranges


def _subject(left: object) -> str:
    """Key of a `meta` expression, "dport" for the destination's port, "l4proto" for the protocol; empty for others."""
    if not isinstance(left, dict):
        return ""
    found = left.get("meta", {}).get("key")
    payload = left.get("payload", {})
    field, protocol = payload.get("field"), payload.get("protocol")
    if field == "dport" and protocol in ("udp", "th"):
        return "dport"
    if (protocol, field) == ("ip", "protocol"):
        return "l4proto"
    return found if isinstance(found, str) else ""


def _names(value: object, elements: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the right side of a match; None for anything else, and for a set whose elements are not known."""
    if isinstance(value, str) and not value.startswith("@"):
        return (value,)
    members = elements.get(value) if isinstance(value, str) else None
    if isinstance(value, dict):
        members = value.get("set")
    if not isinstance(members, list):
        return None
    plain = [_plain(member) for member in members]
    names = tuple(member for member in plain if isinstance(member, str))
    return names if len(names) == len(plain) else None


def _plain(member: object) -> object:
    """The element itself, without its counter or timeout."""
    return member["elem"].get("val") if isinstance(member, dict) and "elem" in member else member


def of_iptables(listing: str, family: str) -> dict[str, Chain]:
    """The table "filter", from the output of `iptables-legacy -S`."""
    chains: dict[str, Chain] = {}
    for words in map(shlex.split, listing.splitlines()):
        if len(words) >= 2 and words[0] in ("-P", "-N"):
            policy = words[2].lower() if len(words) > 2 else "accept"
            hook = words[1].lower() if words[0] == "-P" else ""
            chains[words[1]] = Chain(family, "filter", words[1], hook, policy)
        elif len(words) >= 2 and words[0] == "-A" and words[1] in chains:
            chains[words[1]].rules.append(_of_words(iter(words[2:])))
    return chains


def _of_words(words: Iterator[str]) -> Rule:
    verdict = target = ""
    arriving = leaving = None
    inverted, certain, negated = False, True, False
    carrying = Rule("")
    for word in words:
        if word in ("-p", "--dport"):
            ends = next(words, "").split(":")
            ranges = _ranges(
                {"range": [int(end) if end.isdecimal() else end for end in (ends[0], ends[-1])]}, {}
            )
            carrying = _carrying(carrying, "l4proto" if word == "-p" else "dport", ranges, inverted=negated)
            negated = False
            continue
        if word == "-m":  # the options of these are conditions of their own
            certain, negated = certain and next(words, "") in ("tcp", "udp"), False
            continue
        if word in ("-i", "-o"):
            name = (next(words, "").replace("+", "*"),)
            if word == "-i":
                arriving, inverted = name, negated
            else:
                leaving, certain = name, certain and not negated
        elif word in ("-j", "-g"):
            aim = next(words, "")
            verdict = aim.lower() if aim.lower() in _VERDICTS else "goto" if word == "-g" else "jump"
            target = "" if verdict == aim.lower() else aim
            if aim in ("LOG", "NFLOG"):
                verdict = ""
            break  # options of the target follow
        elif word != "!":
            certain = False
        negated = word == "!"
    certain = certain and carrying.certain
    return replace(
        carrying,
        verdict=verdict,
        target=target,
        arriving=arriving,
        leaving=leaving,
        inverted=inverted,
        certain=certain,
    )
