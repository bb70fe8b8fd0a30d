"""Destinations of packets to a home address: the order of choice (R5) over registrations and rules.

Flow rule, then stand-in, then the mobile node, then the default care-of address. Pure functions; permissions
and times are the home agent's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address
from typing import TypeAlias

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    MAX_CANDIDATES,
    MAX_RULES,
    OTHERWISE_RULE,
    WAITING,
    Candidate,
    Encapsulation,
    Rule,
    RuleVerdict,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    BindingEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.forwarding_order import HomeEntries
from locum.roles.home_agent.binding import AuthorisedStandIn, Binding, CareOf, Mobile
from locum.roles.nat import udp_tunnel
from locum.roles.paging.left_rules import Left
from locum.roles.rules import (
    CONFIGURATION,
    DEFAULT,
    DEVICE,
    LAST_PRIORITY,
    LAST_RULE,
    LEFT,
    MN,
    STAND_IN,
    KeptRule,
    Target,
    rests,
    source_selector,
)
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from locum.wire.values import value

StandInBinding = tuple[AuthorisedStandIn, Binding]
Redirect: TypeAlias = IPv4Address | str
"""Place of packets that would wait for the device (P10): an access node's care-of address, or the name of a stand-in."""


@value
class Registered:
    """All that the choice depends on for one mobile node."""

    mobile: Mobile
    device: Binding
    stand_ins: tuple[StandInBinding, ...] = ()  # those that have a care-of address
    rules: tuple[KeptRule, ...] = ()  # in the order in which they are matched
    otherwise: KeptRule | None = None  # while it sleeps, for packets that nothing names
    redirect: Redirect | None = None  # while it sleeps, of packets that would page it

    @property
    def default(self) -> IPv4Address | None:
        """The default care-of address: the registered one, else the configured one (R3)."""
        return self.device.default or self.mobile.default_care_of


def is_asleep(device: Binding) -> bool:
    """True if the device has no care-of address, or only brief ones: it goes to sleep, or wakes (R2)."""
    return all(care_of.brief for care_of in device.care_of)


def waits(entries: HomeEntries) -> bool:
    """True if packets of the home address wait until the device is awake."""
    entry = entries.entry
    return entry is not None and any(rule.verdict in WAITING for rule in entry.rules)


def while_waking(before: HomeEntries, after: HomeEntries) -> HomeEntries:
    """The entries `after`, with rules that go on to hold: newcomers wait while those that waited before go out (P17)."""
    had, wanted = before.entry, after.entry
    if had is None or wanted is None:
        return after
    holding = tuple([rule for rule in had.rules if rule.verdict in WAITING])
    return replace(after, entry=replace(wanted, rules=(*holding, *wanted.rules)[:MAX_RULES]))


def fits_while_waking(before: HomeEntries, after: HomeEntries) -> bool:
    """True if there is room for the rules of both while packets that waited go out."""
    had, wanted = before.entry, after.entry
    if had is None or wanted is None:
        return True
    return sum(rule.verdict in WAITING for rule in had.rules) + len(wanted.rules) <= MAX_RULES


NOTHING = HomeEntries()
_EVERYTHING = (Ipv4Selector(), Ipv6Selector())
_WITHOUT_TARGET = (RuleVerdict.DROP, RuleVerdict.PAGE, RuleVerdict.HOLD)
_FROM, _ENCAPSULATE = Side.FROM_HOME_ADDRESS, Verdict.ENCAPSULATE


def most_rules(mobile: Mobile) -> int:
    """Largest number of rules of a home address: its share of MAX_RULES, without the home agent's own."""
    rest = mobile.asleep_otherwise is not RuleVerdict.AGENT
    return MAX_RULES - max(0, len(_peers(mobile, 4)) - 1, len(_peers(mobile, 6)) - 1) - rest


