"""Packets that leave one tunnel for another: every pair of shapes, with and without segmentation by the links.

cn has a home address too, and its tunnel to the home agent differs from that of mn: the ordinary case of two devices
that roam, one of them behind a NAT.
"""

import hashlib
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random

import pytest
from pyroute2.ethtool.ioctl import IoctlEthtool

from locum.dataplane import DataPlane
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
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
from tests.dataplane.chain import CN4, CN6, FA4, FA6, HA4, HA6, HOME4, HOME6, Chain, chain
from tests.dataplane.namespaces import Namespace

FURTHER4, FURTHER6 = ip_address("10.9.0.77"), ip_address("fd09::77")
HOMES = ((HOME4, FURTHER4), (HOME6, FURTHER6))
NEAR4, NEAR6 = ip_address("10.1.0.1"), ip_address("fd01::1")  # the home agent's on cn's link
SHAPES = [
    (encapsulation, family)
    for encapsulation in (Encapsulation.IPIP, Encapsulation.GRE, Encapsulation.UDP)
    for family in (4, 6)
]
MINIMAL = Encapsulation.MINIMAL, 4  # single packets, while segmented ones go IP in IP
BYTES = 2 << 20
SECONDS = 60.0  # a transfer that loses all segmented packets needs minutes
UDP_SEGMENT, SO_RCVBUFFORCE = 103, 33
TOTAL_RETRANS = 100  # offset in struct tcp_info

Shape = tuple[Encapsulation, int]


def text(shape: Shape) -> str:
    return f"{shape[0].name}{shape[1]}"


@dataclass(slots=True)
class Roaming:
    """The chain, with data planes at all but mn, and the offloads of its links."""

    net: Chain
    ha: DataPlane
    fa: DataPlane
    cn: DataPlane

    def connect(self, of_mn: Shape, of_cn: Shape) -> None:
        """Tunnels of these shapes: home agent to the access node of mn, and home agent to cn."""
        fa = tunnel_of(of_mn, (HA4, HA6), (FA4, FA6))
        cn = tunnel_of(of_cn, (NEAR4, NEAR6), (CN4, CN6))
        ha: list[Action] = [LocalEndpoint(fa.source), LocalEndpoint(cn.source)]
        visited: list[Action] = [LocalEndpoint(fa.destination)]
        hosted: list[Action] = [LocalEndpoint(cn.destination)]
        for home, further in HOMES:
            for tunnel, address in ((fa, home), (cn, further)):
                ha.append(AcceptTunnel(TunnelAcceptance(tunnel.destination, address, Side.FROM_HOME_ADDRESS)))
                ha.append(InstallBinding(BindingEntry(address, Verdict.ENCAPSULATE, (tunnel,))))
            to_home = TunnelAcceptance(fa.source, home, Side.TO_HOME_ADDRESS, "fa1", home)
            visited += [AcceptTunnel(to_home), InstallOutbound(OutboundEntry(home, "fa1", turned(fa)))]
            hosted.append(AcceptTunnel(TunnelAcceptance(cn.source, further, Side.TO_HOME_ADDRESS)))
            hosted.append(InstallOutbound(OutboundEntry(further, None, turned(cn))))
        for space, plane, actions in (
            (self.net.ha, self.ha, ha),
            (self.net.fa, self.fa, visited),
            (self.net.cn, self.cn, hosted),
        ):
            with space.inside():
                plane.reconcile(actions)

    def counters(self) -> list[dict[str, int]]:
        return [plane.counters() for plane in (self.ha, self.fa, self.cn)]


def tunnel_of(shape: Shape, near: tuple[Addr, Addr], far: tuple[Addr, Addr]) -> Tunnel:
    place, port = shape[1] // 2 - 2, 434 if shape[0] is Encapsulation.UDP else 0
    return Tunnel(near[place], far[place], shape[0], port, port)


def turned(tunnel: Tunnel) -> Tunnel:
    return Tunnel(
        tunnel.destination, tunnel.source, tunnel.encapsulation, tunnel.destination_port, tunnel.source_port
    )


