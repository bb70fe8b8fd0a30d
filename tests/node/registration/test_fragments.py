"""Tunnel packets that a router has fragmented come out whole, and only from permitted sources.

cn -- ha 10.2.0.1 -- middle ==MTU 1000== 10.4.0.2 an (10.2.0.2 on lo) ~radio~ mn (10.36.0.4)
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from tests.node.conftest import Namespace, join
from tests.node.test_real_nodes import World

_SIZE = 1350  # bytes of a datagram: too much for the narrow link, once it is in the tunnel


class NarrowWorld(World):
    """A router with a narrow link stands between home agent and access node."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace]) -> None:
        self.middle = make("middle")
        super().__init__(folder, make)

    def connect_agents(self, ha: Namespace, an: Namespace) -> None:
        join(ha, "eth1", self.middle, "home")
        join(self.middle, "narrow", an, "eth0")
        self.middle.run("sysctl", "-q", "net.ipv4.ip_forward=1")
        for commands, space in (
            (("addr add 10.2.0.1/24 dev eth1", "route add 10.2.0.2/32 via 10.2.0.254"), ha),
            (
                (
                    "addr add 10.2.0.254/24 dev home",
                    "addr add 10.4.0.1/24 dev narrow",
                    "link set narrow mtu 1000",
                    "route add 10.2.0.2/32 via 10.4.0.2",
                ),
                self.middle,
            ),
            (
                (
                    "addr add 10.2.0.2/32 dev lo",
                    "addr add 10.4.0.2/24 dev eth0",
                    "link set eth0 mtu 1000",
                    "route add default via 10.4.0.1 src 10.2.0.2",
                ),
                an,
            ),
        ):
            for command in commands:
                space.ip(command)


@pytest.fixture
def narrow(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[NarrowWorld]:
    made = NarrowWorld(tmp_path, namespace)
    yield made
    made.close()


def drops(world: World, name: str) -> dict[str, int]:
    counters: dict[str, dict[str, int]] = world.ask(name, "counters")
    return {reason: count for group in counters.values() for reason, count in group.items()}


@pytest.mark.parametrize(
    ("shim", "counted"),
    [(None, 1), (UDP(sport=434, dport=434, chksum=0) / bytes((4, 4, 0, 0)), 0)],
    ids=["ipip", "udp"],
)
def test_fragments_on_the_way(narrow: NarrowWorld, shim: Packet | None, counted: int) -> None:
    """Of a UDP tunnel only a first fragment is recognised; a socket still gets the whole packet."""
    for name in ("ha", "an", "mn"):
        narrow.start(name)
    narrow.until(lambda: narrow.ping("cn", "10.36.0.4", 1), "the tunnel")
    sockets = {}
    for name in ("ha", "cn"):
        with narrow.spaces[name].entered():
            sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with narrow.spaces["mn"].entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    payload = bytes(number % 251 for number in range(_SIZE))
    inner = IP(src="10.1.0.2", dst="10.36.0.4") / UDP(sport=5001, dport=5000) / payload
    packed = inner if shim is None else shim / inner
    with receiver, sockets["ha"] as home_agent, sockets["cn"] as stranger:
        receiver.bind(("10.36.0.4", 5000))
        receiver.settimeout(20)
        # A home agent that leaves DF clear (RFC 2003 section 3.1 allows it; ours sets it and learns the path MTU).
        home_agent.sendto(bytes(IP(src="10.2.0.1", dst="10.2.0.2", id=77) / packed), ("10.2.0.2", 0))
        assert receiver.recv(4096) == payload, drops(narrow, "an")
        assert drops(narrow, "an")["tunnel-fragment"] == 1 + counted

        before = drops(narrow, "an")["unregistered-source"]
        receiver.settimeout(0.5)
        stranger.sendto(bytes(IP(src="10.1.0.2", dst="10.2.0.2", id=78) / packed), ("10.2.0.2", 0))
        with pytest.raises(TimeoutError):
            receiver.recv(4096)
        found = drops(narrow, "an")
        assert found["tunnel-fragment"] == 1 + counted, "in the kernel, before they cost anything"
        assert found["unregistered-source"] == before + 1 + counted
        assert found["unregistered-source-reassembled"] == 0
    assert "Traceback" not in narrow.complaints(), narrow.complaints()


def test_the_path_mtu_is_learnt(narrow: NarrowWorld) -> None:
    """Datagrams that may be cut are cut before they enter the tunnel, once the narrow link is known."""
    for name in ("ha", "an", "mn"):
        narrow.start(name)
    narrow.until(lambda: narrow.ping("cn", "10.36.0.4", 1), "the tunnel")
    narrow.until(
        lambda: narrow.ping("cn", "10.36.0.4", 1, "-s", str(_SIZE), "-M", "dont"), "large packets to pass"
    )
    assert drops(narrow, "an")["tunnel-fragment"] == 0
    told = narrow.spaces["cn"].run(
        "ping", "-c", "1", "-W", "1", "-s", str(_SIZE), "-M", "do", "10.36.0.4", check=False
    )
    assert "mtu = 980" in told.stdout + told.stderr, told