def agent_targets(mobile: Mobile, agent: Addr | None) -> tuple[Target, ...]:
    """Targets of a rule that leads to this agent, none unless it is a stand-in of the device; without an agent any stand-in."""
    if agent is None:
        return (STAND_IN,)
    found: list[Target] = [who.name for who in mobile.stand_ins if agent in (who.address, who.address_v6)]
    if agent in (mobile.stand_in, mobile.stand_in_v6):
        found.append(DEFAULT)  # it need not register
    return tuple(found)


def agent_name(mobile: Mobile, agent: Addr) -> str:
    """The name of a stand-in; of one without a name its address."""
    names = (who.name for who in mobile.stand_ins if agent in (who.address, who.address_v6))
    return next(names, str(agent))


def places(mobile: Mobile, left: Left) -> int:
    """Rules of a home address that follow from the sets which its device and its agents left."""
    device = left.in_force
    rest = device is not None and mobile.asleep_otherwise is RuleVerdict.AGENT
    return len(left.rules) + (rest and otherwise_rule(mobile, left) is not None)


def matched(mobile: Mobile, rules: tuple[KeptRule, ...], left: Left) -> tuple[KeptRule, ...]:
    """All rules, in the order in which they are matched: among equal priorities those that were left come last."""
    found = [*rules]
    for of in left.sets:
        owner = DEVICE if of.agent is None else agent_name(mobile, of.agent)
        for rule in of.rules:
            to = agent_targets(mobile, rule.agent) if rule.verdict is RuleVerdict.AGENT else ()
            found.append(KeptRule(rule.number, rule.priority, rule.verdict, rule.selectors, to, owner=owner))
    return tuple(sorted(found, key=lambda rule: (rule.priority, rule.identifier in LEFT)))


def otherwise_rule(mobile: Mobile, left: Left) -> KeptRule | None:
    """The rule for packets to the sleeping device that nothing names; None: they go as while it is awake."""
    device = left.in_force
    to: tuple[Target, ...] = ()
    verdict, owner = mobile.asleep_otherwise, CONFIGURATION
    if device is not None:
        verdict, owner = device.otherwise, DEVICE
        if device.otherwise_agent is not None:
            to = agent_targets(mobile, device.otherwise_agent)
    if verdict is RuleVerdict.AGENT and not to:
        return None
    if verdict is RuleVerdict.FORWARD:
        to = (MN,)
    return KeptRule(OTHERWISE_RULE, LAST_PRIORITY, verdict, _EVERYTHING, to, owner=owner)


def sleeping(device: Binding) -> Binding:
    """The device's binding as that of a sleeper: its care-of addresses carry packets only without an alternative."""
    return replace(device, care_of=tuple([replace(care_of, brief=True) for care_of in device.care_of]))


def installed(registered: Registered, home_address: Addr, home_agent: IPv4Address) -> HomeEntries:
    """Data plane state for packets to one of the mobile node's home addresses."""
    device = registered.device
    version = home_address.version
    reachable = device.care_of if version == 4 or device.ipv6 else ()
    stand_ins, default = registered.stand_ins, registered.default
    if not stand_ins and not registered.rules and len(reachable) == 1 and not reachable[0].brief:
        return _only(registered, reachable[0], home_address, home_agent)
    if stand_ins and version == 6:
        stand_ins = tuple(stand_in for stand_in in stand_ins if stand_in[1].ipv6)
    tunnels = (*reachable, *[care_of for _, one in stand_ins for care_of in one.care_of])
    candidates = _CareOfCandidates(registered, home_agent, reachable, stand_ins, default)
    return HomeEntries(
        _entry(candidates, home_address),
        _accepted(home_address, tunnels, default, registered.redirect),
        _translations(registered, stand_ins, home_address) if registered.mobile.stand_ins else (),
    )


