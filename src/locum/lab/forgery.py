"""Messages that must change nothing: forged, replayed, cut, blown up, and valid ones by another mobile node.

It composes; `stranger.py` sends. Each kind is a stream of shots without end, of which the scenario takes as many as
it wants. Randomness is given, so that a run can be repeated.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle, islice
from pathlib import Path
from random import Random

from locum.lab import pcap
from locum.wire.authenticate import append_authentication
from locum.wire.discovery import AgentAdvertisement, AgentSolicitation
from locum.wire.extensions.agent import AgentFlag
from locum.wire.extensions.authentication import AuthKind
from locum.wire.registration import Code, Flag, RegistrationReply, RegistrationRequest

REGISTRATION, COAP = 434, 5683
ICMP, IPIP, UDP, IPV6, GRE = 1, 4, 17, 41, 47
HOME_ADDRESS6, CORRESPONDENT6 = IPv6Address("2001:db8:100::4"), IPv6Address("2001:db8:1::a")
NTP_EPOCH = 2_208_988_800
LARGEST = 60_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One message. `via` is "udp", "tcp" or "ip"; for "ip" `port` is the protocol and `source` may be spoofed."""

    kind: str
    via: str
    target: str
    port: int
    payload: bytes
    source: str | None = None

    def to_line(self) -> str:
        return json.dumps([self.kind, self.via, self.target, self.port, self.payload.hex(), self.source])

    @classmethod
    def from_line(cls, line: str) -> "Shot":
        kind, via, target, port, payload, source = json.loads(line)
        return cls(kind, via, target, port, bytes.fromhex(payload), source)


@dataclass(frozen=True, slots=True)
class Aim:
    """What is attacked, and what the stranger knows."""

    home_address: IPv4Address
    home_agent: IPv4Address
    agents: Sequence[IPv4Address]
    """Everything that listens for registrations: home agent and foreign agents."""
    control: Sequence[IPv4Address]
    """Everything that listens for CoAP, by UDP and TCP."""
    stranger: IPv4Address
    correspondent: IPv4Address
    other_key: bytes
    """The key of another mobile node with the home agent (SPI 1001): a member, but not this one."""
    requests: Sequence[bytes] = ()
    """Genuine registration requests that were overheard."""
    replies: Sequence[bytes] = ()
    controls: Sequence[tuple[IPv4Address, bytes]] = ()
    """Genuine CoAP messages that were overheard, with the address they were for."""
    now: float = 0.0


def overheard(file: Path, port: int, first: Iterable[int]) -> list[tuple[IPv4Address, bytes]]:
    """Whole UDP messages to or from a port in a capture, whose first byte is one of these; with their destination."""
    wanted, found = set(first), []
    for datagram in pcap.datagrams(file):
        if (
            datagram.protocol == pcap.UDP
            and port in datagram.ports
            and isinstance(datagram.destination, IPv4Address)
        ):
            message = datagram.transport[8:]
            if len(datagram.transport) == datagram.transport_length and message and message[0] in wanted:
                found.append((datagram.destination, message))
    return list(dict.fromkeys(found))


def volley(aim: Aim, random: Random, count: int) -> list[Shot]:
    """`count` shots of every kind, well mixed."""
    streams = {**registrations(aim, random), **tunnels(aim, random), **controls(aim, random)}
    shots = [shot for stream in streams.values() for shot in islice(stream, count)]
    random.shuffle(shots)
    return shots


def write(shots: Iterable[Shot], file: Path) -> Path:
    file.write_text("".join(shot.to_line() + "\n" for shot in shots))
    return file


# Registration and discovery -------------------------------------------------------------------------------------------


def signed(message: bytes, kind: AuthKind, spi: int, key: bytes) -> bytes:
    """With an HMAC-SHA-256 authenticator, as a node that has this key would send it."""
    return append_authentication(message, kind, spi, lambda data: hmac.digest(key, data, hashlib.sha256))


def request(aim: Aim, random: Random, lifetime: int = 300) -> bytes:
    """A request for the home address that would bind it to the stranger, without any authentication."""
    identification = (int(aim.now + NTP_EPOCH + random.randrange(1000)) << 32) | random.getrandbits(32)
    return RegistrationRequest(
        lifetime, aim.home_address, aim.home_agent, aim.stranger, identification, Flag.T | Flag.D
    ).encode()


