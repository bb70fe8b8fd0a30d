"""Frames of VLANs, for other hosts and for several hosts; and packets of one link that come out of a tunnel."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport,
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from locum.dataplane import DataPlane
from locum.roles.action_values.flows import Encapsulation
from tests.dataplane.chain import (
    CN4,
    FA4,
    FA6,
    HA4,
    HA6,
    HOME4,
    HOME6,
    Chain,
    chain,
    foreign_actions,
    home_actions,
    tunnels,
)
from tests.dataplane.namespaces import Namespace, join

PORT = 9999
OTHER_HOST, EVERYBODY, GROUP = "02:11:22:33:44:55", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05"
IPIP, UDP_PROTOCOL = 4, 17
SOL_PACKET, PACKET_AUXDATA, TAG_VALID = 263, 8, 0x10


def hardware(space: Namespace, device: str) -> str:
    return space.run(f"ip -o link show {device}").split("link/ether ")[1].split()[0]


@dataclass(slots=True)
class Places:
    """cn - ha - fa - mn, tunnels between ha and fa, and a program at the home address."""

    net: Chain
    ha: DataPlane
    fa: DataPlane
    ear: socket.socket

    def send(self, space: Namespace, device: str, frame: Packet) -> None:
        with space.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind((device, 0))
            mouth.send(bytes(frame))

    def to_home(self, to: str, content: bytes, *tags: Packet, device: str = "cn0") -> None:
        """A datagram of the correspondent for the home address, in a frame to this link-layer address."""
        frame: Packet = Ether(dst=to, src=hardware(self.net.cn, "cn0"))
        for tag in tags:
            frame /= tag
        frame /= IP(src=str(CN4), dst=str(HOME4)) / UDP(sport=1, dport=PORT) / Raw(content)
        self.send(self.net.cn, device, frame)

    def tunnelled(self, to: str, inner: Packet) -> None:
        """A packet in a tunnel from the access node to the home agent."""
        frame = Ether(dst=to, src=hardware(self.net.fa, "fa0")) / IP(src=str(FA4), dst=str(HA4)) / inner
        self.send(self.net.fa, "fa0", frame)

    def arrived(self, last: bytes) -> list[bytes]:
        """Contents at the home address, up to the one that was sent last."""
        found = [self.ear.recv(2000)]
        while found[-1] != last:
            found.append(self.ear.recv(2000))
        return found


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with chain(tmp_path_factory.mktemp("bpf")) as net:
        ha, fa = net.open(net.ha, "ha", ["ha0", "ha1"]), net.open(net.fa, "fa", ["fa0", "fa1"])
        to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
        try:
            with net.ha.inside():
                ha.reconcile(home_actions(to_foreign))
            with net.fa.inside():
                fa.reconcile(foreign_actions(to_home))
            with net.mn.inside():
                ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with ear:
                ear.bind((str(HOME4), PORT))
                ear.settimeout(10)
                net.cn.run(f"ping -c 1 -W 5 {HOME4}")
                yield Places(net, ha, fa, ear)
        finally:
            for space, plane in ((net.ha, ha), (net.fa, fa)):
                with space.inside():
                    plane.remove()


def grown(plane: DataPlane, before: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in plane.counters().items() if n != before[name]}


def test_frames_for_others_are_not_forwarded(places: Places) -> None:
    """RFC 1812 section 5.3.4; also while the interface is promiscuous, as for a capture."""
    net, ha = places.net, places.ha
    before, packets = ha.counters(), ha.binding_counters(HOME4).packets
    net.ha.run("ip link set ha0 promisc on")
    for to in (OTHER_HOST, EVERYBODY, GROUP):
        places.to_home(to, to.encode())
    places.to_home(hardware(net.ha, "ha0"), b"for this host")
    assert places.arrived(b"for this host") == [b"for this host"]
    assert ha.binding_counters(HOME4).packets == packets + 1
    assert grown(ha, before) == {"link-broadcast": 2}
    net.ha.run("ip link set ha0 promisc off")


def test_tunnel_packets_in_broadcast_frames_stay_closed(places: Places) -> None:
    """They do not reach the node's raw sockets either, which would bring them back."""
    net, ha = places.net, places.ha
    acceptance = next(a for a in ha.state.acceptances.values() if a.home_address == HOME4)
    before, packets = ha.counters(), ha.acceptance_counters(acceptance).packets
    inner = IP(src=str(HOME4), dst=str(CN4)) / UDP(sport=1, dport=2)
    for to in (EVERYBODY, GROUP, OTHER_HOST, hardware(net.ha, "ha1")):
        places.tunnelled(to, inner)
    await_growth(ha, before, {"link-broadcast": 2})
    assert eventually(lambda: ha.acceptance_counters(acceptance).packets == packets + 1)