def _accepted(
    home_address: Addr, registered: Iterable[CareOf], default: Addr | None, redirect: Redirect | None = None
) -> tuple[TunnelAcceptance, ...]:
    """From where reverse tunnels come. In UDP (RFC 3519) from one port only, unless several share a NAT's address."""
    found: dict[Addr, int] = {}
    for care_of in registered:
        port = 0 if care_of.outer is None else care_of.outer.port
        found[care_of.seen_at] = port if found.get(care_of.seen_at, port) == port else 0
    for address in (default, redirect):
        if address is not None and not isinstance(address, str):
            found[address] = 0
    return tuple(
        [TunnelAcceptance(address, home_address, _FROM, None, None, port) for address, port in found.items()]
    )


def _only(
    registered: Registered, care_of: CareOf, home_address: Addr, home_agent: IPv4Address
) -> HomeEntries:
    """The common case, handled first: one care-of address and no rules. Same result as the general case."""
    tunnel = _tunnel_to(home_agent, care_of)
    default = registered.default
    if care_of.outer is None and default is None:
        accepted: tuple[TunnelAcceptance, ...] = (TunnelAcceptance(care_of.address, home_address, _FROM),)
    else:
        accepted = _accepted(home_address, (care_of,), default)
    translations = _translations(registered, (), home_address) if registered.mobile.stand_ins else ()
    return HomeEntries(BindingEntry(home_address, _ENCAPSULATE, (tunnel,)), accepted, translations)


def in_force(found: HomeEntries) -> tuple[Addr, ...]:
    """Destinations of packets that match no rule; none: natively."""
    entry = found.entry
    return () if entry is None else tuple([tunnel.destination for tunnel in entry.tunnels])


def live_rules(found: HomeEntries) -> frozenset[int]:
    """The identifiers of the rules that the kernel has."""
    entry = found.entry
    return frozenset() if entry is None else frozenset(rule.identifier for rule in entry.rules)


class _CareOfCandidates:
    """The care-of addresses that packets of one home address could take."""

    __slots__ = (
        "asleep",
        "default",
        "dynamic",
        "home_agent",
        "last",
        "mobile",
        "otherwise",
        "reachable",
        "redirect",
        "rules",
        "stand_ins",
        "whole",
    )

    def __init__(
        self,
        registered: Registered,
        home_agent: IPv4Address,
        reachable: tuple[CareOf, ...],
        stand_ins: tuple[StandInBinding, ...],
        default: IPv4Address | None,
    ) -> None:
        self.mobile, self.rules, self.redirect = registered.mobile, registered.rules, registered.redirect
        self.otherwise, self.last = registered.otherwise, registered.device.last
        self.home_agent, self.default = home_agent, default
        self.asleep = is_asleep(registered.device)
        self.reachable, self.stand_ins = reachable, stand_ins
        # The stand-ins' share of everything (R4), and the rest for the mobile node (R2).
        self.whole: tuple[CareOf, ...] = ()
        if stand_ins:
            self.whole = tuple(
                [care_of for _, binding in stand_ins for care_of in binding.care_of if not care_of.ruled]
            )
        another = bool(self.whole) or (default is not None and not self.mobile.default_ruled)
        self.dynamic = _carriers(reachable, another)

    def of(self, target: Target) -> tuple[CareOf | IPv4Address, ...]:
        """Registrations of a rule's target."""
        match target:
            case int():
                listed = (*self.dynamic, *[care_of for _, one in self.stand_ins for care_of in one.care_of])
                return tuple(care_of for care_of in listed if care_of.bid == target)
            case _ if target == MN:
                return self.dynamic
            case _ if target == DEFAULT:
                return () if self.default is None else (self.default,)
        whose = [one for who, one in self.stand_ins if who.name == target]
        if target == STAND_IN and all(stand_in.name != STAND_IN for stand_in in self.mobile.stand_ins):
            whose = [one for _, one in self.stand_ins]
        found = tuple(care_of for one in whose for care_of in one.care_of)
        if not found and target == STAND_IN and self.default is not None:
            return (self.default,)
        return found

    def redirected(self) -> Candidate | None:
        """Destination of packets that would page the device; None: they page it."""
        if isinstance(self.redirect, str):
            found = self.of(self.redirect)
            return Candidate(self.tunnel(found[-1])) if found else None
        return None if self.redirect is None else Candidate(self.tunnel(self.redirect))

    def tunnel(self, candidate: CareOf | IPv4Address) -> Tunnel:
        if isinstance(candidate, CareOf):
            return _tunnel_to(self.home_agent, candidate)
        return _tunnel(self.home_agent, candidate, Encapsulation.IPIP)


