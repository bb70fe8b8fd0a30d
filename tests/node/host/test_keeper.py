"""Another program takes a node's settings away: they are made again within a second, and told of."""

import asyncio
import json
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pytest import MonkeyPatch

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.host import lost
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.layout import maps
from locum.lab.programs import foreign_program
from locum.node.events import EventStream
from locum.node.host.keeper import Keeper
from locum.node.host.network import HostNetwork
from locum.node.store import Store
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import InstallOutbound, LocalEndpoint, OutboundEntry
from tests.dataplane.namespaces import bpffs
from tests.node.conftest import Namespace, join

HOME = ip_address("10.36.0.4")
AGENT, MAC = ip_address("172.16.5.1"), bytes.fromhex("020000000505")
PREFIX = ip_network("10.99.0.0/24")


class Host:
    """A host with everything that a node sets on it."""

    def __init__(self, space: Namespace, keeper: Keeper, network: HostNetwork, plane: DataPlane) -> None:
        self.space, self.keeper, self.network, self.plane = space, keeper, network, plane
        self.events: list[dict[str, Any]] = []

    def picture(self) -> str:
        found = [
            self.space.ip(command)
            for command in (
                "-4 rule",
                "-6 rule",
                "-4 route show table all",
                "neigh show nud permanent",
                "-o addr show lo",
            )
        ]
        links = ("all", "radio0", "lo", "lc-mn")
        names = [
            f"net.ipv4.conf.{link}.{name}"
            for link in links
            for name in ("forwarding", "accept_local", "rp_filter")
        ]
        lines = "".join([*found, self.space.run("sysctl", *names).stdout]).splitlines()
        return "\n".join(sorted(lines))

    def restored(self, since: int) -> set[str]:
        """Settings that were made again, as the events from number `since` on say."""
        told = [event for event in self.events[since:] if event["kind"] == "setting-restored"]
        return {event["detail"]["setting"] for event in told}

    async def comes_back(self, command: str, wanted: str) -> float:
        """Seconds until the command that takes something away has been undone."""
        self.space.run("sh", "-c", command)
        begin = time.monotonic()
        while self.picture() != wanted:
            assert time.monotonic() < begin + 20, f"{command}:\n{self.picture()}\nis not\n{wanted}"
            await asyncio.sleep(0.01)
        return time.monotonic() - begin


@asynccontextmanager
async def host(namespace: Callable[[str], Namespace], folder: Path) -> AsyncIterator[Host]:
    here, there = namespace("mn"), namespace("an")
    join(here, "radio0", there, "radio0")
    here.ip("addr add 172.16.5.4/24 dev radio0")
    (folder / "bpf").mkdir()
    with bpffs(folder / "bpf") as root, here.entered():
        store = Store(folder / "n.db")
        plane = DataPlane.open("mn", ["radio0"], bpf_root=root, limits=Limits(bindings=1024))
        network = HostNetwork(store, plane.inherit)
        events = EventStream("mn")
        keeper = Keeper(plane, network, events)
        made = Host(here, keeper, network, plane)

        events.subscribe(lambda line: made.events.append(json.loads(line)))
        await network.open()
        network.place(plane.number)
        await network.own_home_address(HOME)
        await network.use_agent("radio0", AGENT, MAC, (HOME,))
        await network.receive_for([PREFIX], ["radio0"], forwards=True)
        await network.visitor("radio0", ip_address("10.77.0.1"), MAC)
        tunnel = Tunnel(ip_address("172.16.5.4"), ip_address("10.50.0.1"))
        plane.apply([LocalEndpoint(tunnel.source), InstallOutbound(OutboundEntry(HOME, None, tunnel))])
        keeper.open()
        try:
            yield made
        finally:
            await keeper.close()
            await network.undo_all()
            await network.close()
            plane.remove()
            await store.close()


LOSSES = {
    "rule": "for p in 100 101 435 436 437; do ip rule del pref $p; done; ip -6 rule del pref 100",
    "route": "ip route flush table 436 proto kernel; ip route del 10.77.0.1/32; ip route flush table 43420 proto kernel; "
    "ip route flush table 435 type local proto kernel",
    "address": "ip addr del 10.36.0.4/32 dev lo",
    "neighbour": "ip neigh del 172.16.5.1 dev radio0; ip neigh del 10.77.0.1 dev radio0",
    "device": "ip link set lc-mn down",
    "sysctl": "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.radio0.accept_local=0 net.ipv4.conf.all.rp_filter=1",
}  # fmt: skip


