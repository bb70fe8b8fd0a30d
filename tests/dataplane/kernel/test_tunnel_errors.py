"""ICMP errors from inside tunnels: who is told, of what, and how often (RFC 2003 section 4, RFC 2473 section 8)."""

import errno
import select
import socket
import time
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from locum.dataplane.kernel.senders.error_sockets import ErrorSockets
from locum.dataplane.mtu.pieces import fragments
from locum.dataplane.state import ForwardingState, state_of
from locum.dataplane.tunnel_errors import BURST, RATE, TunnelErrors, relayed
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    BindingEntry,
    InstallBinding,
    InstallOutbound,
    OutboundEntry,
    Stage,
    Verdict,
)
from locum.roles.actions import Action
from locum.wire.ip.checksum import ones_sum
from locum.wire.ip.minimal import narrow
from tests.dataplane.chain import CN4, CN6, FA4, FA6, HA4, HA6, HOME4, HOME6, chain, home_actions, tunnels

UNREACHABLE, HOST, NETWORK = 3, 1, 0


SHAPES = {"ip": Encapsulation.IPIP, "gre": Encapsulation.GRE, "udp": Encapsulation.UDP}


def state(outer: int, *, outbound: bool = False, shape: str = "ip") -> ForwardingState:
    source, destination = (HA4, FA4) if outer == 4 else (HA6, FA6)
    tunnel = Tunnel(source, destination, SHAPES[shape], 434, 434)
    actions: list[Action] = []
    for home in (HOME4, HOME6):
        if outbound:
            actions.append(InstallOutbound(OutboundEntry(home, "lan0", tunnel)))
        else:
            actions.append(InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, (tunnel,))))
    return state_of(actions)


def network(source: Addr, destination: Addr, **fields: int) -> Packet:
    made = IP if source.version == 4 else IPv6
    packet: Packet = made(src=str(source), dst=str(destination))
    for name, value in fields.items():
        setattr(packet, name, value)
    return packet


def inner_packet(version: int, *, back: bool = False) -> Packet:
    ends = (CN4, HOME4) if version == 4 else (CN6, HOME6)
    return network(*(reversed(ends) if back else ends)) / UDP(sport=5000, dport=9) / b"data"


def error(
    kind: int, code: int, inner: Packet, *, outer: int = 4, shape: str = "ip", end: Addr | None = None
) -> bytes:
    """The ICMP message about a tunnel packet with this inner packet."""
    source, destination = (HA4, end or FA4) if outer == 4 else (HA6, end or FA6)
    version = bytes(inner)[0] >> 4
    number = 4 if version == 4 else 41
    if shape == "gre":
        quoted = (
            network(source, destination) / GRE(proto=0x800 if version == 4 else 0x86DD) / Raw(bytes(inner))
        )
    elif shape == "udp":
        data = bytes((4, number, 0, 0)) + bytes(inner)
        quoted = network(source, destination) / UDP(sport=434, dport=434) / Raw(data)
    else:
        head = network(source, destination, **{"proto" if outer == 4 else "nh": number})
        quoted = head / Raw(bytes(inner))
    return bytes((kind, code)) + bytes(6) + bytes(quoted)


@pytest.mark.parametrize("shape", ["ip", "gre", "udp"])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
def test_the_sender_is_told(shape: str, outer: int, version: int) -> None:
    inner = inner_packet(version)
    kind, code = (3, 1) if outer == 4 else (1, 3)
    told = relayed(outer, error(kind, code, inner, outer=outer, shape=shape), state(outer, shape=shape))
    assert told is not None and told.destination == (CN4 if version == 4 else CN6)
    assert told.message[:2] == (bytes((3, HOST)) if version == 4 else bytes((1, 3)))
    assert told.message[8:] == bytes(inner)
    if version == 4:
        assert ICMP(told.message).chksum == ICMP(bytes(ICMP(type=3, code=HOST) / Raw(bytes(inner)))).chksum


