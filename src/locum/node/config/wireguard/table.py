"""`[wireguard]` -> `WireGuardSettings`: read once at start, strictly."""

import re
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from locum.node.config.toml_table import Table
from locum.node.config.wireguard.values import (
    MARK,
    MOST_KEEPALIVE,
    Peer,
    WireGuardSettings,
    endpoint_of_text,
    key_of_text,
    public_key_of,
)

_INTERFACE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$")  # IFNAMSIZ is 16, with the end
_KEY = "a key of 32 bytes in base64, as wg pubkey writes it"


def wireguard(table: Table) -> WireGuardSettings:
    """The settings in the table. Raises ConfigError."""
    interface = table.string("interface", "locum0")
    if not _INTERFACE.match(interface):
        raise table.error("interface", f"{interface!r} must be 1 to 15 letters, digits, '.', '_' or '-'")
    private = _private_key(table, "private_key_file")
    settings = WireGuardSettings(
        interface=interface,
        private_key=private,
        private_key_file=str(table.path("private_key_file")),
        address=table.converted(
            "address", _own_address, 'an address with the length of its prefix, such as "10.20.1.1/24"'
        ),
        listen_port=table.integer("listen_port", 0, most=65535),
        mark=table.integer("mark", MARK, least=1, most=2**32 - 1),
        peers=tuple(_peer(item) for item in table.tables("peer")),
    )
    table.close()
    _check(table, settings)
    return settings


def _peer(table: Table) -> Peer:
    peer = Peer(
        public_key=table.converted("public_key", _key, _KEY),
        preshared_key=_private_key(table, "preshared_key_file") if "preshared_key_file" in table else None,
        address=table.address("address"),
        endpoint=table.converted(
            "endpoint", _endpoint, '"HOST:PORT", such as "192.0.2.1:51820" or "[2001:db8::1]:51820"', None
        ),
        keepalive=table.integer("keepalive", 0, most=MOST_KEEPALIVE),
    )
    table.close()
    return peer


def _check(table: Table, settings: WireGuardSettings) -> None:
    own, keys, addresses = settings.address, set[str](), set[object]()
    public = public_key_of(settings.private_key)
    for number, peer in enumerate(settings.peers, 1):
        place = f"#{number}"
        if peer.public_key == public:
            raise table.error("peer", f"{place}: public_key is this node's own; write the other end's")
        if peer.public_key in keys:
            raise table.error("peer", f"{place}: public_key stands in another peer too; a key has one owner")
        if peer.address in addresses or peer.address == own.ip:
            raise table.error("peer", f"{place}: address {peer.address} has another owner; choose another")
        if peer.address.version != own.version or peer.address not in own.network:
            raise table.error("peer", f"{place}: address {peer.address} is not in {own.network} of address")
        keys.add(peer.public_key)
        addresses.add(peer.address)


def _private_key(table: Table, key: str) -> str:
    """The key in the file that `key` names; only its owner may read the file."""
    try:
        return key_of_text(table.secret_line(key, "the output of wg genkey there").strip())
    except ValueError as problem:
        raise table.error(key, f"the file holds no key of WireGuard: {problem}; put wg genkey's") from None


def _key(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return key_of_text(value)


def _endpoint(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError
    return endpoint_of_text(value)


def _own_address(value: Any) -> IPv4Interface | IPv6Interface:
    if not isinstance(value, str) or "/" not in value:
        raise TypeError
    found = ip_interface(value)
    if found.is_multicast or found.is_unspecified or found.is_loopback:
        raise ValueError
    if found.network.num_addresses > 1 and found.ip == found.network.network_address and found.version == 4:
        raise ValueError("that is the network, not an address in it")
    return found
