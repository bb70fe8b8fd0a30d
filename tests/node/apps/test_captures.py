"""Captured packets between the data plane and proxies: order, bounds and counts (A2)."""

from ipaddress import ip_address

import pytest

from locum.dataplane.hold import HeldPacket
from locum.dataplane.layout.maps import HeldReason
from locum.node.apps.shown.captures import WAITING, Captures
from locum.roles.action_values.addresses import Addr
from locum.wire.control import Flow

HOME, HOME6, OTHER = ip_address("10.9.0.5"), ip_address("fd09::5"), ip_address("10.9.0.6")
PEER = ip_address("192.0.2.9")


class Kernel:
    """Which home addresses are logged, at which rate, and what was left out."""

    def __init__(self) -> None:
        self.logged: dict[Addr, int] = {}
        self.left: dict[Addr, int] = {}
        self.full = False

    def begin(self, home_address: Addr, most: int) -> None:
        if self.full:
            raise OSError(7, "the table is full")
        self.logged[home_address], self.left[home_address] = most, 0

    def left_out(self, home_address: Addr) -> int:
        return self.left.get(home_address, 0)

    def end(self, home_address: Addr) -> None:
        self.logged.pop(home_address, None)
        self.left.pop(home_address, None)


class World:
    def __init__(self) -> None:
        self.kernel = Kernel()
        self.captures = Captures(self.kernel, clock=lambda: 10**18, monotonic=lambda: 5000)
        self.pending: list[str] = []

    def begin(self, key: str, *homes: Addr, per_second: int = 10) -> None:
        self.captures.begin(key, homes, per_second, lambda: self.pending.append(key))

    def arrive(self, home: Addr, data: bytes = b"x", left_out: int = 0) -> None:
        flow = Flow(6, home, 22, PEER, 40000)
        self.captures.packet(HeldPacket(flow, data, HeldReason.HEADERS, left_out, 1500, 4000))


def test_packets_reach_the_proxy_of_their_home_address() -> None:
    world = World()
    world.begin("one", HOME, HOME6)
    world.begin("two", OTHER)
    world.arrive(HOME, b"a")
    world.arrive(OTHER, b"b")
    world.arrive(HOME6, b"c")
    assert world.pending == ["one", "two"]
    at = 10**18 - 1000
    assert world.captures.take("one") == ([[at, b"a", 1500], [at, b"c", 1500]], 0)
    assert world.captures.take("two") == ([[at, b"b", 1500]], 0)
    assert world.captures.take("one") == ([], 0)


def test_left_out_packets_are_counted_once() -> None:
    world = World()
    world.begin("one", HOME)
    world.arrive(HOME, left_out=5)
    world.arrive(HOME, left_out=7)
    world.kernel.left[HOME] = 9
    assert world.captures.take("one")[1] == 9
    assert world.captures.take("one")[1] == 0
    world.kernel.left[HOME] = 10
    assert world.captures.take("one")[1] == 1


def test_number_of_waiting_packets_is_bounded() -> None:
    world = World()
    world.begin("one", HOME)
    for _ in range(WAITING + 50):
        world.arrive(HOME)
    rows, left_out = world.captures.take("one")
    assert (len(rows), left_out) == (WAITING, 50)


def test_highest_rate_of_several_proxies_counts() -> None:
    world = World()
    world.begin("one", HOME, per_second=10)
    world.begin("two", HOME, per_second=50)
    assert world.kernel.logged == {HOME: 50}
    world.captures.end("two")
    assert world.kernel.logged == {HOME: 10}
    world.captures.end("one")
    world.captures.end("one")
    assert world.kernel.logged == {}
    world.arrive(HOME)  # one that was on its way


def test_full_table_leaves_nothing_behind() -> None:
    world = World()
    world.kernel.full = True
    with pytest.raises(OSError, match="full"):
        world.begin("one", HOME)
    assert world.captures.take("one") == ([], 0)


@pytest.mark.parametrize("per_second", [0, -1, 1001])
def test_rate_beyond_the_bounds_is_refused(per_second: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        World().begin("one", HOME, per_second=per_second)
