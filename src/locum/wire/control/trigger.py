"""The trigger: any authorised node asks a stand-in to take or to release a home address (C8), as CBOR by control.cddl.

The source text calls it a message "similar to 634" that makes the stand-in send 601''; it has no number of its own.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.answer import Status
from locum.wire.control.selectors import selector_from_cbor, selector_to_cbor
from locum.wire.control.takeover import MAX_HOME_ADDRESSES
from locum.wire.errors import WireError
from locum.wire.traffic_selector import TrafficSelector

PATH = "trigger"  # of the CoAP resource
MAX_TRIGGER = 8 << 10  # 64 selectors of at most 64 bytes, 64 addresses, and a little
MAX_SELECTORS = 64  # the most rules that a home address may have


class Operation(IntEnum):
    """Operation that the stand-in is asked for."""

    TAKE = 1
    RELEASE = 2


class Reason(IntEnum):
    """Reason: a stand-in checks that a device reported lost does not answer it either."""

    COMMAND = 1  # a person or a program wants it
    LOST = 2  # the access node does not reach the device any more
    BACK = 3  # the device answers again, or has registered
    EXPIRED = 4  # the device's registration has run out at the home agent


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger for all packets, or with `selectors` for those that match one.

    `access_node` is the one that serves the device, or did last, if the sender knows it (C4).
    """

    operation: Operation
    home_addresses: tuple[IPv4Address | IPv6Address, ...]
    selectors: tuple[TrafficSelector, ...] = ()
    reason: Reason = Reason.COMMAND
    access_node: IPv4Address | IPv6Address | None = None


def encode_trigger(value: Trigger) -> bytes:
    """The CBOR body of a trigger."""
    body: dict[int, object] = {
        0: int(value.operation),
        1: [home_address.packed for home_address in value.home_addresses],
    }
    if value.selectors:
        body[2] = [selector_to_cbor(selector) for selector in value.selectors]
    if value.reason is not Reason.COMMAND:
        body[3] = int(value.reason)
    if value.access_node is not None:
        body[4] = value.access_node.packed
    return cbor.encode(body)


def decode_trigger(data: bytes) -> Trigger:
    """The trigger in a body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_TRIGGER, field="trigger"), "trigger")
    operation = Operation(reader.integer(0, "operation", min(Operation), max(Operation)))
    homes = reader.array(1, "home-addresses", MAX_HOME_ADDRESSES)
    if not homes:
        raise WireError("trigger.home-addresses", 0, "range")
    selectors = () if reader.absent(2) else _selectors(reader.array(2, "selectors", MAX_SELECTORS))
    number = Reason.COMMAND if reader.absent(3) else reader.integer(3, "reason", min(Reason), max(Reason))
    access_node = None if reader.absent(4) else reader.address(4, "access-node")
    reader.done()
    addresses = tuple(cbor.address(home, "trigger.home-address") for home in homes)
    return Trigger(operation, addresses, selectors, Reason(number), access_node)


def _selectors(items: list[object]) -> tuple[TrafficSelector, ...]:
    if not items:
        raise WireError("trigger.selectors", 0, "range")
    return tuple(selector_from_cbor(item, "trigger.selector") for item in items)


def encode_trigger_answer(status: Status) -> bytes:
    """The CBOR body of the answer to a trigger."""
    return cbor.encode({0: int(status)})


def decode_trigger_answer(data: bytes) -> Status:
    """Return the status of a trigger; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=64, field="trigger-answer"), "trigger-answer")
    status = Status(reader.integer(0, "status", 0, max(Status)))
    reader.done()
    return status
