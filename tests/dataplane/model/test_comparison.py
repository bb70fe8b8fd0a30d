"""One decision, written twice: the kernel's program and the model do the same with 100,000 random packets."""

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.layout.rules import PLACES, Place, rule_key
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment, Result
from locum.dataplane.state import ForwardingState, difference
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.flows import Tunnel
from tests.dataplane.model.grammar import UNROUTED, Grammar
from tests.dataplane.model.translation_grammar import own_addresses
from tests.dataplane.namespaces import Namespace, bpffs, join

WORLDS, PACKETS = 40, 2600
RETURNS = {
    Outcome.PASSED: 0xFFFFFFFF,
    Outcome.TOO_BIG: 0xFFFFFFFF,
    Outcome.DROPPED: 2,
    Outcome.HELD: 2,
    Outcome.DELIVERED: 7,
    Outcome.ENCAPSULATED: 7,
    Outcome.LOCAL: 0xFFFFFFFF,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, Path]]:
    """A namespace with two links and a route to everywhere but the addresses of UNROUTED."""
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(tmp_path_factory.mktemp("bpf")))
        space, other = Namespace("cmp"), Namespace("cmp-other")
        stack.callback(space.remove)
        stack.callback(other.remove)
        join(space, "out0", other, "out1")
        join(space, "lan0", other, "lan1")
        space.run("ip addr add 10.2.0.200/24 dev out0")
        space.run("ip addr add fd02::200/64 dev out0 nodad")
        for address in UNROUTED:
            space.run(f"ip -{address.version} route add unreachable {address}")
        space.run("ip route add default via 10.2.0.254")
        space.run("ip -6 route add default via fd02::254")
        yield space, root


def route_mtu(tunnel: Tunnel) -> int | None:
    return None if tunnel.destination in UNROUTED else 1500


class Comparison:
    """The loaded programs beside the model, in one world after another."""

    def __init__(self, plane: DataPlane, links: dict[str, int]) -> None:
        self.plane = plane
        self.links = links
        # The plane's own program objects are run: same maps, same device.
        self.runs = {d: ProgramRun(plane._object.program(f"locum_{d}")) for d in ("ingress", "egress")}
        self.seen: Counter[str] = Counter()
        self.fragments: Counter[Reason] = Counter()

    def world(self, grammar: Grammar) -> None:
        state = grammar.state()
        self.plane.apply(difference(self.plane.state, ForwardingState()))
        self.plane.apply(difference(ForwardingState(), state))
        assert self.plane.snapshot() == state
        fragments = self.plane._object.maps["fragments"]  # the model of this world has seen none
        fragments.delete_many([key for key, _ in fragments.items()])
        own = own_addresses(grammar.random)
        self.plane._tables.set_own(own)
        packed = frozenset(maps.address(a) for a in own)
        access = grammar.random.choice(((), (), ("lan0",)))
        self.plane.serve_visitors(access)
        served = frozenset(self.links[name] for name in access)
        environment = Environment(self.links["tap"], self.links, packed, route_mtu=route_mtu, access=served)
        model = Model(state, environment)
        before = self.plane.counters()
        for _ in range(PACKETS):
            self.packet(grammar, model)
        after = self.plane.counters()
        grown = {r: after[r.label] - before[r.label] for r in Reason if r is not Reason.NONE}
        assert {r: n for r, n in grown.items() if n} == {r: n for r, n in model.reasons.items() if n}
        self.fragments += model.reasons
        self.counters(state, model)

    def counters(self, state: ForwardingState, model: Model) -> None:
        for home, entry in state.bindings.items():
            if entry.rules:
                wanted = {rule.identifier for rule in entry.rules} | {0}
                self.rule_counters(model, home, Place.FLOW_RULES, self.plane.rule_counters(home), wanted)
        for (home, place), found in state.filters.items():
            wanted = {rule.identifier for rule in found.rules} | {0}
            self.rule_counters(model, home, PLACES[place], self.plane.filter_counters(home, place), wanted)
        for home in state.visited:
            key = rule_key(home, Place.VISITED)
            assert self.plane.visited_counters(home) == counted(model.rules.counts, key)
        for home in state.bindings:
            assert self.plane.binding_counters(home) == counted(model.binding_count, maps.address(home))
        for acceptance in state.acceptances.values():
            key = maps.acceptance_key(acceptance)
            assert self.plane.acceptance_counters(acceptance) == counted(model.acceptance_count, key)
            if acceptance.end is not None:
                self.seen["at an end"] += model.acceptance_count[key]
        for out in state.outbound_entries():
            key = maps.outbound_key(out.home_address, self.links[out.link] if out.link else 0)
            assert self.plane.outbound_counters(out) == counted(model.outbound_count, key)
        self.seen["first fragments back"] += len(model.translator._fragments)
        for home, tunnel in state.translations:
            counters = self.plane.translation_counters(home, tunnel)
            assert counters == model.translator.counters(home, tunnel)
            self.seen["towards"] += counters[0].packets
            self.seen["back"] += counters[1].packets

    @staticmethod
    def rule_counters(
        model: Model, home: Addr, place: Place, found: dict[int, maps.Counter], wanted: set[int]
    ) -> None:
        keys = {number: rule_key(home, place, number) for number in wanted}
        assert found == {name: counted(model.rules.counts, key) for name, key in keys.items()}

    def packet(self, grammar: Grammar, model: Model) -> None:
        r = grammar.random
        flows = model.translator.flows
        answered = r.choice(flows) if flows and r.random() < 0.1 else None
        frame, mark = grammar.frame(answered), grammar.mark()
        ifindex = self.links[r.choices(("out0", "lan0", "tap"), (6, 3, 1))[0]]
        if r.random() < 0.6:
            hook, entered = "ingress", 0
            wanted = model.ingress(frame, ifindex, mark)
        else:
            hook, entered = "egress", r.choice((0, self.links["lan0"]))
            wanted = model.egress(frame, ifindex, entered, mark)
        retval, out, context, _ = self.runs[hook].run(
            frame, ifindex=ifindex, ingress_ifindex=entered, mark=mark
        )
        outcome, reason = struct.unpack_from("II", context, 48)
        self.seen[f"{hook} {wanted.outcome.name} {wanted.reason.name}"] += 1
        told = f"{hook} on {ifindex} mark {mark:#x} frame {frame.hex()}"
        assert (Outcome(outcome), Reason(reason)) == (wanted.outcome, wanted.reason), told
        # At an egress, packets that end here go to the ingress of the device, and so do those of a suspended flow.
        turned = hook == "egress" and wanted.outcome is Outcome.LOCAL
        turned |= wanted.reason is Reason.SUSPENDED
        assert retval == (RETURNS[Outcome.DELIVERED] if turned else RETURNS[wanted.outcome]), told
        if wanted.outcome is Outcome.HELD:
            self.held(wanted, told)
        elif wanted.outcome is not Outcome.DROPPED:
            assert out == wanted.frame, told
            assert struct.unpack_from("I", context, 8)[0] == wanted.mark, told

    def held(self, wanted: Result, told: str) -> None:
        assert wanted.held is not None
        [got] = self.plane.read_held()
        assert (got.flow, got.data, got.reason) == (wanted.held.flow, wanted.held.data, wanted.held.reason), (
            told
        )
        self.plane.apply([DropHeld(got.home_address)])


