"""A real home agent among real packets: registrants side by side, flow rules, sharing, crash and restart (R3 to R8, R10, R19).

cn 10.9.0.1 -- 10.9.0.254 ha 10.5.0.1 -- 10.5.0.2 out: every care-of address, and what arrives there in tunnels
"""

import collections
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from locum.node.control.client import NodeClient, NodeRefused, NodeUnreachable
from locum.security.association import Association
from locum.wire.ip import UdpDatagram, build_ip
from locum.wire.mobile_ip.extensions import Extension
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply
from locum.wire.mobile_ip.vendor import DefaultCareOfAddress, Weight, encode_vendor
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector
from tests.node.conftest import Namespace, join
from tests.roles.homeworld import (
    ACCEPTED,
    AN1,
    AN2,
    AN3,
    AN4,
    DEVICE_KEY,
    HA,
    HOA,
    ONE,
    ONE_KEY,
    TWO,
    TWO_KEY,
    Home,
    Registrant,
    removal,
    rule,
)

CN = IPv4Address("10.9.0.1")
IPIP, UDP = 4, 17
TEXT = """
[node]
name = "ha"
interfaces = ["eth0", "eth1"]
state_dir = "{folder}/state"
run_dir = "{folder}"
bpf_dir = "{folder}/bpf"
log_events = "{folder}/ha.jsonl"
[home_agent]
address = "{HA}"
home_prefixes = ["10.50.0.0/16"]
[[home_agent.mobile]]
home_address = "{HOA}"
spi = 300
key_file = "device"
algorithm = "hmac-sha-256"
default_coa = "{AN3}"
[[home_agent.mobile.stand_in]]
name = "one"
address = "{ONE}"
spi = 1100
key_file = "one"
[[home_agent.mobile.stand_in]]
name = "two"
address = "{TWO}"
spi = 1200
key_file = "two"
[[home_agent.mobile.rule]]
id = 40000
priority = 1
action = "drop"
protocol = "udp"
destination_port = 5666
"""


def udp(port: int) -> Ipv4Selector:
    return Ipv4Selector(protocol=(UDP, UDP), destination_port=(port, port))


