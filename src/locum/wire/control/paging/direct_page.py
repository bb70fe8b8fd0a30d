"""Message 1172A: a stand-in pages a device by its access node, with event and state (P5), as CBOR by paging.cddl.

The access node passes on a call and an answer that it cannot read (`wire/control/paging/direct_message.py`); their content is here too. The
device may answer with new directions and go on sleeping.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.paging.cause import ApplicationEvent, text_map
from locum.wire.control.paging.entry import MAX_ENTRIES, Entry, information_of
from locum.wire.control.paging.outcome import PAGE_BYTES, PageAnswer
from locum.wire.control.paging.page import MAX_SECONDS
from locum.wire.control.paging.provision import MAX_PROVISION, NO_PROVISION, Provision
from locum.wire.control.paging.rules import AgentRule, numbered
from locum.wire.control.paging.status import MAX_ITEM, MAX_ITEMS
from locum.wire.control.paging.way import Way

PATH = "1172a"  # of the CoAP resource
MAX_SEALED = 1200  # bytes of a call or an answer: one datagram on the access link
MAX_DIRECT = MAX_PROVISION + MAX_SEALED + 1024  # bytes
MAX_DIRECT_ANSWER = MAX_SEALED + 1024  # bytes
MAX_EVENTS = (1 << 64) - 1


class Decision(IntEnum):
    """Decision of a device that was paged directly."""

    GO_ON = 1  # the agent goes on, with the directions of the answer; the device sleeps
    WAKING = 2


class LeftOut(IntEnum):
    """Parts of a call that one datagram has no room for. The device gets them when it wakes."""

    NOTHING = 0
    STATE = 1
    DETAIL = 2  # of the event, and the state


@dataclass(frozen=True, slots=True)
class DirectPage1172A:
    """A page with a call for the device. Without `way` the access node takes its own."""

    page: bytes  # an identifier of the stand-in's
    home_address: IPv4Address | IPv6Address
    seconds: int  # to go on trying, 1 to MAX_SECONDS
    call: bytes  # sealed by the stand-in, for the device on its access link
    way: Way | None = None
    provision: Provision = NO_PROVISION


@dataclass(frozen=True, slots=True)
class DirectCall:
    """Content of a call: the event and the state of the application."""

    event: ApplicationEvent  # the last one, if there were several
    entry: int  # of the event table
    count: int = 1  # events
    left_out: LeftOut = LeftOut.NOTHING
    state: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Directions:
    """New directions for the agent: entries and information for the event table, rules for its packets."""

    entries: tuple[Entry, ...] = ()
    information: Mapping[str, object] = field(default_factory=dict)
    rules: tuple[AgentRule, ...] = ()


NO_DIRECTIONS = Directions()


@dataclass(frozen=True, slots=True)
class DirectDecision:
    """Content of an answer."""

    decision: Decision
    directions: Directions = NO_DIRECTIONS


def encode_1172a(value: DirectPage1172A) -> bytes:
    """The CBOR body of a 1172A."""
    body: dict[int, object] = {
        0: value.page,
        1: value.home_address.packed,
        3: value.seconds,
        8: value.call,
    }
    if value.way is not None:
        body[4] = value.way.to_cbor()
    return cbor.encode(body | value.provision.to_map())


def decode_1172a(data: bytes) -> DirectPage1172A:
    """The page in a 1172A's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_DIRECT, field="1172a"), "1172a")
    value = DirectPage1172A(
        reader.octets(0, "page", PAGE_BYTES, PAGE_BYTES),
        reader.address(1, "home-address"),
        reader.integer(3, "seconds", 1, MAX_SECONDS),
        reader.octets(8, "call", 1, MAX_SEALED),
        None if reader.absent(4) else Way.from_cbor(reader.value(4, "way"), "1172a.way"),
        Provision.read(reader),
    )
    reader.done()
    return value


def encode_1172a_answer(value: PageAnswer) -> bytes:
    """The CBOR body of the answer to a 1172A."""
    return cbor.encode(value.to_map())


def decode_1172a_answer(data: bytes) -> PageAnswer:
    """The answer in a body; raises WireError."""
    field = "1172a-answer"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_DIRECT_ANSWER, field=field), field)
    answer = PageAnswer.read(reader, MAX_SEALED)
    reader.done()
    return answer


def encode_call(value: DirectCall) -> bytes:
    """The CBOR of the content of a call."""
    body: dict[int, object] = {
        0: value.event.to_cbor(),
        1: value.entry,
        2: value.count,
        3: int(value.left_out),
    }
    if value.state:
        body[4] = dict(value.state)
    return cbor.encode(body)


def decode_call(data: bytes) -> DirectCall:
    """The content of a call; raises WireError."""
    field = "direct-call"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_SEALED, field=field), field)
    value = DirectCall(
        ApplicationEvent.from_cbor(reader.value(0, "event"), f"{field}.event"),
        reader.integer(1, "entry", 1, MAX_ITEM),
        reader.integer(2, "count", 0, MAX_EVENTS),
        LeftOut(reader.integer(3, "left-out", 0, max(LeftOut))),
        {} if reader.absent(4) else text_map(reader.value(4, "state"), f"{field}.state", MAX_SEALED),
    )
    reader.done()
    return value


def encode_decision(value: DirectDecision) -> bytes:
    """The CBOR of the content of an answer."""
    body: dict[int, object] = {0: int(value.decision)}
    directions = value.directions
    if directions.entries:
        body[1] = [entry.to_map() for entry in directions.entries]
    if directions.information:
        body[2] = dict(directions.information)
    if directions.rules:
        body[3] = [rule.to_map() for rule in directions.rules]
    return cbor.encode(body)


def decode_decision(data: bytes) -> DirectDecision:
    """The content of an answer; raises WireError."""
    field = "direct-decision"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_SEALED, field=field), field)
    decision = Decision(reader.integer(0, "decision", min(Decision), max(Decision)))
    entries = reader.optional_array(1, "entries", MAX_ENTRIES)
    information = (
        {} if reader.absent(2) else information_of(reader.value(2, "information"), f"{field}.information")
    )
    rules = reader.optional_array(3, "rules", MAX_ITEMS)
    reader.done()
    directions = Directions(
        numbered(entries, f"{field}.entry", Entry.from_cbor),
        information,
        numbered(rules, f"{field}.rule", AgentRule.from_cbor),
    )
    return DirectDecision(decision, directions)
