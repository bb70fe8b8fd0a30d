"""Fragments go where their packet's first fragment goes: a datagram never goes two ways, whoever sends what else."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from locum.dataplane import Limits
from locum.dataplane.layout import maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.following import FRAGMENT_AGE
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    OfferService,
    Rule,
    RuleVerdict,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    ClearFlow,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    LocalEndpoint,
    RefuseTunnel,
    RemoveBinding,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from locum.wire.control import Flow
from locum.wire.ip.checksum import ones_sum
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.dataplane.one_node import OneNode, one_node

HOME, OTHER, PEER = ip_address("10.9.0.5"), ip_address("10.9.0.6"), ip_address("10.1.0.2")
HOME6, PEER6 = ip_address("fd09::5"), ip_address("fd01::2")
NUMBER = 17  # UDP
AGENT, NEAR, FAR = (ip_address(a) for a in ("10.2.0.200", "10.5.0.1", "10.5.0.9"))
FLOW = Flow(NUMBER, HOME, 5000, PEER, 6000)
FLOW6 = Flow(NUMBER, HOME6, 5000, PEER6, 6000)
FLOODS = Limits(bindings=1024, flows=1024)
MANY = 700  # home addresses under a flood


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with one_node(tmp_path_factory.mktemp("fragments"), FLOODS) as made:
        yield made


@pytest.fixture
def node(shared: OneNode) -> OneNode:
    """Without entries, and without fragments that were seen."""
    shared.plane.reconcile([])
    seen = shared.plane._object.maps["first_fragments"]
    assert seen.items() == [], "an address without entries has no places"
    return shared


def first_fragments(node: OneNode) -> list[tuple[bytes, bytes]]:
    """Keys and values of those that are remembered."""
    size = rule_layout.FRAGMENT.size
    return [
        (rule_layout.FRAGMENT_KEY.pack(home, place, 0), value)
        for home, places in node.plane._object.maps["first_fragments"].items()
        for place in range(rule_layout.FRAGMENT_PLACES)
        if any(value := places[place * size : (place + 1) * size])
    ]


def put_first(node: OneNode, key: bytes, value: bytes) -> None:
    seen = node.plane._object.maps["first_fragments"]
    home, place, _ = rule_layout.FRAGMENT_KEY.unpack(key)
    places = bytearray(dict(seen.items()).get(home, bytes(seen.value_size)))
    places[place * len(value) : (place + 1) * len(value)] = value
    seen.put(home, bytes(places))


def datagram(number: int, *, port: int = 5000, home: Addr = HOME, source: Addr = PEER) -> list[Packet]:
    """A UDP datagram from port 6000 in three fragments."""
    payload = UDP(sport=6000, dport=port, chksum=0) / Raw(b"x" * 3000)
    if home.version == 4:
        whole = IP(src=str(source), dst=str(home), id=number) / payload
        return list(fragment(whole, 1400))  # type: ignore[no-untyped-call]
    data = bytes(payload)
    parts = [data[at : at + 1400] for at in range(0, len(data), 1400)]
    return [
        IPv6(src=str(source), dst=str(home))
        / IPv6ExtHdrFragment(nh=NUMBER, id=number, offset=175 * place, m=int(part is not parts[-1]))
        / Raw(part)
        for place, part in enumerate(parts)
    ]


def rule(port: int, *ends: Addr, home: Addr = HOME) -> Rule:
    ways = tuple(Candidate(Tunnel(AGENT, end)) for end in ends)
    bounds = (port, port)
    if home.version == 4:
        return Rule(port, Ipv4Selector(destination_port=bounds), RuleVerdict.FORWARD, ways)
    return Rule(port, Ipv6Selector(destination_port=bounds), RuleVerdict.FORWARD, ways)


def bind(node: OneNode, *homes: Addr) -> None:
    """Datagrams to port 5000 go to NEAR, all others to FAR."""
    for home in homes:
        rules = (rule(5000, NEAR, home=home),)
        entry = BindingEntry(home, Verdict.ENCAPSULATE, (Tunnel(AGENT, FAR),), rules=rules)
        node.plane.apply([InstallBinding(entry)])


@pytest.mark.parametrize("flow", [FLOW, FLOW6], ids=["ipv4", "ipv6"])
def test_fragments_of_a_session_are_delivered_and_held_alike(node: OneNode, flow: Flow) -> None:
    guard = [InstallBinding(BindingEntry(flow.local, Verdict.GUARD))]
    node.plane.apply([*guard, SetFlow(FlowEntry(flow, FlowVerdict.DELIVER))])
    parts = datagram(1, home=flow.local, source=flow.peer)
    assert {node.run(part).outcome for part in parts} == {Outcome.PASSED}
    for verdict in (FlowVerdict.HOLD, FlowVerdict.SUSPEND):
        node.plane.apply([SetFlow(FlowEntry(flow, verdict))])
        assert {node.run(part).outcome for part in parts} == {Outcome.HELD}
        held = node.plane.held.read()
        assert [packet.flow for packet in held] == [flow] * 3
        assert [packet.data for packet in held] == [bytes(part) for part in parts]
        back = [node.run(packet.data, "tap") for packet in held]
        assert {run.outcome for run in back} == {Outcome.PASSED}
    other = datagram(2, port=5001, home=flow.local, source=flow.peer)
    assert {node.run(part).way for part in other} == {Reason.NO_SESSION}
    node.plane.apply([ClearFlow(flow), RemoveBinding(flow.local, Stage.LOCAL)])


def test_suspended_datagrams_do_not_leave_in_part(node: OneNode) -> None:
    node.plane.apply([SetFlow(FlowEntry(FLOW, FlowVerdict.SUSPEND))])
    away = IP(src=str(HOME), dst=str(PEER), id=3) / UDP(sport=5000, dport=6000) / Raw(b"x" * 3000)
    parts = fragment(away, 1400)  # type: ignore[no-untyped-call]
    assert {node.run(part, hook="egress").way for part in parts} == {Reason.SUSPENDED}
    unknown = datagram(4)[1]
    unknown[IP].src, unknown[IP].dst = str(HOME), str(PEER)
    assert node.run(unknown, hook="egress").way is Reason.FRAGMENT_UNKNOWN


def test_an_offered_service_gets_whole_datagrams(node: OneNode) -> None:
    node.space.run("ip addr replace 10.9.0.5/32 dev lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind((str(HOME), 5000))
        node.plane.apply([InstallBinding(BindingEntry(HOME, Verdict.GUARD)), OfferService(NUMBER, 5000)])
        assert {node.run(part).outcome for part in datagram(5)} == {Outcome.PASSED}
        assert {node.run(part).way for part in datagram(6, port=5001)} == {Reason.NO_SESSION}
    node.space.run("ip addr del 10.9.0.5/32 dev lo")


@pytest.mark.parametrize(("home", "peer"), [(HOME, PEER), (HOME6, PEER6)], ids=["ipv4", "ipv6"])
def test_a_reordered_datagram_goes_one_way(node: OneNode, home: Addr, peer: Addr) -> None:
    bind(node, home)
    parts = datagram(10, home=home, source=peer)
    found = [node.run(parts[place]).way for place in (1, 0, 2, 1)]
    assert found == [Reason.FRAGMENT_UNKNOWN, NEAR, NEAR, NEAR]
    counters = node.plane.counters()
    assert counters["fragment-follows"] and counters["fragment-unknown"]


def test_rules_without_ports_need_no_first_fragment(node: OneNode) -> None:
    """A later fragment goes on its way where no rule that could take it asks for ports."""
    anyone = Rule(1, Ipv4Selector(protocol=(NUMBER, NUMBER)), RuleVerdict.FORWARD, rule(1, NEAR).candidates)
    of_another = Rule(
        2,
        Ipv4Selector(source=(IPv4Address("10.9.0.6"),) * 2, source_port=(1, 9)),
        RuleVerdict.FORWARD,
        rule(1, FAR).candidates,
    )
    entry = BindingEntry(HOME, Verdict.ENCAPSULATE, (Tunnel(AGENT, FAR),), rules=(of_another, anyone))
    node.plane.apply([InstallBinding(entry)])
    assert node.run(datagram(11)[1]).way == NEAR


def test_shares_of_a_later_fragment_need_its_first(node: OneNode) -> None:
    ways = (Tunnel(AGENT, NEAR), Tunnel(AGENT, FAR))
    weighted = BindingEntry(HOME, Verdict.ENCAPSULATE, ways, weights=(1, 1))
    ruled = BindingEntry(
        HOME,
        Verdict.ENCAPSULATE,
        ways[:1],
        rules=(Rule(1, Ipv4Selector(), RuleVerdict.FORWARD, tuple(Candidate(way) for way in ways)),),
    )
    for number, entry in enumerate((weighted, ruled)):
        node.plane.apply([InstallBinding(entry)])
        taken = set()
        for port in range(5000, 5020):
            parts = datagram(2 * port + number, port=port)
            assert node.run(parts[1]).way is Reason.FRAGMENT_UNKNOWN
            ways_of = {node.run(part).way for part in parts}
            assert len(ways_of) == 1
            taken |= ways_of
        assert taken == {NEAR, FAR}


def test_other_first_fragments_do_not_redirect_the_rest(node: OneNode) -> None:
    bind(node, HOME)
    parts, forged = datagram(12), datagram(12, port=5001)[0]
    assert node.run(parts[0]).way == NEAR
    assert node.run(forged).way is Reason.FRAGMENT_CONFLICT
    assert [node.run(part).way for part in parts[1:]] == [NEAR, NEAR]
    assert node.run(parts[0]).way == NEAR, "the same one again is no conflict"
    for key, value in first_fragments(node):
        assert rule_layout.sealed_fragment(key, value) == value
        fields = list(rule_layout.FRAGMENT.unpack(value))
        fields[2] -= int((FRAGMENT_AGE + 1) * 1e9)
        aged = rule_layout.FRAGMENT.pack(*fields[:2], max(0, fields[2]), *fields[3:])
        put_first(node, key, rule_layout.sealed_fragment(key, aged))
    assert node.run(parts[1]).way is Reason.FRAGMENT_UNKNOWN, "its first fragment is long gone"
    assert node.run(forged).way == FAR, "the number is free again"


def test_half_written_first_fragment_is_not_followed(node: OneNode) -> None:
    """Another CPU may write a value while it is copied: its parts are of two packets then, and the seal does not fit."""
    bind(node, HOME)
    near, far = datagram(21), datagram(21, port=5001)
    assert node.run(far[0]).way == FAR
    ((key, other),) = first_fragments(node)
    put_first(node, key, bytes(len(other)))
    assert [node.run(part).way for part in near] == [NEAR] * 3
    ((_, value),) = first_fragments(node)
    ports = 16 + 16 + 8 + 4 + 4
    mixed = value[:ports] + other[ports : ports + 4] + value[ports + 4 :]
    put_first(node, key, mixed)
    assert node.run(near[1]).way is Reason.FRAGMENT_UNKNOWN
    put_first(node, key, rule_layout.sealed_fragment(key, mixed))
    assert node.run(near[1]).way == FAR, "but for its seal it would have been followed"


def renumbered(packet: bytearray, number: int) -> bytes:
    """The packet with this identification, of one of 250 senders, and a right checksum."""
    packet[4:6], packet[10:12], packet[15] = number.to_bytes(2, "big"), bytes(2), number % 250
    packet[10:12] = (ones_sum(bytes(packet[:20])) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


def test_floods_of_first_fragments_have_places_of_their_own(node: OneNode) -> None:
    """Neither those to another home address nor those of another sender to the same one split a datagram."""
    bind(node, HOME, OTHER)
    parts = datagram(13)
    assert node.run(parts[0]).way == NEAR
    other = IP(src="198.51.100.66", dst=str(OTHER), id=1, flags="MF") / UDP(sport=1, dport=1) / b"12345678"
    flood = bytearray(bytes(other))
    for count in range(1500):
        assert node.run(renumbered(flood, count)).way == FAR
    assert [node.run(part).way for part in parts[1:]] == [NEAR, NEAR]
    flood[16:20] = HOME.packed
    for count in range(500):
        node.run(renumbered(flood, count))
    assert {node.run(part).way for part in parts[1:]} <= {NEAR, Reason.FRAGMENT_UNKNOWN}


def test_flood_to_many_addresses_takes_no_places_from_another(node: OneNode) -> None:
    """Forged first fragments to hundreds of registered addresses at once: a datagram to one more stays whole."""
    flooded = [ip_address("10.9.4.0") + number for number in range(MANY)]
    bind(node, HOME, *flooded)
    parts = datagram(16)
    assert node.run(parts[0]).way == NEAR
    other = IP(src="198.51.100.66", dst=str(OTHER), id=1, flags="MF") / UDP(sport=1, dport=1) / b"12345678"
    flood = bytearray(bytes(other))
    for home in flooded:
        flood[16:20] = home.packed
        for count in range(5):
            assert node.run(renumbered(flood, count)).way == FAR
    assert len(node.plane._object.maps["first_fragments"].items()) == 1 + MANY
    assert [node.run(part).way for part in parts[1:]] == [NEAR, NEAR]


def test_places_for_fragments_go_with_what_asked_for_ports(node: OneNode) -> None:
    """Rules, weights, a guard, flows or a filter: the last of an address takes the places with it, also after a restart."""
    seen = node.plane._object.maps["first_fragments"]
    plain = InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, (Tunnel(AGENT, FAR),)))
    ways = (Tunnel(AGENT, NEAR), Tunnel(AGENT, FAR))
    weighted = InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, ways, weights=(1, 1)))
    guard, flow = (
        InstallBinding(BindingEntry(HOME, Verdict.GUARD)),
        SetFlow(FlowEntry(FLOW, FlowVerdict.DELIVER)),
    )
    bind(node, HOME)
    steps: list[list[Action]] = [
        [plain],
        [weighted, RemoveBinding(HOME)],
        [guard, flow, RemoveBinding(HOME, Stage.LOCAL)],
    ]
    for last in steps:
        node.plane.apply(last[:-1])
        node.run(datagram(17)[0])
        assert len(seen.items()) == 1
        node.plane.apply(last[-1:])
        assert len(seen.items()) == (1 if FLOW in node.plane.state.flows else 0)
    node.plane.apply([ClearFlow(FLOW)])
    assert seen.items() == []
    places = bytes(seen.value_size)
    seen.put(maps.address(OTHER), places)  # a packet met the last entry as it went
    bind(node, HOME)
    seen.put(maps.address(HOME), places)
    node.plane._adopt()
    assert seen.items() == [(maps.address(HOME), places)]


def test_filters_stay_closed_for_fragments_without_a_first(node: OneNode) -> None:
    """A filter that asks for ports lets no later fragment by whose ports it does not know."""
    telnet = FilterRule(1, Ipv4Selector(destination_port=(23, 23)), FilterVerdict.DROP)
    node.plane.apply([InstallFilter(Filter(PEER, FilterPlace.FROM_VISITOR, (telnet,), FilterVerdict.ALLOW))])
    parts = datagram(14, port=23)
    assert node.run(parts[1], "lan0").way is Reason.FRAGMENT_UNKNOWN
    assert {node.run(part, "lan0").way for part in parts} == {Reason.FILTERED_FROM_VISITOR}
    assert {node.run(part, "lan0").way for part in datagram(15)} == {Outcome.PASSED}
    assert node.plane.filter_counters(PEER, FilterPlace.FROM_VISITOR)[1].packets == 3


def test_tunnel_fragments_need_a_permitted_source(node: OneNode) -> None:
    """Others end in the kernel, and a source has so many a second; its permissions count together."""
    permitted = [TunnelAcceptance(NEAR, home, Side.FROM_HOME_ADDRESS) for home in (HOME, OTHER)]
    node.plane.apply([LocalEndpoint(AGENT), *(AcceptTunnel(acceptance) for acceptance in permitted)])

    def parts(source: Addr) -> list[bytes]:
        whole = IP(src=str(source), dst=str(AGENT), proto=4, id=9) / bytes(datagram(1)[0])
        return [bytes(part) for part in fragment(whole, 600)]  # type: ignore[no-untyped-call]

    assert {node.run(part).way for part in parts(FAR)} == {Reason.UNREGISTERED_SOURCE}
    assert {node.run(part).way for part in parts(NEAR)} == {Outcome.PASSED}
    flood, sources = parts(NEAR)[1], node.plane._object.maps["tunnel_sources"]
    later = (1 << 63) - 1  # no time passes until then
    sources.put(maps.address(NEAR), maps.SOURCE.pack(later, 2))
    found = [node.run(flood).way for _ in range(4)]
    assert found == [Outcome.PASSED] * 2 + [Reason.TUNNEL_FRAGMENT_LIMIT] * 2
    node.plane.apply([RefuseTunnel(permitted[0])])
    assert node.run(flood).way is Reason.TUNNEL_FRAGMENT_LIMIT, "the other permission is there"
    node.plane.apply([RefuseTunnel(permitted[1])])
    assert node.run(flood).way is Reason.UNREGISTERED_SOURCE
    node.plane.apply([AcceptTunnel(permitted[0])])
    node.plane._tables._sources.adopt([])
    assert node.run(flood).way is Reason.UNREGISTERED_SOURCE
