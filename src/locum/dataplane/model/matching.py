"""Matching of rules, and choice among equal targets by flow: the Python side of bpf/rules.h.

Selectors are those of RFC 6088; the first rule that matches takes the packet. It must not know a rule's purpose.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from locum.dataplane.layout import maps
from locum.dataplane.layout.rules import FRAGMENT_KEY, PORTS, Part
from locum.dataplane.model.parse import TCP, UDP, Packet
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import FilterRule, Rule, Selector
from locum.wire.traffic_selector import Ipv4Selector, Range

DCCP, SCTP, UDPLITE, ESP, AH = 33, 132, 136, 50, 51
WITH_PORTS = frozenset((TCP, UDP, DCCP, SCTP, UDPLITE))
FRAGMENT_AGE = 30.0  # seconds
NOTHING_KNOWN = Part(0)

_SELECTS = TypeVar("_SELECTS", Rule, FilterRule)


@dataclass(slots=True)
class Subject:
    """A packet's fields for selectors. `known` marks known ports or a known SPI."""

    source: bytes
    destination: bytes
    family: int
    protocol: int
    dscp: int
    flow_label: int
    source_port: int = 0
    destination_port: int = 0
    spi: int = 0
    known: Part = NOTHING_KNOWN


@dataclass(frozen=True, slots=True)
class FirstFragment:
    """Fields that only the first fragment of a packet has."""

    time: float
    protocol: int
    source_port: int
    destination_port: int
    spi: int
    known: Part


def fragment_key(packet: Packet) -> bytes:
    """Key shared by the fragments of one packet (RFC 791 section 2.3, RFC 8200 section 4.5)."""
    number = int.from_bytes(packet.identification, "little")
    protocol = packet.protocol if packet.family == 4 else 0
    return FRAGMENT_KEY.pack(packet.source, packet.destination, number, protocol)


def subject_of(data: bytes | bytearray, packet: Packet) -> Subject:
    """The packet's fields, without those known from an earlier fragment only."""
    subject = Subject(
        packet.source, packet.destination, packet.family, packet.protocol, packet.tos >> 2, packet.flow_label
    )
    at, end = packet.payload, packet.offset + packet.length
    if packet.later_fragment:
        return subject
    if packet.protocol in WITH_PORTS and at + 8 <= end:
        subject.source_port = int.from_bytes(data[at : at + 2], "big")
        subject.destination_port = int.from_bytes(data[at + 2 : at + 4], "big")
        subject.known = PORTS
    elif packet.protocol in (ESP, AH):
        at += 4 if packet.protocol == AH else 0
        if at + 8 <= end:
            subject.spi = int.from_bytes(data[at : at + 4], "big")
            subject.known = Part.SPI
    return subject


def follow(subject: Subject, first: FirstFragment) -> None:
    """A later fragment is matched as its packet's first."""
    subject.protocol, subject.known = first.protocol, first.known
    subject.source_port, subject.destination_port = first.source_port, first.destination_port
    subject.spi = first.spi


def _within(value: int, bounds: Range | None) -> bool:
    return bounds is None or bounds[0] <= value <= bounds[1]


def _addressed(value: bytes, bounds: tuple[Addr, Addr] | None) -> bool:
    return bounds is None or maps.address(bounds[0]) <= value <= maps.address(bounds[1])


def selects(selector: Selector, subject: Subject) -> bool:
    """True if the selector matches. A range never contains a field that the packet lacks or hides."""
    v4 = isinstance(selector, Ipv4Selector)
    if subject.family != (4 if v4 else 6):
        return False
    with_ports = selector.source_port is not None or selector.destination_port is not None
    if (with_ports and not subject.known & PORTS) or (selector.spi and not subject.known & Part.SPI):
        return False
    if isinstance(selector, Ipv4Selector):
        fits = _within(subject.protocol, selector.protocol)
    else:
        fits = _within(subject.protocol, selector.next_header)
        fits = fits and _within(subject.flow_label, selector.flow_label)
    return (
        fits
        and _within(subject.source_port, selector.source_port)
        and _within(subject.destination_port, selector.destination_port)
        and _within(subject.dscp, selector.dscp)
        and _within(subject.spi, selector.spi)
        and _addressed(subject.source, selector.source)
        and _addressed(subject.destination, selector.destination)
    )


def first_match(rules: Iterable[_SELECTS], subject: Subject) -> _SELECTS | None:
    return next((rule for rule in rules if selects(rule.selector, subject)), None)


def _stir(number: int, value: int) -> int:
    number = ((number ^ value) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 32


def flow_hash(subject: Subject) -> int:
    """A number of the flow: the same for each of its packets."""
    number = 0
    for address in (subject.source, subject.destination):
        number = _stir(number, int.from_bytes(address[:8], "big"))
        number = _stir(number, int.from_bytes(address[8:], "big"))
    number = _stir(number, subject.protocol << 32 | subject.spi)
    return _stir(number, subject.source_port << 16 | subject.destination_port)


def choose(weights: Sequence[int], number: int) -> int:
    """Index of the target for a flow with this hash, in proportion to the weights."""
    mine = (number & 0xFFFFFFFF) * sum(weights) >> 32
    for place, weight in enumerate(weights[:-1]):
        if mine < weight:
            return place
        mine -= weight
    return len(weights) - 1
