"""Addresses, JSON values, randomness, and the source of a message: the parts of all values of roles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

Addr: TypeAlias = IPv4Address | IPv6Address


JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


class Randomness(Protocol):
    """Source of random numbers that the caller owns: `random.SystemRandom()` in a node, a seeded one in tests."""

    def random(self) -> float: ...

    def getrandbits(self, k: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Source of a message: address and port, the link it arrived on, and the address it was sent to."""

    address: Addr
    port: int
    link: str
    link_layer: bytes | None = None
    local: Addr | None = None
