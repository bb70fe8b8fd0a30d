"""Message 1172A: a stand-in pages a device by its access node, with event and state (P5), as CBOR by paging.cddl.

The device may answer with new directions and go on sleeping. The message may be longer than one block of CoAP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.paging.cause import MAX_DETAIL, ApplicationEvent, text_map
from locum.wire.control.paging.entry import MAX_ENTRIES, Entry, information_of
from locum.wire.control.paging.outcome import PAGE_BYTES, PageAnswer
from locum.wire.control.paging.page import MAX_SECONDS
from locum.wire.control.paging.provision import MAX_PROVISION, NO_PROVISION, Provision
from locum.wire.control.paging.rules import AgentRule, numbered
from locum.wire.control.paging.status import MAX_ITEMS
from locum.wire.control.paging.way import Way

PATH = "1172a"  # of the CoAP resource
MAX_STATE = 64 << 10  # bytes of the state as CBOR
MAX_DIRECT = MAX_PROVISION + MAX_DETAIL + MAX_STATE + 1024  # bytes
MAX_DIRECT_ANSWER = 512 << 10  # bytes: entries and rules


class Decision(IntEnum):
    """Decision of a device that was paged directly."""

    GO_ON = 1  # the agent goes on, with the directions of the answer; the device sleeps
    WAKING = 2


@dataclass(frozen=True, slots=True)
class DirectPage1172A:
    """A page with the event and the state of the application. Without `way` the access node takes its own."""

    page: bytes  # an identifier of the stand-in's
    home_address: IPv4Address | IPv6Address
    event: ApplicationEvent
    seconds: int  # to go on trying, 1 to MAX_SECONDS
    way: Way | None = None
    provision: Provision = NO_PROVISION
    state: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Directions:
    """New directions for the agent: entries and information for the event table, rules for its packets."""

    entries: tuple[Entry, ...] = ()
    information: Mapping[str, object] = field(default_factory=dict)
    rules: tuple[AgentRule, ...] = ()


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """The answer; a decision belongs to a device that was reached."""

    answer: PageAnswer
    decision: Decision | None = None
    directions: Directions = Directions()


def encode_1172a(value: DirectPage1172A) -> bytes:
    """The CBOR body of a 1172A."""
    body: dict[int, object] = {
        0: value.page,
        1: value.home_address.packed,
        2: value.event.to_cbor(),
        3: value.seconds,
    }
    if value.way is not None:
        body[4] = value.way.to_cbor()
    if value.state:
        body[8] = dict(value.state)
    return cbor.encode(body | value.provision.to_map())


def decode_1172a(data: bytes) -> DirectPage1172A:
    """The page in a 1172A's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_DIRECT, field="1172a"), "1172a")
    value = DirectPage1172A(
        reader.octets(0, "page", PAGE_BYTES, PAGE_BYTES),
        reader.address(1, "home-address"),
        ApplicationEvent.from_cbor(reader.value(2, "event"), "1172a.event"),
        reader.integer(3, "seconds", 1, MAX_SECONDS),
        None if reader.absent(4) else Way.from_cbor(reader.value(4, "way"), "1172a.way"),
        Provision.read(reader),
        {} if reader.absent(8) else text_map(reader.value(8, "state"), "1172a.state", MAX_STATE),
    )
    reader.done()
    return value


def encode_1172a_answer(value: DirectAnswer) -> bytes:
    """The CBOR body of the answer to a 1172A."""
    body = value.answer.to_map()
    if value.decision is not None:
        body[4] = int(value.decision)
    directions = value.directions
    if directions.entries:
        body[5] = [entry.to_map() for entry in directions.entries]
    if directions.information:
        body[6] = dict(directions.information)
    if directions.rules:
        body[7] = [rule.to_map() for rule in directions.rules]
    return cbor.encode(body)


def decode_1172a_answer(data: bytes) -> DirectAnswer:
    """The answer in a body; raises WireError."""
    field = "1172a-answer"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_DIRECT_ANSWER, field=field), field)
    answer = PageAnswer.read(reader)
    decision = (
        None if reader.absent(4) else Decision(reader.integer(4, "decision", min(Decision), max(Decision)))
    )
    entries = reader.optional_array(5, "entries", MAX_ENTRIES)
    information = (
        {} if reader.absent(6) else information_of(reader.value(6, "information"), f"{field}.information")
    )
    rules = reader.optional_array(7, "rules", MAX_ITEMS)
    reader.done()
    directions = Directions(
        numbered(entries, f"{field}.entry", Entry.from_cbor),
        information,
        numbered(rules, f"{field}.rule", AgentRule.from_cbor),
    )
    return DirectAnswer(answer, decision, directions)
