"""Filters before this host's sockets, and before the programs' own way, are found by real nft, with the command that ends each."""

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from locum.node.config.settings import Settings
from locum.node.host.arrivals import ARRIVALS, expecting
from locum.node.host.obstacles import find
from locum.node.host.packet_filter import Transit, drops_packet, of_iptables
from tests.node.conftest import Namespace, join

REGISTRATIONS, IPIP, GRE = ("UDP port 434", "protocol 4)", "protocol 47")
ALL = {REGISTRATIONS, IPIP, GRE}
INPUT, RAW = "type filter hook input priority 0; policy", "type filter hook prerouting priority -300; policy"
INGRESS = "type filter hook ingress device {} priority 0; policy"


@pytest.mark.parametrize(
    ("family", "chain", "dropped"),
    [
        ("inet", f"{INPUT} drop; ct state established,related accept; tcp dport 22 accept;", ALL),
        ("inet", f"{INPUT} accept;", set()),
        ("inet", f"{INPUT} drop; udp dport 434 accept; ip protocol {{ 4, 47 }} accept;", set()),
        ("inet", f"{INPUT} drop; ip saddr 10.9.0.0/24 udp dport 434 accept; meta l4proto 4 accept;", {GRE}),
        ("inet", f"{INPUT} drop; udp dport {{ 80, 400-500 }} accept; meta l4proto vmap {{ 4 : accept, 47 : accept }};", set()),
        ("inet", f"{INPUT} drop; udp dport != 434 accept; meta l4proto != {{ 4, 17 }} accept;", {REGISTRATIONS, IPIP}),
        ("inet", f'{INPUT} drop; iifname "eth1" accept;', ALL),
        ("inet", f'{INPUT} drop; iifname "eth0" accept;', set()),
        ("inet", f'{INPUT} drop; oifname "eth0" accept;', ALL),
        ("ip", f"{INPUT} accept; udp dport 434 drop;", {REGISTRATIONS}),
        ("ip", f"{INPUT} accept; udp dport vmap {{ 53 : accept, 434 : drop }};", {REGISTRATIONS}),
        ("ip", f"{INPUT} accept; udp dport 434 limit rate over 900/second drop;", set()),
        ("ip6", f"{INPUT} drop;", set()),
        ("ip", f"{RAW} accept; meta l4proto 47 drop;", {GRE}),
        ("inet", f"{RAW} drop; tcp dport 22 accept;", ALL),
        ("netdev", f"{INGRESS.format('eth0')} accept; ip protocol 4 drop;", {IPIP}),
        ("netdev", f"{INGRESS.format('eth0')} drop; arp operation request accept;", ALL),
        ("netdev", f"{INGRESS.format('lo')} drop;", set()),
        ("netdev", f"{INGRESS.format('{ lo, eth0 }').replace('device', 'devices =')} drop;", ALL),
        ("inet", f"{INGRESS.format('eth0')} accept; udp dport 434 drop;", {REGISTRATIONS}),
    ],
)  # fmt: skip
async def test_filter_before_sockets_is_found_and_opened(
    family: str, chain: str, dropped: set[str], namespace: Callable[[str], Namespace]
) -> None:
    here, there = namespace("host"), namespace("other")
    join(here, "eth0", there, "eth0")
    here.run("nft", f"add table {family} guard {{ chain c {{ {chain}\n }}\n }}")
    with here.entered():
        found = await find(["eth0"], "lc-ha", forwards=False, expected_on=["eth0"])
        assert {kind for kind in ALL for obstacle in found if kind in obstacle.problem} == dropped
        assert [obstacle.where for obstacle in found] == [f"nftables: {family} guard c"] * bool(dropped)
        assert await find(["eth0"], "lc-ha", forwards=False) == []
        for obstacle in found:
            here.run("sh", "-c", obstacle.remedy)
        assert await find(["eth0"], "lc-ha", forwards=False, expected_on=["eth0"]) == []


