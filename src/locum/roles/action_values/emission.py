"""Emission filters (R20): the packets that an application proxy may send from the home address, as text and as values.

A rule is a text of one to three words: protocol (`tcp`, `udp` or `any`), then a prefix and a port or a range of ports, both
optional: "tcp 443", "udp 192.0.2.0/24 5060-5070", "any 2001:db8::/32". Addresses and ports are the receiver's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

MAX_RULES = 32
"""Rules of one filter."""
SHOWN = 50
"""Characters of a wrong rule that a message repeats."""
PROTOCOLS = {"any": 0, "tcp": 6, "udp": 17}
MAX_PORT = 65535
EXPECTED = 'a rule such as "tcp 443" or "udp 192.0.2.0/24 5060-5070" is expected'


@dataclass(frozen=True, slots=True)
class Permit:
    """Packets that may be sent. `protocol` 0: TCP and UDP; `network` None: all receivers; ports are inclusive."""

    protocol: int = 0
    network: IPv4Network | IPv6Network | None = None
    first_port: int = 0
    last_port: int = MAX_PORT

    def __str__(self) -> str:
        words = [next(name for name, number in PROTOCOLS.items() if number == self.protocol)]
        if self.network is not None:
            words.append(str(self.network))
        if (self.first_port, self.last_port) != (0, MAX_PORT):
            one = self.first_port == self.last_port
            words.append(str(self.first_port) if one else f"{self.first_port}-{self.last_port}")
        return " ".join(words)


def permits(value: object) -> tuple[Permit, ...]:
    """The rules of a list of texts; an empty list lets nothing out. Raises ValueError, its message says what is expected."""
    if not isinstance(value, list | tuple) or len(value) > MAX_RULES:
        raise ValueError(f"a list of at most {MAX_RULES} rules is expected")
    rules: list[Permit] = []
    for number, item in enumerate(value, 1):
        try:
            rules.append(_permit(item))
        except ValueError as problem:
            raise ValueError(f"rule {number}, {str(item)[:SHOWN]!r}: {problem}") from problem
    return tuple(rules)


def _permit(text: object) -> Permit:
    words = text.split() if isinstance(text, str) else []
    if not 0 < len(words) <= 3 or words[0] not in PROTOCOLS:
        raise ValueError(EXPECTED)
    protocol, rest = PROTOCOLS[words[0]], words[1:]
    network, ports = None, (0, MAX_PORT)
    try:
        if rest and not _is_ports(rest[0]):
            network = ip_network(rest.pop(0))
        if rest:
            ports = _ports(rest.pop(0))
    except ValueError as error:
        raise ValueError(f"{EXPECTED}: {error}") from error
    if rest:
        raise ValueError(EXPECTED)
    return Permit(protocol, network, *ports)


def _is_ports(word: str) -> bool:
    return all(part.isdecimal() for part in word.split("-"))


def _ports(word: str) -> tuple[int, int]:
    if not _is_ports(word) or word.count("-") > 1:
        raise ValueError(f"{word} is no port and no range of ports")
    first, _, last = word.partition("-")
    low, high = int(first), int(last or first)
    if not low <= high <= MAX_PORT:
        raise ValueError(f"{word} is no port and no range of ports")
    return low, high


def permitted(rules: Sequence[Permit], protocol: int, address: object, port: int) -> bool:
    """True if a rule lets a packet to this receiver (IPv4Address or IPv6Address) out."""
    return any(
        rule.protocol in (0, protocol)
        and rule.first_port <= port <= rule.last_port
        and (rule.network is None or address in rule.network)
        for rule in rules
    )
