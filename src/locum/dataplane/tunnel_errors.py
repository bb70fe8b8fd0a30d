"""ICMP errors from inside a tunnel, for the senders of the packets in it (RFC 2003 section 4, RFC 2473 section 8).

Routers on a tunnel's path know the tunnel's ends alone, and tell its entry point. That is ours: the packet that did not
get through is in the error, and its sender is told. Bytes in, bytes out: it must not know sockets. Packets that are too
big are another matter (`DataPlane.path_mtu`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from locum.dataplane.icmp_message import Told
from locum.dataplane.model.parse import DESTINATION, FRAGMENT, MINIMAL, UDP
from locum.dataplane.model.quoted import ERRORS
from locum.dataplane.mtu.path_mtu import Quote, matches, named, tunnelled
from locum.dataplane.ration import Ration
from locum.dataplane.state import ForwardingState, tunnels_of
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel
from locum.wire.ip.checksum import ones_sum
from locum.wire.ip.minimal import inner_packet

# Messages a second, and at once (RFC 1812 section 4.3.2.8): about one end of tunnels, and in all.
RATE, BURST = 10.0, 20.0
RATE_OF_ALL, BURST_OF_ALL = 200.0, 400.0
LARGEST_QUOTE = {4: 576 - 28, 6: 1280 - 48}  # RFC 1812 section 4.3.2.3, RFC 4443 section 2.4
TIME_EXCEEDED = 11  # type of ICMP
NETWORK, HOST, ADDRESS = 0, 1, 3  # codes: of ICMP "unreachable", and of ICMPv6
PARAMETER_PROBLEM = 12  # of ICMP (RFC 792)
_AT_POINTER, _BAD_LENGTH = 0, 2  # codes; 1, a missing option, is about the outer header
_TYPE_OF_SERVICE = 1  # byte of an IPv4 header: the outer one has the inner packet's


@dataclass(frozen=True, slots=True)
class _Quote:
    """The headers of a quoted packet, and the data behind the first of them."""

    source: Addr
    destination: Addr
    protocol: int
    payload: bytes
    whole: bytes
    later_fragment: bool = False


@dataclass(slots=True)
class TunnelErrors:
    """Makes messages of errors, not more of them than `RATE` for a tunnel's end; `counts` by the result for an error."""

    counts: dict[str, int] = field(
        default_factory=lambda: {"tunnel-error-told": 0, "tunnel-error-limited": 0}
    )
    _ends: Ration[Addr] = field(default_factory=lambda: Ration(RATE, BURST))
    _all: Ration[None] = field(default_factory=lambda: Ration(RATE_OF_ALL, BURST_OF_ALL))

    def tell(self, version: int, message: bytes, state: ForwardingState, *, now: float) -> Told | None:
        """The message to the sender of the packet which this error is about; None: there is none.

        `message` is the ICMP message of that IP version to this host, from its type on; `now` in seconds.
        """
        told = relayed(version, message, state)
        if told is None:
            return None
        if not self._ends.take(told.end, now) or not self._all.take(None, now):
            self.counts["tunnel-error-limited"] += 1
            return None
        self.counts["tunnel-error-told"] += 1
        return told


def relayed(version: int, message: bytes, state: ForwardingState) -> Told | None:
    """The message for the sender of a packet in a tunnel of this state; None for all other errors."""
    outer = _read(message[8:], version)
    if outer is None or outer.later_fragment:
        return None
    found = _inner(outer)
    if found is None:
        return None
    quote_of_tunnel, inner = found
    if not _may_be_told(inner):
        return None
    home = any(matches(quote_of_tunnel, tunnel) for tunnel in _of_home_agent(inner, state))
    if not home and not any(matches(quote_of_tunnel, tunnel) for tunnel in _of_sender(inner, state)):
        return None
    problem = (version, message[0]) == (4, PARAMETER_PROBLEM)
    pointer = _pointed_at(message, outer, inner) if problem else None
    if pointer is None and (problem or not _is_lost(version, message, outer)):
        return None
    quote = inner.whole[: LARGEST_QUOTE[inner.source.version]]
    if isinstance(inner.source, IPv6Address):
        return Told(inner.source, bytes((1, ADDRESS, 0, 0)) + bytes(4) + quote, outer.destination)
    # The home agent speaks for a host of its own network (RFC 2003 section 4.1).
    head = bytes((3, HOST if home or _is_host(version, message) else NETWORK))
    if outer.protocol == MINIMAL and message[0] == TIME_EXCEEDED:  # the TTL is the sender's own (RFC 2004)
        head = bytes((TIME_EXCEEDED, 0))
    more = bytes(4)
    if pointer is not None:
        head, more = message[:2], bytes((pointer, 0, 0, 0))
    check = ones_sum(head + bytes(2) + more + quote) ^ 0xFFFF
    return Told(inner.source, head + check.to_bytes(2, "big") + more + quote, outer.destination)


