"""Translations for the comparison: states that have them, and ICMP errors that quote a flow's packet."""

from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

from locum.dataplane.layout.maps import address_of
from locum.dataplane.model.translation import FlowKey
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Translation
from locum.roles.action_values.forwarding import AcceptTunnel, Side, TunnelAcceptance

if TYPE_CHECKING:
    from tests.dataplane.model.grammar import Grammar

INTERFACES = [ip_address(a) for a in ("10.4.0.1", "10.4.0.2", "fd04::1", "fd04::2")]
IDENTIFIERS = (1, 2)  # of echo requests


def add_translations(r: Random, state: ForwardingState, homes: list[Addr], remotes: list[Addr]) -> None:
    """Translate some home addresses where they are delivered, and some before a tunnel; some already are."""
    if r.random() < 0.3:
        return  # no translation
    for home in homes:
        locals_ = [a for a in INTERFACES if a.version == home.version]
        for tunnel in (None, *remotes):
            if r.random() < (0.6 if tunnel is None else 0.3):
                state.translations[home, tunnel] = Translation(home, r.choice(locals_), tunnel)
    for local in INTERFACES:
        if r.random() < 0.3:
            state.translations[local, None] = Translation(local, local)
            for remote in remotes:
                link = r.choice([None, "lan0"])
                acceptance = TunnelAcceptance(remote, local, Side.TO_HOME_ADDRESS, link, local)
                state.perform(AcceptTunnel(acceptance))


def own_addresses(r: Random) -> set[Addr]:
    """Addresses of this host: packets translated to one of them are delivered here."""
    return {a for a in INTERFACES if r.random() < 0.5}


def echo(r: Random, version: int, data: bytes) -> bytes:
    types = (0, 8) if version == 4 else (128, 129)
    return (
        bytes((r.choice(types), 0))
        + r.randbytes(2)
        + r.choice(IDENTIFIERS).to_bytes(2, "big")
        + b"\0\1"
        + data
    )


def error(r: Random, version: int, quoted: bytes) -> bytes:
    """An ICMP error about this packet, of which it has less or more."""
    types = (3, 4, 5, 11, 12) if version == 4 else (1, 2, 3, 4)
    size = r.choice((8, 20, 28, 36, 48, 56, 68, 576))
    return bytes((r.choice(types), r.randrange(5))) + r.randbytes(6) + quoted[:size]


def about_packets_of(receiver: Addr, payload: bytes) -> bytes:
    """An ICMP message; if it is an error that quotes a packet, then one of its receiver."""
    types, at = ((3, 4, 5, 11, 12), 8 + 12) if receiver.version == 4 else ((1, 2, 3, 4), 8 + 8)
    end = at + len(receiver.packed)
    if len(payload) < end or payload[0] not in types:
        return payload
    return payload[:at] + receiver.packed + payload[end:]


def answer(grammar: "Grammar", flow: FlowKey) -> tuple[int, bytes]:
    """(family, packet) from the interface address of a flow; or an error about a packet that came to it."""
    r = grammar.random
    local, peer = address_of(flow[0]), address_of(flow[1])
    version = local.version
    if r.random() < 0.3:
        sender = local if r.random() < 0.6 else r.choice([a for a in INTERFACES if a.version == version])
        quoted = grammar.ip(peer, local, flow[4], _segment(r, flow, towards=True))
        protocol = 1 if version == 4 else 58
        return version, grammar.ip(sender, peer, protocol, error(r, version, quoted))
    return version, grammar.ip(local, peer, flow[4], _segment(r, flow, towards=False))


def _segment(r: Random, flow: FlowKey, *, towards: bool) -> bytes:
    _local, _peer, here, there, protocol = flow
    data = r.randbytes(r.choice((0, 8, 40)))
    ports = there + here if towards else here + there
    if protocol == 6:
        return ports + r.randbytes(8) + b"\x50\x10" + r.randbytes(6) + data
    if protocol == 17:
        return ports + (8 + len(data)).to_bytes(2, "big") + r.choice((b"\0\0", r.randbytes(2))) + data
    if protocol in (1, 58):
        request, reply = (8, 0) if protocol == 1 else (128, 129)
        return bytes((request if towards else reply, 0)) + r.randbytes(2) + here + b"\0\1" + data
    return data
