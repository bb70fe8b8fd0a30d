"""ICMP errors about tunnel packets: read, and believed or not."""

from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.dataplane.model.frames import outer_headers
from locum.dataplane.model.parse import parse_packet
from locum.dataplane.mtu.path_mtu import Verdict, judge, matches, read_quote
from locum.dataplane.mtu.paths import Paths
from locum.dataplane.mtu.pieces import fragments
from locum.dataplane.state import ForwardingState
from locum.dataplane.tunnel_ends import TunnelEnds, shape_of
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Translation, Tunnel
from locum.roles.action_values.forwarding import BindingEntry
from locum.roles.action_values.forwarding import Verdict as ForwardingVerdict
from locum.wire.ip.checksum import ones_sum
from locum.wire.ip.headers import Ipv4Header
from locum.wire.ip.minimal import narrow

A4, B4 = ip_address("10.2.0.1"), ip_address("10.3.0.1")
A6, B6 = ip_address("fd02::1"), ip_address("fd03::1")
SHAPES = [
    Tunnel(source, destination, encapsulation, 434, 5000, key)
    for source, destination in ((A4, B4), (A6, B6))
    for encapsulation, key in (
        (Encapsulation.IPIP, None),
        (Encapsulation.GRE, None),
        (Encapsulation.GRE, 7),
        (Encapsulation.UDP, None),
    )
]
INNER = {
    4: bytes.fromhex("4500057800000000401100000a0100020a090005") + bytes(1380),
    6: bytes.fromhex("60000000055011400000000000000000") + bytes(1384),
}


def tunnelled(tunnel: Tunnel, family: int) -> bytes:
    """A packet of about 1400 bytes in this tunnel."""
    inner = INNER[family]
    packet = parse_packet(inner, 0, len(inner), family)
    assert packet is not None
    return outer_headers(tunnel, packet) + inner


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tunnel", SHAPES, ids=str)
def test_quotes_of_every_tunnel(tunnel: Tunnel, family: int) -> None:
    """However much a router quotes, the tunnel is known, and no other is taken for it."""
    packet = tunnelled(tunnel, family)
    least = 28 if tunnel.source.version == 4 else 48
    for quoted in range(len(packet[:120])):
        quote = read_quote(packet[:quoted])
        assert (quote is None) is (quoted < least)
        if quote is None:
            continue
        assert [shape for shape in SHAPES if matches(quote, shape)] == [tunnel]
        assert quote.shape == shape_of(tunnel)
        assert judge(quote, 1300, False, 1500)[0] is Verdict.NO_TUNNEL
        if quote.inner is None and quoted != 28:
            assert judge(quote, 1300, True, 1500)[0] is Verdict.UNCONFIRMED
            continue
        assert judge(quote, 1300, True, 1500) == (Verdict.BELIEVED, 1300)
        assert judge(quote, len(packet), True, 1500)[0] is Verdict.IMPLAUSIBLE
        assert judge(quote, 1300, True, len(packet) - 1)[0] is Verdict.IMPLAUSIBLE
        assert judge(quote, 551, True, 1500)[0] is Verdict.TOO_SMALL


def test_quotes_without_inner_addresses() -> None:
    """RFC 5927 section 4: anyone can write them. 8 bytes behind the IPv4 header lower a path to 1280 bytes at most."""
    packet = tunnelled(SHAPES[0], 4)
    quote = read_quote(packet[:28])
    assert quote is not None and quote.inner is None
    assert judge(quote, 552, True, 1500) == (Verdict.BELIEVED, 1280)
    assert judge(quote, 0, True, 1500) == (Verdict.BELIEVED, 1280)
    shorter = read_quote(packet[:2] + (1280).to_bytes(2, "big") + packet[4:28])
    assert shorter is not None
    assert judge(shorter, 1000, True, 1280)[0] is Verdict.UNCONFIRMED
    for cut in (packet[:32], tunnelled(SHAPES[4], 4)[:48]):
        quote = read_quote(cut)
        assert quote is not None and judge(quote, 1300, True, 1500)[0] is Verdict.UNCONFIRMED