def counted(counter: Counter[bytes], key: bytes) -> maps.Counter:
    return maps.Counter(counter[key], counter[b"bytes" + key])


def test_program_and_model_agree(place: tuple[Namespace, Path]) -> None:
    """At least 100,000 packets: verdict, reason, bytes, mark, held packets, and every counter."""
    space, root = place
    with space.inside():
        plane = DataPlane.open("cmp", [], bpf_root=root, limits=Limits(bindings=4096, flows=4096))
        try:
            links = {name: plane._attachments.find(name) or 0 for name in ("out0", "lan0")}
            links["tap"] = plane._device.ifindex
            comparison = Comparison(plane, links)
            for number in range(WORLDS):
                comparison.world(Grammar(number))
        finally:
            plane.remove()
    seen = comparison.seen
    assert seen.total() >= 100_000
    for kind in (
        "ENCAPSULATED NONE",
        "DELIVERED NONE",
        "TOO_BIG NONE",
        "HELD NONE",
        "DROPPED UNREGISTERED_SOURCE",
        "DROPPED RULE_DROPPED",
        "DROPPED FILTERED_FROM_VISITOR",
        "LOCAL NONE",
    ):
        assert seen[f"ingress {kind}"] > 300, seen
    assert seen["at an end"] > 200, seen
    assert seen["towards"] > 3000 and seen["back"] > 300 and seen["first fragments back"] > 10, seen
    # Every reason but those for which the kernel would have to fail.
    failures = {
        Reason.HOLD_OVERFLOW,
        Reason.ENCAPSULATION_FAILED,
        Reason.DECAPSULATION_FAILED,
        Reason.TUNNEL_FRAGMENT,
        Reason.FRAGMENT_FOLLOWS,
        Reason.FRAGMENT_UNKNOWN,
        Reason.TRANSLATION_FAILED,
        Reason.GROUP_NOT_FORWARDED,
    }
    missing = [r for r in Reason if r not in failures and not any(k.endswith(f" {r.name}") for k in seen)]
    assert not missing, (missing, seen)
    assert comparison.fragments[Reason.FRAGMENT_FOLLOWS] > 300
    assert comparison.fragments[Reason.FRAGMENT_UNKNOWN] > 300
