"""A node's requests to RADIUS servers, by its capture: times of requests and of answers.

A retransmission is the same question: the same identifier and authenticator (RFC 5080 section 2.2.2).
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from locum.lab.captures.pcap import UDP, Datagram
from locum.node.config.policy_settings import RADIUS_PORT

ACCESS_ACCEPT = 2
_UDP, _HEADER = 8, 20  # bytes: a UDP header, and a RADIUS packet without attributes


def questions(datagrams: Iterable[Datagram], asker: IPv4Address, server: IPv4Address) -> list[float]:
    """Times at which new requests left the client; repetitions are left out."""
    seen: dict[bytes, float] = {}
    for each in _between(datagrams, asker, server):
        if each.outgoing and each.ports[1] == RADIUS_PORT:
            seen.setdefault(each.transport[_UDP : _UDP + _HEADER], each.time)
    return sorted(seen.values())


def accepted(datagrams: Iterable[Datagram], asker: IPv4Address, server: IPv4Address) -> list[float]:
    """Times at which Access-Accepts of the server arrived at the client."""
    return [
        each.time
        for each in _between(datagrams, server, asker)
        if not each.outgoing and each.ports[0] == RADIUS_PORT and each.transport[_UDP] == ACCESS_ACCEPT
    ]


def _between(
    datagrams: Iterable[Datagram], source: IPv4Address, destination: IPv4Address
) -> Iterator[Datagram]:
    for each in datagrams:
        way = (each.protocol, each.source, each.destination)
        if way == (UDP, source, destination) and len(each.transport) >= _UDP + _HEADER:
            yield each
