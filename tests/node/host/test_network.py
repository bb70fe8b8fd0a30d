"""Changes to a host's network are made, survive a lost daemon as a record, and are undone without a trace."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

from locum.node.host.link_watch import Link, LinkWatch
from locum.node.host.network import HostNetwork
from locum.node.store import Store
from tests.node.conftest import Namespace, join

HOME4, HOME6 = ip_address("10.36.0.4"), ip_address("fd36::4")
AGENT, MAC = ip_address("172.16.5.1"), bytes.fromhex("020000000505")


def picture(space: Namespace) -> list[str]:
    """The whole network state of a namespace, as text."""
    return [
        "\n".join(sorted(line.split(" expires")[0].rstrip() for line in space.ip(command).splitlines()))
        for command in (
            "-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "neigh show nud permanent",
            "-o addr show lo",
        )
    ] + [space.run("sysctl", "-a", "-r", "forward|rp_filter|accept_local").stdout]  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def settled(space: Namespace) -> list[str]:
    """The picture once the kernel has made the routes and addresses of the links, which it does a little later."""
    await until(lambda: "fe80::" in space.ip("-6 addr show dev radio0 scope link -tentative"))
    last = picture(space)
    while True:
        await asyncio.sleep(0.3)
        if (now := picture(space)) == last:
            return now
        last = now


async def everything(network: HostNetwork) -> None:
    await network.own_home_address(HOME4)
    await network.own_home_address(HOME6)
    await network.use_agent("radio0", AGENT, MAC, (HOME4, HOME6))
    prefixes = (ip_network("10.99.0.0/24"), ip_network("fd99::/64"))
    await network.receive_for(prefixes, ("radio0",), forwards=True)
    await network.send_home(prefixes, "radio0")


async def test_everything_is_undone(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    here, there = namespace("mn"), namespace("an")
    join(here, "radio0", there, "radio0")
    here.ip("addr add 10.36.0.4/32 dev lo")  # the host had it already: it must stay
    before = await settled(here)
    with here.entered():
        store = Store(tmp_path / "n.db")
        network = HostNetwork(store)
        await network.open()
        await everything(network)
        await everything(network)
        assert "via 172.16.5.1 dev radio0" in here.ip("-4 route show table 436")
        assert "src 10.36.0.4" in here.ip("-4 route get 192.0.2.77")
        assert "src fd36::4" in here.ip("-6 route get 2001:db8::1")
        assert "fe80::434" in here.ip("-6 neigh show dev radio0 nud permanent")
        assert here.ip("-4 route get 10.99.0.7 iif radio0 from 10.1.1.1").startswith("local 10.99.0.7")
        assert "dev radio0 table 434" in here.ip("-4 route get 10.99.0.7")
        here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        assert "dev radio0" in here.ip(
            "-4 route get 172.16.5.9 iif radio0 from 10.99.0.7"
        )  # no martian (R17)
        here.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert "local" in here.ip("-6 route get fd99::7 iif radio0 from 2001:db8::1")
        await network.undo_all()
        await network.close()
        await store.close()
    assert picture(here) == before


async def test_the_record_of_a_killed_run_is_enough_to_undo(
    namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    here, there = namespace("mn"), namespace("an")
    join(here, "radio0", there, "radio0")
    before = await settled(here)
    with here.entered():
        store = Store(tmp_path / "n.db")
        killed = HostNetwork(store)
        await killed.open()
        await everything(killed)
        await killed.close()
        after = HostNetwork(store)
        await after.open()
        await after.own_home_address(HOME4)
        await after.undo_stale()
        assert "10.36.0.4" in here.ip("addr show lo")
        assert "fd36::4" not in here.ip("addr show lo")
        assert "default" not in here.run("ip", "route", "show", "table", "436", check=False).stdout
        await after.undo_all()
        await after.close()
        await store.close()
    assert picture(here) == before


async def test_a_route_comes_back_after_the_link_was_down(
    namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    here, there = namespace("mn"), namespace("an")
    join(here, "radio0", there, "radio0")
    with here.entered():
        store = Store(tmp_path / "n.db")
        network = HostNetwork(store)
        await network.open()
        await network.own_home_address(HOME4)
        await network.use_agent("radio0", AGENT, MAC, (HOME4,))
        here.ip("link set radio0 down")
        here.ip("link set radio0 up")
        await network.use_agent("radio0", AGENT, MAC, (HOME4,))
        assert "via 172.16.5.1 dev radio0" in here.ip("-4 route get 192.0.2.77")
        assert "172.16.5.1" in here.ip("neigh show dev radio0 nud permanent")
        await network.leave_agent("radio0")
        assert "default" not in here.run("ip", "route", "show", "table", "436", check=False).stdout
        here.ip("link del radio0")
        await network.undo_all()
        await network.close()
        await store.close()


async def test_co_located_unbound_sockets_use_the_home_address(
    namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    here, there = namespace("mn"), namespace("an")
    join(here, "radio0", there, "radio0")
    here.ip("link add lc0 type veth peer name lc1")
    here.ip("link set lc0 up")
    here.ip("addr add 10.5.0.4/24 dev radio0")
    here.ip("route add default via 10.5.0.1")
    before = await settled(here)
    with here.entered():
        store = Store(tmp_path / "n.db")
        network = HostNetwork(store)
        await network.open()
        for address in (HOME4, HOME6):
            await network.own_home_address(address)
        await network.use_home_address("radio0", "lc0", (HOME4, HOME6))
        assert "src 10.36.0.4" in here.ip("route get 192.0.2.77")
        assert "via 10.5.0.1" in here.ip("route get 192.0.2.77 from 10.5.0.4")
        assert "src 10.5.0.4" in here.ip("route get 10.5.0.77")
        assert "src fd36::4" in here.ip("-6 route get 2001:db8::1")
        await network.leave_agent("radio0")
        assert "src 10.5.0.4" in here.ip("route get 192.0.2.77")
        await network.undo_all()
        await network.close()
        await store.close()
    assert picture(here) == before


async def test_watch_reports_carrier_addresses_and_removal(
    namespace: Callable[[str], Namespace],
) -> None:
    here, there = namespace("mn"), namespace("an")
    join(here, "radio0", there, "radio0")
    await asyncio.sleep(0.2)
    seen: list[tuple[str, bool | None, int]] = []

    def changed(name: str, link: Link | None) -> None:
        seen.append((name, link.up if link else None, len(link.addresses) if link else 0))

    with here.entered():
        watch = LinkWatch(changed)
        await watch.open()
        link = watch.find("radio0")
        assert link is not None and link.up and len(link.link_layer) == 6
        there.ip("link set radio0 down")
        here.ip("addr add 10.0.0.9/24 dev radio0")
        await until(lambda: ("radio0", False, 1) in [(name, up, min(count, 1)) for name, up, count in seen])
        assert watch.is_local(ip_address("10.0.0.9"))
        there.ip("link set radio0 up")
        await until(lambda: (link := watch.find("radio0")) is not None and link.up)
        here.ip("link del radio0")
        await until(lambda: seen[-1] == ("radio0", None, 0))
        assert watch.find("radio0") is None
        await watch.close()