@pytest.fixture(scope="module")
def roaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roaming]:
    with ExitStack() as stack:
        net = stack.enter_context(chain(tmp_path_factory.mktemp("bpf")))
        net.cn.run(f"ip addr add {FURTHER4}/32 dev lo")
        net.cn.run(f"ip addr add {FURTHER6}/128 dev lo")
        planes = []
        for space, name, interfaces, forwarding in (
            (net.ha, "ha", ["ha0", "ha1"], True),
            (net.fa, "fa", ["fa0", "fa1"], True),
            (net.cn, "cn", ["cn0"], False),
        ):
            with space.inside():
                plane = DataPlane.open(name, interfaces, bpf_root=net.root, forwarding=forwarding)
            stack.callback(inside(space, plane.remove))
            planes.append(plane)
        yield Roaming(net, *planes)


def inside(space: Namespace, call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with space.inside():
            call()

    return run


def offload(net: Chain, on: bool, *names: str, devices: tuple[str, ...] = ()) -> None:
    """Switch these features of all links of the chain, or of `devices`."""
    for space in (net.cn, net.ha, net.fa, net.mn):
        with space.inside():
            for name in sorted(set(os.listdir("/proc/sys/net/ipv4/conf"))):
                if re.fullmatch("(cn|ha|fa|mn)[01]", name) and name in (devices or (name,)):
                    link = IoctlEthtool(name)
                    features = link.get_features()
                    for feature in names:
                        features[feature] = on
                    link.set_features(features)
                    link.close()


def transfer(sender: Namespace, source: Addr, receiver: Namespace, destination: Addr, content: bytes) -> int:
    """Send `content` over TCP; returns the number of repeated segments. Raises AssertionError unless it arrives."""
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    with receiver.inside():
        listener = socket.create_server((str(destination), 0), family=family)
    with sender.inside():
        client = socket.socket(family, socket.SOCK_STREAM)
    with listener, client:
        listener.settimeout(SECONDS)
        client.settimeout(SECONDS)
        client.bind((str(source), 0))
        client.connect(listener.getsockname()[:2])
        server, _ = listener.accept()
        with server:
            server.settimeout(SECONDS)
            sending = threading.Thread(target=client.sendall, args=(content,), daemon=True)
            sending.start()
            digest, missing = hashlib.sha256(), len(content)
            while missing:
                part = server.recv(1 << 18)
                assert part, f"the connection ended {missing} bytes early"
                digest.update(part)
                missing -= len(part)
            sending.join(SECONDS)
            assert digest.digest() == hashlib.sha256(content).digest()
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int(struct.unpack_from("I", info, TOTAL_RETRANS)[0])


def grown(before: list[dict[str, int]], after: list[dict[str, int]]) -> list[dict[str, int]]:
    return [
        {k: n - old[k] for k, n in new.items() if n != old[k]} for old, new in zip(before, after, strict=True)
    ]


def both_ways(roaming: Roaming) -> None:
    """Bytes arrive in both directions and families, the counters have them, and no data plane drops a packet."""
    content = Random(11).randbytes(BYTES)
    before = roaming.counters()
    repeated = []
    for home, further in HOMES:
        ends = (roaming.net.mn, home), (roaming.net.cn, further)
        for (sender, source), (receiver, destination) in (ends, ends[::-1]):
            counted = roaming.ha.binding_counters(destination).bytes
            repeated.append(transfer(sender, source, receiver, destination, content))
            assert roaming.ha.binding_counters(destination).bytes - counted >= BYTES
    assert grown(before, roaming.counters()) == [{}, {}, {}]
    assert sum(repeated) < 4 * BYTES // 1448 // 10, repeated


@pytest.mark.parametrize("of_mn", SHAPES, ids=text)
def test_tcp_between_tunnels_of_any_shapes(roaming: Roaming, of_mn: Shape) -> None:
    """R10: segmented packets that came out of a tunnel go into any other as they go into one of its own shape."""
    for of_cn in SHAPES:
        roaming.connect(of_mn, of_cn)
        both_ways(roaming)


@pytest.mark.parametrize("single", [False, True])
def test_tcp_from_and_to_minimal_tunnels(roaming: Roaming, single: bool) -> None:
    """R10: segmented packets, single ones, and what a link has cut, in one stream."""
    features = ("tx-tcp-segmentation", "tx-tcp6-segmentation")
    offload(roaming.net, not single, *features)
    try:
        for of_mn, of_cn in (
            (MINIMAL, MINIMAL),
            (MINIMAL, SHAPES[0]),
            (SHAPES[4], MINIMAL),
            (MINIMAL, SHAPES[3]),
        ):
            roaming.connect(of_mn, of_cn)
            both_ways(roaming)
    finally:
        offload(roaming.net, True, *features)


@pytest.mark.parametrize("gathered", [False, True])
def test_tcp_between_tunnels_on_links_without_segmentation(roaming: Roaming, gathered: bool) -> None:
    """Single packets, or those that the next link gathers again, cross pairs that differ in everything."""
    features = ("tx-tcp-segmentation", "tx-tcp6-segmentation")
    offload(roaming.net, False, *features)
    offload(roaming.net, gathered, "rx-gro")
    try:
        for of_mn, of_cn in zip(SHAPES, SHAPES[3:] + SHAPES[:3], strict=True):
            roaming.connect(of_mn, of_cn)
            both_ways(roaming)
    finally:
        offload(roaming.net, True, *features)
        offload(roaming.net, False, "rx-gro")


@pytest.mark.parametrize(
    "segmenting", [(), ("fa1",), ("ha1",)], ids=["nowhere", "at-the-end", "in-the-tunnel"]
)
@pytest.mark.parametrize("shape", SHAPES, ids=text)
def test_segmented_datagrams(roaming: Roaming, shape: Shape, segmenting: tuple[str, ...]) -> None:
    """UDP_SEGMENT: each datagram arrives as it was, and what is counted as sent and delivered has arrived."""
    features = (
        "tx-udp-segmentation",
        "tx-udp_tnl-segmentation",
        "tx-ipxip4-segmentation",
        "tx-gre-segmentation",
    )
    roaming.connect(shape, SHAPES[(SHAPES.index(shape) + 2) % 6])
    if segmenting:
        offload(roaming.net, False, *features, devices=segmenting)
    before = roaming.counters()
    try:
        for home, further in HOMES:
            for source in (CN4 if home.version == 4 else CN6, further):
                datagrams_arrive(roaming, source, home)
    finally:
        if segmenting:
            offload(roaming.net, True, *features, devices=segmenting)
    assert grown(before, roaming.counters()) == [{}, {}, {}]


def test_copies_of_segmented_datagrams(roaming: Roaming) -> None:
    """A simultaneous binding (RFC 5944 section 3.6.1.1): datagrams out of one tunnel go into two of other shapes."""
    roaming.connect((Encapsulation.IPIP, 4), (Encapsulation.GRE, 4))
    shapes = (Encapsulation.IPIP, 4), (Encapsulation.UDP, 4)
    tunnels = tuple(tunnel_of(shape, (HA4, HA6), (FA4, FA6)) for shape in shapes)
    before = roaming.counters()
    for home, further in HOMES:
        with roaming.net.ha.inside():
            roaming.ha.apply([InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, tunnels))])
        datagrams_arrive(roaming, further, home, copies=2)
    assert grown(before, roaming.counters()) == [{}, {}, {}]


