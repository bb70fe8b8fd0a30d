"""Changes that the data plane refuses wait, are tried again, and are made together with later ones."""

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from locum.dataplane.performer import Refused
from locum.dataplane.plane import DataPlane
from locum.dataplane.state import ForwardingState
from locum.node.events import EventStream
from locum.node.plane import forwarder as forwarder_module
from locum.node.plane.forwarder import Forwarder
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, RemoveBinding, Verdict
from locum.roles.action_values.forwarding_order import by_home_address, home_address_of
from locum.roles.actions import Action, ForwardingRefused

X, Y, HERE, ONE, TWO = (IPv4Address(f"10.36.0.{n}") for n in range(1, 6))


def bound(home: IPv4Address, to: IPv4Address) -> Action:
    return InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, (Tunnel(HERE, to),)))


class Plane:
    """A data plane that refuses the changes of `full` home addresses."""

    def __init__(self) -> None:
        self.state = ForwardingState()
        self.full: set[object] = set()
        self.untried: set[object] = set()
        self.tried = 0
        self.lost: list[Action] = []

    def apply_each(self, actions: Iterable[Action]) -> list[Refused]:
        self.tried += 1
        refused = []
        for part in by_home_address(actions):
            home = home_address_of(part[0])
            if home in self.untried:
                refused.append(Refused(home, tuple(part), OSError("many others"), tried=False))
            elif home in self.full and any(isinstance(action, InstallBinding) for action in part):
                refused.append(Refused(home, tuple(part), OSError("the table bindings is full")))
            else:
                for action in part:
                    self.state.perform(action)
        return refused

    def take_lost(self) -> list[Action]:
        lost, self.lost = self.lost, []
        return lost


class Bench:
    def __init__(self) -> None:
        self.plane, self.events = Plane(), EventStream("n")
        self.told: list[ForwardingRefused] = []
        self.kinds: list[Any] = []
        self.events.subscribe(lambda line: self.kinds.append(line))
        self.forwarder = Forwarder(cast(DataPlane, self.plane), self.events, self.told.append)

    def to(self, home: IPv4Address) -> Any:
        found = self.plane.state.bindings.get(home)
        return None if found is None else found.tunnels[0].destination

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(forwarder_module, "FIRST_DELAY", 0.02)
    return Bench()


async def test_refused_change_is_made_when_there_is_room(bench: Bench) -> None:
    bench.plane.full = {X}
    (refused,) = bench.forwarder.apply([bound(X, ONE), bound(Y, ONE)])
    assert refused.home_address == X and bench.to(Y) == ONE
    assert bench.forwarder.status()["waiting"] == 1
    await bench.until(lambda: bench.plane.tried > 3)
    assert bench.events.counts["forwarding-refused"] == 1, "one event, however often it is tried"
    assert bench.events.reasons["forwarding-refused"] >= 3
    assert bench.told[0] == ForwardingRefused((X,))
    bench.plane.full.clear()
    await bench.until(lambda: bench.to(X) == ONE)
    assert bench.events.counts["forwarding-resumed"] == 1
    assert bench.forwarder.status() == {}
    tried = bench.plane.tried
    await asyncio.sleep(0.1)
    assert bench.plane.tried == tried, "nothing is left to do"


async def test_many_that_wait_are_tried_in_turns(bench: Bench) -> None:
    """No turn tries all, every one is tried in each round, and the rounds become rarer."""
    homes = [IPv4Address("10.40.0.0") + number for number in range(100)]
    bench.plane.full = {*homes}
    bench.forwarder.apply([bound(home, ONE) for home in homes])
    sizes: list[int] = []
    apply_each = bench.plane.apply_each

    def counted(actions: Iterable[Action]) -> list[Refused]:
        wanted = list(actions)
        sizes.append(len(wanted))
        return apply_each(wanted)

    bench.plane.apply_each = counted  # type: ignore[method-assign]
    await bench.until(lambda: sum(sizes) >= 200)
    assert max(sizes) <= 16 and bench.forwarder._delay >= 4 * 0.02
    bench.plane.full.clear()
    await bench.until(lambda: all(bench.to(home) == ONE for home in homes))
    assert bench.forwarder.status() == {}


async def test_untried_changes_are_made_in_the_next_turns(bench: Bench) -> None:
    """The data plane has left some to another call: they were not refused, and nobody is told so."""
    homes = [IPv4Address("10.40.0.0") + number for number in range(40)]
    bench.plane.untried = {*homes[1:]}
    bench.plane.full = {homes[0]}
    refused = bench.forwarder.apply([bound(home, ONE) for home in homes])
    assert len(refused) == 40
    bench.plane.untried.clear()
    bench.forwarder._delay = 3600.0
    await bench.until(lambda: all(bench.to(home) == ONE for home in homes[1:]))
    assert bench.told == [ForwardingRefused((homes[0],))]
    assert bench.events.counts["forwarding-refused"] == bench.events.reasons["forwarding-refused"] == 1
    assert not bench.events.counts["forwarding-resumed"]
    assert bench.forwarder.status()["waiting"] == 1
    bench.forwarder.close()


async def test_tries_become_rarer(bench: Bench) -> None:
    bench.plane.full = {X}
    bench.forwarder.apply([bound(X, ONE)])
    await bench.until(lambda: bench.plane.tried > 3)
    assert bench.forwarder._delay >= 4 * 0.02
    bench.forwarder.apply([RemoveBinding(Y)])
    assert bench.forwarder._delay == 0.02, "there may be room now"
    bench.forwarder.close()


async def test_later_change_takes_the_place_of_the_one_that_waits(bench: Bench) -> None:
    bench.plane.full = {X}
    bench.forwarder.apply([bound(X, ONE)])
    bench.plane.full.clear()
    assert bench.forwarder.apply([bound(X, TWO)]) == []
    assert bench.to(X) == TWO and bench.forwarder.status() == {}
    bench.plane.full = {X}
    bench.forwarder.apply([bound(X, ONE)])
    bench.forwarder.apply([RemoveBinding(X)])
    assert bench.to(X) is None and bench.forwarder.status() == {}


async def test_entry_that_was_lost_comes_back(bench: Bench) -> None:
    bench.plane.full = {X}
    bench.plane.lost = [bound(Y, ONE)]
    bench.forwarder.apply([bound(X, ONE)])
    assert bench.forwarder.status()["waiting"] == 2
    await bench.until(lambda: bench.to(Y) == ONE)
    assert bench.forwarder.status()["waiting"] == 1
    bench.forwarder.close()
