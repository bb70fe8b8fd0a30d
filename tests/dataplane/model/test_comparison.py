"""One decision, written twice: the kernel's program and the model do the same with 100,000 random packets."""

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane.hold import HeldPacket
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import HeldReason, Outcome, Reason
from locum.dataplane.layout.rules import PLACES, Place, rule_key
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment, Result
from locum.dataplane.model.parse import MINIMAL
from locum.dataplane.state import ForwardingState, difference
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.flows import RuleVerdict, Tunnel
from locum.roles.action_values.paging import FIRST_BYTES, DropPaged
from tests.dataplane.model.grammar import HARDWARE, HOMES, LOCALS, PEERS, UNROUTED, Grammar
from tests.dataplane.model.sockets import HostSockets
from tests.dataplane.model.translation_grammar import own_addresses
from tests.dataplane.namespaces import Namespace, bpffs, join

WORLDS, PACKETS = 40, 2600
NEXT_HOP = bytes.fromhex("0200000000fe")  # link-layer address
ETH_P_ALL = socket.htons(3)
OF_PEERS = ip_network("10.1.0.0/16")  # allowed on access links
RETURNS = {
    Outcome.PASSED: 0xFFFFFFFF,
    Outcome.TOO_BIG: 0xFFFFFFFF,
    Outcome.DROPPED: 2,
    Outcome.HELD: 2,
    Outcome.DELIVERED: 7,
    Outcome.ENCAPSULATED: 7,
    Outcome.LOCAL: 0xFFFFFFFF,
}


@contextmanager
def compared_place(folder: Path) -> Iterator[tuple[Namespace, Path]]:
    """A namespace with two links and a route to everywhere but the addresses of UNROUTED; a folder for maps."""
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(folder))
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
        space.run(
            "ip link property add dev lo altname locum-node-0"
        )  # ours is another node: its marks say so
        space.run("ip -6 route add default via fd02::254")
        for hop in ("10.2.0.254", "fd02::254", *LOCALS):  # so that copies leave at once
            space.run(f"ip neigh add {hop} lladdr {NEXT_HOP.hex(':')} dev out0 nud permanent")
        yield space, root


def compared_links(plane: DataPlane) -> dict[str, int]:
    """Indices of the links of `compared_place`, and of the data plane's own device as `tap`."""
    links = {name: plane._attachments.find(name) or 0 for name in ("out0", "lan0")}
    return {**links, "tap": plane._device.ifindex}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, Path]]:
    with compared_place(tmp_path_factory.mktemp("bpf")) as found:
        yield found


def route_mtu(tunnel: Tunnel) -> int | None:
    return None if tunnel.destination in UNROUTED else 1500


