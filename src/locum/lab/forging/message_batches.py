"""Kinds of messages by which an open port is attacked, and the number of each."""

from collections.abc import Iterable, Iterator
from random import Random

from locum.lab.errors import LabError
from locum.lab.forging.forged_control import connections, datagrams
from locum.lab.forging.forged_registrations import registrations
from locum.lab.forging.forged_tunnels import PROTOCOLS
from locum.lab.forging.forgery import COAP, REGISTRATION, Aim, Family, Makers, Port, Shot

_FAMILIES: dict[tuple[str, int], Family] = {
    ("udp", REGISTRATION): registrations,
    ("udp", COAP): datagrams,
    ("tcp", COAP): connections,
    **{("ip", protocol): family for protocol, family in PROTOCOLS.items()},
}


def kinds(aim: Aim, random: Random, port: Port) -> Makers:
    """Every kind of message for a port. Raises LabError for an unexpected port."""
    family = _FAMILIES.get((port.via, port.number))
    if family is None:
        raise LabError(f"{port.label} is open, and no forged message is known for it")
    return family(aim, random, port)


def message_batch(aim: Aim, random: Random, ports: Iterable[Port], count: int) -> list[Shot]:
    """At least `count` shots at every port, as many of every kind, well mixed."""
    shots = [shot for port in ports for shot in _at(kinds(aim, random, port), count)]
    random.shuffle(shots)
    return shots


def _at(makers: Makers, count: int) -> Iterator[Shot]:
    per_maker = -(-count // len(makers))
    return (make() for make in makers.values() for _ in range(per_maker))
