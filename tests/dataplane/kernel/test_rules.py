"""Flow rules and filters in the kernel: shares, counters, changes under load, restarts."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from threading import Event, Thread

import pytest

from locum.dataplane import Counter as Counted
from locum.dataplane import DataPlane, ForwardingState, Limits
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.kernel.rule_tables import EndedRule
from locum.dataplane.layout.maps import Reason
from locum.dataplane.layout.rules import FEW, MANY
from locum.dataplane.state import state_of
from locum.roles.action_values.flows import (
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    RemoveFilter,
    Rule,
    RuleVerdict,
    Tunnel,
)
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, RemoveBinding, Verdict
from locum.roles.actions import Action
from locum.wire.ip.checksum import ones_sum
from locum.wire.traffic_selector import Ipv4Selector
from tests.dataplane.namespaces import Namespace, bpffs, join

HOME, PEER = ip_address("10.9.0.5"), ip_address("10.1.0.2")
AGENT = ip_address("10.2.0.1")
WAYS = [Tunnel(AGENT, ip_address(f"10.2.0.{number}")) for number in range(2, 8)]
UDP = 17
DROPPED, SENT = 2, 7  # TC_ACT_SHOT, TC_ACT_REDIRECT

Opener = Callable[[], DataPlane]


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    """Opens the data plane of a namespace with a route to everywhere; all of it is taken away afterwards."""
    planes: list[DataPlane] = []
    with bpffs(tmp_path / "bpf") as root:
        space, other = Namespace("rules"), Namespace("rules-other")
        try:
            join(space, "out0", other, "out1")
            space.run("ip addr add 10.2.0.200/24 dev out0")

            def open_plane() -> DataPlane:
                limits = Limits(bindings=1024, flows=1024)
                planes.append(DataPlane.open("rules", [], bpf_root=root, limits=limits))
                return planes[-1]

            with space.inside():
                try:
                    yield open_plane
                finally:
                    for plane in planes[:-1]:
                        plane.close()
                    for plane in planes[-1:]:
                        plane.remove()
        finally:
            space.remove()
            other.remove()


@pytest.fixture
def plane(opener: Opener) -> DataPlane:
    return opener()


def frame(
    port: int = 80, *, source: IPv4Address | None = None, field: int = 0x4000, number: int = 1
) -> bytes:
    """A UDP packet from port 4000 of the correspondent to `port` of the home address; later fragments have no ports."""
    start = PEER if source is None else source
    body = struct.pack(">HHHH", 4000, port, 108, 0) if not field & 0x1FFF else b"later by"
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + 108, number, field, 64, UDP, 0) + start.packed + HOME.packed
    head = head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    return bytes(12) + b"\x08\x00" + head + body + bytes(100)


class Program:
    """The ingress program of a data plane, one packet at a time."""

    def __init__(self, plane: DataPlane) -> None:
        self._run = ProgramRun(plane._object.program("locum_ingress"))

    def sent(self, packet: bytes) -> IPv4Address | Reason | None:
        """The far end of the tunnel that the packet goes into, why it is dropped, or None: passed."""
        result, data, context, _ = self._run.run(packet)
        if result == DROPPED:
            return Reason(struct.unpack_from("II", context, 48)[1])
        return IPv4Address(data[30:34]) if result == SENT else None


def rule(identifier: int, ports: tuple[int, int], *ways: Tunnel, weights: tuple[int, ...] = ()) -> Rule:
    candidates = tuple(Candidate(way, weight) for way, weight in zip(ways, weights or (1,) * 4, strict=False))
    verdict = RuleVerdict.FORWARD if ways else RuleVerdict.DROP
    return Rule(identifier, Ipv4Selector(protocol=(UDP, UDP), destination_port=ports), verdict, candidates)


def entry(*rules: Rule, way: int = 0) -> BindingEntry:
    return BindingEntry(HOME, Verdict.ENCAPSULATE, (WAYS[way],), rules=rules)


def test_counters_survive_changes_of_other_rules(plane: DataPlane) -> None:
    """First match wins; an unchanged rule keeps its counter, whatever precedes it, in both sizes."""
    program = Program(plane)
    ended: list[EndedRule] = []
    plane.tell_ended_rules(ended.append)
    web, voice = rule(7, (80, 80), WAYS[1]), rule(9, (0, 1023))
    plane.apply([InstallBinding(entry(web, voice))])
    assert [program.sent(frame(port)) for port in (80, 81, 5000)] == [
        WAYS[1].destination,
        Reason.RULE_DROPPED,
        WAYS[0].destination,
    ]
    one = Counted(1, 128)
    assert plane.rule_counters(HOME) == {0: one, 7: one, 9: one}
    others = [rule(100 + number, (6000 + number, 6000 + number), WAYS[2]) for number in range(60)]
    plane.apply([InstallBinding(entry(*others, web))])
    assert program.sent(frame(80)) == WAYS[1].destination
    assert program.sent(frame(6059)) == WAYS[2].destination
    counted = plane.rule_counters(HOME)
    assert (counted[0], counted[7], counted[159]) == (one, Counted(2, 256), one)
    assert 9 not in counted and len(counted) == 62
    assert ended == [EndedRule(HOME, voice, one)], "what a rule counted is told when it goes"
    plane.apply([InstallBinding(entry(web))])
    assert program.sent(frame(80)) == WAYS[1].destination
    assert plane.rule_counters(HOME) == {0: one, 7: Counted(3, 384)}
    assert [rule.rule for rule in ended] == [voice, *others] and ended[-1].counter == one
    assert plane.counters()["rule-dropped"] == 1
    plane.apply([InstallBinding(entry())])
    assert program.sent(frame(80)) == WAYS[0].destination
    assert plane.rule_counters(HOME) == {}
    assert ended[61:] == [EndedRule(HOME, web, Counted(3, 384))]
    for table in ("rules", "rule_count"):
        assert plane._entries[table].items() == []


def test_flows_are_shared_by_weight_and_stay(plane: DataPlane) -> None:
    """R8: each flow has one target, in proportion to the weights; rules elsewhere do not move it."""
    program = Program(plane)
    shared = rule(1, (0, 0xFFFF), WAYS[1], WAYS[2], weights=(3, 1))
    plane.apply([InstallBinding(entry(shared))])
    ports = range(1000, 5000)
    first = {port: program.sent(frame(port)) for port in ports}
    taken = list(first.values()).count(IPv4Address("10.2.0.3"))  # WAYS[1]
    assert 0.73 < taken / len(ports) < 0.77
    plane.apply([InstallBinding(entry(rule(2, (80, 80), WAYS[3]), shared, way=4))])
    assert {port: program.sent(frame(port)) for port in ports} == first
    weighted = BindingEntry(HOME, Verdict.ENCAPSULATE, (WAYS[1], WAYS[2]), weights=(3, 1))
    plane.apply([InstallBinding(weighted)])
    assert {port: program.sent(frame(port)) for port in ports} == first
    assert plane.binding_counters(HOME).packets == 3 * len(ports)


def partition(size: int, low: Tunnel, high: Tunnel, *, turned: bool) -> BindingEntry:
    """Rules that share all ports among them, one piece each; the lower half of the ports goes one way, the upper another.

    `turned`: the pieces begin in the middle. So rules of one set and a part of another, or the tunnels of
    another, leave some port without a rule or send it the wrong way.
    """
    edges = [0x10000 * number // size for number in range(size + 1)]
    pieces = [
        rule(number + 1, (edges[number], edges[number + 1] - 1), low if number < size // 2 else high)
        for number in range(size)
    ]
    half = size // 2 if turned else 0
    return entry(*pieces[half:], *pieces[:half])


def test_no_packet_meets_half_a_rule_set(plane: DataPlane) -> None:
    """Rule sets of either size that each take every packet follow each other under load: none meets parts of two."""
    found: dict[bool, Counter[IPv4Address | Reason | None]] = {False: Counter(), True: Counter()}
    over = Event()

    def load() -> None:
        program = Program(plane)
        while not over.is_set():
            for port in (0, 80, 0x5000, 0x7FFF, 0x8000, 0x9000, 0xC000, 0xFFFF):
                found[port >= 0x8000][program.sent(frame(port))] += 1

    sets = []
    for size in (2, FEW, FEW + 2, MANY):
        sets.append(partition(size, WAYS[1], WAYS[2], turned=False))
        sets.append(partition(size, WAYS[3], WAYS[4], turned=True))
    plane.apply([InstallBinding(sets[0])])
    thread = Thread(target=load)
    thread.start()
    try:
        for number in range(1200):
            plane.apply([InstallBinding(sets[number // 50 % len(sets) ^ number % 2])])
    finally:
        over.set()
        thread.join()
    assert set(found[False]) == {WAYS[1].destination, WAYS[3].destination}, found
    assert set(found[True]) == {WAYS[2].destination, WAYS[4].destination}, found
    assert plane.rule_counters(HOME)[0] == Counted()


def test_filters_count_by_rule(plane: DataPlane) -> None:
    """R20: a visitor's packets are policed where they enter; `otherwise` decides without a matching rule."""
    program = Program(plane)
    allowed = FilterRule(4, Ipv4Selector(destination_port=(80, 80)), FilterVerdict.ALLOW)
    refused = FilterRule(5, Ipv4Selector(protocol=(UDP, UDP)), FilterVerdict.DROP)
    place = FilterPlace.FROM_VISITOR
    policed = Filter(PEER, place, (allowed, refused), FilterVerdict.DROP)
    plane.apply([InstallBinding(entry()), InstallFilter(policed)])
    assert program.sent(frame(80)) == WAYS[0].destination
    assert program.sent(frame(81)) is Reason.FILTERED_FROM_VISITOR
    assert plane.filter_counters(PEER, place) == {0: Counted(), 4: Counted(1, 128), 5: Counted(1, 128)}
    stranger = frame(81, source=IPv4Address("10.1.0.3"))
    assert program.sent(stranger) == WAYS[0].destination
    plane.apply([InstallFilter(replace(policed, rules=()))])
    assert program.sent(frame(80)) is Reason.FILTERED_FROM_VISITOR
    assert plane.filter_counters(PEER, place) == {0: Counted(1, 128)}
    plane.apply([RemoveFilter(PEER, place)])
    assert program.sent(frame(81)) == WAYS[0].destination
    assert plane.filter_counters(PEER, place) == {}