@pytest.mark.parametrize("tunnel", SHAPES[4:], ids=str)
def test_quotes_of_our_own_fragments(tunnel: Tunnel) -> None:
    """The first fragment of a tunnel packet names the tunnel (RFC 2473 section 8); later ones do not."""
    first, second = fragments(tunnelled(tunnel, 6), 1360, 5)
    quote = read_quote(first[:1232])
    assert (
        quote is not None and matches(quote, tunnel) and quote.inner == (ip_address("::"), ip_address("::"))
    )
    assert judge(quote, 1300, True, 1360) == (Verdict.BELIEVED, 1300)
    assert read_quote(second[:1232]) is None


class Kernel:
    """The kernel's table of path MTUs, and the settings of the programs."""

    def items(self) -> list[tuple[bytes, bytes]]:
        return []

    def put(self, *_: object) -> None: ...
    def delete(self, *_: object) -> None: ...
    def set(self, *_: object) -> None: ...


@dataclass
class Entries:
    """Entries of devices, and the ends of their tunnels."""

    state: ForwardingState = field(default_factory=lambda: ForwardingState({A4, A6}))
    ends: TunnelEnds = field(default_factory=TunnelEnds)

    def add(self, home_address: Addr, tunnel: Tunnel) -> None:
        entry = BindingEntry(home_address, ForwardingVerdict.ENCAPSULATE, (tunnel,))
        self.state.bindings[home_address] = entry
        self.ends.replace((), (tunnel,))


def quoted(tunnel: Tunnel, home_address: Addr, size: int = 60) -> bytes:
    """The beginning of a packet of 1420 bytes to the home address in this tunnel."""
    packet = tunnelled(tunnel, 4)
    return (packet[:36] + home_address.packed + packet[40:])[:size]


def paths(entries: Entries) -> Paths:
    kernel: Any = Kernel()
    return Paths(kernel, kernel, entries)


HOME, OTHER_HOME = ip_address("10.9.0.5"), ip_address("10.9.0.6")


def test_junk_silences_no_true_error() -> None:
    """A thousand errors about others' packets, and about another tunnel, leave this tunnel's its turn."""
    entries, ours, noisy = Entries(), Tunnel(A4, B4), Tunnel(A4, ip_address("10.3.0.2"))
    entries.add(HOME, ours)
    entries.add(OTHER_HOME, noisy)
    known = paths(entries)
    for junk in (
        quoted(Tunnel(B4, A4), HOME),
        quoted(Tunnel(A4, ip_address("10.4.0.1")), HOME),
        quoted(Tunnel(A4, ip_address("10.4.0.1")), HOME, 28),
    ):
        assert {known.judge(junk, 1300).verdict for _ in range(1000)} == {Verdict.NO_TUNNEL}
    lowered = Counter(
        known.judge(sized(noisy, OTHER_HOME, mtu + 1), mtu).verdict for mtu in range(1400, 1300, -1)
    )
    assert lowered[Verdict.TOO_MANY] > 80
    assert known.judge(quoted(ours, HOME), 1300).verdict is Verdict.BELIEVED


def sized(tunnel: Tunnel, home_address: Addr, length: int) -> bytes:
    """The same of a packet of `length` bytes."""
    data = quoted(tunnel, home_address)
    inner = data[20:22] + (length - 20).to_bytes(2, "big") + data[24:]
    return data[:2] + length.to_bytes(2, "big") + data[4:20] + inner


def test_an_error_costs_the_same_with_many_devices() -> None:
    """One about a tunnel that does not exist, or with a minimal quote, looks at no entry of another device."""

    class Watched(dict[Addr, BindingEntry]):
        def values(self) -> Any:
            raise AssertionError("a walk over all devices")

        __iter__ = items = values

    entries = Entries()
    entries.add(HOME, Tunnel(A4, B4))
    entries.state.bindings = Watched(entries.state.bindings)
    entries.state.translations[HOME, B4] = Translation(HOME, OTHER_HOME, B4)
    known = paths(entries)
    assert (
        known.judge(quoted(Tunnel(A4, ip_address("10.4.0.1")), HOME, 28), 1300).verdict is Verdict.NO_TUNNEL
    )
    assert known.judge(quoted(Tunnel(A4, B4), HOME, 28), 1380).verdict is Verdict.BELIEVED
    assert (
        known.judge(sized(Tunnel(A4, B4), OTHER_HOME, 1370), 1300).verdict is Verdict.BELIEVED
    )  # translated
    stranger = sized(Tunnel(A4, B4), ip_address("10.9.0.7"), 1290)
    assert known.judge(stranger, 1285).verdict is Verdict.NO_TUNNEL