def datagrams_arrive(roaming: Roaming, source: Addr, home: Addr, *, copies: int = 1) -> None:
    """Ten datagrams in each of eight calls, and a last one by itself."""
    family = socket.AF_INET if home.version == 4 else socket.AF_INET6
    with roaming.net.mn.inside():
        ear = socket.socket(family, socket.SOCK_DGRAM)
    with roaming.net.cn.inside():
        mouth = socket.socket(family, socket.SOCK_DGRAM)
    with ear, mouth:
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        ear.bind((str(home), 7000))
        ear.settimeout(5)
        mouth.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
        mouth.bind((str(source), 0))
        sent = [bytes([batch, place]) * 600 for batch in range(8) for place in range(10)]
        counted = roaming.ha.binding_counters(home)
        for batch in range(8):
            mouth.sendto(b"".join(sent[10 * batch : 10 * batch + 10]), (str(home), 7000))
        assert sorted(ear.recv(3000) for _ in copies * sent) == sorted(copies * sent)
        mouth.sendto(b"last", (str(home), 7000))
        assert [ear.recv(3000) for _ in range(copies)] == copies * [b"last"]
    now = roaming.ha.binding_counters(home)
    # A segmented packet counts once, and once for each of its datagrams where a link has cut it before.
    assert copies * 9 <= now.packets - counted.packets <= copies * 81
    assert now.bytes - counted.bytes >= copies * 80 * 1200
