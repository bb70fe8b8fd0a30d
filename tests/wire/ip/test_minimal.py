"""Minimal encapsulation (RFC 2004): its header, packets in it and out of it, and damaged ones."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum
from locum.wire.ip.headers import IPV4_IN_IP, MINIMAL_IN_IP, Ipv4Header
from locum.wire.ip.minimal import MinimalHeader, inner_packet, narrow, widen

PEER, HOME = IPv4Address("10.1.0.2"), IPv4Address("10.9.0.5")
AGENT, CARE_OF = IPv4Address("10.2.0.1"), IPv4Address("10.2.0.2")
ADDRESSES = st.builds(IPv4Address, st.integers(0, 0xFFFFFFFF))


def test_bytes_of_the_header() -> None:
    """Section 3: protocol, S and reserved bits, checksum, original destination, and the original source if S is set."""
    assert MinimalHeader(17, HOME).encode().hex() == "1100e4f10a090005"
    assert MinimalHeader(17, HOME, PEER).encode().hex() == "1180da6e0a0900050a010002"
    reserved = bytes.fromhex("11ffd9ef0a0900050a010002")
    assert MinimalHeader.decode(reserved) == (MinimalHeader(17, HOME, PEER), 12)  # they are ignored


@given(st.integers(0, 255), ADDRESSES, st.none() | ADDRESSES, st.binary(max_size=20))
def test_header_is_read_as_it_was_written(
    protocol: int, destination: IPv4Address, source: IPv4Address | None, rest: bytes
) -> None:
    header = MinimalHeader(protocol, destination, source)
    data = header.encode()
    assert checksum(data) == 0
    assert MinimalHeader.decode(data + rest) == (header, 8 if source is None else 12)


def packet(source: IPv4Address = PEER, options: bytes = b"") -> bytes:
    header = Ipv4Header(
        source, HOME, 17, ttl=9, tos=0xB8, identification=77, dont_fragment=True, options=options
    )
    return header.encode(b"\0\7\0\x09\0\x0d\0\0hello")


@pytest.mark.parametrize(("source", "size"), [(PEER, 12), (AGENT, 8)])
def test_packet_through_a_tunnel(source: IPv4Address, size: int) -> None:
    """One IP header, with the fields of the packet's own; the source is left out where it is the tunnel's (S bit)."""
    whole = packet(source)
    narrowed = narrow(whole, AGENT, CARE_OF)
    assert len(narrowed) == len(whole) + size
    header, body = Ipv4Header.decode(narrowed)
    assert (header.source, header.destination, header.protocol) == (AGENT, CARE_OF, MINIMAL_IN_IP)
    assert (header.ttl, header.tos, header.identification, header.dont_fragment) == (9, 0xB8, 77, True)
    assert body[size:] == whole[20:] and (body[1] == 0x80) is (size == 12)
    assert inner_packet(narrowed) == whole
    outer, inner = Ipv4Header.decode(widen(narrowed))
    assert inner == whole and outer.protocol == IPV4_IN_IP
    assert (outer.source, outer.destination, outer.ttl, outer.tos) == (AGENT, CARE_OF, 9, 0xB8)


@given(st.integers(0, 10).map(lambda words: b"\x01" * (4 * words)), st.booleans())
def test_options_are_the_inner_packets(options: bytes, with_source: bool) -> None:
    """The options of the one IP header, which stands in front, come out with the packet."""
    own = PEER if with_source else AGENT
    body = b"\0\7\0\x09\0\x08\0\0"
    header = MinimalHeader(17, HOME, own if with_source else None).encode()
    came = Ipv4Header(AGENT, CARE_OF, MINIMAL_IN_IP, ttl=5, options=options).encode(header + body)
    wanted = Ipv4Header(own, HOME, 17, ttl=5, options=options).encode(body)
    assert inner_packet(came) == wanted
    outer, inner = Ipv4Header.decode(widen(came))
    assert inner == wanted and not outer.options


def test_quoted_packets() -> None:
    """An error may quote no more than the headers; the length is that of the whole packet."""
    narrowed = narrow(packet(), AGENT, CARE_OF)
    assert inner_packet(narrowed[:36]) == packet()[:24]
    with pytest.raises(WireError, match="truncated"):
        inner_packet(narrowed[:28])


def test_damaged_headers() -> None:
    good = MinimalHeader(17, HOME, PEER).encode()
    for size in range(len(good)):
        with pytest.raises(WireError, match="truncated"):
            MinimalHeader.decode(good[:size])
    for place in range(len(good)):
        wrong = good[:place] + bytes((good[place] ^ 0x41,)) + good[place + 1 :]
        with pytest.raises(WireError, match="checksum"):
            MinimalHeader.decode(wrong)
    long = Ipv4Header(AGENT, CARE_OF, MINIMAL_IN_IP).encode(MinimalHeader(17, HOME).encode() + bytes(65507))
    with pytest.raises(WireError, match="range"):
        widen(long)