class Site:
    """The three hosts, the daemon and the sockets of the test."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace], stack: ExitStack) -> None:
        self.folder = folder
        self.cn, self.ha, self.out = (make(name) for name in ("cn", "ha", "out"))
        join(self.cn, "eth0", self.ha, "eth0")
        join(self.ha, "eth1", self.out, "eth0")
        self.cn.ip(f"addr add {CN}/24 dev eth0")
        self.cn.ip("route add default via 10.9.0.254")
        self.ha.ip("addr add 10.9.0.254/24 dev eth0")
        self.ha.ip(f"addr add {HA}/24 dev eth1")
        self.out.ip("addr add 10.5.0.2/24 dev eth0")
        self.out.ip(f"route add default via {HA}")
        for address in (AN1, AN2, AN3, AN4):
            self.out.ip(f"addr add {address}/32 dev lo")
            self.ha.ip(f"route add {address}/32 via 10.5.0.2")
        for name, key in (("device", DEVICE_KEY), ("one", ONE_KEY), ("two", TWO_KEY)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(key.key.hex())
        names = {"HA": HA, "HOA": HOA, "AN3": AN3, "ONE": ONE, "TWO": TWO, "folder": folder}
        (folder / "ha.toml").write_text(TEXT.format(**names))
        (folder / "bpf").mkdir()
        subprocess.run(["mount", "-t", "bpf", "none", str(folder / "bpf")], check=True)
        stack.callback(subprocess.run, ["umount", "-l", str(folder / "bpf")], check=False)
        with self.out.entered():
            self.signalling = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.tunnels = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, IPIP))
            self.raw = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        self.signalling.settimeout(20)
        with self.cn.entered():
            self.peer = stack.enter_context(
                socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            )
            self.heard = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.heard.bind((str(CN), 7000))
        self.heard.settimeout(20)
        home = cast(Home, self)  # a registrant uses its time and gives it requests
        self.device = Registrant(home, "mn", DEVICE_KEY, None)
        self.one, self.two = Registrant(home, "one", ONE_KEY, ONE), Registrant(home, "two", TWO_KEY, TWO)
        self.start()
        stack.callback(self.stop)

    @property
    def now(self) -> float:
        return time.time()

    def give(self, message: bytes, who: Registrant) -> int:
        """A registration request; the code of the answer."""
        self.signalling.sendto(message, (str(HA), 434))
        return int(RegistrationReply.decode(self.signalling.recv(2048)).code)

    def start(self) -> None:
        command = [sys.executable, "-m", "locum", "node", "run", str(self.folder / "ha.toml")]
        errors = (self.folder / "ha.err").open("ab")
        self.daemon = subprocess.Popen(["nsenter", f"--net={self.ha.path}", *command], stderr=errors)
        self.until_ready()

    def until_ready(self) -> None:
        end = time.monotonic() + 30
        while True:
            try:
                self.ask("status")
                return
            except NodeUnreachable:
                assert self.daemon.poll() is None and time.monotonic() < end, (
                    self.folder / "ha.err"
                ).read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        self.daemon.terminate()
        self.daemon.wait(20)

    def ask(self, request: str, **arguments: Any) -> Any:
        with NodeClient(self.folder / "ha.sock") as client:
            return client.request(request, **arguments)

    def ended_rules(self) -> list[dict[str, Any]]:
        """Events of rules that have left the kernel."""
        lines = (json.loads(line) for line in (self.folder / "ha.jsonl").read_text().splitlines())
        return [line["detail"] for line in lines if line["kind"] == "rule-ended"]

    def where(self, *ports: int, source_port: int = 6000) -> dict[int, str]:
        """Sends a datagram to each of these ports of the home address; the care-of addresses where they arrive."""
        found: dict[int, str] = {}
        for port in ports:
            self.send(port, source_port)
        end = time.monotonic() + 5
        while len(found) < len(ports) and (left := end - time.monotonic()) > 0:
            outer, inner = self.arrived(left if found or len(ports) == 1 else 5)
            if outer is not None:
                found[struct.unpack_from("!H", inner, 22)[0]] = outer
        return found

    def soon(self, wanted: dict[int, str]) -> None:
        """Changes by a command apply to packets a moment after the answer."""
        end = time.monotonic() + 10
        while (found := self.where(*wanted)) != wanted:
            assert time.monotonic() < end, found

    def send(self, port: int, source_port: int) -> None:
        datagram = UdpDatagram(source_port, port, b"locum").encode(CN, HOA)
        self.peer.sendto(build_ip(CN, HOA, UDP, datagram), (str(HOA), 0))

    def arrived(self, patience: float) -> tuple[str | None, bytes]:
        """The care-of address at which the next tunnelled packet arrives, and the packet inside."""
        self.tunnels.settimeout(max(patience, 0.01))
        try:
            packet = self.tunnels.recv(2048)
        except TimeoutError:
            return None, b""
        header = (packet[0] & 15) * 4
        return socket.inet_ntoa(packet[16:20]), packet[header:]

    def nothing_arrives(self, port: int) -> None:
        """A datagram to this port takes no tunnel, while one that follows does."""
        self.send(port, 6000)
        self.send(6999, 6000)
        _, inner = self.arrived(5)
        assert struct.unpack_from("!H", inner, 22)[0] == 6999

    def comes_back(self, care_of: IPv4Address, patience: float = 10) -> bool:
        """True if the home agent accepts a packet of the home address from the tunnel there (R10)."""
        inner = build_ip(HOA, CN, UDP, UdpDatagram(5000, 7000, str(care_of).encode()).encode(HOA, CN))
        self.raw.sendto(build_ip(care_of, HA, IPIP, inner), (str(HA), 0))
        self.heard.settimeout(patience)
        try:
            return self.heard.recv(100) == str(care_of).encode()
        except TimeoutError:
            return False


@pytest.fixture
def site(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, namespace, stack)


FLAGS: dict[str, Any] = {"flags": Flag.D | Flag.T, "ipv6": False}


def ruled(bid: int, *rules: Extension) -> dict[str, Any]:
    return {"bid": bid, "takes": Takes.RULED, "rules": rules, **FLAGS}


def test_the_order_of_choice(site: Site) -> None:
    """Default, dynamic, stand-in; a default from a registration; unauthorised requests have no effect."""
    assert site.where(5000) == {5000: str(AN3)}
    assert site.device.register(AN1, **FLAGS) == ACCEPTED
    assert site.where(5000) == {5000: str(AN1)}
    assert site.comes_back(AN1) and not site.comes_back(AN2, 0.3)
    stranger = Registrant(site.device.home, "x", Association(666, b"s" * 16), ONE)
    assert stranger.register(AN2, **FLAGS) == Code.MOBILE_NODE_FAILED_AUTHENTICATION
    assert site.one.register(AN2, **FLAGS) == ACCEPTED
    assert site.where(5000) == {5000: str(AN2)}
    assert site.comes_back(AN1) and site.comes_back(AN2)
    (row,) = site.ask("binding list")
    assert [(care_of["address"], care_of["registrant"]) for care_of in row["care_of"]] == [
        (str(AN1), "mn"),
        (str(AN2), "one"),
    ]
    assert site.one.cancel(**FLAGS) == ACCEPTED
    assert site.where(5000) == {5000: str(AN1)} and not site.comes_back(AN2, 0.3)
    say = encode_vendor(DefaultCareOfAddress(AN4))
    assert site.device.register(AN1, more=(say,), **FLAGS) == ACCEPTED
    assert site.device.cancel(**FLAGS) == ACCEPTED
    assert site.where(5000) == {5000: str(AN4)}
    assert "Traceback" not in (site.folder / "ha.err").read_text()


def test_three_flows_at_three_places(site: Site) -> None:
    """The device and two stand-ins at the same time, each with rules of its own; a crash changes nothing."""
    assert site.device.register(AN1, bid=1, **FLAGS) == ACCEPTED
    assert site.one.register(AN2, **ruled(7, *rule(5, 10, 7, selector=udp(5001)))) == ACCEPTED
    assert site.two.register(AN4, **ruled(9, *rule(6, 11, 9, selector=udp(5002)))) == ACCEPTED
    three = {5000: str(AN1), 5001: str(AN2), 5002: str(AN4)}
    assert site.where(*three) == three
    site.nothing_arrives(5666)
    site.daemon.kill()
    site.daemon.wait()
    assert site.where(*three) == three, "the kernel forwards without the daemon"
    site.start()
    assert site.where(*three) == three
    made = site.ask("flow add", home_address=str(HOA), rule={
        "priority": 5, "to": ["two", "mn"], "protocol": "udp", "destination_port": "5000-5001"
    })  # fmt: skip
    site.soon({5000: str(AN4), 5001: str(AN4), 5002: str(AN4)})
    with pytest.raises(NodeRefused, match="same packets"):
        site.ask("flow add", home_address=str(HOA), rule={"priority": 5, "to": ["mn"]})
    assert site.two.cancel(**FLAGS) == ACCEPTED
    assert site.where(*three) == {5000: str(AN1), 5001: str(AN1), 5002: str(AN1)}
    site.ask("flow remove", home_address=str(HOA), id=made["id"])
    site.soon({5000: str(AN1), 5001: str(AN2), 5002: str(AN1)})
    last = {row["id"]: row["packets"] for row in site.ask("flow list")}
    assert last[5] >= 4, "those before the crash are counted as well"
    assert site.one.register(AN2, **ruled(7, *removal(5))) == ACCEPTED
    assert site.where(5001) == {5001: str(AN1)}
    assert [row["id"] for row in site.ask("flow list")] == [40_000]
    ended = {ended["id"]: ended for ended in site.ended_rules()}
    assert list(ended) == [6, made["id"], 5]
    assert ended[5]["packets"] == last[5] and ended[5]["tunnels"] == [str(AN2)]
    assert ended[made["id"]]["packets"] >= 4 and ended[made["id"]]["tunnels"] == [str(AN1)]
    assert ended[6]["selector"] == {"protocol": "udp", "destination_port": 5002, "family": 4}


def test_equals_share_flows_by_weight(site: Site) -> None:
    """Three to one; a flow keeps its target; a rule's counter matches the arrived packets (R8)."""
    assert site.device.register(AN1, bid=1, **FLAGS) == ACCEPTED
    heavy = {**ruled(7), "more": (encode_vendor(Weight(3)),)}
    assert site.one.register(AN2, **heavy) == ACCEPTED
    assert (
        site.device.register(AN1, bid=1, rules=rule(5, 10, 1, 7, selector=udp(5001), share=True), **FLAGS)
        == 0
    )
    ways: dict[int, set[str]] = collections.defaultdict(set)
    flows = 200
    for _ in range(2):
        for port in range(6000, 6000 + flows):
            ways[port] |= set(site.where(5001, source_port=port).values())
    assert all(len(way) == 1 for way in ways.values()), "a flow never hops"
    light = sum(1 for way in ways.values() if way == {str(AN1)})
    assert 20 <= light <= 90, f"{light} of {flows} flows, 50 expected"
    (counted,) = [row for row in site.ask("flow list") if row["id"] == 5]
    assert counted["packets"] == 2 * flows