def registrations(aim: Aim, random: Random) -> dict[str, Iterator[Shot]]:
    """Every kind of message for the registration port, and agent discovery, by name."""
    agents = cycle(map(str, aim.agents))
    genuine = list(aim.requests) or [signed(request(aim, random), AuthKind.MN_HA, 1000, random.randbytes(32))]
    replies = list(aim.replies) or [reply(aim, random)]

    def to_agents(kind: str, messages: Iterator[bytes]) -> Iterator[Shot]:
        return (Shot(kind, "udp", next(agents), REGISTRATION, message) for message in messages)

    def forever(make: Callable[[], bytes]) -> Iterator[bytes]:
        while True:
            yield make()

    def wrong_key() -> bytes:
        lifetime = random.choice((1, 300, 0xFFFF))
        return signed(request(aim, random, lifetime), AuthKind.MN_HA, 1000, random.randbytes(32))

    def truncated() -> bytes:
        message = random.choice(genuine)
        return message[: random.randrange(len(message))]

    def altered() -> bytes:
        message = bytearray(random.choice(genuine))
        message[random.randrange(len(message))] ^= 1 << random.randrange(8)
        return bytes(message)

    def oversized() -> bytes:
        size = LARGEST if random.random() < 0.01 else 1400
        filler = b"\xfe\xfa" + bytes(250)  # a skippable extension of no known type
        message = request(aim, random) + filler * (size // len(filler))
        return signed(message, AuthKind.MN_HA, 1000, random.randbytes(32))

    def other_mobile() -> bytes:
        spi = random.choice(
            (1000, 1001)
        )  # the owner's index with the wrong key, the wrong index with its key
        return signed(request(aim, random, random.choice((0, 300))), AuthKind.MN_HA, spi, aim.other_key)

    makers = {
        "registration-wrong-key": wrong_key,
        "registration-unsigned": lambda: request(aim, random),
        "registration-truncated": truncated,
        "registration-altered": altered,
        "registration-oversized": oversized,
        "registration-other-mobile": other_mobile,
        "registration-noise": lambda: random.randbytes(random.randrange(1, 600)),
        "deregistration-forged": lambda: signed(
            request(aim, random, 0), AuthKind.MN_HA, 1000, random.randbytes(32)
        ),
        "registration-replayed": lambda: random.choice(genuine),
        "reply-replayed": lambda: random.choice(replies),
    }
    kinds = {kind: to_agents(kind, forever(make)) for kind, make in makers.items()}
    kinds["reply-forged"] = (spoofed_reply(aim, random, agent) for agent in agents)
    kinds["discovery-forged"] = discovery(aim, random)
    return kinds


def reply(aim: Aim, random: Random) -> bytes:
    """A reply that says the home address is not registered, under a key of nobody."""
    code = random.choice((Code.ACCEPTED, Code.MOBILE_NODE_FAILED_AUTHENTICATION))
    message = RegistrationReply(code, 0, aim.home_address, aim.home_agent, random.getrandbits(64)).encode()
    return signed(message, AuthKind.MN_HA, 1000, random.randbytes(32))


def spoofed_reply(aim: Aim, random: Random, agent: str) -> Shot:
    """A forged reply that claims to come from the home agent."""
    message = reply(aim, random)
    datagram = struct.pack("!HHHH", REGISTRATION, REGISTRATION, 8 + len(message), 0) + message
    target = random.choice((agent, str(aim.home_address)))
    return Shot("reply-forged", "ip", target, UDP, datagram, str(aim.home_agent))


def discovery(aim: Aim, random: Random) -> Iterator[Shot]:
    """Advertisements of an agent that is none, and solicitations, to nodes that are not on the stranger's link."""
    targets = cycle([*map(str, aim.agents), str(aim.home_address)])
    while True:
        fake = AgentAdvertisement(
            lifetime=1800,
            addresses=((aim.stranger, 0),),
            sequence=random.randrange(256, 65536),
            registration_lifetime=1800,
            flags=AgentFlag.R | AgentFlag.F | AgentFlag.T,
            care_of_addresses=(aim.stranger,),
        )
        message = random.choice(
            (fake.encode(), AgentSolicitation().encode(), b"\x09\x00" + random.randbytes(30))
        )
        yield Shot("discovery-forged", "ip", next(targets), ICMP, message)


# Tunnels --------------------------------------------------------------------------------------------------------------


def inner_packet(source: IPv4Address, destination: IPv4Address, random: Random) -> bytes:
    """A whole IPv4 packet with a UDP datagram."""
    body = struct.pack("!HHHH", 9, 80, 28, 0) + random.randbytes(20)
    header: bytes = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(body),
        random.getrandbits(16),
        0,
        64,
        UDP,
        0,
        source.packed,
        destination.packed,
    )
    total: int = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + checksum.to_bytes(2, "big") + header[12:] + body


