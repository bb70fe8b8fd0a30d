"""Exemption of registrations from filters and reverse tunnels: only those with the own home agent, and of the own daemon."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment
from locum.node.registration.access_link import LinkSocket
from locum.roles.action_values.flows import Filter, FilterPlace, FilterVerdict, InstallFilter, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
)
from locum.roles.actions import Action
from locum.wire.ip.checksum import ones_sum
from tests.dataplane.namespaces import Namespace, bpffs, join

HOME, NODE, NEIGHBOUR = IPv4Address("10.9.0.5"), IPv4Address("10.2.0.1"), IPv4Address("10.2.0.2")
AGENT, ELSEWHERE = IPv4Address("10.2.0.3"), IPv4Address("198.51.100.7")
UDP, IPIP = 17, 4
TAP = 99
REQUEST, REPLY = 1, 3
LO = 1  # the interface of a test run

Place = tuple[Namespace, Namespace, DataPlane]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node with the home address on lo, and its neighbour on the link."""
    space, other = Namespace("signals"), Namespace("signals-other")
    try:
        with bpffs(tmp_path_factory.mktemp("bpf")) as root:
            join(space, "out0", other, "out1")
            space.run(f"ip addr add {NODE}/24 dev out0")
            space.run(f"ip addr add {HOME}/32 dev lo")
            space.run("ip route add default via 10.2.0.2")
            other.run(f"ip addr add {NEIGHBOUR}/24 dev out1")
            with space.inside():
                plane = DataPlane.open(
                    "signals", ["out0"], bpf_root=root, limits=Limits(bindings=64, flows=64)
                )
                try:
                    yield space, other, plane
                finally:
                    plane.remove()
    finally:
        space.remove()
        other.remove()


def datagram(destination: IPv4Address, ports: tuple[int, int], kind: int) -> bytes:
    """A frame with a datagram of the home address that looks like a message of registration."""
    body = struct.pack(">HHHHB", *ports, 8 + 20, 0, kind) + bytes(19)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0x4000, 64, UDP, 0)
    head += HOME.packed + destination.packed
    head = head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    return bytes(12) + b"\x08\x00" + head + body


def decided(plane: DataPlane, sent: bytes) -> tuple[Outcome, Reason]:
    """The decision about a frame of a visitor, by program and model."""
    _, _, context, _ = ProgramRun(plane._object.program("locum_ingress")).run(sent)
    outcome, reason = struct.unpack_from("II", context, 48)
    own = frozenset({b"\0" * 10 + b"\xff\xff" + NODE.packed})
    wanted = Model(plane.state, Environment(TAP, {"lo": LO}, own)).ingress(sent, LO)
    assert (wanted.outcome, wanted.reason) == (outcome, reason)
    return wanted.outcome, wanted.reason


def access_node(*, filtered: bool) -> list[Action]:
    acceptance = TunnelAcceptance(AGENT, HOME, Side.TO_HOME_ADDRESS, "lo")
    actions: list[Action] = [
        LocalEndpoint(NODE),
        AcceptTunnel(acceptance),
        InstallOutbound(OutboundEntry(HOME, "lo", Tunnel(NODE, AGENT))),
    ]
    drop_all = Filter(HOME, FilterPlace.FROM_VISITOR, (), FilterVerdict.DROP)
    return [*actions, InstallFilter(drop_all)] if filtered else actions


PRETENDED = (
    (ELSEWHERE, (5000, 434), REQUEST),
    (ELSEWHERE, (434, 51820), REQUEST),
    (ELSEWHERE, (434, 53), REPLY),
    (NEIGHBOUR, (434, 434), REQUEST),
)


def test_port_434_opens_no_filter(place: Place) -> None:
    """Registrations with the own home agent and with this node pass; other packets of that port are filtered."""
    _, _, plane = place
    plane.reconcile(access_node(filtered=True))
    for pretended in PRETENDED:
        dropped = (Outcome.DROPPED, Reason.FILTERED_FROM_VISITOR)
        assert decided(plane, datagram(*pretended)) == dropped, pretended
    assert decided(plane, datagram(AGENT, (5000, 434), 9)) == (
        Outcome.DROPPED,
        Reason.FILTERED_FROM_VISITOR,
    )
    for destination in (AGENT, NODE):
        passed = (Outcome.PASSED, Reason.NONE)
        assert decided(plane, datagram(destination, (5000, 434), REQUEST)) == passed, destination


def test_port_434_leaves_no_reverse_tunnel(place: Place) -> None:
    """The same without a filter: everything else goes to the home agent."""
    _, _, plane = place
    plane.reconcile(access_node(filtered=False))
    for pretended in PRETENDED:
        assert decided(plane, datagram(*pretended)) == (Outcome.ENCAPSULATED, Reason.NONE), pretended
    for destination in (AGENT, NODE):
        passed = (Outcome.PASSED, Reason.NONE)
        assert decided(plane, datagram(destination, (5000, 434), REQUEST)) == passed, destination


def test_only_the_daemon_signals_outside_the_tunnel(place: Place) -> None:
    """A device asks a new agent from its home address while its old tunnel stands; its programs' packets use the tunnel."""
    space, other, plane = place
    plane.reconcile([LocalEndpoint(NODE), InstallOutbound(OutboundEntry(HOME, None, Tunnel(NODE, AGENT)))])
    space.run("ping -c 1 -W 5 10.2.0.2")
    other.run(f"ip addr add {AGENT}/24 dev out1")
    with other.inside():
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        ear.bind(("out1", 0x0800))
        ear.settimeout(10)
    hardware = bytes.fromhex(
        other.run("ip -o link show out1").split("link/ether ")[1].split()[0].replace(":", "")
    )
    with space.inside():
        link = LinkSocket("out0", lambda *_: None, lambda *_: None)
        program = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        program.bind((str(HOME), 5000))
    with ear, program:
        try:
            link.send_registration(b"\x01 of the daemon", HOME, NEIGHBOUR, 434, hardware)
            assert heard(ear, b"of the daemon") == UDP
            program.sendto(b"\x01 of a program", (str(NEIGHBOUR), 434))
            assert heard(ear, b"of a program") == IPIP
        finally:
            link.close()


def heard(ear: socket.socket, content: bytes) -> int:
    """IP protocol of the packet that has this content."""
    while True:
        frame = ear.recv(2000)
        if content in frame:
            return frame[14 + 9]
