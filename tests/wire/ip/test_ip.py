"""IP packets as values: vectors, round trips, checksums, fragments, against scapy where it can say."""

import struct
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP as ScapyIP
from scapy.layers.inet import TCP as ScapyTCP
from scapy.layers.inet import UDP as ScapyUDP
from scapy.layers.inet import defragment
from scapy.layers.inet6 import IPv6 as ScapyIPv6
from scapy.layers.inet6 import defragment6

from locum.wire.control import Flow
from locum.wire.errors import WireError
from locum.wire.ip import (
    ICMPV6,
    TCP,
    UDP,
    IcmpMessage,
    Ipv4Header,
    Ipv6Header,
    TcpFlag,
    TcpSegment,
    UdpDatagram,
    build_ip,
    build_tcp,
    checksum,
    decode_ip,
    fragment,
    ones_sum,
    timestamp_option,
    transport_checksum,
    upper_layer,
)
from tests.wire.strategies import addresses4, addresses6, damaged, u8, u16, u32

HOME, PEER = IPv4Address("192.0.2.10"), IPv4Address("198.51.100.7")
HOME6, PEER6 = IPv6Address("2001:db8::10"), IPv6Address("2001:db8:1::7")
FLOW = Flow(6, HOME, 40000, PEER, 80)
FLOW6 = Flow(6, HOME6, 40000, PEER6, 80)

words = st.integers(0, 10).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count))
headers4 = st.builds(
    Ipv4Header,
    source=addresses4,
    destination=addresses4,
    protocol=u8,
    ttl=u8,
    tos=u8,
    identification=u16,
    dont_fragment=st.booleans(),
    more_fragments=st.booleans(),
    fragment_offset=st.integers(0, 0x1FFF).map(lambda units: units * 8),
    options=words,
)
headers6 = st.builds(
    Ipv6Header,
    source=addresses6,
    destination=addresses6,
    next_header=u8,
    hop_limit=u8,
    traffic_class=u8,
    flow_label=st.integers(0, 0xFFFFF),
)
segments = st.builds(TcpSegment, u16, u16, u32, u32, u8.map(TcpFlag), u16, words, st.binary(max_size=40), u16)


