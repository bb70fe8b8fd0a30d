"""Whole IP packets: building a packet of TCP, UDP or ICMP, fragmenting. Bytes in, bytes out."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from locum.wire.errors import WireError
from locum.wire.flow import Flow
from locum.wire.ip.checksum import Address
from locum.wire.ip.headers import (
    ICMP,
    ICMPV6,
    IPV6_HEADER_BYTES,
    TCP,
    UDP,
    Ipv4Header,
    Ipv6Header,
    decode_ip,
)
from locum.wire.ip.transport import IcmpMessage, TcpFlag, TcpSegment, UdpDatagram, timestamp_option

_FRAGMENT_HEADER = 44
_MOST_UDP4 = 0xFFFF - 20 - 8  # bytes of payload; the length fields of IPv4 and UDP bound it
_MOST_UDP6 = 0xFFFF - 8
_COPIED = 0x80  # an IPv4 option with this bit goes into every fragment


def build_ip(source: Address, destination: Address, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
    """A packet of the addresses' family; both must be of one. DF is set in IPv4, as for TCP with path MTU discovery."""
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        return Ipv4Header(source, destination, protocol, ttl, dont_fragment=True).encode(payload)
    if isinstance(source, IPv6Address) and isinstance(destination, IPv6Address):
        return Ipv6Header(source, destination, protocol, ttl).encode(payload)
    raise ValueError(f"{source} and {destination} are not of one family")


def build_tcp(
    flow: Flow,
    *,
    seq: int,
    ack: int,
    flags: TcpFlag | int,
    window: int = 0,
    tsval: int | None = None,
    tsecr: int = 0,
    options: bytes = b"",
    payload: bytes = b"",
    from_peer: bool = True,
) -> bytes:
    """An IP packet with one TCP segment of `flow`, checksummed; from the peer to the home address by default.

    Sequence numbers are taken modulo 2**32, `window` is what stands in the header, unscaled. With `tsval` the segment
    carries the timestamps option before `options`, which are padded by the caller to words of four bytes.
    """
    source, source_port = (flow.peer, flow.peer_port) if from_peer else (flow.local, flow.local_port)
    target, target_port = (flow.local, flow.local_port) if from_peer else (flow.peer, flow.peer_port)
    stamp = b"" if tsval is None else timestamp_option(tsval & 0xFFFFFFFF, tsecr & 0xFFFFFFFF)
    segment = TcpSegment(
        source_port=source_port,
        destination_port=target_port,
        sequence=seq & 0xFFFFFFFF,
        acknowledgement=ack & 0xFFFFFFFF,
        flags=TcpFlag(flags),
        window=window,
        options=stamp + options,
        payload=payload,
    )
    return build_ip(source, target, TCP, segment.encode(source, target))


def build_udp(flow: Flow, payload: bytes, *, from_peer: bool = True) -> bytes:
    """An IP packet with one UDP datagram of `flow`, checksummed; from peer to home address by default.

    Raises ValueError for a payload that fits no packet of the family.
    """
    source, source_port = (flow.peer, flow.peer_port) if from_peer else (flow.local, flow.local_port)
    target, target_port = (flow.local, flow.local_port) if from_peer else (flow.peer, flow.peer_port)
    if len(payload) > (_MOST_UDP4 if flow.local.version == 4 else _MOST_UDP6):
        raise ValueError(f"{len(payload)} bytes fit no UDP datagram")
    datagram = UdpDatagram(source_port, target_port, payload)
    return build_ip(source, target, UDP, datagram.encode(source, target))


def build_unreachable(flow: Flow, code4: int, code6: int) -> bytes:
    """An ICMP "destination unreachable" from the peer about a UDP datagram that the home address sent on `flow`.

    `code4` is of RFC 792, `code6` of RFC 4443 section 3.1; the one of the flow's family counts.
    """
    quoted = build_udp(flow, b"", from_peer=False)
    if isinstance(flow.local, IPv6Address) and isinstance(flow.peer, IPv6Address):
        message = IcmpMessage(1, code6, body=quoted)
        return build_ip(flow.peer, flow.local, ICMPV6, message.encode6(flow.peer, flow.local))
    return build_ip(flow.peer, flow.local, ICMP, IcmpMessage(3, code4, body=quoted).encode())


def fragment(packet: bytes, mtu: int, *, identification: int | None = None) -> list[bytes]:
    """`packet` in pieces of at most `mtu` bytes each, in order; the packet alone if it fits.

    IPv4 keeps its identification unless one is given; IPv6 needs one for its fragment header (32 bits, 0 if none is
    given) and can only be fragmented by its source. Raises WireError for a packet that cannot be parsed, has DF set
    (`dont-fragment`), or for an MTU that leaves no room.
    """
    header, payload = decode_ip(packet)
    if isinstance(header, Ipv4Header):
        return _fragment4(header, payload, mtu, identification)
    if IPV6_HEADER_BYTES + len(payload) <= mtu:
        return [packet[: IPV6_HEADER_BYTES + len(payload)]]
    return _fragment6(header, payload, mtu, identification or 0)


def _fragment4(header: Ipv4Header, payload: bytes, mtu: int, identification: int | None) -> list[bytes]:
    if 20 + len(header.options) + len(payload) <= mtu:
        return [header.encode(payload)]
    if header.dont_fragment:
        raise WireError("flags", 6, "dont-fragment")
    if identification is not None:
        header = replace(header, identification=identification)
    later = replace(header, options=_copied_options(header.options))
    pieces: list[bytes] = []
    position = 0
    while position < len(payload):
        head = later if position else header
        room = mtu - 20 - len(head.options)
        last = len(payload) - position <= room
        size = len(payload) - position if last else room & ~7
        if size <= 0:
            raise WireError("mtu", 0, "range")
        piece = replace(
            head,
            fragment_offset=header.fragment_offset + position,
            more_fragments=header.more_fragments or not last,
        )
        pieces.append(piece.encode(payload[position : position + size]))
        position += size
    return pieces


def _copied_options(options: bytes) -> bytes:
    kept = b""
    position = 0
    while position < len(options) and options[position] != 0:
        kind = options[position]
        size = 1 if kind == 1 else options[position + 1] if position + 1 < len(options) else 0
        if size == 0 or (kind != 1 and size < 2) or position + size > len(options):
            break
        if kind & _COPIED:
            kept += options[position : position + size]
        position += size
    return kept + bytes(-len(kept) % 4)


def _fragment6(header: Ipv6Header, payload: bytes, mtu: int, identification: int) -> list[bytes]:
    room = (mtu - IPV6_HEADER_BYTES - 8) & ~7
    if room <= 0:
        raise WireError("mtu", 0, "range")
    outer = replace(header, next_header=_FRAGMENT_HEADER)
    pieces: list[bytes] = []
    for position in range(0, len(payload), room):
        more = position + room < len(payload)
        head = bytes((header.next_header, 0)) + (position | more).to_bytes(2, "big")
        head += identification.to_bytes(4, "big")
        pieces.append(outer.encode(head + payload[position : position + room]))
    return pieces