def test_tagged_frames_are_of_their_vlan(places: Places) -> None:
    """IEEE 802.1Q and 802.1ad. A priority tag alone is of no VLAN, and no tunnel packet leaves with it."""
    net, ha = places.net, places.ha
    to, packets = hardware(net.ha, "ha0"), ha.binding_counters(HOME4).packets
    with listening(net.fa, "fa0") as wire:
        places.to_home(to, b"802.1Q", Dot1Q(vlan=100))
        places.to_home(to, b"802.1ad", Dot1AD(vlan=100))
        places.to_home(to, b"both", Dot1AD(vlan=5), Dot1Q(vlan=100))
        places.to_home(to, b"behind a priority", Dot1Q(vlan=0), Dot1Q(vlan=7))
        places.to_home(to, b"with a priority", Dot1Q(vlan=0, prio=5))
        places.to_home(to, b"untagged")
        assert places.arrived(b"untagged") == [b"with a priority", b"untagged"]
        assert ha.binding_counters(HOME4).packets == packets + 2
        assert heard(wire, b"with a priority") == (IPIP, None)


def test_tagged_frames_leave_as_they_are(places: Places) -> None:
    """As from a VLAN's interface: its tag is in the kernel's description of the packet, not in the frame."""
    net, ha = places.net, places.ha
    join(net.cn, "c2", net.ha, "q0")
    join(net.fa, "f2", net.ha, "q1")
    net.ha.run("nft add table netdev on")
    net.ha.run("nft add chain netdev on q0 { type filter hook ingress device q0 priority 0 ; }")
    net.ha.run("nft add rule netdev on q0 fwd to q1")
    with net.ha.inside():
        ha.attach("q1")
    packets = ha.binding_counters(HOME4).packets
    with listening(net.fa, "f2") as wire:
        places.to_home(hardware(net.ha, "q0"), b"sent on", Dot1Q(vlan=100), device="c2")
        assert heard(wire, b"sent on") == (UDP_PROTOCOL, 100)
    assert ha.binding_counters(HOME4).packets == packets
    with net.ha.inside():
        ha.detach("q1")
    for device in ("q0", "q1"):
        net.ha.run(f"ip link del {device}")


def test_bridged_frames_leave_as_they_are(places: Places) -> None:
    """At a bridge's port: tagged ones, and those for another host or for several, are not sent by this host."""
    net, ha = places.net, places.ha
    join(net.cn, "c1", net.ha, "p0")
    join(net.fa, "f1", net.ha, "p1")
    net.ha.run("ip link add br9 type bridge")
    for device in ("p0", "p1", "br9"):
        net.ha.run(f"ip link set {device} up" + ("" if device == "br9" else " master br9"))
    with net.ha.inside():
        ha.attach("p1")
    before, packets = ha.counters(), ha.binding_counters(HOME4).packets
    with listening(net.fa, "f1") as wire:
        for number, (to, tag) in enumerate(((OTHER_HOST, None), (EVERYBODY, None), (EVERYBODY, 100))):
            content = b"bridged %d" % number
            places.to_home(to, content, *(() if tag is None else (Dot1Q(vlan=tag),)), device="c1")
            assert heard(wire, content) == (UDP_PROTOCOL, tag)
    assert (ha.binding_counters(HOME4).packets, grown(ha, before)) == (packets, {})
    with net.ha.inside():
        ha.detach("p1")
    for device in ("p0", "p1", "br9"):
        net.ha.run(f"ip link del {device}")