class Comparison:
    """The loaded programs beside the model, in one world after another."""

    def __init__(self, plane: DataPlane, links: dict[str, int]) -> None:
        self.plane = plane
        self.links = links
        found = {links[name]: plane._attachments.find_with_address(name) for name in ("out0", "lan0")}
        self.hardware = {index: at[1] for index, at in found.items() if at is not None}
        self.hardware[links["tap"]] = bytes(6)  # its frames are for this host, whatever they say
        # The plane's own program objects are run: same maps, same device.
        self._leaving = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL)
        self._leaving.bind(("out0", 0))
        self._leaving.setblocking(False)
        self._sockets = HostSockets([(HOMES[0], PEERS[0]), (HOMES[3], PEERS[2])])
        self.runs = {d: ProgramRun(plane._object.program(f"locum_{d}")) for d in ("ingress", "egress")}
        self.seen: Counter[str] = Counter()
        self.fragments: Counter[Reason] = Counter()
        self.reported: dict[tuple[Addr, int], float] = {}

    def world(self, grammar: Grammar) -> None:
        """Compare the two over all packets of one state."""
        state, model = self.prepare(grammar)
        before = self.plane.counters()
        for _ in range(PACKETS):
            self.packet(grammar, model)
        after = self.plane.counters()
        grown = {r: after[r.label] - before[r.label] for r in Reason if r is not Reason.NONE}
        assert {r: n for r, n in grown.items() if n} == {r: n for r, n in model.reasons.items() if n}
        self.fragments += model.reasons
        self.counters(state, model)

    def prepare(self, grammar: Grammar) -> tuple[ForwardingState, Model]:
        """Bring the data plane into the grammar's state; returns the state and its model."""
        state = grammar.state()
        self.plane.apply(difference(self.plane.state, ForwardingState()))
        self.plane.apply(difference(ForwardingState(), state))
        assert self.plane.snapshot() == state
        fragments = self.plane._object.maps["first_fragments"]  # the model of this world has seen none
        fragments.delete_many([key for key, _ in fragments.items()])
        own = own_addresses(grammar.random)
        self.plane._tables.set_own(own)
        packed = frozenset(maps.address(a) for a in own)
        access = grammar.random.choice(((), (), ("lan0",)))
        checked, by_hardware = grammar.apart.choice(((False, False), (True, False), (True, True)))
        self.plane.serve_visitors(access, checked=checked, by_hardware=by_hardware, allowed=(OF_PEERS,))
        served = frozenset(self.links[name] for name in access)
        narrow = self.narrow(grammar)
        environment = Environment(
            self.links["tap"],
            self.links,
            packed,
            route_mtu=lambda tunnel: narrow.get(tunnel.destination, route_mtu(tunnel)),
            socket=self._sockets.of,
            inner_mtus=lambda: self.plane._mtu_routes.mtus,
            hardware=self.hardware,
            number=self.plane.number,
            access=served,
            checked=checked,
            by_hardware=by_hardware,
            networks=lambda _ifindex, address: maps.address_of(address) in OF_PEERS,
        )
        return state, Model(state, environment)

    def narrow(self, grammar: Grammar) -> dict[Addr, int]:
        """Let the data plane know of narrow paths."""
        paths = self.plane._paths
        for destination in list(paths._known):
            paths._forget(destination)
        found = grammar.narrow_paths()
        for destination, mtu in found.items():
            paths.learn(destination, mtu)
        return found

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
            self.seen["by the route"] += model.acceptance_count[key] * acceptance.by_route
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
        ifindex = self.links[r.choices(("out0", "lan0", "tap"), (6, 3, 1))[0]]
        frame = grammar.received(grammar.frame(answered), self.hardware[ifindex])
        frame = frame[:6] + grammar.apart.choice(HARDWARE) + frame[12:]
        mark = grammar.mark()
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
        self.seen["in pieces"] += wanted.mark == maps.MARK_VOID
        self.seen["out of minimal"] += (
            in_minimal(frame) and wanted.outcome is not Outcome.DROPPED and not in_minimal(wanted.frame)
        )
        self.seen["into minimal"] += in_minimal(wanted.frame) and wanted.outcome is Outcome.ENCAPSULATED
        told = f"{hook} on {ifindex} mark {mark:#x} frame {frame.hex()}"
        assert (Outcome(outcome), Reason(reason)) == (wanted.outcome, wanted.reason), told
        if ifindex != self.links["tap"] or not frame[0] & 1:  # no frame of its device is for a group
            self.copies(model, told)
        # At an egress, packets that end here go to the ingress of the device, and so do those of a suspended flow.
        turned = hook == "egress" and wanted.outcome is Outcome.LOCAL
        turned |= wanted.reason is Reason.SUSPENDED
        assert retval == (RETURNS[Outcome.DELIVERED] if turned else RETURNS[wanted.outcome]), told
        self.asked(model, told)
        if wanted.outcome is Outcome.HELD:
            self.held(wanted, told)
        elif wanted.outcome is not Outcome.DROPPED:
            assert out == wanted.frame, told
            assert struct.unpack_from("I", context, 8)[0] == wanted.mark, told

    def copies(self, model: Model, told: str) -> None:
        """Copies for simultaneous bindings have left, each by its tunnel; those in pieces wait for the daemon."""
        whole = [
            copy.frame
            for copy in model.copies
            if copy.outcome is Outcome.ENCAPSULATED and copy.mark != maps.MARK_VOID
        ]
        assert self.left() == [copy[12:] for copy in whole], told
        self.seen["copies"] += len(whole)

    def left(self) -> list[bytes]:
        """Frames to the next hop since the last call, without their addresses. Test runs send copies alone."""
        found = []
        with suppress(BlockingIOError):
            while True:
                frame = self._leaving.recv(1 << 16)
                v4 = frame[12:14] == b"\x08\x00"
                piece = int.from_bytes(frame[20:22], "big") & 0x3FFF if v4 else frame[20] == 44
                if frame[:6] == NEXT_HOP and not piece:  # the daemon sends pieces
                    found.append(frame[12:])
        return found

    def asked(self, model: Model, told: str) -> None:
        """A rule of a filter that asks for a page is reported, unless it was in the last second."""
        now = time.monotonic()
        got = [(event.home_address, event.rule) for event in self.plane.held.read_asked()]
        assert got in ([], model.asks[:1]) and len(model.asks) <= 1, told
        for asked in model.asks:
            assert got or now - self.reported.get(asked, -1.0) < 1.5, told
        self.reported |= dict.fromkeys(got, now)
        self.seen["asked for a page"] += len(got)

    def held(self, wanted: Result, told: str) -> None:
        assert wanted.held is not None
        if wanted.held.reason is HeldReason.OPENING:
            assert self.plane.held.read_openings() == [wanted.held.data], told
            self.seen["openings"] += 1
            return
        if wanted.held.reason is HeldReason.PAGE:
            pages = self.plane.held.read_pages()
            if waiting := self.plane.held.paged.silent.take(wanted.held.flow):
                assert not pages, told
                self._held_in_silence(wanted.held, waiting, told)
                return
            [page] = pages
            assert (page.flow, page.rule) == (wanted.held.flow, wanted.held.rule), told
            assert (page.packet, page.length) == (wanted.held.data[:FIRST_BYTES], len(wanted.held.data)), told
            self.seen["pages"] += 1
            self.plane.apply([DropPaged(page.home_address)])
            return
        [got] = self.plane.held.read()
        assert (got.flow, got.data, got.reason) == (wanted.held.flow, wanted.held.data, wanted.held.reason), (
            told
        )
        self.plane.apply([DropHeld(got.home_address)])

    def _held_in_silence(self, wanted: HeldPacket, waiting: list[HeldPacket], told: str) -> None:
        """By a rule that holds without a page."""
        [got] = waiting
        assert (got.data, got.rule) == (wanted.data, wanted.rule), told
        [rule] = [
            rule for rule in self.plane.state.bindings[got.home_address].rules if rule.identifier == got.rule
        ]
        assert rule.verdict is RuleVerdict.HOLD, told
        self.seen["silent"] += 1