def test_ends_of_tunnels_are_counted() -> None:
    """An end is known as long as an entry leads there, with its encapsulation, ports and key."""
    ends = TunnelEnds()
    for tunnel in SHAPES:
        ends.replace((), (tunnel, tunnel))
    for tunnel in SHAPES:
        shape = shape_of(tunnel)
        for left in (True, False):
            assert ends.leads(tunnel.destination, shape)
            ends.replace((tunnel,), ())
            assert ends.leads(tunnel.destination, shape) is left
    assert not ends._ends
    ends.replace((), (SHAPES[0],))
    assert not ends.leads(B4, shape_of(SHAPES[1]))
    ends.replace((SHAPES[0],), (SHAPES[1],))
    assert ends.leads(B4, shape_of(SHAPES[1])) and not ends.leads(B4, shape_of(SHAPES[0]))


def test_many_ends_are_counted_as_one_after_the_other() -> None:
    """Tunnels of other objects that are equal as well."""
    together, single = TunnelEnds(), TunnelEnds()
    moves: list[list[tuple[tuple[Tunnel, ...], tuple[Tunnel, ...]]]] = [
        [((), (SHAPES[0],)), ((), (SHAPES[1],)), ((), (replace(SHAPES[0]), SHAPES[3]))],
        [((SHAPES[0],), (SHAPES[1],)), ((SHAPES[1],), (replace(SHAPES[1]),))],
        [((SHAPES[0], SHAPES[3]), (SHAPES[2],)), ((SHAPES[1],), ())],
        [((SHAPES[1],), ()), ((SHAPES[2],), ())],
    ]
    for some in moves:
        together.replace_many(some)
        for old, new in some:
            single.replace(old, new)
        for shape in map(shape_of, SHAPES):
            assert together.leads(B4, shape) is single.leads(B4, shape)
    assert not together._ends and not single._ends


def test_other_port_and_other_key() -> None:
    udp, keyed = SHAPES[3], SHAPES[2]
    for sent, known in (
        (udp, Tunnel(A4, B4, Encapsulation.UDP, 434, 5001)),
        (keyed, Tunnel(A4, B4, Encapsulation.GRE, 0, 0, 8)),
    ):
        quote = read_quote(tunnelled(sent, 4)[:60])
        assert quote is not None
        assert not matches(quote, known)


def test_quotes_that_no_router_refuses() -> None:
    """It may cut a packet without "don't fragment"; this host's have the flag, and are no fragments (RFC 1191 section 4)."""
    packet = bytearray(tunnelled(SHAPES[0], 4)[:60])
    packet[6:8] = b"\x00\x00"
    quote = read_quote(bytes(packet))
    assert quote is not None and judge(quote, 1300, True, 1500)[0] is Verdict.NO_TUNNEL
    for flags in (b"\x20\x00", b"\x60\x00", b"\x40\x01", b"\xc0\x00"):
        packet[6:8] = flags
        assert read_quote(bytes(packet)) is None, flags


MINIMAL = Tunnel(A4, B4, Encapsulation.MINIMAL)


@pytest.mark.parametrize("own", [False, True])
def test_quotes_of_minimal_encapsulation(own: bool) -> None:
    """RFC 2004: the inner addresses are in the short header; 28 bytes have them where the source is left out."""
    start, end = IPv4Address("10.2.0.1"), IPv4Address("10.3.0.1")
    source, home = start if own else IPv4Address("10.1.0.2"), IPv4Address("10.9.0.5")
    header = Ipv4Header(source, home, 17, dont_fragment=True)
    packet = narrow(header.encode(bytes(1380)), start, end)
    for quoted in range(61):
        quote = read_quote(packet[:quoted])
        assert (quote is None) is (quoted < 28)
        if quote is None:
            continue
        assert [shape for shape in (*SHAPES, MINIMAL) if matches(quote, shape)] == [MINIMAL]
        assert quote.shape == shape_of(MINIMAL)
        known = quoted >= 32 or own
        assert quote.inner == ((source, home) if known else None)
        wanted = (Verdict.BELIEVED, 1300) if known or quoted == 28 else (Verdict.UNCONFIRMED, 0)
        assert judge(quote, 1300, True, 1500) == wanted, quoted
    wrong = bytearray(packet[:60])
    wrong[25] ^= 1
    assert read_quote(bytes(wrong)) is None
    cut = narrow(replace(header, dont_fragment=False).encode(bytes(300)), start, end)
    quote = read_quote(cut)
    assert quote is not None and judge(quote, 300, True, 1500)[0] is Verdict.NO_TUNNEL


