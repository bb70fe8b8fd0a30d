"""Probing of paths on a virtual clock: searches on paths of every width, lossy ones, silent ones, and many at once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from ipaddress import IPv4Address, ip_address
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.dataplane.model.frames import parse_tunnel
from locum.dataplane.model.parse import parse_packet
from locum.dataplane.mtu.path_mtu import Verdict, judge, matches, read_quote
from locum.dataplane.mtu.probe_packets import INNER_BYTES, message, probe_packet, token_of
from locum.dataplane.mtu.probing import (
    BASE,
    MOST_PROBED,
    ROUNDS_AT_ONCE,
    ROUNDS_PER_SECOND,
    Probe,
    Probing,
)
from locum.dataplane.mtu.search import COARSE, MOST_FAILURES, RAISE_TIMER, USUAL
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, OutboundEntry
from locum.roles.action_values.forwarding import Verdict as Forwarding

CORRESPONDENT = ip_address("10.1.0.2")
HERE, ELSEWHERE = ip_address("10.2.0.1"), ip_address("10.1.0.1")
HERE6 = ip_address("fd02::1")
HOME, HOME6 = ip_address("10.9.0.5"), ip_address("fd09::5")
THERE, THERE6 = ip_address("10.3.0.1"), ip_address("fd03::1")
TOLD_AGAIN = 20.0  # seconds; TOLD_LARGE_EACH of bpf/path_mtu.h


@dataclass
class Tables:
    """Entries of devices, and addresses of this host."""

    state: ForwardingState = field(default_factory=lambda: ForwardingState({HERE, HERE6}))
    own: frozenset[Addr] = frozenset({HERE, ELSEWHERE, HERE6})

    def bind(self, home: Addr, tunnel: Tunnel) -> None:
        self.state.bindings[home] = BindingEntry(home, Forwarding.ENCAPSULATE, (tunnel,))


class World:
    """The probing of one host, and paths from it: `mtu` of each end, one `trip`, and `passes(probe)`."""

    def __init__(self, trip: float = 0.05) -> None:
        self.now, self.trip = 1000.0, trip
        self.tables = Tables()
        self.route = 1500
        self.mtus: dict[Addr, int] = {}
        self.passes: Callable[[Probe], bool] = lambda _probe: True
        self.believed: dict[Addr, int] = {}
        self.history: list[tuple[float, Addr, int | None]] = []
        self.sent: list[tuple[float, Probe]] = []
        self._tokens = count()
        self._answers: list[tuple[float, bytes]] = []
        self.probing = Probing(
            self.tables,
            lambda _tunnel: self.route,
            self.believed.get,
            self._found,
            lambda: next(self._tokens).to_bytes(16, "big"),
        )

    def _found(self, end: Addr, mtu: int, *, of_route: bool) -> None:
        before = self.believed.get(end)
        if of_route:
            self.believed.pop(end, None)
        else:
            self.believed[end] = mtu
        if self.believed.get(end) != before:
            self.history.append((self.now, end, self.believed.get(end)))

    def run(self, seconds: float) -> None:
        """Send what is due and answer what gets through, for so long."""
        end = self.now + seconds
        while True:
            for probe in self.probing.take_due(self.now):
                self.sent.append((self.now, probe))
                fits = probe.size <= self.mtus.get(probe.tunnel.destination, self.route)
                if fits and self.passes(probe):
                    heappush(self._answers, (self.now + self.trip, probe.token))
            times = [self._answers[0][0]] if self._answers else []
            if (deadline := self.probing.deadline()) is not None:
                times.append(max(deadline, self.now))
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(min(times), self.now)
            while self._answers and self._answers[0][0] <= self.now:
                self.probing.answered(heappop(self._answers)[1], self.now)

    def carry(self, seconds: float, home: Addr = HOME) -> None:
        """Large packets go to the home address for so long."""
        end = self.now + seconds
        while self.now < end:
            self.probing.large(CORRESPONDENT, home, self.now)
            self.run(min(TOLD_AGAIN, end - self.now))

    def numbers(self, since: int = 0) -> int:
        return len(self.sent) - since


def bound(mtu: int, end: Addr = THERE, *, trip: float = 0.05) -> World:
    """A world with one binding, whose path takes `mtu` bytes."""
    world = World(trip)
    world.tables.bind(HOME, Tunnel(HERE if end.version == 4 else HERE6, end))
    world.mtus[end] = mtu
    return world


def test_a_wide_path_costs_one_round() -> None:
    """Nothing is narrowed for the time of a search, and nothing afterwards."""
    world = bound(1500)
    world.carry(5)
    assert [probe.size for _, probe in world.sent] == [0, 1500]
    assert not world.history
    assert world.probing.states() == {"search-complete": 1}
    assert world.probing.deadline() is None


@pytest.mark.parametrize("end", [THERE, THERE6], ids=str)
@pytest.mark.parametrize("mtu", [1492, 1480, 1400, 1399, 1331, 1280])
def test_black_hole(end: Addr, mtu: int) -> None:
    """The MTU falls to BASE as soon as MOST_FAILURES rounds have shown the hole, and then rises to the path's."""
    world = bound(mtu, end)
    world.carry(60)
    begun, _, first = world.history[0]
    assert first == BASE[end.version] and begun - 1000.0 <= MOST_FAILURES * 1.0 + 0.1
    found = world.believed[end]
    assert max([size for size in USUAL if size <= mtu], default=0) <= found <= mtu
    assert mtu - found < COARSE
    assert world.probing.states() == {"search-complete": 1}
    assert all(after >= first for _, _, after in world.history if after is not None)