def _pointed_at(message: bytes, outer: _Quote, inner: _Quote) -> int | None:
    """Byte of the inner packet that an IPv4 parameter problem is about; None: not a field of its sender's (section 4.5).

    It is the inner packet itself, or the one field of the outer header that is copied from it.
    """
    if message[1] not in (_AT_POINTER, _BAD_LENGTH) or not isinstance(inner.source, IPv4Address):
        return None
    if message[4] == _TYPE_OF_SERVICE:
        return _TYPE_OF_SERVICE
    offset = message[4] - (len(outer.whole) - len(inner.whole))
    return offset if outer.whole.endswith(inner.whole) and 0 <= offset < len(inner.whole) else None


def _is_lost(version: int, message: bytes, outer: _Quote) -> bool:
    """True if the error says that packets do not reach the tunnel's end."""
    kind, code = message[0], message[1]
    if version == 6:
        if kind == 1:  # 4: the port
            return code != 4 or outer.protocol == UDP
        return (kind, code) in ((3, 0), (4, 1))  # hop limit; the end knows no tunnels
    if kind == 3:
        # Ports exist in UDP tunnels only; "fragmentation needed" and "source route failed" are for the entry point.
        return code not in (4, 5) and (code != 3 or outer.protocol == UDP)
    return (kind, code) == (11, 0)


def _is_host(version: int, message: bytes) -> bool:
    """True if it is one host that is not reached: a loop in the tunnel is told as that (RFC 2003 section 4.3)."""
    return version == 6 or message[0] == 11 or message[1] == HOST


def _of_home_agent(inner: _Quote, state: ForwardingState) -> Iterator[Tunnel]:
    for entry in (state.bindings.get(inner.destination), state.visited.get(inner.destination)):
        if entry is not None:
            yield from tunnels_of(entry)


def _of_sender(inner: _Quote, state: ForwardingState) -> Iterator[Tunnel]:
    for entry in state.outbound.get(inner.source, {}).values():
        yield entry.tunnel


def _may_be_told(inner: _Quote) -> bool:
    """False for packets about which no error is sent (RFC 1122 section 3.2.2, RFC 4443 section 2.4)."""
    addresses = (inner.source, inner.destination)
    if inner.later_fragment or any(a.is_multicast or a.is_unspecified or a.is_loopback for a in addresses):
        return False
    return not inner.payload or inner.payload[0] not in ERRORS.get(inner.protocol, ())


def _read(data: bytes, version: int) -> _Quote | None:
    """The packet that begins these bytes, with 8 bytes behind its headers; None if there is less of it, or none."""
    if version == 4:
        size = (data[0] & 15) * 4 if data else 0
        if size < 20 or len(data) < size + 8 or data[0] >> 4 != 4:
            return None
        later = bool(int.from_bytes(data[6:8], "big") & 0x1FFF)
        ends = IPv4Address(data[12:16]), IPv4Address(data[16:20])
        return _Quote(*ends, data[9], data[size:], data, later)
    if len(data) < 48 or data[0] >> 4 != 6:
        return None
    protocol, at = data[6], 40
    if protocol == DESTINATION:  # the tunnel encapsulation limit
        protocol, at = data[40], 48 + data[41] * 8
    later = False
    if protocol == FRAGMENT and len(data) >= at + 8:  # a packet of our own may leave in fragments
        later = bool(int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF8)
        protocol, at = data[at], at + 8
    return _Quote(IPv6Address(data[8:24]), IPv6Address(data[24:40]), protocol, data[at:], data, later)


def _inner(outer: _Quote) -> tuple[Quote, _Quote] | None:
    """The tunnel of a quoted packet, and the packet in it; None if this host sends no such tunnel packets."""
    data, family = outer.payload, outer.source.version
    whole: bytes | None = None
    try:
        if outer.protocol == MINIMAL and family == 4:
            whole = inner_packet(outer.whole)
        encapsulation, shim, inner_family = tunnelled(data, outer.protocol)
    except ValueError:
        return None
    tunnel = Quote(
        family,
        outer.source,
        outer.destination,
        len(outer.whole),
        False,
        *named(data, encapsulation, shim),
        inner=None,
    )
    if whole is None:
        inner = _read(data[shim:], inner_family) if inner_family else None
    else:
        inner = _read(whole, family)
    return None if inner is None else (tunnel, inner)