@pytest.mark.parametrize(
    ("outer", "kind", "code", "at_home", "elsewhere"),
    [
        (4, 3, 0, HOST, NETWORK),
        (4, 3, 1, HOST, HOST),
        (4, 3, 2, HOST, NETWORK),
        (4, 3, 3, None, None),  # IP in IP has no ports
        (4, 3, 4, None, None),  # the path's MTU is another matter
        (4, 3, 5, None, None),
        (4, 4, 0, None, None),
        (4, 11, 0, HOST, HOST),
        (4, 11, 1, None, None),
        (4, 12, 0, None, None),
        (6, 1, 0, HOST, HOST),
        (6, 1, 4, None, None),
        (6, 2, 0, None, None),
        (6, 3, 0, HOST, HOST),
        (6, 3, 1, None, None),
        (6, 4, 1, HOST, HOST),
        (6, 4, 0, None, None),
    ],
)
def test_kinds_of_errors(
    outer: int, kind: int, code: int, at_home: int | None, elsewhere: int | None
) -> None:
    for outbound, wanted in ((False, at_home), (True, elsewhere)):
        inner = inner_packet(4, back=outbound)
        told = relayed(outer, error(kind, code, inner, outer=outer), state(outer, outbound=outbound))
        assert (None if told is None else told.message[1]) == wanted
        assert told is None or told.destination == (HOME4 if outbound else CN4)


@pytest.mark.parametrize(
    ("shape", "code", "pointer", "told_of"),
    [
        ("ip", 0, 1, 1),  # the type of service is the inner packet's
        ("ip", 0, 0, None),
        ("ip", 0, 6, None),  # we set DF
        ("ip", 0, 8, None),
        ("ip", 0, 19, None),
        ("ip", 0, 20, 0),
        ("ip", 2, 20 + 22, 22),
        ("ip", 1, 20 + 22, None),  # a missing option
        ("ip", 0, 20 + 31, 31),
        ("ip", 0, 20 + 32, None),  # beyond the quoted packet
        ("gre", 0, 20 + 3, None),
        ("gre", 0, 20 + 4 + 9, 9),
        ("udp", 0, 20 + 11, None),
        ("udp", 0, 20 + 12 + 9, 9),
    ],
)
def test_parameter_problems_about_fields_of_the_sender(
    shape: str, code: int, pointer: int, told_of: int | None
) -> None:
    """RFC 2003 section 4.5: what the tunnel's entry has written itself is no business of the packet's sender."""
    inner = inner_packet(4)
    message = bytearray(error(12, code, inner, shape=shape))
    message[4] = pointer
    told = relayed(4, bytes(message), state(4, shape=shape))
    if told_of is None:
        assert told is None
        return
    assert told is not None and told.destination == CN4 and told.end == FA4
    assert told.message[:2] + told.message[4:] == bytes((12, code, told_of, 0, 0, 0)) + bytes(inner)
    assert ones_sum(told.message) == 0xFFFF


def test_parameter_problems_are_about_ipv4_in_ipv4() -> None:
    for version, outer in ((6, 4), (4, 6), (6, 6)):
        message = bytearray(error(12, 0, inner_packet(version), outer=outer))
        message[4] = (20 if outer == 4 else 40) + 5
        assert relayed(outer, bytes(message), state(outer)) is None


def test_errors_that_are_nobodys_matter() -> None:
    """Other tunnels than ours, errors about errors, later fragments, and quotes that are too short or damaged."""
    inner = inner_packet(4)
    ours = state(4)
    good = error(3, 1, inner)
    assert relayed(4, good, ours) is not None
    assert relayed(4, error(3, 1, inner, end=ip_address("10.2.0.77")), ours) is None
    assert relayed(4, error(3, 1, network(CN4, ip_address("10.9.0.99")) / UDP() / b"data"), ours) is None
    about_error = network(CN4, HOME4) / ICMP(type=3, code=1) / Raw(bytes(inner))
    assert relayed(4, error(3, 1, about_error), ours) is None
    assert relayed(4, error(3, 1, network(CN4, HOME4, frag=5) / Raw(bytes(40))), ours) is None
    assert relayed(4, error(3, 1, network(ip_address("224.0.0.5"), HOME4) / UDP() / b"data"), ours) is None
    for size in range(8 + 20 + 28):
        assert relayed(4, good[:size], ours) is None
    assert relayed(6, good, ours) is None
    for place in range(8, len(good)):
        relayed(4, good[:place] + bytes((good[place] ^ 0xFF,)) + good[place + 1 :], ours)


def test_tunnels_of_senders_and_of_visited_agents() -> None:
    """An error is about a tunnel that leads back from the inner source, or on from an access node."""
    back = inner_packet(4, back=True)
    assert relayed(4, error(3, 1, back), state(4, outbound=True)) is not None
    assert relayed(4, error(3, 1, back, end=ip_address("10.2.0.77")), state(4, outbound=True)) is None
    onward = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(HA4, FA4),), at=Stage.VISITED)
    told = relayed(4, error(3, 1, inner_packet(4)), state_of([InstallBinding(onward)]))
    assert told is not None and told.destination == CN4