def tunnels(aim: Aim, random: Random) -> dict[str, Iterator[Shot]]:
    """Tunnel packets from a source that is registered for nothing, both ways, in every encapsulation."""

    def inner() -> bytes:
        outwards = (aim.home_address, aim.correspondent)
        source, destination = random.choice((outwards, outwards[::-1]))
        packet = inner_packet(source, destination, random)
        return packet if random.random() < 0.8 else packet[: random.randrange(len(packet))]

    def inner_6() -> bytes:
        ends = random.choice(
            (HOME_ADDRESS6.packed + CORRESPONDENT6.packed, CORRESPONDENT6.packed + HOME_ADDRESS6.packed)
        )
        header: bytes = struct.pack("!IHBB", 6 << 28, 8, UDP, 64)
        return header + ends + random.randbytes(8)

    makers: Mapping[str, tuple[str, int, Callable[[], bytes]]] = {
        "tunnel-ip-in-ip": ("ip", IPIP, inner),
        "tunnel-gre": ("ip", GRE, lambda: struct.pack("!HH", 0, 0x0800) + inner()),
        "tunnel-6-in-4": ("ip", IPV6, inner_6),
        "tunnel-udp": ("udp", REGISTRATION, lambda: b"\x04\x04\x00\x00" + inner()),
    }
    targets = cycle(map(str, aim.agents))

    def stream(kind: str) -> Iterator[Shot]:
        via, port, make = makers[kind]
        while True:
            yield Shot(kind, via, next(targets), port, make())

    return {kind: stream(kind) for kind in makers}


# Control --------------------------------------------------------------------------------------------------------------


def coap(random: Random, options: bytes, payload: bytes, token: bytes = b"") -> bytes:
    """A confirmable POST (RFC 7252 section 3)."""
    head = bytes((0x40 | len(token), 0x02)) + random.randbytes(2)
    return head + token + options + (b"\xff" + payload if payload else b"")


def coap_tcp(options: bytes, payload: bytes, length: int | None = None) -> bytes:
    """Settings, then a POST (RFC 8323 section 3.2); a false `length` may be claimed."""
    body = options + (b"\xff" + payload if payload else b"")
    size = len(body) if length is None else length
    return b"\x00\xe1" + b"\xf0" + struct.pack("!I", max(size, 65805) - 65805) + b"\x02" + body


def oscore(random: Random, kid: bytes, number: int) -> bytes:
    """An OSCORE option (RFC 8613 section 6.1) with a sequence number and a key identifier."""
    value = bytes((0x09 + 1,)) + number.to_bytes(2, "big") + kid
    return bytes((0x90 | len(value),)) + value


def controls(aim: Aim, random: Random) -> dict[str, Iterator[Shot]]:
    """CoAP without protection, under keys of nobody, and replayed, over UDP and TCP."""
    targets = cycle(map(str, aim.control))
    kids = [bytes((number, end)) for number in range(1, 6) for end in (1, 2)]
    path = b"\xb3634"
    prepare = bytes((0xA5, 0, 1, 1, 0x50)) + random.randbytes(16) + b"\x02\x81\x44" + aim.home_address.packed

    def noise() -> bytes:
        return random.randbytes(random.randrange(1, 1200))

    def unprotected() -> bytes:
        return coap(random, random.choice((path, b"\xb3618")), prepare, random.randbytes(4))

    def unknown() -> bytes:
        return coap(random, oscore(random, random.randbytes(3), 1), random.randbytes(80))

    def forged() -> bytes:
        return coap(random, oscore(random, random.choice(kids), random.getrandbits(16)), random.randbytes(80))

    def oversized() -> bytes:
        return coap(random, oscore(random, random.choice(kids), 1), bytes(1300))

    def tcp() -> bytes:
        return random.choice((noise(), coap_tcp(path, prepare), coap_tcp(b"", b"", 0xFFFFFFFF), b"\x00\xe1"))

    def tcp_forged() -> bytes:
        return coap_tcp(oscore(random, random.choice(kids), random.getrandbits(16)), random.randbytes(80))

    makers = {
        "control-noise": ("udp", noise),
        "control-unprotected": ("udp", unprotected),
        "control-unknown-association": ("udp", unknown),
        "control-forged": ("udp", forged),
        "control-oversized": ("udp", oversized),
        "control-tcp": ("tcp", tcp),
        "control-tcp-forged": ("tcp", tcp_forged),
    }

    def stream(kind: str) -> Iterator[Shot]:
        via, make = makers[kind]
        while True:
            yield Shot(kind, via, next(targets), COAP, make())

    kinds = {kind: stream(kind) for kind in makers}
    if aim.controls:
        kinds["control-replayed"] = (
            Shot("control-replayed", "udp", str(target), COAP, message)
            for target, message in cycle(aim.controls)
        )
    return kinds