def _carriers(reachable: tuple[CareOf, ...], another: bool) -> tuple[CareOf, ...]:
    """Those that carry packets: brief ones only without an alternative (R2)."""
    for care_of in reachable:
        if care_of.brief:
            break
    else:
        return reachable
    ordinary = tuple([care_of for care_of in reachable if not care_of.brief])
    return ordinary if ordinary or another else reachable


def _entry(candidates: _CareOfCandidates, home_address: Addr) -> BindingEntry | None:
    """The entry of the binding table: R5."""
    carriers: Sequence[CareOf]
    shared = True
    if candidates.whole:
        carriers = candidates.whole
    else:
        carriers = candidates.dynamic
        shared = len(carriers) > 1 and all(carrier.bid is not None for carrier in carriers)
    tunnels, weights = _weighed(candidates, carriers)
    if not tunnels and candidates.default is not None and not candidates.mobile.default_ruled:
        tunnels = (candidates.tunnel(candidates.default),)
    rules = _rules(candidates, home_address.version) if candidates.rules else ()
    if candidates.otherwise is not None and candidates.asleep:
        rules = (*rules, *_otherwise(candidates, candidates.otherwise, home_address.version))
    peers = _peers(candidates.mobile, home_address.version) if candidates.reachable else ()
    if peers and (rules or candidates.whole or not candidates.dynamic):
        peer, peer_tunnel = peers[0], candidates.tunnel(candidates.reachable[-1])
        rules = (*_peer_rules(peers[1:], peer_tunnel), *rules)
    else:
        peer, peer_tunnel = None, None
    if not tunnels and not rules and peer is None:
        return None
    return BindingEntry(
        home_address,
        Verdict.ENCAPSULATE if tunnels else Verdict.NATIVE,
        tunnels,
        peer,
        peer_tunnel,
        rules,
        weights if shared and len(tunnels) > 1 else (),
    )


def _weighed(
    candidates: _CareOfCandidates, carriers: Sequence[CareOf]
) -> tuple[tuple[Tunnel, ...], tuple[int, ...]]:
    """The tunnels to these care-of addresses, each once, with the weights of all that are registered there."""
    if len(carriers) == 1:
        return (candidates.tunnel(carriers[0]),), (carriers[0].weight,)
    found: dict[Tunnel, int] = {}
    for carrier in carriers:
        tunnel = candidates.tunnel(carrier)
        found[tunnel] = min(found.get(tunnel, 0) + carrier.weight, 0xFFFF)
    tunnels = tuple(found)[:MAX_CANDIDATES]
    return tunnels, tuple(found[tunnel] for tunnel in tunnels)


def _rules(candidates: _CareOfCandidates, version: int) -> tuple[Rule, ...]:
    """The rules for packets of that IP version that have somewhere to send them, drop them, or page.

    Those that page, hold or lead to an agent, and those that a device or an agent left, are there only while the device is
    asleep (P14).
    """
    found: list[Rule] = []
    for kept in candidates.rules:
        selector = kept.selector(version)
        if selector is None or (not candidates.asleep and rests(kept)):
            continue
        if kept.verdict in WAITING and (instead := candidates.redirected()) is not None:
            found.append(Rule(kept.identifier, selector, RuleVerdict.FORWARD, (instead,)))
        elif kept.verdict in _WITHOUT_TARGET:
            found.append(Rule(kept.identifier, selector, kept.verdict))
        elif chosen := _candidates(candidates, kept):
            found.append(Rule(kept.identifier, selector, RuleVerdict.FORWARD, chosen))
    return tuple(found)


