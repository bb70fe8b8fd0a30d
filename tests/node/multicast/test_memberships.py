"""Memberships on an access link, of a host that has its home address on lo and none on the link."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from locum.node.events import EventStream
from locum.node.host.link_watch import Link, LinkWatch
from locum.node.host.network import HostNetwork
from locum.node.multicast import memberships
from locum.node.multicast.membership_socket import MembershipSocket
from locum.node.multicast.memberships import Memberships
from locum.node.store import Store
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import MembershipChanged
from locum.roles.action_values.forwarding import NeighbourEntry, RemoveNeighbour
from locum.wire.ip.membership import Membership
from tests.dataplane.kernel.test_groups import GROUP4, GROUP6, member
from tests.dataplane.namespaces import Namespace, join

HOME4, HOME6 = ip_address("10.9.0.1"), ip_address("fd09::1")
VISITOR = b"\x02\0\0\0\0\x09"


@pytest.fixture
def link() -> Iterator[tuple[Namespace, Namespace]]:
    """An access node and a visitor."""
    access, visitor = Namespace("access"), Namespace("visitor")
    try:
        join(access, "down0", visitor, "radio0")
        access.run("ip addr add 10.5.1.1/24 dev down0")
        visitor.run("ip link set radio0 address 02:00:00:00:00:09")
        visitor.run(f"ip addr add {HOME4}/32 dev lo")
        visitor.run(f"ip addr add {HOME6}/128 dev lo")
        yield access, visitor
    finally:
        access.remove()
        visitor.remove()


def until(condition: Callable[[], bool], step: Callable[[], object], patience: float = 15.0) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        step()
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_reports_of_a_host_without_an_address_on_the_link(
    link: tuple[Namespace, Namespace], group: Addr
) -> None:
    """Join, answer to a query, and leave: each is reported by the link-layer address."""
    access, visitor = link
    heard: list[tuple[bytes, Membership]] = []
    refused: list[str] = []
    with access.inside():
        opened = MembershipSocket(
            "down0",
            lambda layer, found: heard.extend((layer, membership) for membership in found),
            refused.append,
        )
        own = access.run("ip -6 -o addr show dev down0 scope link").split("inet6 ")[1].split("/")[0]
    source = (ip_address("10.5.1.1"), ip_address(own))
    try:
        ear = member(visitor, group)
        joined = (VISITOR, Membership(group, True))
        assert until(lambda: joined in heard, opened.read), heard

        def ask() -> None:
            opened.query(*source)  # type: ignore[arg-type]
            opened.read()

        heard.clear()
        assert until(lambda: joined in heard, ask), heard
        ear.close()
        assert until(lambda: (VISITOR, Membership(group, False)) in heard, opened.read), heard
        assert not refused
    finally:
        opened.close()


class Heard:
    """Memberships without sockets, and reports to the role."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.told: list[MembershipChanged] = []
        self.queries: list[str] = []
        self.sockets: dict[str, SimpleNamespace] = {}
        monkeypatch.setattr(memberships, "MembershipSocket", self.socket)
        watch = SimpleNamespace(find=lambda name: Link(name, 1, True, b"", {ip_address("10.5.1.1"): 24}))
        self.events = EventStream("an", folder / "events.jsonl", 1 << 20)
        self.memberships = Memberships(("down0",), cast(LinkWatch, watch), self.events, self.told.append)

    def socket(self, link: str, report: object, refused: object) -> SimpleNamespace:
        made = SimpleNamespace(
            report=report,
            filenos=list,
            read=None,
            close=lambda: None,
            query=lambda *_: self.queries.append(link),
        )
        self.sockets[link] = made
        return made

    def report(self, layer: bytes, *found: Membership) -> None:
        self.sockets["down0"].report(layer, found)


def test_role_is_told_of_changes_of_visitors_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Changes of visitors only: a join once, a leave always; the IPv4 home address names the visitor."""

    async def play() -> None:
        heard = Heard(monkeypatch, tmp_path)
        heard.memberships.open()
        try:
            joined, left = Membership(GROUP4, True), Membership(GROUP4, False)
            heard.report(VISITOR, joined)
            assert not heard.told and heard.events.reasons["membership-no-visitor"] == 1
            asked = len(heard.queries)
            heard.memberships.neighbour(NeighbourEntry("down0", HOME6, VISITOR))
            heard.memberships.neighbour(NeighbourEntry("down0", HOME4, VISITOR))
            assert len(heard.queries) == asked + 1, "who arrives is asked"
            heard.report(VISITOR, joined, Membership(GROUP6, True))
            heard.report(VISITOR, joined)
            heard.report(VISITOR, left)
            heard.report(VISITOR, left)
            assert heard.told == [
                MembershipChanged("down0", HOME4, GROUP4, True),
                MembershipChanged("down0", HOME4, GROUP6, True),
                MembershipChanged("down0", HOME4, GROUP4, False),
                MembershipChanged("down0", HOME4, GROUP4, False),
            ]
            many = [Membership(ip_address(0xE8000000 + n), True) for n in range(memberships.MOST_GROUPS + 5)]
            heard.report(VISITOR, *many)
            assert heard.events.reasons["membership-overflow"] == 6
            for home in (HOME4, HOME6):
                heard.memberships.remove_neighbour(RemoveNeighbour("down0", home))
            heard.report(VISITOR, joined)
            assert heard.events.reasons["membership-no-visitor"] == 2
        finally:
            heard.memberships.close()
            heard.events.close()

    asyncio.run(play())


def test_unreported_groups_are_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memberships, "QUERY_INTERVAL", 0.02)
    monkeypatch.setattr(memberships, "MEMBERSHIP_LIFE", 0.2)

    async def play() -> None:
        heard = Heard(monkeypatch, tmp_path)
        heard.memberships.open()
        try:
            heard.memberships.neighbour(NeighbourEntry("down0", HOME4, VISITOR))
            heard.report(VISITOR, Membership(GROUP4, True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    while len(heard.told) < 2:
                        await asyncio.sleep(0.02)
            assert [membership.joined for membership in heard.told] == [True, False]
        finally:
            heard.memberships.close()
            heard.events.close()

    asyncio.run(play())


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_a_group_is_joined_without_a_socket_and_left(
    link: tuple[Namespace, Namespace], group: Addr, tmp_path: Path
) -> None:
    """The kernel is a member until the change is undone, by this run or by the next one."""
    access, _ = link

    def is_member() -> bool:
        return f" {group}\n" in access.run("ip maddr show dev down0").replace(" users 2", "")

    async def play() -> None:
        for leave in (True, False):
            store = Store(tmp_path / "an.db")
            network = HostNetwork(store)
            await network.open()
            await network.join_group("down0", group)
            assert is_member()
            if leave:
                await network.leave_group("down0", group)
                assert not is_member()
            await network.close()
            await store.close()
        assert is_member(), "a daemon that is killed leaves it joined"
        store = Store(tmp_path / "an.db")
        network = HostNetwork(store)
        await network.open()
        await network.undo_all()
        assert not is_member()
        await network.close()
        await store.close()

    with access.inside():
        asyncio.run(play())