def test_quotes_of_ip_in_ip_in_a_minimal_tunnel() -> None:
    quote = read_quote(tunnelled(SHAPES[0], 4)[:60])
    short = read_quote(tunnelled(SHAPES[0], 4)[:28])
    assert quote is not None and short is not None and matches(quote, MINIMAL)
    ends = TunnelEnds()
    for tunnels in ((MINIMAL,), (MINIMAL, SHAPES[1])):
        ends.fill(tunnels)
        assert ends.leads(B4, short.shape) and ends.leads(B4, shape_of(MINIMAL))
        assert not ends.leads(B4, shape_of(SHAPES[3]))
    ends.fill((SHAPES[0], SHAPES[1]))
    assert not ends.leads(B4, shape_of(MINIMAL))


@pytest.mark.parametrize("tunnel", SHAPES, ids=str)
@pytest.mark.parametrize("family", [4, 6])
def test_quote_whose_inner_packet_does_not_fit(tunnel: Tunnel, family: int) -> None:
    """The outer header is easily guessed; the inner one has the same length and the version that the outer one says."""
    packet = bytearray(tunnelled(tunnel, family)[:120])
    inner = len(tunnelled(tunnel, family)) - len(INNER[family])
    assert read_quote(bytes(packet)) is not None
    for place, change in ((inner, 0x20), (inner + (3 if family == 4 else 5), 1)):
        packet[place] ^= change
        assert read_quote(bytes(packet)) is None, place
        packet[place] ^= change


def test_least_mtu_of_ipv6() -> None:
    """RFC 8201 section 4: less than 1280 is not believed, and neither is none at all."""
    quote = read_quote(tunnelled(SHAPES[4], 6)[:100])
    assert quote is not None
    for told, verdict in ((1280, Verdict.BELIEVED), (1279, Verdict.TOO_SMALL), (0, Verdict.TOO_SMALL)):
        assert judge(replace(quote, length=2000), told, True, 2000)[0] is verdict


def test_router_that_names_no_mtu() -> None:
    """RFC 1191 section 7: the next plateau below the packet's length."""
    quote = read_quote(tunnelled(SHAPES[0], 4)[:60])
    assert quote is not None
    assert judge(quote, 0, True, 1500) == (Verdict.BELIEVED, 1006)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_quote_or_none(data: bytes) -> None:
    for lead in (b"", b"\x45", b"\x60"):
        read_quote(lead + data)


@pytest.mark.parametrize("tunnel", SHAPES[::4], ids=str)
@pytest.mark.parametrize("mtu", [576, 1280])
def test_fragments(tunnel: Tunnel, mtu: int) -> None:
    """They fit, all but the last are as long as they can be, and together they are the packet."""
    packet = tunnelled(tunnel, 6)
    v4 = tunnel.source.version == 4
    head = 20 if v4 else 48
    pieces = list(fragments(packet, mtu, 0x12345678))
    assert b"".join(piece[head:] for piece in pieces) == packet[20 if v4 else 40 :]
    assert all(mtu - 8 < len(piece) <= mtu for piece in pieces[:-1])
    for number, piece in enumerate(pieces):
        found = parse_packet(piece, 0, len(piece), tunnel.source.version)
        assert found is not None and found.fragment and found.later_fragment is bool(number)
        assert found.identification[:2] == (b"\x56\x78" if v4 else b"\x12\x34")
        assert not v4 or ones_sum(piece[:20]) == 0xFFFF
