"""Minimal encapsulation (RFC 2004): which packets go into such a tunnel and how, and which come out of it."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from locum.dataplane.kernel.reassembly import Reassembly, as_ip_in_ip
from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.ip.headers import Ipv4Header
from locum.wire.ip.minimal import MinimalHeader, inner_packet, narrow
from tests.dataplane.chain import CN4, FA4, HA4, HOME4, chain, foreign_actions, home_actions, tunnels
from tests.dataplane.one_node import OneNode, one_node

HOME, PEER = IPv4Address("10.9.0.5"), IPv4Address("10.1.0.2")
OWN, FAR = IPv4Address("10.2.0.200"), IPv4Address("10.5.0.9")
TUNNEL = Tunnel(OWN, FAR, Encapsulation.MINIMAL)
DATA = UDP(sport=7, dport=9) / Raw(b"hello")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """A home agent whose device is at the far end."""
    with one_node(tmp_path_factory.mktemp("minimal")) as made:
        homes = (HOME, ip_address("fd09::5"))
        made.plane.reconcile(
            [
                LocalEndpoint(OWN),
                *(InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, (TUNNEL,))) for home in homes),
                *(AcceptTunnel(TunnelAcceptance(FAR, home, Side.FROM_HOME_ADDRESS)) for home in homes),
            ]
        )
        yield made


def forwarded(packet: Packet) -> bytes:
    """The packet with a hop less."""
    less = packet.copy()
    less.ttl -= 1
    del less.chksum
    return bytes(IP(bytes(less)))


def test_whole_packets_go_in_with_a_short_header(node: OneNode) -> None:
    packet = IP(src=str(PEER), dst=str(HOME), ttl=9, tos=0x2A, id=77, flags="DF") / DATA
    run = node.run(packet)
    assert run.outcome is Outcome.ENCAPSULATED
    assert run.packet == narrow(forwarded(packet), OWN, FAR)
    assert len(run.packet) == len(packet) + 12


def test_own_packets_need_no_source(node: OneNode) -> None:
    """S bit: a packet of this host itself has the address of the tunnel's entrance already."""
    packet = IP(src=str(OWN), dst=str(HOME), flags="DF") / DATA
    run = node.run(packet, hook="egress")
    assert run.outcome is Outcome.ENCAPSULATED
    assert run.packet == narrow(bytes(packet), OWN, FAR) and len(run.packet) == len(packet) + 8
    assert run.packet[21] == 0


