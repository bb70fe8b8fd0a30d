"""Packet filters and sysctls that eat packets are found, with a command that ends each; the command works."""

import asyncio
import json
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane import DataPlane
from locum.dataplane.kernel.renewal import Renewal
from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.host import obstacles
from locum.node.host.beside import Beside
from locum.node.host.network import HostNetwork
from locum.node.host.obstacles import find
from locum.node.host.packet_filter import Chain, Rule, drops, of_iptables, of_nft
from locum.node.host.surroundings import Surroundings
from tests.dataplane.one_node import one_node
from tests.node.conftest import Namespace, join

OURS = ("eth0", "lc-ha")


def settings_of(*, is_router: bool) -> Settings:
    """Settings without a role."""
    node = SimpleNamespace(name="one", interfaces=())
    roles = dict.fromkeys(("home_agent", "foreign_agent", "mobile_node", "mnps"))
    return cast(Settings, SimpleNamespace(is_router=is_router, node=node, **roles))


def listing(*rules: list[dict[str, Any]], policy: str = "drop", more: tuple[dict[str, Any], ...] = ()) -> Any:
    place = {"family": "ip", "table": "filter"}
    chain = {"chain": {**place, "name": "FORWARD", "hook": "forward", "policy": policy}}
    written = [{"rule": {**place, "chain": "FORWARD", "expr": expr}} for expr in rules]
    return {"nftables": [chain, *more, *written]}


def arriving(right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": "iifname"}}, "right": right}}


ESTABLISHED = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}
USER = {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}
LEAVING: dict[str, Any] = {
    "match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "eth9"}
}  # by none of ours


def in_user(*expr: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "filter", "chain": "DOCKER-USER", "expr": [*expr]}}


IN_USER = in_user(arriving("eth0"), ACCEPT)
OF_USER = {"rule": {"family": "ip", "table": "filter", "chain": "DOCKER-USER", "expr": [DROP]}}
SET = {
    "set": {"family": "ip", "table": "filter", "name": "ours", "elem": [{"elem": {"val": "eth*"}}, "lc-ha"]}
}


def protocol(key: str, right: str, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}}


def vmap(pairs: object, key: str = "iifname") -> dict[str, Any]:
    data = pairs if isinstance(pairs, str) else {"set": pairs}
    return {"vmap": {"key": {"meta": {"key": key}}, "data": data}}


JUMP: list[dict[str, Any]] = [{"counter": {"packets": 1, "bytes": 2}}, {"jump": {"target": "DOCKER-USER"}}]


@pytest.mark.parametrize(
    ("found", "dropped"),
    [
        (listing(), True),
        (listing(policy="accept"), False),
        (listing([ESTABLISHED, ACCEPT]), True),
        (listing([arriving("eth0"), ACCEPT]), False),
        (listing([arriving("eth1"), ACCEPT]), True),
        (listing([arriving("eth*"), ACCEPT]), False),
        (listing([arriving({"set": ["eth1", "eth0"]}), ACCEPT]), False),
        (listing([arriving("eth0", "!="), ACCEPT]), True),
        (listing([arriving("docker0", "!="), ACCEPT]), False),
        (listing([arriving("eth0"), ESTABLISHED, ACCEPT]), True),
        (listing([{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "lc-ha"}}, ACCEPT]), False),
        (listing([{"reject": {"type": "icmpx"}}], policy="accept"), True),
        (listing([ESTABLISHED, DROP], policy="accept"), False),
        (listing([ACCEPT], [DROP]), False),
        (listing(JUMP, more=(USER, IN_USER)), False),
        (listing(JUMP, more=(USER,)), True),
        (listing([{"xt": None}, ACCEPT]), True),
        (listing([protocol("nfproto", "ipv4"), ACCEPT]), False),
        (listing([protocol("protocol", "ip6"), ACCEPT]), True),
        (listing([protocol("nfproto", "ipv4", "!="), DROP], policy="accept"), False),
        (listing([vmap([["eth1", ACCEPT], ["eth0", {"jump": {"target": "DOCKER-USER"}}]])], [DROP], policy="accept", more=(USER, IN_USER)), False),
        (listing([vmap([["eth1", ACCEPT], ["eth0", {"jump": {"target": "DOCKER-USER"}}]])], policy="accept", more=(USER, OF_USER)), True),
        (listing([vmap([["eth1", {"jump": {"target": "DOCKER-USER"}}]])], policy="accept", more=(USER, OF_USER)), False),
        (listing([vmap([["lc-ha", ACCEPT]], "oifname")]), False),
        (listing([ESTABLISHED, vmap([["eth0", DROP]])], policy="accept"), False),
        (listing([vmap("@unread")]), True),
        (listing([arriving("@ours"), DROP], policy="accept", more=(SET,)), True),
        (listing([arriving("@ours"), ACCEPT], more=(SET,)), False),
        (listing([arriving("@ours", "!="), DROP], policy="accept", more=(SET,)), False),
        (listing([arriving("@others"), DROP], policy="accept", more=(SET,)), False),
        (listing([LEAVING, ACCEPT]), True),
        (listing([{"match": {**LEAVING["match"], "op": "!=", "right": "lc-ha"}}, ACCEPT]), True),
        (listing([arriving("@mine", "!="), ACCEPT]), True),
        (listing(JUMP, more=(USER, in_user({"return": None}), IN_USER)), True),
        (listing([{"goto": {"target": "DOCKER-USER"}}], [ACCEPT], more=(USER,)), True),
    ],
)  # fmt: skip
def test_chains_of_nftables(found: Any, dropped: bool) -> None:
    table = of_nft(found)["ip", "filter"]
    assert drops(table, table["FORWARD"], "eth0", OURS) is dropped