def in_minimal(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == MINIMAL


def counted(counter: Counter[bytes], key: bytes) -> maps.Counter:
    return maps.Counter(counter[key], counter[b"bytes" + key])


def test_program_and_model_agree(place: tuple[Namespace, Path]) -> None:
    """At least 100,000 packets: verdict, reason, bytes, mark, held packets, and every counter."""
    space, root = place
    with space.inside():
        plane = DataPlane.open("cmp", [], bpf_root=root, limits=Limits(bindings=4096, flows=4096))
        try:
            comparison = Comparison(plane, compared_links(plane))
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
        assert seen[f"ingress {kind}"] > 100, (kind, seen)
    for reason in (Reason.UNREAD_HEADERS, Reason.LINK_BROADCAST, Reason.LINK_SCOPE):
        assert seen[f"ingress DROPPED {reason.name}"] > 50, seen
    assert seen["copies"] > 2000, seen
    for kind in ("egress DROPPED SUSPENDED", "ingress DROPPED SPOOFED_SOURCE", "egress DROPPED UNCLAIMED"):
        assert seen[kind] > 70, seen
    assert seen["asked for a page"] >= 8, seen
    assert seen["openings"] >= 5 and seen["pages"] > 30 and seen["silent"] > 10, seen
    assert seen["at an end"] > 150 and seen["by the route"] > 30 and seen["in pieces"] >= 20, seen
    assert seen["out of minimal"] > 60 and seen["into minimal"] > 100, seen
    assert seen["towards"] > 2000 and seen["back"] > 300 and seen["first fragments back"] > 10, seen
    # Every reason but those for which the kernel would have to fail.
    failures = {
        Reason.HOLD_OVERFLOW,
        Reason.HOLD_SHARE,
        Reason.ENCAPSULATION_FAILED,
        Reason.DECAPSULATION_FAILED,
        Reason.TUNNEL_FRAGMENT,
        Reason.TUNNEL_FRAGMENT_LIMIT,
        Reason.FRAGMENT_FOLLOWS,
        Reason.TRANSLATION_FAILED,
        Reason.GROUP_NOT_FORWARDED,
    }
    often = {r: sum(n for kind, n in seen.items() if kind.endswith(f" {r.name}")) for r in Reason}
    seldom = {r: n for r, n in often.items() if r not in failures and n < 10}
    assert not seldom, (seldom, seen)
    assert comparison.fragments[Reason.FRAGMENT_FOLLOWS] > 100
    assert comparison.fragments[Reason.FRAGMENT_UNKNOWN] > 300