OTHERS: dict[str, list[Packet]] = {
    "fragments": [
        IP(bytes(part))
        for part in fragment(IP(src=str(PEER), dst=str(HOME)) / UDP() / Raw(bytes(600)), 400)  # type: ignore[no-untyped-call]
    ],
    "options": [IP(src=str(PEER), dst=str(HOME), options=[IPOption_NOP()] * 4, flags="DF") / DATA],
    "large, may be cut": [IP(src=str(PEER), dst=str(HOME)) / UDP() / Raw(bytes(500))],
    "ipv6": [IPv6(src="fd01::2", dst="fd09::5") / DATA],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_others_go_in_ip_in_ip(node: OneNode, kind: str) -> None:
    """Section 3 forbids fragments; options, and the cutting of larger packets, would be the tunnel's."""
    for packet in OTHERS[kind]:
        run = node.run(packet)
        assert run.outcome is Outcome.ENCAPSULATED
        head, inner = Ipv4Header.decode(run.packet)
        assert head.protocol == (41 if kind == "ipv6" else 4) and (head.source, head.destination) == (
            OWN,
            FAR,
        )
        assert inner == (forwarded(packet) if kind != "ipv6" else inner)
    small = IP(src=str(PEER), dst=str(HOME)) / UDP() / Raw(bytes(472))
    assert node.run(small).packet[9] == 55


def returned(options: bytes = b"", source: IPv4Address | None = HOME) -> bytes:
    """A packet of the device in its reverse tunnel; without `source` it is the tunnel's own."""
    header = Ipv4Header(FAR, OWN, 55, ttl=40, options=options)
    body = MinimalHeader(17, PEER, source).encode() + bytes(DATA)
    return header.encode(body)


@pytest.mark.parametrize("options", [b"", b"\x01" * 4, b"\x01" * 40], ids=len)
def test_packets_come_out(node: OneNode, options: bytes) -> None:
    came = returned(options)
    run = node.run(came)
    assert (run.outcome, run.packet) == (Outcome.PASSED, inner_packet(came))
    head, body = Ipv4Header.decode(run.packet)
    assert (head.source, head.destination, head.ttl, head.options) == (HOME, PEER, 40, options)
    assert body == bytes(DATA)


def test_packets_without_a_source(node: OneNode) -> None:
    node.plane.apply([AcceptTunnel(TunnelAcceptance(FAR, FAR, Side.FROM_HOME_ADDRESS))])
    run = node.run(returned(source=None))
    assert run.outcome is Outcome.PASSED
    assert Ipv4Header.decode(run.packet)[0].source == FAR


def test_source_has_to_be_registered(node: OneNode) -> None:
    run = node.run(returned(source=IPv4Address("10.9.0.77")))
    assert (run.outcome, run.reason) == (Outcome.DROPPED, Reason.UNREGISTERED_SOURCE)


def test_damaged_packets(node: OneNode) -> None:
    """The header's own checksum, the IP header's, and a header that is cut."""
    good = returned()
    for place in (1, 4, 8, 10, 12, 15, *range(20, 32)):
        wrong = bytearray(good)
        wrong[place] ^= 0x41
        run = node.run(bytes(wrong))
        assert (run.outcome, run.reason) == (Outcome.DROPPED, Reason.BAD_CHECKSUM), place
    for size in range(12):
        cut = Ipv4Header(FAR, OWN, 55).encode(good[20 : 20 + size])
        run = node.run(cut)
        assert (run.outcome, run.reason) == (Outcome.DROPPED, Reason.MALFORMED_TUNNEL), size
    reserved = bytearray(good)
    reserved[21] |= 0x7F
    reserved[22:24] = (int.from_bytes(good[22:24], "big") - 0x7F).to_bytes(2, "big")
    assert node.run(bytes(reserved)).outcome is Outcome.PASSED


def test_fragments_are_put_together() -> None:
    """The raw socket gets the whole packet; it goes in again as IP in IP, which needs no more room then."""
    taken: list[bytes] = []
    sent = Ipv4Header(IPv4Address("127.0.0.1"), IPv4Address("127.0.0.1"), 55, identification=7).encode(
        MinimalHeader(17, PEER, HOME).encode() + bytes(UDP(sport=7, dport=9) / Raw(bytes(1200)))
    )
    whole = Reassembly(lambda packet, _index: taken.append(packet))
    with ExitStack() as stack:
        stack.callback(whole.close)
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        for piece in fragment(IP(sent), 512):  # type: ignore[no-untyped-call]
            sender.sendto(bytes(piece), ("127.0.0.1", 0))
        for _ in range(400):
            for fileno in whole.filenos():
                whole.read(fileno)
            if taken:
                break
            time.sleep(0.05)
    assert [as_ip_in_ip(packet)[20:] for packet in taken] == [inner_packet(sent)]
    damaged = sent[:22] + b"\0\0" + sent[24:]
    assert as_ip_in_ip(damaged) == damaged


def test_stock_dissector_reads_tunnels_both_ways(tmp_path: Path) -> None:
    """Packets between two kernels, as tcpdump has captured them and understands them; it checks the header's checksum."""
    with chain(tmp_path / "bpf") as net, ExitStack() as stack:
        to_foreign, to_home = tunnels(Encapsulation.MINIMAL, 4)
        for space, name, links, actions in (
            (net.ha, "ha", ["ha0", "ha1"], home_actions(to_foreign)),
            (net.fa, "fa", ["fa0", "fa1"], foreign_actions(to_home)),
        ):
            plane = net.open(space, name, links)
            with space.inside():
                plane.reconcile(actions)
        capture = tmp_path / "core.pcap"
        command = ["nsenter", f"--net={net.fa.path}", "tcpdump", "-U", "-i", "fa0", "-w", str(capture), "ip"]
        dump = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        stack.callback(dump.wait)
        stack.callback(dump.terminate)
        assert dump.stderr is not None and "listening on fa0" in dump.stderr.readline()
        net.cn.run(f"ping -c 3 -i 0.05 -W 5 {HOME4}")
        for _ in range(300):
            lines = dissected(capture)
            if len(lines) >= 6:
                break
            time.sleep(0.1)
    there = f"{HA4} > {FA4}: mobile: [S] {CN4} > {HOME4} (oproto=1)"
    back = f"{FA4} > {HA4}: mobile: [S] {HOME4} > {CN4} (oproto=1)"
    assert lines == [there, back] * 3


def dissected(capture: Path) -> list[str]:
    """The lines of tcpdump about tunnel packets, without those about their IP headers."""
    command = ["tcpdump", "-v", "-n", "-r", str(capture), "proto", "55"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line.strip() for line in text.splitlines() if line.startswith(" ")]
