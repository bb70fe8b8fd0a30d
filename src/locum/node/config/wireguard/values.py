"""Settings of `[wireguard]` as values: keys, peers, end points. Nothing here touches files.

Keys are strings in base64 as `wg genkey` and `wg pubkey` write them: 32 bytes of Curve25519.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

PORT = 51820  # of a server
MARK = 0x4C57  # of outer packets
KEY_BYTES = 32
MOST_KEEPALIVE = 65535  # seconds; a field of 16 bits in the kernel's interface

_HOST = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?$")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host, by name or address, and its UDP port."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The address; None if the host is a name that has to be resolved."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer. `address` is its transport address: its packets may have that source and no other."""

    public_key: str
    address: Address
    preshared_key: str | None = field(default=None, repr=False)
    endpoint: Endpoint | None = None  # None: it calls
    keepalive: int = 0  # seconds; 0: none


@dataclass(frozen=True, slots=True)
class WireGuardSettings:
    """The interface of this node, and the peers of the configuration file."""

    interface: str
    private_key: str = field(repr=False)
    private_key_file: str
    address: IPv4Interface | IPv6Interface
    listen_port: int  # 0: any
    mark: int
    peers: tuple[Peer, ...] = ()


def key_of_text(text: str) -> str:
    """A key in base64 in its one form. Raises ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    if len(data) != KEY_BYTES:
        raise ValueError(f"{len(data)} bytes; a key has {KEY_BYTES}")
    if not any(data):
        raise ValueError("all bytes are 0")
    return base64.b64encode(data).decode()


def public_key_of(private_key: str) -> str:
    """The public key of a private key, both in base64."""
    private = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key))
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def endpoint_of_text(text: str) -> Endpoint:
    """The end point that "192.0.2.1:51820", "[2001:db8::1]:51820" or "host.example:51820" names. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("a port from 1 to 65535 has to follow a colon")
    if host.startswith("[") and host.endswith("]"):
        address: Address = IPv6Address(host[1:-1])
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    elif re.fullmatch(r"[0-9.]+", host):
        address = IPv4Address(host)
    elif _HOST.match(host):
        return Endpoint(host.rstrip(".").lower(), int(port))
    else:
        raise ValueError("no host name")
    if address.is_multicast or address.is_unspecified:
        raise ValueError("not the address of a host")
    return Endpoint(str(address), int(port))
