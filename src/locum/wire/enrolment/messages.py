"""Messages of the enrolment in CBOR, by enrolment.cddl. Bytes in, values out."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeVar

from locum.wire import cbor
from locum.wire.enrolment.code import MOST_NUMBER
from locum.wire.errors import WireError

VERSION = 1
MOST_BYTES = 4096  # of a message; a proof with 32 networks has about 800
ELEMENT_BYTES = 33
KEY_BYTES = 32
_MOST_SEALED, _LEAST_SEALED = 4000, 28
_MOST_NETWORKS = 32
_U32, _U64 = 0xFFFFFFFF, (1 << 64) - 1


class Refused(IntEnum):
    """Reasons before the proof of a code. An unknown, used or expired code has no reason of its own."""

    CODE = 1
    TOO_MANY = 2
    MALFORMED = 3


class Denied(IntEnum):
    """Reasons that only a device hears that has proved the code."""

    USED = 1
    EXPIRED = 2
    FULL = 3
    COLLIDES = 4


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of the device."""

    number: int
    element: bytes
    server: str  # as the device names it

    def encode(self) -> bytes:
        """The CDDL rule `hello`."""
        return cbor.encode({0: 1, 1: VERSION, 2: self.number, 3: self.element, 4: self.server})


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's element."""

    element: bytes

    def encode(self) -> bytes:
        """The CDDL rule `answer`."""
        return cbor.encode({0: 2, 1: self.element})


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted text."""

    sealed: bytes

    def encode(self) -> bytes:
        """The CDDL rule `sealed`."""
        return cbor.encode({0: 3, 1: self.sealed})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server ends the exchange before a proof."""

    reason: Refused

    def encode(self) -> bytes:
        """The CDDL rule `refusal`."""
        return cbor.encode({0: 4, 1: int(self.reason)})


@dataclass(frozen=True, slots=True)
class Proof:
    """The device's part, sealed: whoever can seal it has the code."""

    public_key: bytes
    clock: int  # seconds since 1970
    networks: tuple[IPv4Network | IPv6Network, ...]

    def encode(self) -> bytes:
        """The CDDL rule `proof`."""
        networks = [[network.network_address.packed, network.prefixlen] for network in self.networks]
        return cbor.encode({0: 5, 1: self.public_key, 2: self.clock, 3: networks})


@dataclass(frozen=True, slots=True)
class Grant:
    """Addresses and settings of a joined device."""

    name: str
    home: IPv4Address
    home_v6: IPv6Address | None
    transport: IPv4Address
    transport_length: int
    server_transport: IPv4Address
    server_key: bytes
    wireguard_port: int
    spi: int
    clock: int  # seconds since 1970

    def encode(self) -> bytes:
        """The CDDL rule `grant`."""
        fields: dict[int, object] = {0: 6, 1: self.name, 2: self.home.packed}
        if self.home_v6 is not None:
            fields[3] = self.home_v6.packed
        fields |= {4: self.transport.packed, 5: self.transport_length, 6: self.server_transport.packed}
        fields |= {7: self.server_key, 8: self.wireguard_port, 9: self.spi, 10: self.clock}
        return cbor.encode(fields)


@dataclass(frozen=True, slots=True)
class Denial:
    """The server ends the exchange after a proof."""

    reason: Denied

    def encode(self) -> bytes:
        """The CDDL rule `denial`."""
        return cbor.encode({0: 7, 1: int(self.reason)})


Message = Hello | Answer | Sealed | Refusal
Text = Proof | Grant | Denial
_Value = TypeVar("_Value")


def decode_message(data: bytes) -> Message:
    """One message of the connection. Raises WireError for anything that does not fit."""
    return _decode(data, "message", _MESSAGES)


def decode_text(data: bytes) -> Text:
    """The text of a sealed message. Raises WireError for anything that does not fit."""
    return _decode(data, "text", _TEXTS)


def _decode(data: bytes, field: str, readers: dict[int, Callable[[cbor.Reader], _Value]]) -> _Value:
    reader = cbor.Reader(cbor.decode(data, limit=MOST_BYTES, field=field), field)
    kind = reader.integer(0, "kind", 0, 23)
    if kind not in readers:
        raise WireError(f"{field}.kind", 0, "unknown-kind")
    value = readers[kind](reader)
    reader.done()
    return value


def _hello(reader: cbor.Reader) -> Hello:
    reader.integer(1, "version", VERSION, VERSION)
    number = reader.integer(2, "number", 0, MOST_NUMBER)
    element = reader.octets(3, "element", ELEMENT_BYTES, ELEMENT_BYTES)
    server = reader.text(4, "server", 253)
    if not server.isascii():
        raise WireError("message.server", 0, "not-ascii")
    return Hello(number, element, server)


def _answer(reader: cbor.Reader) -> Answer:
    return Answer(reader.octets(1, "element", ELEMENT_BYTES, ELEMENT_BYTES))


def _sealed(reader: cbor.Reader) -> Sealed:
    return Sealed(reader.octets(1, "sealed", _LEAST_SEALED, _MOST_SEALED))


def _refusal(reader: cbor.Reader) -> Refusal:
    return Refusal(Refused(reader.integer(1, "reason", min(Refused), max(Refused))))


def _proof(reader: cbor.Reader) -> Proof:
    public_key = reader.octets(1, "public-key", KEY_BYTES, KEY_BYTES)
    clock = reader.integer(2, "clock", 0, _U64)
    networks = tuple(_network(item) for item in reader.array(3, "networks", _MOST_NETWORKS))
    return Proof(public_key, clock, networks)


def _network(item: object) -> IPv4Network | IPv6Network:
    first, second = cbor.pair(item, "text.networks")
    address = cbor.address(first, "text.networks.address")
    length = cbor.integer(second, "text.networks.length", 0, address.max_prefixlen)
    try:
        return ip_network((address, length))
    except ValueError as error:
        raise WireError("text.networks.address", 0, "host-bits") from error


def _ipv4(reader: cbor.Reader, key: int, name: str) -> IPv4Address:
    return IPv4Address(reader.octets(key, name, 4, 4))


def _grant(reader: cbor.Reader) -> Grant:
    return Grant(
        name=reader.text(1, "name", 63),
        home=_ipv4(reader, 2, "home"),
        home_v6=None if reader.absent(3) else IPv6Address(reader.octets(3, "home-v6", 16, 16)),
        transport=_ipv4(reader, 4, "transport"),
        transport_length=reader.integer(5, "transport-length", 1, 30),
        server_transport=_ipv4(reader, 6, "server-transport"),
        server_key=reader.octets(7, "server-key", KEY_BYTES, KEY_BYTES),
        wireguard_port=reader.integer(8, "wireguard-port", 1, 0xFFFF),
        spi=reader.integer(9, "spi", 256, _U32),
        clock=reader.integer(10, "clock", 0, _U64),
    )


def _denial(reader: cbor.Reader) -> Denial:
    return Denial(Denied(reader.integer(1, "reason", min(Denied), max(Denied))))


_MESSAGES: dict[int, Callable[[cbor.Reader], Message]] = {1: _hello, 2: _answer, 3: _sealed, 4: _refusal}
_TEXTS: dict[int, Callable[[cbor.Reader], Text]] = {5: _proof, 6: _grant, 7: _denial}
