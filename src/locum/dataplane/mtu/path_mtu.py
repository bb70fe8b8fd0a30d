"""Judges ICMP errors about tunnel packets that were too big for a link (RFC 1191, RFC 8201, RFC 2003 section 4).

An error quotes the beginning of the packet that it is about. It is believed if this host may have sent that packet: into
one of its tunnels, longer than the link that refused it, and no longer than this host sends. Outer addresses are easily
guessed, so the quote has to contain those of the inner packet (RFC 5927 section 4). Routers that keep to RFC 792 alone quote
8 bytes behind the IPv4 header, too little for that: they are believed down to UNCONFIRMED_LEAST. It knows no kernel and
no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from locum.dataplane.layout.maps import MAPPED, address_of
from locum.dataplane.model.parse import FRAGMENT, GRE, IPIP, IPV6_IN, MINIMAL, UDP
from locum.dataplane.mtu.probe_packets import INNER_BYTES
from locum.dataplane.state import ForwardingState, tunnels_of
from locum.dataplane.tunnel_ends import Shape, otherwise
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.wire.errors import WireError
from locum.wire.ip.headers import ICMP, ICMPV6
from locum.wire.ip.minimal import MinimalHeader

LEAST = {4: 552, 6: 1280}  # bytes: net.ipv4.route.min_pmtu, and RFC 8200 section 5; less is not believed
MINIMAL_QUOTE = 28  # bytes: RFC 792
UNCONFIRMED_LEAST = 1280  # bytes: a path that takes less is believed only with inner addresses
# RFC 1191 section 7: for routers that name no MTU, the next one below the packet's length
PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 552)
PROBES = {4: ICMP, 6: ICMPV6}  # protocol of their inner packets
_KEY_PRESENT = 0x2000
_DONT_FRAGMENT = 0x4000
_FRAGMENT_OFFSET = 0xFFF8


class Verdict(Enum):
    """The result for an error; the value is the name of its counter."""

    BELIEVED = "path-mtu-lowered"
    MALFORMED = "path-mtu-malformed"
    NO_TUNNEL = "path-mtu-unknown-tunnel"
    # Not longer than the MTU that was told of, or longer than this host sends.
    IMPLAUSIBLE = "path-mtu-implausible"
    TOO_SMALL = "path-mtu-too-small"
    UNCONFIRMED = "path-mtu-unconfirmed"  # without the inner addresses
    TOO_MANY = "path-mtu-too-many"


@dataclass(frozen=True, slots=True)
class Quote:
    """The beginning of an outer packet. `inner` has the addresses of the inner packet, if the quote has them."""

    family: int
    source: Addr
    destination: Addr
    length: int  # of the outer packet, in bytes
    fragmentable: bool
    encapsulation: Encapsulation
    ports: tuple[int, int] | None  # of a UDP tunnel
    keyed: bool
    key: int | None  # None: not quoted, or not there
    inner: tuple[Addr, Addr] | None
    minimal: bool = False  # no byte more than RFC 792 asks for

    @property
    def shape(self) -> Shape:
        return self.source, self.encapsulation, self.ports, self.key


def _inner(data: bytes, family: int, length: int | None) -> tuple[Addr, Addr] | None:
    """(source, destination) of an inner packet of `length` bytes, if that is known; None: too little of it is there.

    Raises ValueError if it is no such packet.
    """
    if not data:
        return None
    if data[0] >> 4 != family:
        raise ValueError("version")
    if family == 4:
        if len(data) < 20:
            return None
        _check_length(int.from_bytes(data[2:4], "big"), length, data[9], 4)
        return address_of(MAPPED + data[12:16]), address_of(MAPPED + data[16:20])
    if len(data) < 40:
        return None
    _check_length(int.from_bytes(data[4:6], "big") + 40, length, data[6], 6)
    return address_of(data[8:24]), address_of(data[24:40])


def _check_length(said: int, length: int | None, protocol: int, family: int) -> None:
    """Raise ValueError unless the inner packet says this length; probes alone have padding behind it."""
    is_probe = (protocol, said) == (PROBES[family], INNER_BYTES[family])
    if length is not None and said != length and not (is_probe and said < length):
        raise ValueError("length")


def _inner_of_minimal(data: bytes, source: Addr) -> tuple[Addr, Addr] | None:
    """The same of a packet with minimal encapsulation (RFC 2004), whose header is at the start; `source` is the outer one.

    Raises ValueError if its checksum is wrong.
    """
    try:
        header, _ = MinimalHeader.decode(data)
    except WireError as error:
        if error.reason == "truncated":
            return None
        raise
    return header.source or source, header.destination


def tunnelled(data: bytes, protocol: int) -> tuple[Encapsulation, int, int]:
    """(encapsulation, bytes before the inner packet, inner family); family 0: the quote ends before it says so.

    Raises ValueError if this host sends no such tunnel packets.
    """
    if protocol in (IPIP, IPV6_IN):
        return Encapsulation.IPIP, 0, 4 if protocol == IPIP else 6
    if protocol == MINIMAL:
        return Encapsulation.MINIMAL, 0, 0  # no header is inside
    if protocol == GRE:
        flags, kind = int.from_bytes(data[:2], "big"), data[2:4]
        if len(data) < 4 or flags not in (0, _KEY_PRESENT) or kind not in (b"\x08\x00", b"\x86\xdd"):
            raise ValueError("GRE")
        return Encapsulation.GRE, 8 if flags else 4, 4 if kind == b"\x08\x00" else 6
    if protocol != UDP or len(data) < 8:
        raise ValueError("protocol")
    if len(data) < 12:
        return Encapsulation.UDP, 12, 0
    family = {(4, IPIP): 4, (4, IPV6_IN): 6}.get((data[8], data[9]))
    if family is None:
        raise ValueError("message")
    return Encapsulation.UDP, 12, family


def read_quote(data: bytes) -> Quote | None:
    """Decode the quoted packet, from its outer IP header on; None if it is no tunnel packet as this host sends them."""
    family = data[0] >> 4 if data else 0
    if family == 4:
        if len(data) < MINIMAL_QUOTE or data[0] != 0x45:
            return None
        field = int.from_bytes(data[6:8], "big")
        if field & ~_DONT_FRAGMENT & 0xFFFF:
            return None
        source, destination = MAPPED + data[12:16], MAPPED + data[16:20]
        head, length, protocol = 20, int.from_bytes(data[2:4], "big"), data[9]
        fragmentable, fragment = not field & _DONT_FRAGMENT, False
    elif family == 6 and len(data) >= 48:
        source, destination = data[8:24], data[24:40]
        head, length, protocol = 40, int.from_bytes(data[4:6], "big") + 40, data[6]
        fragmentable, fragment = False, protocol == FRAGMENT
        if fragment:  # ours (`pieces`), for the path is narrow already; later ones tell of no tunnel
            if int.from_bytes(data[42:44], "big") & _FRAGMENT_OFFSET:
                return None
            head, protocol = 48, data[40]
    else:
        return None
    rest = data[head:]
    try:
        encapsulation, shim, inner_family = tunnelled(rest, protocol)
        inner_length = None if fragment else length - head - shim
        if encapsulation is not Encapsulation.MINIMAL:
            inner = _inner(rest[shim:], inner_family, inner_length) if inner_family else None
        elif family == 4:
            inner = _inner_of_minimal(rest, address_of(source))
        else:
            return None
    except ValueError:
        return None
    return Quote(
        family,
        address_of(source),
        address_of(destination),
        length,
        fragmentable,
        *named(rest, encapsulation, shim),
        inner,
        minimal=family == 4 and len(data) == MINIMAL_QUOTE,
    )


def named(
    rest: bytes, encapsulation: Encapsulation, shim: int
) -> tuple[Encapsulation, tuple[int, int] | None, bool, int | None]:
    """(encapsulation, ports, keyed, key) of a tunnel whose headers behind the outer IP header begin with `rest`."""
    ports = None
    if encapsulation is Encapsulation.UDP:
        ports = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
    keyed = encapsulation is Encapsulation.GRE and shim == 8
    key = int.from_bytes(rest[4:8], "big") if keyed and len(rest) >= 8 else None
    return encapsulation, ports, keyed, key


def matches(quote: Quote, tunnel: Tunnel) -> bool:
    """True if a packet in this tunnel has these outer headers."""
    if (tunnel.source, tunnel.destination) != (quote.source, quote.destination):
        return False
    if quote.encapsulation not in (tunnel.encapsulation, otherwise(tunnel.encapsulation)):
        return False
    if quote.ports is not None and quote.ports != (tunnel.source_port, tunnel.destination_port):
        return False
    return quote.keyed == (tunnel.gre_key is not None) and quote.key in (None, tunnel.gre_key)


def candidates(state: ForwardingState, inner: tuple[Addr, Addr]) -> Iterator[Tunnel]:
    """Tunnels into which this host sends packets between these inner addresses."""
    source, destination = inner
    for stage in (state.bindings, state.visited):
        entry = stage.get(destination)
        if entry is not None:
            yield from tunnels_of(entry)
    for outbound in state.outbound.get(source, {}).values():
        yield outbound.tunnel


def judge(quote: Quote, mtu: int, ours: bool, sent: int) -> tuple[Verdict, int]:
    """The verdict about an error with this quote, and the MTU to believe, in bytes.

    `mtu` as the router names it, 0: not at all. `ours`: this host may have sent the packet. `sent` is the longest packet
    that this host sends to that destination.
    """
    if quote.fragmentable or not ours:
        return Verdict.NO_TUNNEL, 0
    if quote.inner is None and not quote.minimal:
        return Verdict.UNCONFIRMED, 0
    if not mtu and quote.family == 4:
        mtu = next((plateau for plateau in PLATEAUS if plateau < quote.length), 0)
    if mtu < LEAST[quote.family]:
        return Verdict.TOO_SMALL, 0
    if not mtu < quote.length <= sent:
        return Verdict.IMPLAUSIBLE, 0
    if quote.inner is None:
        mtu = max(mtu, UNCONFIRMED_LEAST)
        if mtu >= quote.length:
            return Verdict.UNCONFIRMED, 0
    return Verdict.BELIEVED, mtu
