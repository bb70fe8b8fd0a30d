"""A stand-in's host that guards a home address: packets it answers for the device, and others."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from locum.dataplane import DataPlane
from locum.dataplane.hold import HeldPacket
from locum.dataplane.layout.maps import MARK_PROXY, HeldReason, Outcome, Reason
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment, Socket
from locum.dataplane.state import state_of
from locum.roles.action_values.flows import OfferService, WatchPort, WithdrawService
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, Verdict
from locum.roles.actions import Action
from tests.dataplane.namespaces import Namespace, bpffs, join

HOMES = (ip_address("10.9.0.5"), ip_address("fd09::5"))
CN = (ip_address("10.1.0.2"), ip_address("fd01::2"))
ECHO, OTHER, WEB, SHELL, MAIL = 7, 9, 80, 22, 25
TCP_NUMBER, UDP_NUMBER = 6, 17
GUARD: list[Action] = [InstallBinding(BindingEntry(home_address, Verdict.GUARD)) for home_address in HOMES]
SERVICES: list[Action] = [OfferService(UDP_NUMBER, ECHO), OfferService(TCP_NUMBER, WEB)]


@dataclass(slots=True)
class Guarded:
    cn: Namespace
    here: Namespace
    plane: DataPlane

    def drops(self) -> int:
        return self.plane.counters()["no-session"]

    def wait_for_drops(self, wanted: int) -> None:
        """The kernel takes a frame when it has time for it."""
        until = time.monotonic() + 10
        while self.drops() < wanted and time.monotonic() < until:
            time.sleep(0.01)
        assert self.drops() == wanted

    def resets(self) -> int:
        """Resets that this host has sent (RFC 4022 tcpOutRsts)."""
        lines = [line.split() for line in self.here.run("cat /proc/net/snmp").splitlines() if "Tcp:" in line]
        return int(dict(zip(*lines, strict=True))["OutRsts"])

    def socket(self, where: Namespace, version: int, kind: int) -> socket.socket:
        with where.inside():
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            made = socket.socket(family, kind)
        made.settimeout(5)
        return made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with contextlib.ExitStack() as undo:
        root = undo.enter_context(bpffs(tmp_path_factory.mktemp("bpf")))
        cn, here = Namespace("cn"), Namespace("here")
        undo.callback(cn.remove)
        undo.callback(here.remove)
        join(cn, "cn0", here, "eth0")
        cn.run("ip addr add 10.1.0.2/24 dev cn0")
        cn.run("ip addr add fd01::2/64 dev cn0 nodad")
        here.run("ip addr add 10.1.0.1/24 dev eth0")
        here.run("ip addr add fd01::1/64 dev eth0 nodad")
        here.run("ip addr add 10.9.0.5/32 dev lo")
        here.run("ip addr add fd09::5/128 dev lo nodad")
        cn.run("ip route add default via 10.1.0.1")
        cn.run("ip -6 route add default via fd01::1")
        with here.inside():
            plane = DataPlane.open("guard", ["eth0"], bpf_root=root)
        yield Guarded(cn, here, plane)
        with here.inside():
            plane.remove()


def reconcile(host: Guarded, actions: list[Action]) -> None:
    with host.here.inside():
        host.plane.reconcile(actions)


@pytest.mark.parametrize("version", [4, 6])
def test_only_datagrams_to_an_offered_service_are_answered(host: Guarded, version: int) -> None:
    reconcile(host, GUARD + SERVICES)
    home = str(HOMES[version == 6])
    with contextlib.ExitStack() as close:
        servers = {}
        for port in (ECHO, OTHER):
            servers[port] = close.enter_context(host.socket(host.here, version, socket.SOCK_DGRAM))
            servers[port].bind((home, port))
        client = close.enter_context(host.socket(host.cn, version, socket.SOCK_DGRAM))
        before = host.drops()
        client.sendto(b"other", (home, OTHER))
        client.sendto(b"echo", (home, ECHO))
        assert servers[ECHO].recvfrom(100)[0] == b"echo"
        host.wait_for_drops(before + 1)
        servers[ECHO].close()
        client.sendto(b"nobody", (home, ECHO))  # offered, but closed: no port unreachable is sent
        host.wait_for_drops(before + 2)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)


@pytest.mark.parametrize("version", [4, 6])
def test_new_connections_reach_a_service_and_other_flows_do_not(host: Guarded, version: int) -> None:
    reconcile(host, GUARD + SERVICES)
    home = HOMES[version == 6]
    with contextlib.ExitStack() as close:
        listeners = {}
        for port in (WEB, SHELL):
            listeners[port] = close.enter_context(host.socket(host.here, version, socket.SOCK_STREAM))
            listeners[port].bind((str(home), port))
            listeners[port].listen(4)
        client = close.enter_context(host.socket(host.cn, version, socket.SOCK_STREAM))
        client.connect((str(home), WEB))
        server = close.enter_context(listeners[WEB].accept()[0])
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"

        before, resets = host.drops(), host.resets()
        segments = [(WEB, "A"), (WEB, "PA"), (WEB, "R"), (WEB, "SA"), (WEB, "FA"), (SHELL, "S"), (SHELL, "A")]
        for number, (port, flags) in enumerate(segments, 1):
            send(host, home, port, flags)
            host.wait_for_drops(before + number)
        assert host.resets() == resets

        reconcile(host, [*GUARD, *SERVICES, WithdrawService(TCP_NUMBER, WEB)])
        client.sendall(b"more")  # the connection is this host's own
        assert server.recv(100) == b"more"
        send(host, home, WEB, "S")
        host.wait_for_drops(before + len(segments) + 1)


def send(host: Guarded, home: IPv4Address | IPv6Address, port: int, flags: str) -> None:
    """Send a segment of a connection that is unknown here."""
    network = IP if home.version == 4 else IPv6
    packet = network(src=str(CN[home.version == 6]), dst=str(home)) / TCP(
        sport=40000, dport=port, flags=flags, seq=1000, ack=1
    )
    family = socket.AF_INET if home.version == 4 else socket.AF_INET6
    with host.cn.inside(), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as channel:
        channel.sendto(bytes(packet), (str(home), 0))


def test_services_survive_a_restart_of_the_daemon(host: Guarded) -> None:
    reconcile(host, GUARD + SERVICES)
    with host.here.inside():
        assert not host.plane.reconcile(GUARD + SERVICES)
        assert host.plane.state.services == {(UDP_NUMBER, ECHO), (TCP_NUMBER, WEB)}
        assert host.plane._tables.read({}).services == host.plane.state.services
        host.plane.reconcile(GUARD)
        assert host.plane._tables.read({}).services == set()


@pytest.mark.parametrize(
    ("port", "flags", "found", "passes"),
    [
        (WEB, "S", Socket.LISTENING, True),
        (WEB, "S", None, False),
        (WEB, "A", Socket.LISTENING, False),
        (WEB, "SA", Socket.LISTENING, False),
        (SHELL, "S", Socket.LISTENING, False),
        (SHELL, "A", Socket.CONNECTED, True),
        (SHELL, "S", Socket.PROXY, True),
        (SHELL, "A", Socket.PROXY, False),
    ],
)
def test_model_agrees_on_services(port: int, flags: str, found: Socket | None, passes: bool) -> None:
    environment = Environment(tap=9, links={"eth0": 1}, socket=lambda _packet: found)
    model = Model(state_of(GUARD + SERVICES), environment)
    packet = IP(src=str(CN[0]), dst=str(HOMES[0])) / TCP(sport=40000, dport=port, flags=flags)
    result = model.ingress(bytes(12) + b"\x08\x00" + bytes(packet), 1)
    wanted = (Outcome.PASSED, Reason.NONE) if passes else (Outcome.DROPPED, Reason.NO_SESSION)
    assert (result.outcome, result.reason) == wanted


@pytest.mark.parametrize("version", [4, 6])
def test_listeners_of_proxies_are_reached_by_their_mark(host: Guarded, version: int) -> None:
    """At ports that nobody offers, and at one whose connections the daemon decides on."""
    home = HOMES[version == 6]
    reconcile(host, [*GUARD, WatchPort(home, MAIL)])
    with contextlib.ExitStack() as close:
        for port in (MAIL, OTHER):
            listener = close.enter_context(host.socket(host.here, version, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROXY | 7)
            listener.bind((str(home), port))
            listener.listen(4)
            client = close.enter_context(host.socket(host.cn, version, socket.SOCK_STREAM))
            client.connect((str(home), port))
            server = close.enter_context(listener.accept()[0])
            assert server.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK_PROXY | 7
            client.sendall(b"question")
            assert server.recv(100) == b"question"
        server = close.enter_context(host.socket(host.here, version, socket.SOCK_DGRAM))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROXY | 7)
        server.bind((str(home), OTHER))
        client = close.enter_context(host.socket(host.cn, version, socket.SOCK_DGRAM))
        client.sendto(b"datagram", (home.compressed, OTHER))
        assert server.recv(100) == b"datagram"
        before = host.drops()
        send(host, home, OTHER, "A")
        host.wait_for_drops(before + 1)


@pytest.mark.parametrize("version", [4, 6])
def test_new_connections_to_a_watched_port_wait_for_the_daemon(host: Guarded, version: int) -> None:
    home = HOMES[version == 6]
    reconcile(host, [*GUARD, WatchPort(home, SHELL)])
    assert host.plane.state.watched == host.plane._tables.read({}).watched == {(home, SHELL)}
    before, overflow = host.drops(), host.plane.counters()["hold-queue-overflow"]
    for port, flags in ((SHELL, "S"), (SHELL, "A"), (WEB, "S"), (SHELL, "SE")):
        send(host, home, port, flags)
    host.wait_for_drops(before + 2)
    until = time.monotonic() + 10
    openings: list[bytes] = []
    while len(openings) < 2 and time.monotonic() < until:
        openings += host.plane.held.read_openings()
    parsed = [(IP if version == 4 else IPv6)(opening)[TCP] for opening in openings]
    assert [(packet.dport, str(packet.flags)) for packet in parsed] == [(SHELL, "S"), (SHELL, "SE")]
    assert not host.plane.held.read()
    with contextlib.ExitStack() as close:
        listener = close.enter_context(host.socket(host.here, version, socket.SOCK_STREAM))
        listener.bind((str(home), SHELL))
        listener.listen(4)
        client = close.enter_context(host.socket(host.cn, version, socket.SOCK_STREAM))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((str(home), SHELL))
        while not (opening := host.plane.held.read_openings()) and time.monotonic() < until:
            time.sleep(0.01)
        host.plane.inject(opening[0])  # accepted
        client.setblocking(True)
        server = close.enter_context(listener.accept()[0])
        client.sendall(b"question")
        assert server.recv(100) == b"question"
    reconcile(host, GUARD)
    assert host.plane._tables.read({}).watched == set()
    assert host.plane.counters()["hold-queue-overflow"] == overflow


@pytest.mark.parametrize(
    ("flags", "tap", "outcome"),
    [
        ("S", False, Outcome.HELD),
        ("S", True, Outcome.PASSED),
        ("A", False, Outcome.DROPPED),
        ("SA", True, Outcome.DROPPED),
    ],
)
def test_model_agrees_on_watched_ports(flags: str, tap: bool, outcome: Outcome) -> None:
    environment = Environment(tap=9, links={"eth0": 1}, socket=lambda _packet: None)
    model = Model(state_of([*GUARD, WatchPort(HOMES[0], SHELL)]), environment)
    packet = IP(src=str(CN[0]), dst=str(HOMES[0])) / TCP(sport=40000, dport=SHELL, flags=flags)
    result = model.ingress(bytes(12) + b"\x08\x00" + bytes(packet), 9 if tap else 1)
    assert result.outcome is outcome
    if outcome is Outcome.HELD:
        assert result.held is not None
        assert result.held.reason is HeldReason.OPENING


@contextlib.contextmanager
def logging(host: Guarded, home: IPv4Address | IPv6Address, most: int) -> Iterator[list[HeldPacket]]:
    """Headers that come up from now on."""
    told: list[HeldPacket] = []
    host.plane.held.serve()
    host.plane.held.tell_headers = told.append
    host.plane.header_logs.begin(home, most)
    try:
        yield told
    finally:
        host.plane.header_logs.end(home)
        host.plane.held.serve()


@pytest.mark.parametrize("version", [4, 6])
def test_headers_of_packets_that_nothing_takes_come_up(host: Guarded, version: int) -> None:
    """At most so many a second; those beyond are counted, and all are dropped."""
    home = HOMES[version == 6]
    reconcile(host, GUARD)
    network = IP if version == 4 else IPv6
    packet = network(src=str(CN[version == 6]), dst=str(home)) / TCP(dport=SHELL, flags="A") / (b"x" * 500)
    family = socket.AF_INET if version == 4 else socket.AF_INET6

    def arrive(count: int) -> None:
        before = host.drops()
        with host.cn.inside(), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as channel:
            for _ in range(count):
                channel.sendto(bytes(packet), (str(home), 0))
        host.wait_for_drops(before + count)
        for _ in range(20):  # each reads a portion
            host.plane.held.serve()

    with logging(host, home, 3) as told:
        arrive(1)
        [first] = told
        assert first.data == bytes(network(bytes(packet)))[:128] and first.ifindex == len(packet)
        assert (first.home_address, first.flow.local_port, first.gso_size) == (home, SHELL, 0)
        arrive(500)
        left = host.plane.header_logs.left_out(home)
        assert len(told) + left == 501 and left
        seconds = (told[-1].time - told[0].time) / 1e9
        assert len(told) <= 3 * (seconds + 2)
    count = len(told)
    arrive(3)
    assert len(told) == count and host.plane.header_logs.left_out(home) == 0


def test_headers_of_packets_that_are_taken_stay_here(host: Guarded) -> None:
    home = HOMES[0]
    port = 8080  # of no other test
    reconcile(host, [*GUARD, OfferService(TCP_NUMBER, port), WatchPort(home, SHELL)])
    with contextlib.ExitStack() as close, logging(host, home, 100) as told:
        listener = close.enter_context(host.socket(host.here, 4, socket.SOCK_STREAM))
        listener.bind((str(home), port))
        listener.listen(4)
        client = close.enter_context(host.socket(host.cn, 4, socket.SOCK_STREAM))
        client.connect((str(home), port))
        send(host, home, SHELL, "S")  # the daemon decides
        before = host.drops()
        send(host, home, OTHER, "S")
        host.wait_for_drops(before + 1)
        host.plane.held.serve()
        assert [packet.flow.local_port for packet in told] == [OTHER]
