"""Random rules and filters around the addresses and ports of the packets' grammar, so that most packets meet some."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from random import Random

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    MAX_RULES,
    PLAIN_VERDICTS,
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

PROTOCOLS = (1, 6, 17, 47, 50, 51, 58, 132)


class RuleGrammar:
    """Rules from a random source; `tunnel` makes the targets of those that forward."""

    def __init__(self, random: Random, addresses: list[Addr], ports: tuple[int, ...]) -> None:
        self.random, self._addresses, self._ports = random, addresses, ports

    def _bounds(self, values: tuple[int, ...], most: int, chance: float) -> Range | None:
        r = self.random
        if r.random() > chance:
            return None
        kind = r.random()
        if kind < 0.4:
            return (r.choice(values),) * 2
        if kind < 0.5:
            return 0, most
        first, last = sorted((r.choice((*values, r.randint(0, most))), r.randint(0, most)))
        return first, last

    def _span(self, version: int) -> tuple[Addr, Addr] | None:
        r = self.random
        if r.random() < 0.5:
            return None
        known = [int(address) for address in self._addresses if address.version == version]
        kind = IPv4Address if version == 4 else IPv6Address
        first, last = sorted((r.choice(known), r.choice(known)))
        if r.random() < 0.3:
            last += r.choice((1, 255, 1 << 16, 1 << 40 if version == 6 else 1))
        if r.random() < 0.2:
            first, last = 0, first
        return kind(first), kind(last)

    def selector(self) -> Selector:
        r = self.random
        version = r.choice((4, 6))
        source, destination = self._span(version), self._span(version)
        source_port = self._bounds(self._ports, 0xFFFF, 0.3)
        destination_port = self._bounds(self._ports, 0xFFFF, 0.3)
        spi = self._bounds((0, 1, 0xFFFFFFFF), 0xFFFFFFFF, 0.1)
        dscp = self._bounds((0, 46, 63), 63, 0.2)
        protocol = self._bounds(PROTOCOLS, 0xFF, 0.4)
        if version == 4:
            return Ipv4Selector(source, destination, spi, source_port, destination_port, dscp, protocol)  # type: ignore[arg-type]
        label = self._bounds((0, 0xFFFFF), 0xFFFFF, 0.15)
        return Ipv6Selector(
            source,  # type: ignore[arg-type]
            destination,  # type: ignore[arg-type]
            spi,
            label,
            source_port,
            destination_port,
            dscp,
            protocol,
        )

    def _number(self) -> int:
        return self.random.choice((1, 1, 2, 4, 8, 9, 20, MAX_RULES))

    def rules(self, tunnel: Callable[[], Tunnel]) -> tuple[Rule, ...]:
        r = self.random
        tunnels = [tunnel() for _ in range(r.choice((1, 3, 12)))]
        found = []
        for identifier in r.sample(range(1, 0x10000), self._number()):
            ways = [r.choice(tunnels) for _ in range(r.choice((1, 1, 2, 3, 4)))]
            candidates = tuple(Candidate(way, r.choice((1, 2, 7, 0xFFFF))) for way in ways)
            kind = r.random()
            verdict = RuleVerdict.DROP if kind < 0.2 else RuleVerdict.FORWARD
            if 0.2 <= kind < 0.28:
                verdict = RuleVerdict.PAGE if kind < 0.25 else RuleVerdict.HOLD
            forwards = verdict is RuleVerdict.FORWARD
            found.append(Rule(identifier, self.selector(), verdict, candidates if forwards else ()))
        return tuple(found)

    def filter(self, home: Addr, place: FilterPlace) -> Filter:
        r = self.random
        verdicts = list(FilterVerdict if place is FilterPlace.TO_VISITOR else PLAIN_VERDICTS)
        identifiers = r.sample(range(1, 0x10000), self._number())
        rules = tuple(
            FilterRule(identifier, self.selector(), r.choice(verdicts)) for identifier in identifiers
        )
        return Filter(home, place, rules if r.random() < 0.9 else (), r.choice(PLAIN_VERDICTS))