async def test_losses_are_made_good(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    """Rules, routes, addresses, neighbours, the device, sysctls and programs; each with an event."""
    async with host(namespace, tmp_path) as made:
        wanted = made.picture()
        for setting, command in LOSSES.items():
            before = len(made.events)
            if setting == "sysctl":
                wanted = wanted.replace("all.rp_filter = 0", "all.rp_filter = 1")
                wanted = wanted.replace("radio0.rp_filter = 0", "radio0.rp_filter = 2")
                wanted = wanted.replace("lc-mn.rp_filter = 0", "lc-mn.rp_filter = 2")
            await made.comes_back(command, wanted)
            async with asyncio.timeout(30):
                while setting not in made.restored(before):
                    await asyncio.sleep(0.01)
        assert not [event for event in made.events if event["kind"] == "setting-lost"]
        foreign_program.attach_first(
            foreign_program.load(b"foreign"), made.plane._attachments.interfaces["radio0"], 46
        )
        async with asyncio.timeout(60):
            while "program-restored" not in {event["kind"] for event in made.events}:
                await asyncio.sleep(0.02)
        assert not list(made.plane.displaced())


async def test_own_changes_are_no_losses(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    """A setting that the node itself gives up, or changes, stays so, and is no event."""
    async with host(namespace, tmp_path) as made:
        for _ in range(3):
            await made.network.leave_agent("radio0")
            await made.network.remove_visitor("radio0", ip_address("10.77.0.1"))
            await made.network.use_agent("radio0", AGENT, MAC, (HOME,))
        made.space.ip("link set radio0 down")  # its routes and neighbours are for `link_up`
        await made.network.disown_home_address(HOME)
        await asyncio.sleep(1.2)
        assert "10.36.0.4" not in made.space.ip("addr show lo")
        assert "10.77.0.1" not in made.space.ip("route show table all")
        assert not made.events


async def test_contest_is_told_and_ends(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    """A rule that is removed again and again is left alone for a while, and comes back."""
    async with host(namespace, tmp_path) as made:
        wanted = made.picture()
        for _ in range(5):
            await made.comes_back("ip -4 rule del pref 437", wanted)
        assert made.keeper.contested() == ["rule 437: lookup 436"]
        await made.comes_back("ip -4 rule del pref 437", wanted)
        assert "setting-contested" in {event["kind"] for event in made.events}
        # Some kernels do not tell of a route that goes with its source address.
        await made.keeper.close()
        made.space.ip("addr del 10.36.0.4/32 dev lo")
        assert await made.network.make_again(lost.address_key(str(HOME)))
        assert made.picture() == wanted


def test_notifications_are_read_and_junk_is_left_out() -> None:
    """The key of a deleted rule as the kernel tells of it; cut and damaged messages have none."""
    message = bytes.fromhex(
        "4c00000021000000000000000000000002200000fc0000010000000008000f00b4010000"
        "0800060065000000080001000a24000408000a001400c01005001500020000000700030065746800"
    )
    message = len(message).to_bytes(4, "little") + message[4:]
    (key,) = lost.losses(message)
    assert key[:4] == ("rule", 2, 101, 436)
    assert key[4] == 0x10C00014 and key[5] == "eth" and key[7] == bytes((10, 36, 0, 4))
    for cut in range(len(message)):
        assert list(lost.losses(message[:cut])) == []
    for position in range(16, len(message)):
        for value in (0, 1, 255):
            list(lost.losses(message[:position] + bytes((value,)) + message[position + 1 :]))


async def test_missed_notifications(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    """Everything is looked at where the kernel has left notifications out."""
    async with host(namespace, tmp_path) as made:
        wanted = made.picture()
        [losses] = made.keeper._sockets
        asyncio.get_running_loop().remove_reader(losses.fileno())
        made.space.run("ip", "rule", "del", "pref", "436")
        losses.read()
        made.keeper._read(losses)
        await asyncio.sleep(0.3)
        assert made.picture() != wanted
        losses.read = lambda: (set(), True)  # type: ignore[method-assign]
        made.keeper._read(losses)
        await made.comes_back("true", wanted)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_failed_look_is_not_the_last(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    """Nothing can be looked at for a while: that is told once for each reason, and settings are kept afterwards."""

    async def failed(made: Host) -> None:
        before = made.keeper._events.reasons["look-failed"]
        async with asyncio.timeout(60):
            while made.keeper._events.reasons["look-failed"] < before + 3:
                await asyncio.sleep(0.02)

    def refuse(**_: bool) -> None:
        raise DataPlaneError("no programs can be seen")

    async with host(namespace, tmp_path) as made:
        wanted = made.picture()
        with no_descriptors():
            await failed(made)
        with MonkeyPatch.context() as patch:
            patch.setattr(made.plane, "displaced", refuse)
            await failed(made)
        told = [event["detail"] for event in made.events if event["kind"] == "look-failed"]
        assert {"of": "programs", "reason": "no programs can be seen"} in told
        assert [detail["of"] for detail in told].count("sysctls") == 1, told
        await made.comes_back("sysctl -qw net.ipv4.ip_forward=0", wanted)
        assert all(not task.done() for task in made.keeper._tasks)


async def test_renewal_is_kept(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    """The device that renews segmentation state: down, down and up, without its routes, away, without its program.

    Meanwhile the programs do not use it.
    """
    async with host(namespace, tmp_path) as made:
        renewal = made.plane.renewal

        def picture() -> list[object]:
            links = [made.space.ip(f"-br link show {name}") for name in ("lr-mn", "lp-mn")]
            routes = made.space.ip("-6 route show table main dev lr-mn")
            words = sorted(word for text in links for word in text.split()[-1:])
            return [words, [to in routes for to in ("fe80::4c01", "fe80::4c02")], used() == renewal.ifindex]

        def used() -> int:
            value = made.plane._object.maps["renewal"].get(bytes(4))
            assert value is not None
            return int(maps.RENEWAL.unpack(value)[0])

        whole = picture()
        assert used() and whole[1:] == [[True, True], True]
        for command in (
            "ip link set lr-mn down",
            "ip link set lp-mn down",
            "ip link set lr-mn down; ip link set lr-mn up",
            "ip -6 route flush dev lr-mn",
            "ip link del lr-mn",
        ):
            before = len(made.events)
            counted = made.keeper._events.reasons["renewal-lost"]
            made.space.run("sh", "-c", command)
            async with asyncio.timeout(60):
                while "setting-restored" not in {event["kind"] for event in made.events[before:]}:
                    await asyncio.sleep(0.01)
            assert picture() == whole and not renewal.missing, command
            assert made.keeper._events.reasons["renewal-lost"] > counted
        assert not list(made.plane.displaced())

        foreign_program.attach_first(foreign_program.load(b"foreign"), renewal.ifindex, 47)
        async with asyncio.timeout(60):
            while "program-restored" not in {event["kind"] for event in made.events}:
                await asyncio.sleep(0.02)
        assert not list(made.plane.displaced()) and picture() == whole

        await made.keeper.close()
        for key in renewal.kept():
            if key[0] == "device":  # a route's notification is believed
                assert not made.plane.kept.lost(key) and used()
                made.space.run("sh", "-c", "ip link set lr-mn down; ip link set lp-mn down")
            assert made.plane.kept.lost(key) and used() == 0 and renewal.missing
            assert made.plane.kept.make_again(key) is (key[0] == "device")
            assert used() == renewal.ifindex and not renewal.missing


def test_losses_are_read_in_turns(namespace: Callable[[str], Namespace]) -> None:
    """A flood of losses that are none of ours does not keep the reader: so many messages at once, and none is left out."""
    space = namespace("flood")
    with space.entered():
        listening = lost.LossSocket()
    try:
        for what in ("add", "del"):
            commands = "".join(f"rule {what} pref {number} table 9\\n" for number in range(1000, 1150))
            space.run("sh", "-c", f"printf '{commands}' | ip -batch -")
        turns = [listening.read()[0] for _ in range(4)]
        assert [len(keys) for keys in turns] == [64, 64, 22, 0]
    finally:
        listening.close()
