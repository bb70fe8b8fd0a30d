"""Message 1204: the first paging information of a device (P1, P14), as CBOR by paging.cddl. `status` has its answer.

It replaces the information that the home agent has; an awake device's rules wait until it sleeps.
"""

from dataclasses import dataclass
from enum import IntEnum

from locum.wire import cbor
from locum.wire.control.paging.rules import (
    MAX_RULES_BODY,
    MAX_TIME,
    OTHERWISE_ACTIONS,
    Address,
    PageAction,
    PageRule,
    home_addresses,
    numbered,
)
from locum.wire.control.paging.status import MAX_ITEMS, MAX_LIFETIME
from locum.wire.control.paging.way import Way
from locum.wire.errors import WireError

PATH = "1204"  # of the CoAP resource
MAX_PAGE_RULES = MAX_RULES_BODY


class DeviceState(IntEnum):
    """State of the device."""

    ASLEEP = 1
    AWAKE = 2


@dataclass(frozen=True, slots=True)
class PageRules1204:
    """The first paging information. `sent` orders the messages of one device; a lifetime of 0 removes it."""

    home_addresses: tuple[Address, ...]
    rules: tuple[PageRule, ...]
    otherwise: PageAction  # for packets that match no rule; one of OTHERWISE_ACTIONS
    lifetime: int  # seconds
    state: DeviceState
    sent: int  # milliseconds since 1970
    way: Way | None = None
    agent: Address | None = None  # of `otherwise`, if it is AGENT; None: the device's own


def encode_1204(value: PageRules1204) -> bytes:
    """The CBOR body of a 1204."""
    body: dict[int, object] = {
        0: [home.packed for home in value.home_addresses],
        1: [rule.to_map() for rule in value.rules],
        2: int(value.otherwise),
        3: value.lifetime,
        4: int(value.state),
        5: value.sent,
    }
    if value.way is not None:
        body[6] = value.way.to_cbor()
    if value.agent is not None:
        body[7] = value.agent.packed
    return cbor.encode(body)


def decode_1204(data: bytes) -> PageRules1204:
    """The information in a 1204's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_PAGE_RULES, field="1204"), "1204")
    value = PageRules1204(
        home_addresses(reader, 0),
        numbered(reader.array(1, "rules", MAX_ITEMS), "1204.rule", PageRule.from_cbor),
        PageAction(reader.integer(2, "otherwise", min(OTHERWISE_ACTIONS), max(OTHERWISE_ACTIONS))),
        reader.integer(3, "lifetime", 0, MAX_LIFETIME),
        DeviceState(reader.integer(4, "state", min(DeviceState), max(DeviceState))),
        reader.integer(5, "sent", 0, MAX_TIME),
        None if reader.absent(6) else Way.from_cbor(reader.value(6, "way"), "1204.way"),
        None if reader.absent(7) else reader.address(7, "agent"),
    )
    reader.done()
    if value.agent is not None and value.otherwise is not PageAction.AGENT:
        raise WireError("1204.agent", 0, "not-to-an-agent")
    return value
