"""The routes for packets that are too big for a tunnel: few, for the MTUs that packets need now."""

from ipaddress import ip_address
from typing import Any

import pytest

from locum.dataplane.kernel import network
from locum.dataplane.kernel.network import ASKED_AGE, MOST_MTUS, REST, MtuRoutes
from locum.dataplane.layout import maps
from locum.roles.action_values.addresses import Addr

END, OTHER = ip_address("10.3.0.1"), ip_address("10.3.0.2")


class Kernel:
    """Netlink that makes everything, and tables of the programs."""

    def __init__(self) -> None:
        self.made = 0
        self.entries: dict[bytes, bytes] = {}

    def route(self, *_: object, **__: object) -> None:
        self.made += 1

    def rule(self, *_: object, **__: object) -> None: ...
    def get(self, _: bytes) -> None: ...

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)

    def delete_many(self, keys: list[bytes]) -> None:
        for key in keys:
            self.delete(key)

    def items(self) -> list[tuple[bytes, bytes]]:
        return list(self.entries.items())


class Routes:
    """`MtuRoutes` with tunnels of 20 bytes overhead and a clock of its own; the programs ask for MTUs once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(network, "boot_time", lambda: self.now)
        kernel: Any = Kernel()
        self.kernel, self.told = kernel, Kernel()
        told: Any = self.told
        self.routes = MtuRoutes(kernel, 5, 0, Kernel(), told, lambda _: None)  # type: ignore[arg-type]
        self.routes.need(20)

    def meets(self, inner: int, destination: Addr = END) -> int:
        """A packet needs this MTU; returns the one that its sender is told afterwards."""
        key = maps.address(destination)
        if self.told.entries.get(key) != bytes([inner % 256]):
            self.told.put(key, bytes([inner % 256]))
            self.routes.ask(destination, inner + 20, 20)
        return max(mtu for mtu in self.routes.mtus if mtu <= inner)


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    return Routes(monkeypatch)


def far(number: int) -> Addr:
    return END + 256 + number


def test_errors_of_outsiders_take_no_route_that_packets_need(routes: Routes) -> None:
    """RFC 5927: MTUs that a router named are lowest in rank; they cost few routes."""
    assert routes.meets(1380) == 1380
    made = routes.kernel.made
    for mtu in range(1300, 1400):
        routes.now += 0.05
        routes.routes.expect(OTHER, mtu)
    assert routes.meets(1380) == 1380
    assert routes.kernel.made - made <= 2 * MOST_MTUS * 2
    for number in range(3):  # packets get them at once
        assert routes.meets(1441 + number, far(number)) in (1441 + number, 1408)


def test_packets_get_a_route_that_others_need_no_more(routes: Routes) -> None:
    for number in range(MOST_MTUS):
        routes.meets(1300 + number, far(number))
    assert routes.meets(1440) < 1408, "those that were just made stay"
    routes.now += REST
    assert routes.meets(1440) == 1408, "rounded, for there is no room for all"
    assert routes.meets(1301, far(1)) == 1301, "those needed longest ago went first"


def test_an_mtu_that_is_needed_again_stays(routes: Routes) -> None:
    routes.meets(1408)
    for number in range(100):
        routes.now += REST
        routes.told.entries.clear()
        assert 1408 in routes.routes.mtus
        routes.meets(1408)
        routes.meets(1300 + number % 50 * 2, far(number))


def test_an_mtu_without_a_route_is_asked_for_again(routes: Routes) -> None:
    """The programs forget that they told of a path when its MTU loses its route."""
    routes.meets(1408)
    for number in range(2 * MOST_MTUS):
        routes.now += REST
        routes.meets(1000 + number * 8, far(number))
    assert 1408 not in routes.routes.mtus
    assert maps.address(END) not in routes.told.entries
    assert routes.meets(1408) == 1408


def test_exact_mtus_come_back_when_there_is_room(routes: Routes) -> None:
    for number in range(MOST_MTUS):
        routes.meets(1300 + number, far(number))
    routes.now += ASKED_AGE + 1
    routes.routes.settle()
    assert routes.meets(1440) == 1440