@pytest.mark.parametrize(
    ("rules", "dropped"),
    [
        ("", True),
        ("-A FORWARD -i eth0 -j ACCEPT", False),
        ("-A FORWARD -i eth+ -j ACCEPT", False),
        ("-A FORWARD ! -i eth0 -j ACCEPT", True),
        ("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", True),
        ('-A FORWARD -m comment --comment "no -j ACCEPT" -j ACCEPT', True),
        ("-A FORWARD -o lc-ha -j ACCEPT", False),
        ("-A FORWARD ! -o lc-ha -j ACCEPT", True),
        ("-N MINE\n-A FORWARD -g MINE\n-A FORWARD -j ACCEPT", True),
        ("-N MINE\n-A FORWARD -j MINE\n-A MINE -i eth0 -j ACCEPT", False),
        ("-A FORWARD -j LOG --log-prefix drop\n-A FORWARD -j ACCEPT", False),
        ("-A FORWARD -j REJECT --reject-with icmp-port-unreachable\n-A FORWARD -j ACCEPT", True),
    ],
)
def test_chains_of_iptables(rules: str, dropped: bool) -> None:
    table = of_iptables(f"-P INPUT ACCEPT\n-P FORWARD DROP\n{rules}", "ip")
    assert drops(table, table["FORWARD"], "eth0", OURS) is dropped


def test_circle_of_chains_ends() -> None:
    table = {"a": Chain("ip", "t", "a", "forward", "drop", [Rule("jump", "a")])}
    assert drops(table, table["a"], "eth0", OURS)


async def test_forward_chain_is_found_and_opened(namespace: Callable[[str], Namespace]) -> None:
    """The command that comes with the obstacle ends it."""
    here, there = namespace("host"), namespace("other")
    join(here, "eth0", there, "eth0")
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        here.run("sysctl", "-qw", f"{setting}=1")
    with here.entered():
        assert await find(["eth0"], "lc-ha", forwards=True) == []
        here.run("nft", "add table inet guard; add chain inet guard transit { type filter hook forward priority 0; policy drop; }")  # fmt: skip
        here.run("nft", "add rule inet guard transit ct state established accept")
        (obstacle,) = await find(["eth0"], "lc-ha", forwards=True)
        assert obstacle.where == "nftables: inet guard transit"
        assert await find(["eth0"], "lc-ha", forwards=False) == []
        here.run("sh", "-c", obstacle.remedy)
        assert await find(["eth0"], "lc-ha", forwards=True) == []


@pytest.mark.parametrize(
    ("table", "dropped"),
    [
        ('chain z { drop; }\n chain f { HOOK accept; iifname vmap { "eth0" : jump z }; }', True),
        ('chain z { drop; }\n map m { type ifname : verdict; elements = { "eth0" : jump z }; }\n chain f { HOOK accept; iifname vmap @m; }', True),
        ('set s { type ifname; elements = { "eth0" }; }\n chain f { HOOK accept; iifname @s drop; }', True),
        ('set s { type ifname; flags interval; elements = { "et*" }; }\n chain f { HOOK drop; iifname @s accept; iifname "lc-ha" accept; }', False),
        ("chain f { HOOK drop; meta nfproto ipv4 accept; meta nfproto ipv6 accept; }", False),
        ("chain f { HOOK drop; meta nfproto ipv4 accept; }", True),
        ("flags dormant; chain f { HOOK drop; }", False),
    ],
)  # fmt: skip
async def test_tables_as_nft_lists_them(
    table: str, dropped: bool, namespace: Callable[[str], Namespace]
) -> None:
    """Verdict maps, named sets and maps, conditions on the IP version, and tables that the kernel does not use."""
    here = namespace("host")
    whole = table.replace("HOOK", "type filter hook forward priority 0; policy") + "\n"
    here.run("nft", f"add table inet guard {{ {whole} }}")
    with here.entered():
        found = await find(["eth0"], "lc-ha", forwards=True, running=False)
    assert [obstacle.where for obstacle in found] == ["nftables: inet guard f"] * dropped


