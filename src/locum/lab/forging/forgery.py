"""Messages that must change nothing: forged, replayed, cut, blown up, and valid ones by another mobile node.

It composes; `stranger.py` and `single_shots.py` send. Each kind is a stream of shots without end, of which a scenario
takes as many as it wants. Randomness is given, so that a run can be repeated. Malformed messages leave from
an address of its own, so that captures can be judged for everything else.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from random import Random

from locum.lab.captures import pcap
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions.authentication import AuthKind

REGISTRATION, COAP = 434, 5683
ICMP, IPIP, UDP, IPV6, GRE, MINIMAL, ICMPV6 = 1, 4, 17, 41, 47, 55, 58
NTP_EPOCH = 2_208_988_800


@dataclass(frozen=True, slots=True)
class Port:
    """Something that listens at a node. `via` is "udp", "tcp" or "ip"; for "ip" `number` is the protocol."""

    node: str
    via: str
    address: str
    number: int

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return ip_address(self.address).version

    @property
    def label(self) -> str:
        """Text form in reports: "an1 udp/434", "ha ip6/41"."""
        return f"{self.node} {self.via}{'6' if self.version == 6 else ''}/{self.number}"


@dataclass(frozen=True, slots=True)
class Shot:
    """One message. `via` is "udp", "tcp" or "ip"; for "ip" `port` is the protocol, with any `source`."""

    kind: str
    via: str
    target: str
    port: int
    payload: bytes
    source: str | None = None
    """The address that it leaves from, or claims to; None: the stranger's first."""
    aimed_at: str = ""
    """The open port that it is for (`Port.label`), where that matters."""
    ttl: int = 64
    """Of a packet that names its source."""

    def to_line(self) -> str:
        return json.dumps(
            [
                self.kind,
                self.via,
                self.target,
                self.port,
                self.payload.hex(),
                self.source,
                self.aimed_at,
                self.ttl,
            ]
        )

    @classmethod
    def from_line(cls, line: str) -> "Shot":
        kind, via, target, port, payload, source, aimed_at, ttl = json.loads(line)
        return cls(kind, via, target, port, bytes.fromhex(payload), source, aimed_at, ttl)


@dataclass(frozen=True, slots=True)
class Overheard:
    """A message that passed by."""

    source: IPv4Address
    target: IPv4Address
    message: bytes


@dataclass(frozen=True, slots=True)
class Aim:
    """The targets of an attack, and the stranger's knowledge."""

    home_address: IPv4Address
    home_agent: IPv4Address
    agents: Sequence[IPv4Address]
    """The foreign agents' care-of addresses; the first one has the mobile node."""
    stranger: IPv4Address
    broken: Mapping[int, str]
    """By IP version: the stranger's address for malformed messages."""
    correspondent: IPv4Address
    other_key: bytes
    """The key of another mobile node with the home agent (SPI 1001): a member, but not this one."""
    care_of: Sequence[IPv4Address] = ()
    """Care-of addresses that the stranger asks for; its own, if there are none."""
    requests: Sequence[bytes] = ()
    """Genuine registration requests that were overheard."""
    replies: Sequence[bytes] = ()
    controls: Sequence[Overheard] = ()
    """Genuine CoAP requests that were overheard."""
    now: float = 0.0


Makers = Mapping[str, Callable[[], Shot]]
Family = Callable[[Aim, Random, Port], Makers]


def signed(message: bytes, kind: AuthKind, spi: int, key: bytes) -> bytes:
    """With an HMAC-SHA-256 authenticator, as a node that has this key would send it."""
    return append_authentication(message, kind, spi, lambda data: hmac.digest(key, data, hashlib.sha256))


def plain(kind: str, port: Port, payload: bytes, source: str | None = None) -> Shot:
    """To an open port, by its own protocol, from an address of the stranger."""
    return Shot(kind, port.via, port.address, port.number, payload, source, port.label)


def spoofed(kind: str, port: Port, payload: bytes, source: str, source_port: int) -> Shot:
    """A UDP datagram from a false source, without a checksum, as UDP over IPv4 permits."""
    datagram = struct.pack("!HHHH", source_port, port.number, 8 + len(payload), 0) + payload
    return Shot(kind, "ip", port.address, UDP, datagram, source, port.label)


def truncated(message: bytes, random: Random) -> bytes:
    """The beginning of a message, at least a byte and never all of it."""
    return message[: random.randrange(1, len(message))]


def altered(message: bytes, random: Random) -> bytes:
    """With one bit turned over."""
    changed = bytearray(message)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def write(shots: Iterable[Shot], file: Path) -> Path:
    file.write_text("".join(shot.to_line() + "\n" for shot in shots))
    return file


def overheard(
    file: Path, port: int, first: Iterable[int], but_between: Sequence[tuple[float, float]] = ()
) -> list[Overheard]:
    """Whole UDP messages to or from a port in a capture, whose first byte is one of these.

    Some intervals are left out: messages of strangers then are not genuine.
    """
    wanted, found = set(first), []
    for datagram in pcap.datagrams(file):
        source, target = datagram.source, datagram.destination
        if (
            datagram.protocol == pcap.UDP
            and port in datagram.ports
            and isinstance(source, IPv4Address)
            and isinstance(target, IPv4Address)
            and not any(begin <= datagram.time <= end for begin, end in but_between)
        ):
            message = datagram.transport[8:]
            if len(datagram.transport) == datagram.transport_length and message and message[0] in wanted:
                found.append(Overheard(source, target, message))
    return list(dict.fromkeys(found))
