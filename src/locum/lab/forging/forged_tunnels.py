"""Forged packets to raw sockets: tunnel packets from an unregistered source, in both directions, in every
encapsulation over IPv4 and IPv6; and ICMP of both families, which agent discovery, path MTU discovery and the relay of
tunnel errors listen to."""

import struct
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from random import Random

from locum.lab.forging.forgery import (
    GRE,
    ICMP,
    ICMPV6,
    IPIP,
    IPV6,
    MINIMAL,
    UDP,
    Aim,
    Makers,
    Port,
    Shot,
    plain,
    truncated,
)
from locum.wire.ip.checksum import checksum, transport_checksum
from locum.wire.ip.minimal import MinimalHeader
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentSolicitation
from locum.wire.mobile_ip.extensions.agent import AgentFlag

HOME_ADDRESS6, CORRESPONDENT6 = IPv6Address("2001:db8:100::4"), IPv6Address("2001:db8:1::a")
_TEXT = b"nobody has said this"
"""Random bytes are taken by tshark for some broken protocol now and then."""
_UNREACHABLE = 3
_MOST_ROUTERS = 8
_CODES = (0, 1, 2, 3)
"""Net, host, protocol, port. "Fragmentation needed" is left out: any host that sees an address pair can narrow a path for a
while (RFC 1191 section 8), with the kernel's own tunnels as with ours."""

_ERRORS6 = ((1, 0), (1, 3), (1, 4), (3, 0), (4, 0), (4, 1), (4, 2))
"""Types and codes of RFC 4443 that the relay of tunnel errors listens to. "Packet too big" is left out, as above."""


def inner_packet(source: IPv4Address, destination: IPv4Address, random: Random) -> bytes:
    """A whole IPv4 packet with a UDP datagram."""
    return _ip(source, destination, UDP, struct.pack("!HHHH", 9, 80, 8 + len(_TEXT), 0) + _TEXT, random)


def _ip(source: IPv4Address, destination: IPv4Address, protocol: int, body: bytes, random: Random) -> bytes:
    header: bytes = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(body),
        random.getrandbits(16),
        0,
        64,
        protocol,
        0,
        source.packed,
        destination.packed,
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def inner_packet6(random: Random) -> bytes:
    """A whole IPv6 packet with a UDP datagram."""
    source, destination = random.sample((HOME_ADDRESS6, CORRESPONDENT6), 2)
    body = struct.pack("!HHHH", 9, 80, 8 + len(_TEXT), 0) + _TEXT
    total = transport_checksum(source, destination, UDP, body) or 0xFFFF
    header: bytes = struct.pack("!IHBB", 6 << 28, len(body), UDP, 64)
    return header + source.packed + destination.packed + body[:6] + total.to_bytes(2, "big") + body[8:]


def tunnels(aim: Aim, random: Random, port: Port) -> Makers:
    """Whole and truncated packets for the protocol of a raw socket."""

    def inner() -> bytes:
        ends = (aim.home_address, aim.correspondent)
        source, destination = ends if random.random() < 0.5 else ends[::-1]
        return inner_packet(source, destination, random)

    def gre() -> bytes:
        if random.random() < 0.5:
            return struct.pack("!HH", 0, 0x0800) + inner()
        return struct.pack("!HH", 0, 0x86DD) + inner_packet6(random)

    def minimal() -> bytes:
        packet = inner()
        header = MinimalHeader(packet[9], IPv4Address(packet[16:20]), IPv4Address(packet[12:16]))
        return header.encode() + packet[20:]

    makers: dict[int, tuple[str, Callable[[], bytes]]] = {
        IPIP: ("tunnel-ip-in-ip", inner),
        IPV6: ("tunnel-ipv6", lambda: inner_packet6(random)),
        GRE: ("tunnel-gre", gre),
        MINIMAL: ("tunnel-minimal", minimal),
    }
    name, make = makers[port.number]
    return {
        name: lambda: plain(name, port, make()),
        f"{name}-truncated": lambda: plain(
            f"{name}-truncated", port, truncated(make(), random), aim.broken[port.version]
        ),
    }


def icmp(aim: Aim, random: Random, port: Port) -> Makers:
    """Advertisements of a false agent, solicitations, and errors about packets that were never sent."""

    def advertisement() -> bytes:
        return AgentAdvertisement(
            lifetime=1800,
            addresses=((aim.stranger, 0),),
            sequence=random.randrange(256, 65536),
            registration_lifetime=1800,
            flags=AgentFlag.R | AgentFlag.F | AgentFlag.T,
            care_of_addresses=(aim.stranger,),
        ).encode()

    def error() -> bytes:
        """An ICMP error about a tunnel packet of the target: the tunnel's end is unreachable (RFC 2003)."""
        quoted = _ip(IPv4Address(port.address), aim.agents[0], IPIP, bytes(0), random)
        body = quoted + inner_packet(aim.correspondent, aim.home_address, random)
        message: bytes = struct.pack("!BBHI", _UNREACHABLE, random.choice(_CODES), 0, 0) + body[:48]
        return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]

    def counted() -> Shot:
        """It arrives with the TTL of a message that was sent on the link, if the routers in between were counted."""
        target, hops = port.address, random.randrange(1, _MOST_ROUTERS)
        source = str(aim.stranger)
        return Shot("advertisement-ttl", "ip", target, ICMP, advertisement(), source, port.label, hops)

    makers: dict[str, Callable[[], bytes]] = {
        "advertisement-forged": advertisement,
        "solicitation-of-a-stranger": lambda: AgentSolicitation().encode(),
        "icmp-error-forged": error,
    }
    found: dict[str, Callable[[], Shot]] = {
        kind: partial(_from_stranger, kind, port, make) for kind, make in makers.items()
    }
    found["advertisement-ttl"] = counted
    found["discovery-noise"] = lambda: plain(
        "discovery-noise", port, b"\x09\x00" + random.randbytes(random.randrange(1, 60)), aim.broken[4]
    )
    return found


def icmpv6(aim: Aim, random: Random, port: Port) -> Makers:
    """ICMPv6 errors about tunnel packets that were never sent, and about none; the sender's kernel adds the checksum."""

    def error() -> bytes:
        """The tunnel's end cannot be reached, or the packet took too many hops (RFC 2473 section 8)."""
        inner = inner_packet6(random)
        outer: bytes = struct.pack("!IHBB", 6 << 28, len(inner), IPV6, 64)
        ends = IPv6Address(port.address).packed + CORRESPONDENT6.packed
        kind, code = random.choice(_ERRORS6)
        return struct.pack("!BBHI", kind, code, 0, 0) + outer + ends + inner

    def noise() -> bytes:
        kind, code = random.choice(_ERRORS6)
        return struct.pack("!BBHI", kind, code, 0, 0) + random.randbytes(random.randrange(60))

    return {
        "icmpv6-error-forged": lambda: plain("icmpv6-error-forged", port, error()),
        "icmpv6-error-noise": lambda: plain("icmpv6-error-noise", port, noise(), aim.broken[6]),
    }


def _from_stranger(kind: str, port: Port, make: Callable[[], bytes]) -> Shot:
    return plain(kind, port, make())


PROTOCOLS = {IPIP: tunnels, IPV6: tunnels, GRE: tunnels, MINIMAL: tunnels, ICMP: icmp, ICMPV6: icmpv6}