def plain_sum(data: bytes) -> int:
    """RFC 1071 as it is written."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(
    st.binary(max_size=100) | st.sampled_from([b"", b"\xff\xff", b"\xff" * 4, b"\x00", b"\xff\xfe\x00\x01"])
)
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert ones_sum(data) == plain_sum(data)
    assert checksum(data) == plain_sum(data) ^ 0xFFFF


def test_checksum_vector() -> None:
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2  # RFC 1071 section 3


def test_ipv4_vector() -> None:
    packet = bytes.fromhex("4500 0018 0001 4000 40 11 4e8f c000020a c6336407 61626364")
    header = Ipv4Header(HOME, PEER, UDP, identification=1, dont_fragment=True)
    assert (
        header.encode(b"abcd")
        == packet
        == bytes(ScapyIP(src=str(HOME), dst=str(PEER), proto=17, id=1, flags="DF") / b"abcd")
    )
    assert decode_ip(packet) == (header, b"abcd")
    assert decode_ip(packet + bytes(6)) == (header, b"abcd")


def test_ipv6_vector() -> None:
    packet = bytes.fromhex("6a512345 0004 3b 3f" + HOME6.packed.hex() + PEER6.packed.hex() + "61626364")
    header = Ipv6Header(HOME6, PEER6, 59, 63, 0xA5, 0x12345)
    assert header.encode(b"abcd") == packet
    assert decode_ip(packet) == (header, b"abcd")


@given(headers4 | headers6, st.binary(max_size=60))
def test_header_round_trip(header: Ipv4Header | Ipv6Header, payload: bytes) -> None:
    assert decode_ip(header.encode(payload)) == (header, payload)


@given(segments)
def test_tcp_round_trip(segment: TcpSegment) -> None:
    for source, destination in ((PEER, HOME), (PEER6, HOME6)):
        data = segment.encode(source, destination)
        assert TcpSegment.decode(data) == segment
        assert transport_checksum(source, destination, TCP, data) == 0


@given(u16, u16, st.binary(max_size=40))
def test_udp_round_trip(source_port: int, destination_port: int, payload: bytes) -> None:
    datagram = UdpDatagram(source_port, destination_port, payload)
    data = datagram.encode(PEER, HOME)
    assert UdpDatagram.decode(data + b"padding") == datagram
    assert data[6:8] != b"\x00\x00" and transport_checksum(PEER, HOME, UDP, data) == 0


@given(u8, u8, st.binary(min_size=4, max_size=4), st.binary(max_size=20))
def test_icmp_round_trip(kind: int, code: int, rest: bytes, body: bytes) -> None:
    message = IcmpMessage(kind, code, rest, body)
    assert IcmpMessage.decode(message.encode()) == message and checksum(message.encode()) == 0
    data = message.encode6(PEER6, HOME6)
    assert IcmpMessage.decode(data) == message
    assert transport_checksum(PEER6, HOME6, ICMPV6, data) == 0


packets = st.builds(lambda header, body: header.encode(body), headers4 | headers6, st.binary(max_size=60))


@given(st.binary(max_size=80) | damaged(packets))
def test_bytes_give_a_value_or_wire_error(data: bytes) -> None:
    for decoder in (decode_ip, upper_layer, TcpSegment.decode, UdpDatagram.decode, IcmpMessage.decode):
        with suppress(WireError):
            value = decoder(data)
            if isinstance(value, TcpSegment):
                assert value.timestamps is None or len(value.timestamps) == 2
    with suppress(WireError):
        fragment(data, 40)


@given(st.binary(max_size=40))
def test_timestamps_of_any_options(options: bytes) -> None:
    found = TcpSegment(1, 2, 3, options=options).timestamps
    assert found is None or all(0 <= timestamp <= 0xFFFFFFFF for timestamp in found)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", None),
        ("0101080a0000000100000002", (1, 2)),
        ("020405b40402080affffffff00000000", (0xFFFFFFFF, 0)),
        ("00080a0000000100000002", None),
        ("08", None),
        ("0800", None),
        ("080a000000", None),
        ("0301", None),
    ],
)
def test_timestamps(options: str, found: tuple[int, int] | None) -> None:
    assert TcpSegment(1, 2, 3, options=bytes.fromhex(options)).timestamps == found


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        b"\x55" + bytes(19),
        bytes.fromhex("4400001400000000400600000000000000000000"),
        bytes.fromhex("4500001500000000400600000000000000000000"),
        bytes.fromhex("4500001400000000400600000000000000000000"),
        bytes.fromhex("4f00001400000000400600000000000000000000"),
        b"\x60" + bytes(38),
        b"\x60\x00\x00\x00\x00\x01" + bytes(34),
    ],
)
def test_refusals(packet: bytes) -> None:
    with pytest.raises(WireError):
        decode_ip(packet)


@pytest.mark.parametrize("flow", [FLOW, FLOW6], ids=["v4", "v6"])
@pytest.mark.parametrize("from_peer", [True, False])
def test_scapy_reads_build_tcp(flow: Flow, from_peer: bool) -> None:
    packet = build_tcp(
        flow,
        seq=(1 << 32) + 5,
        ack=7,
        flags=TcpFlag.FIN | TcpFlag.ACK,
        window=512,
        tsval=9,
        tsecr=8,
        payload=b"end",
        from_peer=from_peer,
    )
    layer = ScapyIP if flow.local.version == 4 else ScapyIPv6
    seen = layer(packet)
    ends = [(str(flow.peer), flow.peer_port), (str(flow.local), flow.local_port)]
    assert [(seen.src, seen[ScapyTCP].sport), (seen.dst, seen[ScapyTCP].dport)] == ends[
        :: 1 if from_peer else -1
    ]
    tcp = seen[ScapyTCP]
    assert (tcp.seq, tcp.ack, str(tcp.flags), tcp.window, bytes(tcp.payload)) == (5, 7, "FA", 512, b"end")
    assert ("Timestamp", (9, 8)) in tcp.options
    given_sum = tcp.chksum
    del tcp.chksum
    assert layer(bytes(seen))[ScapyTCP].chksum == given_sum
    upper = upper_layer(packet)
    assert TcpSegment.decode(upper.payload).timestamps == (9, 8)


def test_build_tcp_without_timestamps() -> None:
    packet = build_tcp(FLOW, seq=1, ack=2, flags=TcpFlag.RST)
    assert len(packet) == 40 and TcpSegment.decode(packet[20:]).timestamps is None
    with pytest.raises(ValueError, match="family"):
        build_ip(HOME, PEER6, TCP, b"")


def test_timestamp_option() -> None:
    assert timestamp_option(1, 2).hex() == "0101080a0000000100000002"


def test_scapy_agrees_with_our_udp_checksums() -> None:
    for source, destination, layer in ((PEER, HOME, ScapyIP), (PEER6, HOME6, ScapyIPv6)):
        whole = build_ip(
            source, destination, UDP, UdpDatagram(53, 4000, b"answer").encode(source, destination)
        )
        seen = layer(whole)
        given_sum = seen[ScapyUDP].chksum
        del seen[ScapyUDP].chksum
        assert layer(bytes(seen))[ScapyUDP].chksum == given_sum


@pytest.mark.parametrize("mtu", [68, 576, 1280, 1499, 1500])
def test_fragments_are_put_together_by_scapy(mtu: int) -> None:
    payload = UdpDatagram(1, 2, bytes(range(256)) * 10).encode(HOME, PEER)
    whole = Ipv4Header(HOME, PEER, UDP, identification=77).encode(payload)
    pieces = fragment(whole, mtu)
    assert all(len(piece) <= mtu for piece in pieces) and len(pieces) > 1
    (joined,) = defragment(
        [  # type: ignore[no-untyped-call]
            ScapyIP(piece) for piece in pieces
        ]
    )
    assert bytes(joined[ScapyUDP]) == payload


@pytest.mark.parametrize("mtu", [1280, 1500])
def test_ipv6_fragments_are_put_together_by_scapy(mtu: int) -> None:
    payload = UdpDatagram(1, 2, bytes(range(256)) * 10).encode(HOME6, PEER6)
    whole = Ipv6Header(HOME6, PEER6, UDP).encode(payload)
    pieces = fragment(whole, mtu, identification=99)
    assert all(len(piece) <= mtu for piece in pieces) and len(pieces) > 1
    assert bytes(defragment6([ScapyIPv6(piece) for piece in pieces])) == whole  # type: ignore[no-untyped-call]
    first = upper_layer(pieces[0])
    assert (first.protocol, first.fragmented, first.fragment_offset) == (UDP, True, 0)
    last = upper_layer(pieces[-1])
    assert last.protocol == UDP and last.fragment_offset and not last.more_fragments


@given(st.integers(0, 3), st.integers(60, 200), st.integers(0, 600))
def test_fragments_of_fragments_keep_their_place(units: int, mtu: int, size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    whole = Ipv4Header(HOME, PEER, 99, more_fragments=True, fragment_offset=units * 8).encode(body)
    pieces = [decode_ip(data) for data in fragment(whole, mtu)]
    position = units * 8
    for header, part in pieces:
        assert isinstance(header, Ipv4Header)
        assert header.fragment_offset == position and header.more_fragments
        position += len(part)
    assert b"".join(part for _, part in pieces) == body


def test_only_copied_options_are_in_later_fragments() -> None:
    options = bytes.fromhex("9404 0000 01 070700000000 00")  # router alert (copied), record route (not)
    whole = Ipv4Header(HOME, PEER, 99, options=options).encode(bytes(100))
    first, *others = (decode_ip(data)[0] for data in fragment(whole, 68))
    assert isinstance(first, Ipv4Header) and first.options == options
    assert {other.options for other in others if isinstance(other, Ipv4Header)} == {bytes.fromhex("94040000")}


def test_unfragmentable_packets_are_refused() -> None:
    whole = Ipv4Header(HOME, PEER, 99).encode(bytes(100))
    assert fragment(whole, 120) == [whole]
    with pytest.raises(WireError, match="dont-fragment"):
        fragment(build_ip(HOME, PEER, 99, bytes(100)), 100)
    with pytest.raises(WireError, match="mtu"):
        fragment(whole, 27)
    with pytest.raises(WireError, match="mtu"):
        fragment(build_ip(HOME6, PEER6, 99, bytes(100)), 48)


def test_extension_headers_are_walked() -> None:
    hops = bytes((60, 0)) + bytes(6)
    destination = bytes((51, 1)) + bytes(14)
    authentication = bytes((TCP, 4)) + bytes(22)
    packet = Ipv6Header(HOME6, PEER6, 0).encode(hops + destination + authentication + b"segment")
    upper = upper_layer(packet)
    assert (upper.protocol, upper.start, upper.payload) == (TCP, 40 + 8 + 16 + 24, b"segment")
    endless = Ipv6Header(HOME6, PEER6, 0).encode((bytes(8)) * 20)
    with pytest.raises(WireError, match="too-many-headers"):
        upper_layer(endless)


def test_addresses_of_both_families() -> None:
    assert replace(FLOW, local=ip_address("192.0.2.11")).local != FLOW.local