@pytest.mark.parametrize("outer", [4, 6])
def test_ports_of_udp_tunnels(outer: int) -> None:
    """The far end no longer takes tunnel packets there; other messages on the port are no tunnel packets."""
    kind, code = (3, 3) if outer == 4 else (1, 4)
    message = error(kind, code, inner_packet(4), outer=outer, shape="udp")
    ours = state(outer, shape="udp")
    assert relayed(outer, message, ours) is not None
    place = 8 + (20 if outer == 4 else 40) + 8
    assert message[place] == 4  # RFC 3519 section 3.3
    assert relayed(outer, message[:place] + b"\x01" + message[place + 1 :], ours) is None


@pytest.mark.parametrize("own", [False, True])
def test_errors_about_minimal_encapsulation(own: bool) -> None:
    """RFC 2004: the quoted packet is made again; one whose own TTL was over is told so, as section 3 has it for traceroute."""
    inner = network(HA4 if own else CN4, HOME4, ttl=1) / UDP(sport=5000, dport=9) / b"data"
    quoted = narrow(bytes(inner), IPv4Address("10.2.0.1"), IPv4Address("10.2.0.2"))
    entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(HA4, FA4, Encapsulation.MINIMAL),))
    ours = state_of([InstallBinding(entry)])
    for kind, code, head in ((3, 1, b"\x03\x01"), (3, 0, b"\x03\x01"), (11, 0, b"\x0b\0")):
        told = relayed(4, bytes((kind, code)) + bytes(6) + quoted, ours)
        assert told is not None and told.destination == (HA4 if own else CN4)
        assert told.message[:2] == head and told.message[8:] == bytes(inner)
        assert ones_sum(told.message) == 0xFFFF
    message = bytes((3, 1)) + bytes(6) + quoted
    assert relayed(4, message, state(4)) is None  # this tunnel has no such packets
    assert relayed(4, error(3, 1, inner_packet(4)), ours) is not None  # but others go through it IP in IP
    for size in range(8 + 20 + 8 + 8):
        assert relayed(4, message[:size], ours) is None
    for place in range(28, 36):
        relayed(4, message[:place] + bytes((message[place] ^ 0xFF,)) + message[place + 1 :], ours)


def test_headers_before_the_inner_packet() -> None:
    """A GRE key, the encapsulation limit of RFC 2473; a later fragment has none of them."""
    inner = inner_packet(4)
    keyed = network(HA4, FA4) / GRE(proto=0x800, key_present=1, key=7) / Raw(bytes(inner))
    limit = bytes((4, 0, 4, 1, 3, 1, 0, 0))  # its type, length and value, and padding
    limited = network(HA6, FA6, nh=60) / Raw(limit + bytes(inner))
    later = network(HA4, FA4, proto=4, frag=5) / Raw(bytes(inner))
    entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (Tunnel(HA4, FA4, Encapsulation.GRE, gre_key=7),))
    ours = state_of([InstallBinding(entry)])
    assert relayed(4, bytes((3, 1)) + bytes(6) + bytes(keyed), ours) is not None
    assert relayed(6, bytes((1, 3)) + bytes(6) + bytes(limited), state(6)) is not None
    assert relayed(4, bytes((3, 1)) + bytes(6) + bytes(later), state(4)) is None


@pytest.mark.parametrize(("version", "most"), [(4, 576), (6, 1280)])
def test_messages_are_no_longer_than_any_link_takes(version: int, most: int) -> None:
    told = relayed(4, error(3, 1, inner_packet(version) / Raw(bytes(1400))), state(4))
    assert told is not None and len(told.message) == most - (20 if version == 4 else 40)


@pytest.mark.parametrize("shape", ["ip", "gre", "udp"])
def test_errors_about_another_tunnel_between_the_same_ends(shape: str) -> None:
    """The encapsulation, the ports and the key have to be those of our tunnel, too."""
    message = error(3, 1, inner_packet(4), shape=shape)
    assert relayed(4, message, state(4, shape=shape)) is not None
    for other in SHAPES.keys() - {shape}:
        assert relayed(4, message, state(4, shape=other)) is None
    for tunnel in (Tunnel(HA4, FA4, SHAPES["udp"], 434, 435), Tunnel(HA4, FA4, SHAPES["gre"], gre_key=5)):
        entry = BindingEntry(HOME4, Verdict.ENCAPSULATE, (tunnel,))
        assert relayed(4, message, state_of([InstallBinding(entry)])) is None