def test_path_below_base() -> None:
    """ERROR (RFC 8899 section 5.2): the least MTU at once, then what gets through. IPv6 has no less than 1280."""
    world = bound(1100)
    world.carry(60)
    assert world.history[0][2] == 552
    assert 1100 - COARSE <= world.believed[THERE] <= 1100
    world = bound(1200, THERE6)
    world.carry(60)
    assert [mtu for _, _, mtu in world.history] == [1280]
    assert world.probing.states() == {"error": 1}


@settings(max_examples=60, deadline=None)
@given(
    mtu=st.integers(552, 1500),
    route=st.integers(600, 9000),
    trip=st.floats(0.001, 0.9),
    six=st.booleans(),
)
def test_any_width(mtu: int, route: int, trip: float, six: bool) -> None:
    """A search ends, and never believes more than the path takes."""
    end = THERE6 if six else THERE
    least = 1280 if six else 552
    world = bound(max(mtu, least), end, trip=trip)
    world.route = max(route, least)
    world.carry(300)
    found = world.believed.get(end, world.route)
    assert found <= min(world.mtus[end], world.route)
    assert min(world.mtus[end], world.route) - found <= COARSE
    assert not world.probing._under_way and not world.probing._waiting


def test_far_end_that_answers_nothing() -> None:
    """No MTU is lowered on silence; questions become rare."""
    world = bound(1400)
    world.passes = lambda _probe: False
    world.carry(3600)
    assert not world.history
    assert world.probing.states() == {"disabled": 1}
    assert world.numbers() < 100
    assert world.probing.counts["path-probing-silent"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_loss_alone_narrows_nothing(seed: int) -> None:
    """Each probe is lost with a probability of a tenth, the small ones too."""
    from random import Random

    random = Random(seed)
    world = bound(1500)
    world.passes = lambda _probe: random.random() > 0.1
    world.carry(1200)
    narrow = [mtu for _, _, mtu in world.history if mtu is not None]
    assert len(narrow) <= 1  # 0.1 ** 3 a confirmation
    world.passes = lambda _probe: True
    world.carry(RAISE_TIMER * 2)
    assert THERE not in world.believed


def test_one_small_answer_does_not_condemn_large_ones() -> None:
    """Two failures, then an answer: nothing was lowered."""
    world = bound(1500)
    rounds: list[float] = []

    def passes(probe: Probe) -> bool:
        if probe.size == 1500:
            rounds.append(world.now)
        return probe.size != 1500 or len(rounds) > 2

    world.passes = passes
    world.carry(10)
    assert len(rounds) == 3 and not world.history


def test_slow_answers() -> None:
    """Answers of a round trip of 2.5 seconds come after the first timer; they count, and the timer follows."""
    world = bound(1400, trip=2.5)
    world.carry(200)
    assert world.believed == {THERE: 1400}


def test_path_that_narrows_and_widens() -> None:
    """Confirmations find a black hole that came later; the raise timer finds that it went."""
    world = bound(1500)
    world.carry(60)
    assert not world.history
    world.mtus[THERE] = 1420
    world.carry(60)
    assert world.believed == {THERE: 1420}
    world.mtus[THERE] = 1500
    since = world.now
    world.carry(RAISE_TIMER * 2)
    assert world.believed == {}
    assert world.history[-1][0] - since <= RAISE_TIMER + 2 * TOLD_AGAIN


def test_router_that_tells_after_all() -> None:
    """An MTU by ICMP ends the search above it (RFC 8899 section 4.6.2)."""
    world = bound(1400)
    world.probing.large(CORRESPONDENT, HOME, world.now)
    world.run(0.2)
    world.believed[THERE] = 1400
    world.probing.told(THERE, 1400, world.now)
    world.run(10)
    assert [probe.size for _, probe in world.sent] == [0, 1500, 0, 1400]
    assert world.believed == {THERE: 1400} and not world.history


def test_forged_and_late_answers() -> None:
    world = bound(1400)
    world.probing.answered(bytes(16), world.now)
    world.carry(60)
    before = list(world.history)
    for _, probe in world.sent:
        world.probing.answered(probe.token, world.now)
        world.probing.answered(bytes(15) + b"\xff", world.now)
    assert world.history == before


# Many


def test_bounds_with_many_bindings() -> None:
    """100,000 devices cost nothing; 10,000 with large packets cost no more rounds, paths and timers than the bounds say."""
    world = World()
    for number in range(10_000):
        home, end = IPv4Address(0x0A400000 + number), IPv4Address(0x0B000000 + number)
        world.tables.bind(home, Tunnel(HERE, end))
        world.probing.large(CORRESPONDENT, home, world.now)
        assert len(world.probing._paths) <= MOST_PROBED
    first = world.probing.take_due(world.now)
    assert len(world.probing._under_way) <= ROUNDS_AT_ONCE
    assert len(first) <= 3 * ROUNDS_AT_ONCE
    world.run(10)
    rounds = len({(at, probe.tunnel.destination) for at, probe in world.sent})
    assert 0 < rounds <= ROUNDS_PER_SECOND * 12
    world.run(200)
    assert world.probing.deadline() is None
    assert len(world.probing._tokens) <= 3 * MOST_PROBED


def test_no_probe_without_large_packets() -> None:
    world = bound(1400)
    world.run(3600)
    assert world.numbers() == 0 and world.probing.deadline() is None
    world.carry(60)
    since = world.numbers()
    world.run(36_000)
    assert world.numbers(since) == 0


def test_tunnel_that_is_gone() -> None:
    """Nothing is sent for a binding that ended meanwhile."""
    world = bound(1400)
    world.probing.large(CORRESPONDENT, HOME, world.now)
    world.tables.state.bindings.clear()
    world.run(10)
    assert world.numbers() == 0 and world.probing.states() == {} and world.probing.deadline() is None


# From where to where


def ends(world: World, source: Addr, destination: Addr) -> set[tuple[Addr, Addr, bool]]:
    world.probing.large(source, destination, world.now)
    world.run(10)
    return {(probe.source, probe.destination, probe.asks) for _, probe in world.sent}


def test_towards_a_home_address() -> None:
    """The answer goes to another address than our end of the tunnel: it may have to come back through it."""
    assert ends(bound(1500), CORRESPONDENT, HOME) == {(ELSEWHERE, HOME, True)}
    silent = bound(1500)
    silent.passes = lambda probe: probe.source == HERE  # but that may not be reached
    assert ends(silent, CORRESPONDENT, HOME) == {(ELSEWHERE, HOME, True), (HERE, HOME, True)}
    assert silent.probing.states() == {"search-complete": 1}


def test_ipv6_in_ipv4() -> None:
    world = World()
    world.tables.bind(HOME6, Tunnel(HERE, THERE))
    assert ends(world, CORRESPONDENT, HOME6) == {(HERE6, HOME6, True)}
    world.tables.own = frozenset({HERE})
    world.tables.bind(HOME6, Tunnel(HERE, ip_address("10.3.0.2")))
    world.sent.clear()
    assert ends(world, CORRESPONDENT, HOME6) == set()


def test_from_a_home_address_of_this_host() -> None:
    """The home agent answers; over IPv4 it is asked from the IPv4 home address, for all packets in that tunnel."""
    tunnel = Tunnel(HERE, THERE)
    world = World()
    for home in (HOME, HOME6):
        world.tables.state.outbound[home] = {None: OutboundEntry(home, None, tunnel)}
    assert ends(world, HOME, CORRESPONDENT) == {(HOME, THERE, True)}
    world = World()
    for home in (HOME, HOME6):
        world.tables.state.outbound[home] = {None: OutboundEntry(home, None, tunnel)}
    assert ends(world, HOME6, ip_address("fd01::2")) == {(HOME, THERE, True)}


def test_from_a_home_address_of_a_visitor() -> None:
    """An echo reply that comes back to this host: the visitor sees nothing of it."""
    world = World()
    world.tables.state.outbound[HOME] = {"fa1": OutboundEntry(HOME, "fa1", Tunnel(HERE, THERE))}
    assert ends(world, HOME, CORRESPONDENT) == {(HOME, HERE, False)}


# Bytes


TUNNELS = [
    Tunnel(source, destination, encapsulation, 434, 434, key)
    for source, destination in ((HERE, THERE), (HERE6, THERE6))
    for encapsulation, key in (
        (Encapsulation.IPIP, None),
        (Encapsulation.GRE, 7),
        (Encapsulation.UDP, None),
    )
]


@pytest.mark.parametrize("tunnel", TUNNELS, ids=str)
@pytest.mark.parametrize("ends", [(ELSEWHERE, HOME), (HERE6, HOME6)], ids=str)
def test_probe_is_a_large_tunnel_packet_with_a_small_packet(tunnel: Tunnel, ends: tuple[Addr, Addr]) -> None:
    version = ends[0].version
    token = bytes(range(16))
    inner = message(*ends, token, asks=True)
    assert len(inner) == INNER_BYTES[version]
    for size in (0, 1200, 1500):
        packet = probe_packet(tunnel, inner, size)
        assert len(packet) == size or size == 0
        outer = parse_packet(packet, 0, len(packet), tunnel.source.version)
        assert outer is not None and outer.length == len(packet) and not outer.unsound
        shape = parse_tunnel(packet, outer)
        assert shape is not None and shape.family == version and shape.key == tunnel.gre_key
        found = parse_packet(packet, shape.inner, len(packet), version)
        assert found is not None and found.length == len(inner) and not found.unsound
        if size:
            # A router that tells of it after all is believed: the quote has a shorter inner packet than is usual.
            quote = read_quote(packet[:120])
            assert quote is not None and matches(quote, tunnel) and quote.inner == ends
            assert judge(quote, size - 8, True, 1500) == (
                (Verdict.BELIEVED, size - 8) if size - 8 >= 1280 or tunnel.source.version == 4
                else (Verdict.TOO_SMALL, 0)
            )  # fmt: skip


def test_answers() -> None:
    token = bytes(range(16))
    for family, pair in ((4, (HOME, HERE)), (6, (HOME6, HERE6))):
        header = 20 if family == 4 else 40
        reply = message(*pair, token, asks=False)[header:]
        assert token_of(family, reply) == token
        for other in (message(*pair, token, asks=True)[header:], reply + b"\x00", reply[:-1], b""):
            assert token_of(family, other) is None