def _otherwise(candidates: _CareOfCandidates, kept: KeptRule, version: int) -> tuple[Rule, ...]:
    """The rule for packets to a sleeper that nothing names. A stand-in that is registered for everything has taken them all
    over: where there is one, it goes on to have them.
    """
    selector = kept.selector(version)
    if selector is None or candidates.whole:
        return ()
    if kept.verdict in WAITING and (instead := candidates.redirected()) is not None:
        return (Rule(kept.identifier, selector, RuleVerdict.FORWARD, (instead,)),)
    if kept.verdict in _WITHOUT_TARGET:
        return (Rule(kept.identifier, selector, kept.verdict),)
    chosen: tuple[Candidate, ...]
    if kept.verdict is RuleVerdict.AGENT:
        chosen = _candidates(candidates, kept)
    else:  # as if the device were awake
        at = candidates.reachable[-1] if candidates.reachable else candidates.last
        chosen = () if at is None else (Candidate(candidates.tunnel(at)),)
    return (Rule(kept.identifier, selector, RuleVerdict.FORWARD, chosen),) if chosen else ()


def _candidates(candidates: _CareOfCandidates, kept: KeptRule) -> tuple[Candidate, ...]:
    """Without sharing the first target that is registered, there the care-of address registered last."""
    found: dict[Tunnel, int] = {}
    for target in kept.to:
        for target_tunnel in reversed(candidates.of(target)):
            weight = target_tunnel.weight if isinstance(target_tunnel, CareOf) else 1
            tunnel = candidates.tunnel(target_tunnel)
            if not kept.share:
                return (Candidate(tunnel),)
            found[tunnel] = min(found.get(tunnel, 0) + weight, 0xFFFF)
    return tuple([Candidate(*tunnel) for tunnel in found.items()][:MAX_CANDIDATES])


def _peers(mobile: Mobile, version: int) -> tuple[Addr, ...]:
    """Interface addresses of the stand-ins: their packets to the home address go to the mobile node."""
    first = mobile.stand_in if version == 4 else mobile.stand_in_v6
    found: list[Addr] = [] if first is None else [first]
    for stand_in in mobile.stand_ins:
        address: Addr | None = stand_in.address if version == 4 else stand_in.address_v6
        if address is not None and address not in found:
            found.append(address)
    return tuple(found)


def _peer_rules(peers: Iterable[Addr], tunnel: Tunnel) -> tuple[Rule, ...]:
    """An entry has one peer; for others there are rules before all others, with identifiers of their own."""
    candidates = (Candidate(tunnel),)
    return tuple(
        Rule(LAST_RULE + number, source_selector(peer), RuleVerdict.FORWARD, candidates)
        for number, peer in enumerate(peers, 1)
    )


def _translations(
    registered: Registered, stand_ins: tuple[StandInBinding, ...], home_address: Addr
) -> tuple[Translation, ...]:
    """For stand-ins that want packets under their own address (R12): those registered, and the one at the default CoA."""
    mobile, default = registered.mobile, registered.default
    found: dict[Addr, Translation] = {}
    for who in mobile.stand_ins:
        inside: Addr | None = who.address if home_address.version == 4 else who.address_v6
        if not who.translate or inside is None:
            continue
        ends = [care_of.seen_at for one, binding in stand_ins if one == who for care_of in binding.care_of]
        if default is not None and who.address == mobile.stand_in:
            ends.append(default)
        for end in ends:
            found[end] = Translation(home_address, inside, end)
    return tuple(found.values())


def _tunnel_to(home_agent: IPv4Address, care_of: CareOf) -> Tunnel:
    if care_of.outer is not None:
        return udp_tunnel(home_agent, care_of.outer.address, care_of.outer.port)
    return _tunnel(home_agent, care_of.address, care_of.encapsulation)


@lru_cache(4096)
def _tunnel(home_agent: IPv4Address, care_of: Addr, encapsulation: Encapsulation) -> Tunnel:
    return Tunnel(home_agent, care_of, encapsulation)
