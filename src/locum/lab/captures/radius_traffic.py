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
    for datagram in _between(datagrams, asker, server):
        if datagram.outgoing and datagram.ports[1] == RADIUS_PORT:
            seen.setdefault(datagram.transport[_UDP : _UDP + _HEADER], datagram.time)
    return sorted(seen.values())


def accepted(datagrams: Iterable[Datagram], asker: IPv4Address, server: IPv4Address) -> list[float]:
    """Times at which Access-Accepts of the server arrived at the client."""
    return [
        datagram.time
        for datagram in _between(datagrams, server, asker)
        if not datagram.outgoing
        and datagram.ports[0] == RADIUS_PORT
        and datagram.transport[_UDP] == ACCESS_ACCEPT
    ]


def _between(
    datagrams: Iterable[Datagram], source: IPv4Address, destination: IPv4Address
) -> Iterator[Datagram]:
    for datagram in datagrams:
        way = (datagram.protocol, datagram.source, datagram.destination)
        if way == (UDP, source, destination) and len(datagram.transport) >= _UDP + _HEADER:
            yield datagram