async def test_filter_that_cannot_be_read_is_told(
    namespace: Callable[[str], Namespace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that fails or hangs; meanwhile a known obstacle of the same place is not told as gone."""
    here = namespace("host")
    program = tmp_path / "nft"
    told: list[dict[str, Any]] = []
    events = EventStream("ha")
    events.subscribe(lambda line: told.append(json.loads(line)))
    settings = settings_of(is_router=True)
    renewal = SimpleNamespace(missing="")
    plane = cast(DataPlane, SimpleNamespace(interfaces=("lo",), device="lc-ha", renewal=renewal))
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        here.run("sysctl", "-qw", f"{setting}=1")
    here.run("nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; policy drop; }")
    with here.entered():
        surroundings = Surroundings(settings, plane, events)
        (known,) = await surroundings.look()
        program.write_text('#!/bin/sh\necho "no memory" >&2\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setattr(obstacles, "_PATH", str(tmp_path))
        unread, kept = await surroundings.look()
        assert kept == known and unread.where == "nftables" and "(no memory)" in unread.problem
        assert "nft -t list chains" in unread.remedy
        program.write_text(
            '#!/bin/sh\ncase "$*" in *chains*) exec /usr/sbin/nft "$@";; *) exec sleep 1000;; esac\n'
        )
        output = obstacles._output

        async def impatient(*command: str) -> str:
            monkeypatch.setattr(obstacles, "_PATIENCE", 0.1 if "table" in command else 600.0)
            return await output(*command)

        monkeypatch.setattr(obstacles, "_output", impatient)
        unread, kept = await surroundings.look()
        assert kept == known and unread.where == "nftables: ip t" and "0.1 seconds" in unread.problem
        assert "nft -t list table ip t" in unread.remedy
        monkeypatch.undo()
        assert await surroundings.look() == (known,)
    assert [event["kind"] for event in told] == [
        "obstacle-found", "obstacle-found", "obstacle-found", "obstacle-gone", "obstacle-gone",
    ]  # fmt: skip


async def test_elements_of_sets_of_addresses_are_not_read(
    namespace: Callable[[str], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blocklist with many elements would take nft seconds."""
    here = namespace("host")
    here.run("nft", "add table ip t; add set ip t bad { type ipv4_addr; elements = { 10.77.66.55 }; }")
    here.run("nft", "add chain ip t c { type filter hook forward priority 0; policy drop; }")
    read: list[str] = []
    output = obstacles._output

    async def listened(*command: str) -> str:
        read.append(await output(*command))
        return read[-1]

    monkeypatch.setattr(obstacles, "_output", listened)
    with here.entered():
        assert len(await find(["eth0"], "lc-ha", forwards=True, running=False)) == 1
    assert read and not any("10.77.66.55" in text for text in read)


async def test_loose_filter_without_a_route_home_is_told(namespace: Callable[[str], Namespace]) -> None:
    """A loose filter drops packets from a home address that no route leads to; with a route it drops none."""
    here, there = namespace("host"), namespace("other")
    join(here, "eth0", there, "eth0")
    here.ip("addr add 10.1.0.1/24 dev eth0")
    for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        here.run("sysctl", "-qw", f"net.{setting}=1")
    homes = [IPv4Address("10.36.0.4"), IPv4Address("10.36.0.5"), IPv4Address("10.1.0.9")]

    async def look() -> list[obstacles.Obstacle]:
        return await find(["eth0"], "lc-ha", forwards=True, homes=homes)

    with here.entered():
        here.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
        assert await look() == []
        here.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.eth0.rp_filter=2")
        (obstacle,) = [found for found in await look() if found.where == "net.ipv4.conf.all.rp_filter"]
        assert "10.36.0.5" in obstacle.problem and "10.1.0.9" not in obstacle.problem
        here.ip("route add default via 10.1.0.2")
        assert all(found.where != obstacle.where for found in await look())
        assert await find(["eth0"], "lc-ha", forwards=True, running=False, homes=homes) == []
        here.ip("route del default")
        assert await find(["eth0"], "lc-ha", forwards=True, running=False, homes=homes) == [obstacle]
        here.run("sh", "-c", obstacle.remedy.partition(" (")[0])
        here.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=0")  # the keeper does that then
        assert await look() == []


async def test_sysctls_are_found_and_set(namespace: Callable[[str], Namespace]) -> None:
    here, there = namespace("host"), namespace("other")
    join(here, "eth0", there, "eth0")
    here.run(
        "sysctl",
        "-qw",
        "net.ipv4.conf.all.rp_filter=1",
        "net.ipv4.ip_forward=0",
        "net.ipv6.conf.all.forwarding=1",
    )
    with here.entered():
        found = await find(["eth0"], "lc-ha", forwards=True)
        assert {obstacle.where for obstacle in found} >= {
            "net.ipv4.conf.eth0.rp_filter",
            "net.ipv4.ip_forward",
        }
        assert await find(["eth0"], "lc-ha", forwards=True, running=False) == []
        for obstacle in found:
            if "lc-ha" not in obstacle.where:
                here.run("sh", "-c", obstacle.remedy)
        left = await find(["eth0"], "lc-ha", forwards=True)
    assert [obstacle.where for obstacle in left] == ["net.ipv4.conf.lc-ha.rp_filter"]


async def test_missing_program_is_told(
    namespace: Callable[[str], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without nft the kernel is asked if there are chains; none are no obstacle."""
    here = namespace("host")
    monkeypatch.setattr(obstacles, "_PATH", "/nowhere")
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        here.run("sysctl", "-qw", f"{setting}=1")
    with here.entered():
        assert await find([], "lc-ha", forwards=True) == []
        here.run("nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; }")
        (obstacle,) = await find([], "lc-ha", forwards=True)
    assert "nft is missing" in obstacle.problem and obstacle.remedy == "apt-get install nftables"


async def test_obstacles_that_come_and_go_are_told(namespace: Callable[[str], Namespace]) -> None:
    """At the start and while a node runs: one event for each that comes or goes."""
    here = namespace("host")
    here.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    told: list[dict[str, Any]] = []
    events = EventStream("ha")
    events.subscribe(lambda line: told.append(json.loads(line)))
    settings = settings_of(is_router=True)
    renewal = SimpleNamespace(missing="")
    plane = cast(DataPlane, SimpleNamespace(interfaces=("lo",), device="lc-ha", renewal=renewal))
    with here.entered():
        surroundings = Surroundings(settings, plane, events)
        here.run(
            "nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; policy drop; }"
        )
        surroundings.open()
        async with asyncio.timeout(60):
            while not told:
                await asyncio.sleep(0.02)
        (obstacle,) = await surroundings.look()
        here.run("nft", "flush ruleset")
        assert await surroundings.look() == ()
        await surroundings.close()
    assert [event["kind"] for event in told] == ["obstacle-found", "obstacle-gone"]
    assert told[0]["detail"]["remedy"] == obstacle.remedy


async def test_kernel_without_segment_routing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node works there, but loses segmented packets between tunnels of different shapes."""

    def refuse(*_: object) -> int:
        raise NetlinkError(95, "Operation not supported")

    monkeypatch.setattr(Renewal, "_make", refuse)
    settings = settings_of(is_router=False)
    with one_node(tmp_path) as node:
        beside = Beside(settings, node.plane, cast(HostNetwork, SimpleNamespace()), EventStream("one"))
        lacking = [found for found in await beside.check() if found["where"] == "kernel: segment routing"]
        assert len(lacking) == 1 and "Operation not supported" in lacking[0]["problem"]
        assert any("CONFIG_IPV6_SEG6_LWTUNNEL" in said for said in beside.troubles()["obstacles"])


async def test_kernel_without_ipv6_is_told_before_a_node_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(is_router=False)
    assert await obstacles.examine(settings) == []
    monkeypatch.setattr(obstacles, "_SEGMENT_ROUTING", Path("/nowhere"))
    (lacking,) = await obstacles.examine(settings)
    assert "no IPv6" in lacking.problem and "ipv6.disable" in lacking.remedy


def test_commands_fit_the_tool() -> None:
    """Docker keeps rules of DOCKER-USER; chains of iptables take no rules of nft."""
    docker = of_nft(listing(more=(USER,)))["ip", "filter"]
    assert obstacles._remedy(docker, docker["FORWARD"], ["eth0", "lc-ha"], "nft") == (
        "iptables -I DOCKER-USER -i eth0 -j ACCEPT && iptables -I DOCKER-USER -i lc-ha -j ACCEPT"
    )
    legacy = of_iptables("-P FORWARD DROP", "ip6")
    command = obstacles._remedy(legacy, legacy["FORWARD"], ["eth0"], "ip6tables-legacy")
    assert command == "ip6tables-legacy -I FORWARD -i eth0 -j ACCEPT"
    with pytest.raises(obstacles._UnreadError, match="unknown output"):
        obstacles._json("not JSON")