@pytest.mark.parametrize(
    ("family", "chain"),
    [("ip", f"{RAW} drop;"), ("netdev", f"{INGRESS.format('eth0')} drop;")],
)
async def test_filter_before_forwarding_is_found_and_opened(
    family: str, chain: str, namespace: Callable[[str], Namespace]
) -> None:
    here, there = namespace("host"), namespace("other")
    join(here, "eth0", there, "eth0")
    here.run("nft", f"add table {family} guard {{ chain c {{ {chain}\n }}\n }}")
    with here.entered():
        (obstacle,) = await find(["eth0"], "lc-ha", forwards=True, running=False, expected_on=["eth0"])
        assert "packets in transit that arrive on eth0" in obstacle.problem
        assert REGISTRATIONS not in obstacle.problem  # they are among them
        here.run("sh", "-c", obstacle.remedy)
        assert await find(["eth0"], "lc-ha", forwards=True, running=False, expected_on=["eth0"]) == []


async def test_remedy_lets_registrations_in(namespace: Callable[[str], Namespace]) -> None:
    """Real packets agree: none comes before the command, and each after it."""
    here, there = namespace("host"), namespace("other")
    join(here, "eth0", there, "eth0")
    here.ip("addr add 10.1.0.1/24 dev eth0")
    there.ip("addr add 10.1.0.2/24 dev eth0")
    here.run("nft", f"add table inet guard {{ chain c {{ {INPUT} drop; ip protocol icmp accept;\n }}\n }}")
    with here.entered():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("10.1.0.1", 434))
        (obstacle,) = await find(["eth0"], "lc-ha", forwards=False, expected_on=["eth0"])
    with there.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listener, sender:
        sender.sendto(b"before", ("10.1.0.1", 434))
        there.run("ping", "-c", "1", "-W", "5", "10.1.0.1")  # it came after the datagram
        here.run("sh", "-c", obstacle.remedy)
        sender.sendto(b"after", ("10.1.0.1", 434))
        listener.settimeout(20)
        assert listener.recv(100) == b"after"


@pytest.mark.parametrize(
    ("rules", "dropped"),
    [
        ("-P INPUT DROP", ALL),
        ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 434 -j ACCEPT\n-A INPUT -p gre -j ACCEPT", {IPIP}),
        ("-P INPUT DROP\n-A INPUT -p 4 -j ACCEPT\n-A INPUT -p 47 -j ACCEPT\n-A INPUT -p udp -m udp --dport 400:500 -j ACCEPT", set()),
        ("-P INPUT DROP\n-A INPUT -s 10.9.0.1/32 -p udp -m udp --dport 434 -j ACCEPT", {IPIP, GRE}),
        ("-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 434 -j ACCEPT", ALL),
        ("-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 434 -j DROP", {REGISTRATIONS}),
        ("-P INPUT ACCEPT\n-A INPUT ! -p udp -j DROP", {IPIP, GRE}),
        ("-P INPUT ACCEPT\n-A INPUT -p udp -m limit --limit 1/s -j DROP", set()),
    ],
)  # fmt: skip
def test_chains_of_iptables_before_sockets(rules: str, dropped: set[str]) -> None:
    table = of_iptables(rules, "ip")
    found = {
        kind
        for kind in ALL
        for arrival in ARRIVALS
        if kind in arrival.name
        and drops_packet(table, table["INPUT"], Transit("eth0", (), 4, arrival.protocol, arrival.port))
    }
    assert found == dropped


def role(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(configuration=SimpleNamespace(**fields))


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({"home_agent": role()}, ("eth0", "eth1")),
        ({"foreign_agent": SimpleNamespace(links=("eth1",))}, ("eth0",)),
        ({"mobile_node": role(colocated=True, links=("eth1",))}, ("eth1",)),
        ({"mobile_node": role(colocated=False, links=("eth1",))}, ()),
        ({"mnps": role(registration=None)}, ()),
        ({"mnps": role(registration=SimpleNamespace(colocated=True, links=("eth0",)))}, ("eth0",)),
    ],
)
def test_interfaces_on_which_sockets_expect_packets(
    roles: dict[str, object], expected: tuple[str, ...]
) -> None:
    """Access links have packet sockets, and whole tunnel packets never come to a filter."""
    none = dict.fromkeys(("home_agent", "foreign_agent", "mobile_node", "mnps"))
    node = SimpleNamespace(interfaces=("eth0", "eth1"))
    assert expecting(cast(Settings, SimpleNamespace(node=node, **{**none, **roles}))) == expected