ADVERTISEMENT = ICMPv6ND_NA(tgt=str(FA6), R=1, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr="02:de:ad:be:ef:00")
LINK_DESTINATIONS = {
    "VRRP": IP(dst="224.0.0.18", ttl=255, proto=112) / Raw(bytes(8)),
    "multicast DNS": IP(dst="224.0.0.251", ttl=255) / UDP(sport=5353, dport=5353),
    "IGMP to a group": IP(dst="239.1.1.1", ttl=1, proto=2) / Raw(b"\x16\0\0\0\xef\1\1\1"),
    "redirect": IP(dst=str(HA4)) / ICMP(type=5, code=1),
    "router advertisement": IP(dst=str(HA4), ttl=1) / ICMP(type=9),
    **{
        to: IP(dst=to) / UDP()
        for to in ("255.255.255.255", "169.254.1.1", "127.0.0.1", "0.0.0.0", "240.0.0.1")
    },
    "neighbour advertisement": IPv6(dst=str(HA6), hlim=255) / ADVERTISEMENT,
    "membership": IPv6(dst="ff05::1", hlim=1) / ICMPv6MLReport(mladdr="ff05::1"),
    **{to: IPv6(dst=to) / ICMPv6EchoRequest() for to in ("ff01::1", "ff02::1", "fe80::1", "::1", "::")},
}
BEYOND = {"multicast": IP(dst="239.1.1.1") / UDP(), "site": IPv6(dst="ff05::1") / ICMPv6EchoRequest()}
LINK_SOURCES = ("127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.1.1", "0.0.0.0", "255.255.255.255")
LINK_SOURCES6 = ("fe80::1", "::1", "::", "ff02::1", "ff0e::1")


def hidden(packet: Packet) -> Packet:
    """The same behind more extension headers than are read."""
    shown, content = packet.copy(), packet.payload.copy()
    shown.remove_payload()
    for _ in range(9):
        shown /= IPv6ExtHdrDestOpt()
    return shown / content


def test_packets_of_a_link_are_dropped_behind_the_tunnel(places: Places) -> None:
    """They would act on the home agent's own link and host: its neighbours, its routers, its sockets."""
    net, ha = places.net, places.ha
    net.ha.run(f"ping -c 1 -W 5 {FA6}")
    known = net.ha.run(f"ip -6 neigh show {FA6}").split(" lladdr ")[1].split()[0]
    wrong = [*LINK_DESTINATIONS.values(), hidden(LINK_DESTINATIONS["neighbour advertisement"])]
    before = ha.counters()
    for shape in (*wrong, *BEYOND.values()):
        packet = shape.copy()
        packet.src = str(HOME4 if packet.version == 4 else HOME6)
        places.tunnelled(hardware(net.ha, "ha1"), packet)
    await_growth(ha, before, {"link-scope": len(wrong)})
    assert known in net.ha.run(f"ip -6 neigh show {FA6}")


def test_visitors_get_no_packets_from_such_sources(places: Places) -> None:
    """The tunnel's far end passes on packets of any source; those of a link are none of the home network's."""
    net, fa = places.net, places.fa
    before = fa.counters()
    for source in (*LINK_SOURCES, *LINK_SOURCES6):
        v4 = "." in source
        inner = IP(src=source, dst=str(HOME4)) if v4 else IPv6(src=source, dst=str(HOME6))
        frame = Ether(dst=hardware(net.fa, "fa0"), src=hardware(net.ha, "ha1"))
        places.send(net.ha, "ha1", frame / IP(src=str(HA4), dst=str(FA4)) / inner / UDP(sport=1, dport=PORT))
    await_growth(fa, before, {"link-scope": len(LINK_SOURCES) + len(LINK_SOURCES6)})


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def await_growth(plane: DataPlane, before: dict[str, int], wanted: dict[str, int]) -> None:
    assert eventually(lambda: grown(plane, before) == wanted), grown(plane, before)


@contextmanager
def listening(space: Namespace, device: str) -> Iterator[socket.socket]:
    """Frames on this interface, with their tags."""
    with space.inside():
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with ear:
        ear.bind((device, 0x0003))
        ear.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        ear.settimeout(10)
        yield ear


def heard(ear: socket.socket, content: bytes) -> tuple[int, int | None]:
    """IP protocol and VLAN of the IPv4 packet with this content; 0: a tag of no VLAN."""
    while True:
        frame, ancillary, _, _ = ear.recvmsg(2000, 256)
        if content in frame:
            [value] = [value for _, kind, value in ancillary if kind == PACKET_AUXDATA]
            status, *_, tci, _ = struct.unpack("IIIHHHH", value[:20])
            return frame[14 + 9], tci & 0xFFF if status & TAG_VALID else None