def test_errors_about_our_own_fragments() -> None:
    """RFC 2473 section 8: the first fragment of a tunnel packet has the inner packet's addresses, later ones have not."""
    inner = network(CN6, HOME6) / UDP(sport=5000, dport=9) / Raw(bytes(1232))
    whole = error(1, 3, inner, outer=6)[8:]
    pieces = list(fragments(whole, 1280, 7))
    told = [relayed(6, bytes((1, 3)) + bytes(6) + piece[:1232], state(6)) for piece in pieces]
    assert len(told) == 2 and told[1] is None
    assert told[0] is not None and told[0].destination == CN6
    assert told[0].message[8:] == bytes(inner)[: 1232 - 48]


def test_a_noisy_tunnel_silences_no_other() -> None:
    other, far = ip_address("10.9.0.77"), ip_address("10.2.0.77")
    entry = BindingEntry(other, Verdict.ENCAPSULATE, (Tunnel(HA4, far),))
    ours = state(4)
    ours.perform(InstallBinding(entry))
    errors, noisy = TunnelErrors(), error(3, 1, inner_packet(4))
    quiet = error(3, 1, network(CN4, other) / UDP(sport=5000, dport=9) / b"data", end=far)
    told = 0
    for milliseconds in range(0, 10_000, 5):
        told += errors.tell(4, noisy, ours, now=milliseconds / 1000) is not None
        if not milliseconds % 1000:
            assert errors.tell(4, quiet, ours, now=milliseconds / 1000) is not None
    assert told <= BURST + 10 * RATE


def test_their_number_is_bounded() -> None:
    errors, message, ours = TunnelErrors(), error(3, 1, inner_packet(4)), state(4)
    told = [errors.tell(4, message, ours, now=1000.0) for _ in range(int(BURST) + 30)]
    assert sum(one is not None for one in told) == BURST
    assert errors.counts == {"tunnel-error-told": BURST, "tunnel-error-limited": 30}
    assert errors.tell(4, message, ours, now=1000.1) is not None


def test_a_correspondent_learns_that_the_tunnel_is_broken(tmp_path: Path) -> None:
    """Real sockets: a router's error to the home agent becomes one to the correspondent's program."""
    with chain(tmp_path) as net:
        plane = net.open(net.ha, "ha", ["ha0", "ha1"])
        try:
            with net.ha.inside():
                plane.reconcile(home_actions(tunnels(Encapsulation.IPIP, 4)[0]))
                sockets = ErrorSockets(plane.tell_of_error)
            for home, correspondent, kind, code, pointer, expected in (
                (HOME4, CN4, 3, 1, 0, errno.EHOSTUNREACH),
                (HOME4, CN4, 12, 0, 20 + 9, errno.EPROTO),
                (HOME6, CN6, 3, 1, 0, errno.EHOSTUNREACH),
            ):
                family = socket.AF_INET if home.version == 4 else socket.AF_INET6
                with net.cn.inside():
                    program = socket.socket(family, socket.SOCK_DGRAM)
                with program:
                    program.connect((str(home), 9))
                    program.setsockopt(
                        *((socket.IPPROTO_IP, 11) if home.version == 4 else (socket.IPPROTO_IPV6, 25)), 1
                    )
                    port = program.getsockname()[1]
                    lost = network(correspondent, home) / UDP(sport=port, dport=9) / b"data"
                    whole = IP(src="10.2.0.2", dst="10.2.0.1", proto=1) / Raw(
                        checked(error(kind, code, lost), pointer)
                    )
                    with (
                        net.fa.inside(),
                        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as router,
                    ):
                        router.sendto(bytes(whole), ("10.2.0.1", 0))
                    sent, until = 0, time.monotonic() + 10
                    while not sent and time.monotonic() < until:
                        ready, _, _ = select.select(sockets.filenos(), [], [], 1)
                        sent += sum(sockets.read(fileno) for fileno in ready)
                    assert sent == 1
                    program.settimeout(10)
                    with pytest.raises(OSError) as told:
                        program.recv(100)
                    assert told.value.errno == expected
            assert plane.counters()["tunnel-error-told"] == 3
            sockets.close()
        finally:
            with net.ha.inside():
                plane.remove()


def checked(message: bytes, pointer: int) -> bytes:
    """The ICMP message with this pointer, and its checksum."""
    rest = bytes((pointer, 0, 0, 0)) + message[8:]
    check = ones_sum(message[:2] + bytes(2) + rest) ^ 0xFFFF
    return message[:2] + check.to_bytes(2, "big") + rest
