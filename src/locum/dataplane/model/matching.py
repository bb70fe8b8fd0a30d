"""Matching of rules, and choice among equal targets by flow: the Python side of bpf/rules.h.

Selectors are those of RFC 6088; the first rule that matches takes the packet. It must not know a rule's purpose.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from locum.dataplane.layout import maps
from locum.dataplane.layout.rules import PORTS, Part, parts_of
from locum.dataplane.model.following import WITH_PORTS, hidden_parts
from locum.dataplane.model.frames import Follows, Transport, Work, flow_of
from locum.dataplane.model.parse import AH, ESP, Unread
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    WAITING,
    FilterRule,
    FilterVerdict,
    Rule,
    RuleVerdict,
    Selector,
)
from locum.wire.traffic_selector import Ipv4Selector, Range

NOTHING = Part(0)
DROPS = (RuleVerdict.DROP, FilterVerdict.DROP, FilterVerdict.PAGE_AND_DROP)
TO_THE_LAST = (RuleVerdict.FORWARD, *WAITING)  # about the final destination of a source-routed packet

_SELECTS = TypeVar("_SELECTS", Rule, FilterRule)


@dataclass(frozen=True, slots=True)
class Subject:
    """A packet's fields for selectors. `hidden` marks parts that the packet has, perhaps, in a fragment not seen."""

    source: bytes
    destination: bytes
    family: int
    protocol: int
    dscp: int
    flow_label: int
    transport: Transport
    hidden: Part = NOTHING
    unread: Part = NOTHING  # parts that it has, perhaps, in headers that cannot be read
    by_way: bytes | None = None  # with a routing header: the destination in the packet's own header
    detours: bool = False
    released: bool = False  # it has waited here: no rule pages for it once more


class Unsure(Exception):
    """A rule takes the packet or not, by ports that are not known."""


def subject_of(work: Work) -> Subject:
    """The packet's fields, with ports or SPI as `Following` found them, and its final destination."""
    packet = work.packet
    hidden = hidden_parts(packet.protocol) if work.follows is Follows.UNKNOWN else NOTHING
    ends = flow_of(work)
    destination = ends.destination
    if packet.route:
        destination = bytes(work.frame[packet.route + 8 : packet.route + 24])
    unread = NOTHING
    if packet.unread is Unread.CHAIN or (packet.unread and packet.protocol in WITH_PORTS | {ESP, AH}):
        unread = hidden_parts(packet.protocol) & ~work.transport.known
    return Subject(
        ends.source,
        destination,
        packet.family,
        ends.protocol,
        packet.tos >> 2,
        packet.flow_label,
        work.transport,
        hidden,
        unread,
        packet.destination if packet.route else None,
        packet.detours,
        work.from_tap or work.mark & maps.MARK_MASK == maps.MARK_RELEASED,
    )


def _within(value: int, bounds: Range | None) -> bool:
    return bounds is None or bounds[0] <= value <= bounds[1]


def _addressed(value: bytes, bounds: tuple[Addr, Addr] | None) -> bool:
    return bounds is None or maps.address(bounds[0]) <= value <= maps.address(bounds[1])


def _goes_to(
    bounds: tuple[Addr, Addr] | None, verdict: RuleVerdict | FilterVerdict, subject: Subject
) -> bool:
    """True if the rule is about the packet's destination; of a source-routed one, all have to be allowed."""
    at_last = _addressed(subject.destination, bounds)
    drops = verdict in DROPS
    if drops and subject.detours:
        return True
    if subject.by_way is None or verdict in TO_THE_LAST or at_last is drops:
        return at_last
    return _addressed(subject.by_way, bounds)


def selects(selector: Selector, verdict: RuleVerdict | FilterVerdict, subject: Subject) -> bool:
    """True if a rule matches. A range never contains a field that the packet lacks.

    A rule that drops may take what headers hide that cannot be read (RFC 7112 section 5). Raises Unsure.
    """
    if verdict in WAITING and subject.released:
        return False
    parts = parts_of(selector)
    shown = parts & ~subject.hidden
    if verdict in DROPS:
        shown &= ~subject.unread
    transport = subject.transport
    if subject.family != (4 if isinstance(selector, Ipv4Selector) else 6):
        return False
    if shown & (PORTS | Part.SPI) & ~transport.known:
        return False
    protocol = selector.protocol if isinstance(selector, Ipv4Selector) else selector.next_header
    label = None if isinstance(selector, Ipv4Selector) else selector.flow_label
    compared = (
        (Part.PROTOCOL, subject.protocol, protocol),
        (Part.FLOW_LABEL, subject.flow_label, label),
        (Part.SOURCE_PORT, transport.source_port, selector.source_port),
        (Part.DESTINATION_PORT, transport.destination_port, selector.destination_port),
        (Part.DSCP, subject.dscp, selector.dscp),
        (Part.SPI, transport.spi, selector.spi),
    )
    fits = (
        all(not shown & part or _within(value, bounds) for part, value, bounds in compared)
        and _addressed(subject.source, selector.source)
        and _goes_to(selector.destination, verdict, subject)
    )
    if fits and shown != parts:
        raise Unsure
    return fits


def first_match(rules: Iterable[_SELECTS], subject: Subject) -> _SELECTS | None:
    """Return the first rule that takes the packet. Raises Unsure."""
    return next((rule for rule in rules if selects(rule.selector, rule.verdict, subject)), None)


def _stir(number: int, value: int) -> int:
    number = ((number ^ value) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 32


def flow_hash(subject: Subject) -> int:
    """A number of the flow: the same for each of its packets."""
    number = 0
    for address in (subject.source, subject.destination):
        number = _stir(number, int.from_bytes(address[:8], "big"))
        number = _stir(number, int.from_bytes(address[8:], "big"))
    number = _stir(number, subject.protocol << 32 | subject.transport.spi)
    transport = subject.transport
    return _stir(number, transport.source_port << 16 | transport.destination_port)


def choose(weights: Sequence[int], number: int) -> int:
    """Index of the target for a flow with this hash, in proportion to the weights."""
    mine = (number & 0xFFFFFFFF) * sum(weights) >> 32
    for place, weight in enumerate(weights[:-1]):
        if mine < weight:
            return place
        mine -= weight
    return len(weights) - 1
