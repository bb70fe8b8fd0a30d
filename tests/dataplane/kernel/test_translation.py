"""Translation in a real network (R12): programs of the stand-in know its interface address only, at each of three places."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP

from locum.dataplane import DataPlane
from locum.dataplane.layout.maps import Counter
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Encapsulation,
    InstallTranslation,
    RemoveTranslation,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from tests.dataplane.chain import CN4, CN6, HOME4, HOME6, Chain, chain, home_actions, tunnels
from tests.dataplane.namespaces import Namespace

LOCAL4, LOCAL6 = ip_address("10.3.0.2"), ip_address("fd03::2")
PLACES = ("home agent", "access node", "stand-in")
FAMILIES = [(HOME4, LOCAL4, CN4), (HOME6, LOCAL6, CN6)]


class Places:
    """The chain with a stand-in at its end, and a data plane on each of the three hosts."""

    def __init__(self, net: Chain, stack: ExitStack) -> None:
        self.net = net
        for command in (
            "ip addr flush dev lo scope global",
            "ip -6 addr flush dev lo scope global",
            "ip addr add 10.3.0.2/24 dev mn0",
            "ip addr add fd03::2/64 dev mn0 nodad",
            "ip route replace default via 10.3.0.1",
            "ip -6 route replace default via fd03::1",
        ):
            net.mn.run(command)
        self.planes: dict[str, DataPlane] = {}
        for place, space, links in (
            ("home agent", net.ha, ["ha0", "ha1"]),
            ("access node", net.fa, ["fa0", "fa1"]),
            ("stand-in", net.mn, ["mn0"]),
        ):
            self.planes[place] = plane = net.open(space, place[0], links)
            stack.callback(self.remove, space, plane)

    @staticmethod
    def remove(space: Namespace, plane: DataPlane) -> None:
        with space.inside():
            plane.remove()

    def install(self, place: str) -> None:
        """Translate there and nowhere else."""
        there, back = tunnels(Encapsulation.IPIP, 4)
        home, access = home_actions(there), access_actions(back, translated=place == "home agent")
        stand_in: list[Action] = []
        of = {"home agent": home, "access node": access, "stand-in": stand_in}[place]
        tunnel = there.destination if place == "home agent" else None
        of += [
            InstallTranslation(Translation(home_address, local, tunnel))
            for home_address, local, _ in FAMILIES
        ]
        for name, space, actions in (
            ("home agent", self.net.ha, home),
            ("access node", self.net.fa, access),
            ("stand-in", self.net.mn, stand_in),
        ):
            with space.inside():
                self.planes[name].reconcile(actions)

    def counters(self, place: str, home: Addr) -> tuple[Counter, Counter]:
        tunnel = tunnels(Encapsulation.IPIP, 4)[0].destination if place == "home agent" else None
        return self.planes[place].translation_counters(home, tunnel)


def access_actions(tunnel: Tunnel, *, translated: bool) -> list[Action]:
    """Actions of an access node for a home address that is delivered to a stand-in."""
    actions: list[Action] = [LocalEndpoint(tunnel.source)]
    for home, local, _ in FAMILIES:
        for address in (home, local) if translated else (home,):
            acceptance = TunnelAcceptance(tunnel.destination, address, Side.TO_HOME_ADDRESS, "fa1", local)
            actions += [AcceptTunnel(acceptance), InstallOutbound(OutboundEntry(address, "fa1", tunnel))]
        if translated:
            actions.append(InstallTranslation(Translation(local, local)))
    return actions


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with ExitStack() as stack:
        yield Places(stack.enter_context(chain(tmp_path_factory.mktemp("bpf"))), stack)


def bound(space: Namespace, kind: socket.SocketKind, address: Addr) -> socket.socket:
    """A socket of that namespace, bound to an address of it."""
    with space.inside():
        made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, kind)
    made.settimeout(10)
    made.bind((str(address), 0))
    return made


def large_ping(net: Chain, home: Addr) -> bool:
    """One echo request in fragments, and its reply."""
    with net.cn.start(f"ping -c 1 -W 2 -s 4000 {home}") as one:
        return one.wait() == 0


def transfer(net: Chain, home: Addr, options: str) -> bool:
    """One run of iperf3; its server may still be busy with the end of the last one."""
    with net.cn.start(f"timeout 20 iperf3 -c {home} {options}") as one:
        one.communicate()
        return one.returncode == 0


def refused(one: socket.socket) -> bool:
    """True if a datagram socket gets an ICMP port error."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            one.send(b"anybody?")
        except ConnectionRefusedError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("home", "local", "correspondent"), FAMILIES)