def test_taken_over_by_the_next_daemon(opener: Opener) -> None:
    """Rules, filters, weights and their counters are found again, and only differences are written."""
    before = opener()
    rules = [
        rule(number, (number, number), *WAYS[: 1 + number % 4], weights=(1, 2, 3, 4))
        for number in range(1, 30)
    ]
    wanted: list[Action] = [
        InstallBinding(replace(entry(*rules), weights=(5,))),
        InstallFilter(
            Filter(
                PEER,
                FilterPlace.EMISSION,
                (FilterRule(1, Ipv4Selector(spi=(0, 9)), FilterVerdict.DROP),),
            )
        ),
    ]
    assert len(before.reconcile(wanted).actions) == 2
    Program(before).sent(frame(3))
    counted = before.rule_counters(HOME)
    assert counted[3].packets == 1
    before.close()
    after = opener()
    ended: list[EndedRule] = []
    after.tell_ended_rules(ended.append)
    assert after.adopted and after.snapshot() == state_of(wanted)
    assert not after.reconcile(wanted)
    assert after.rule_counters(HOME) == counted
    changed: list[Action] = [InstallBinding(replace(entry(*rules[2:]), weights=(5,))), wanted[1]]
    assert len(after.reconcile(changed).actions) == 1
    assert after.rule_counters(HOME)[3].packets == 1 and 2 not in after.rule_counters(HOME)
    assert [rule.rule for rule in ended] == rules[:2]
    assert len(after.reconcile([]).actions) == 2
    assert after.snapshot() == ForwardingState()
    assert [rule.rule for rule in ended] == rules
    assert [rule.counter.packets for rule in ended] == [0, 0, 1, *[0] * 26]
    assert after._entries["rule_count"].items() == []


def test_oversized_rule_set_is_refused_and_changes_no_maps(plane: DataPlane) -> None:
    program = Program(plane)
    plane.apply([InstallBinding(entry(rule(1, (80, 80), WAYS[1])))])
    nowhere = Rule(2, Ipv4Selector(), RuleVerdict.FORWARD)
    five = Rule(2, Ipv4Selector(), RuleVerdict.FORWARD, tuple(Candidate(way) for way in WAYS[:5]))
    many = [rule(number, (number, number), WAYS[2]) for number in range(1, MANY + 2)]
    for bad in (entry(nowhere), entry(five), entry(*many), entry(replace(nowhere, identifier=0))):
        with pytest.raises(ValueError, match="rule"):
            plane.apply([InstallBinding(bad)])
    with pytest.raises(ValueError, match="weight"):
        plane.apply([InstallBinding(replace(entry(), weights=(1, 2)))])
    assert program.sent(frame(80)) == WAYS[1].destination
    assert plane.state == plane.snapshot()
    plane.apply([RemoveBinding(HOME)])
    assert program.sent(frame(80)) is None