@pytest.mark.parametrize("place", PLACES)
def test_programs_at_the_interface_address(
    places: Places, place: str, home: Addr, local: Addr, correspondent: Addr
) -> None:
    """TCP and UDP with checksums that are filled in late, fragments, ping, and errors in both directions."""
    places.install(place)
    net = places.net
    assert any(large_ping(net, home) for _ in range(10))  # both ends may have to learn the path MTU first
    before = [plane.counters() for plane in places.planes.values()]
    assert "3 received" in net.cn.run(f"ping -c 3 -i 0.2 -W 5 {home}")
    server = net.mn.start(f"iperf3 -s -B {local}")
    try:
        time.sleep(0.3)
        for options in ("-n 20M", "-n 20M -R", "-u -b 20M -n 2M -l 1300", "-u -b 20M -n 2M -l 1300 -R"):
            assert any(transfer(net, home, options) for _ in range(5)), options
    finally:
        server.terminate()
        server.wait()
    with (
        bound(net.mn, socket.SOCK_DGRAM, local) as there,
        bound(net.cn, socket.SOCK_DGRAM, correspondent) as here,
    ):
        port = there.getsockname()[1]
        here.connect((str(home), port))
        for size in (1, 1400, 5000):
            here.send(b"x" * size)
            data, peer = there.recvfrom(9000)
            there.sendto(data, peer)
            assert here.recv(9000) == b"x" * size
        # the stand-in's host says that a port is closed; then the correspondent's does
        there.connect(peer)
        here.close()
        assert refused(there)
    with bound(net.cn, socket.SOCK_DGRAM, correspondent) as here:
        here.connect((str(home), port))
        assert refused(here)
    towards, back = places.counters(place, home)
    assert towards.bytes > 15_000_000 and back.bytes > 15_000_000
    for plane, counted in zip(places.planes.values(), before, strict=True):
        grown = {name: n - counted[name] for name, n in plane.counters().items() if n != counted[name]}
        assert set(grown) <= {"tunnel-fragment"}, grown


@pytest.mark.parametrize("place", PLACES)
def test_flows_of_the_host_itself_are_not_translated(places: Places, place: str) -> None:
    """A flow that the stand-in's host begins has its own address, and is answered there."""
    places.install(place)
    net = places.net
    net.ha.run("ip route replace 10.3.0.0/24 via 10.2.0.2")
    with bound(net.cn, socket.SOCK_DGRAM, CN4) as ear, bound(net.mn, socket.SOCK_DGRAM, LOCAL4) as own:
        own.sendto(b"mine", ear.getsockname())
        data, peer = ear.recvfrom(100)
        assert (data, peer) == (b"mine", own.getsockname())
        ear.sendto(b"yours", peer)
        assert own.recv(100) == b"yours"


def test_zero_udp_checksum_stays_zero(places: Places) -> None:
    """RFC 768: zero means none; a computed zero would be 0xffff."""
    places.install("access node")
    net = places.net
    with bound(net.mn, socket.SOCK_DGRAM, LOCAL4) as there:
        packet = IP(src=str(CN4), dst=str(HOME4)) / UDP(sport=4000, dport=there.getsockname()[1], chksum=0)
        with net.cn.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(bytes(packet / b"no checksum"), (str(HOME4), 0))
        assert there.recv(100) == b"no checksum"


def test_two_home_addresses_cannot_have_one_flow(places: Places) -> None:
    """The second is dropped and counted; it may have the flow once the first has no translation any more."""
    places.install("access node")
    net, plane = places.net, places.planes["access node"]
    other = ip_address("10.9.0.6")
    to, back = tunnels(Encapsulation.IPIP, 4)
    with net.ha.inside():
        second = BindingEntry(other, Verdict.ENCAPSULATE, (to,))
        places.planes["home agent"].reconcile([*home_actions(to), InstallBinding(second)])
    with net.fa.inside():
        acceptance = TunnelAcceptance(back.destination, other, Side.TO_HOME_ADDRESS, "fa1", LOCAL4)
        plane.apply([AcceptTunnel(acceptance), InstallTranslation(Translation(other, LOCAL4))])
    with bound(net.mn, socket.SOCK_DGRAM, LOCAL4) as there, bound(net.cn, socket.SOCK_DGRAM, CN4) as here:
        port = there.getsockname()[1]
        before = plane.counters()["translation-conflict"]
        here.sendto(b"first", (str(HOME4), port))
        assert there.recv(100) == b"first"
        here.sendto(b"second", (str(other), port))
        deadline = time.monotonic() + 10
        while plane.counters()["translation-conflict"] == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert plane.counters()["translation-conflict"] == before + 1
        with net.fa.inside():
            plane.apply([RemoveTranslation(HOME4)])
        here.sendto(b"third", (str(other), port))
        assert there.recv(100) == b"third"
    with net.fa.inside():
        plane.apply([RemoveTranslation(other)])


def test_translation_outlives_the_daemon(places: Places) -> None:
    """Pinned: the next daemon finds the translations, and flows go on under them."""
    places.install("access node")
    net, plane = places.net, places.planes["access node"]
    with bound(net.mn, socket.SOCK_DGRAM, LOCAL4) as there, bound(net.cn, socket.SOCK_DGRAM, CN4) as here:
        here.connect((str(HOME4), there.getsockname()[1]))
        here.send(b"before")
        _, peer = there.recvfrom(100)
        wanted = plane.state
        with net.fa.inside():
            plane.close()
            there.sendto(b"meanwhile", peer)
            assert here.recv(100) == b"meanwhile"
            places.planes["access node"] = again = net.open(net.fa, "a", ["fa0", "fa1"])
        assert again.adopted and again.state.translations == wanted.translations != {}
        there.sendto(b"after", peer)
        assert here.recv(100) == b"after"
        assert again.translation_counters(HOME4, None)[1].packets >= 2


def test_families_are_not_mixed(places: Places) -> None:
    plane = places.planes["stand-in"]
    with places.net.mn.inside(), pytest.raises(ValueError, match="two families"):
        plane.apply([InstallTranslation(Translation(HOME4, LOCAL6))])
