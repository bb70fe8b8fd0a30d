"""Message 1172: a stand-in asks the home agent to page a device (P4, P10), as CBOR by paging.cddl.

`outcome` has its answer, which comes when the page has ended.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.paging.cause import MAX_DETAIL, ApplicationEvent
from locum.wire.control.paging.outcome import PAGE_BYTES

PATH = "1172"  # of the CoAP resource
MAX_PAGE_REQUEST = MAX_DETAIL + 1024  # bytes


class Order(IntEnum):
    """Change of forwarding (1210) in relation to the page."""

    BEFORE = 1
    WITH = 2
    AFTER = 3


@dataclass(frozen=True, slots=True)
class PageRequest1172:
    """A request for a page because of an event. Without `order` the home agent's own setting decides."""

    page: bytes  # an identifier of the stand-in's
    home_address: IPv4Address | IPv6Address
    event: ApplicationEvent
    order: Order | None = None


def encode_1172(value: PageRequest1172) -> bytes:
    """The CBOR body of a 1172."""
    body: dict[int, object] = {0: value.page, 1: value.home_address.packed, 2: value.event.to_cbor()}
    if value.order is not None:
        body[3] = int(value.order)
    return cbor.encode(body)


def decode_1172(data: bytes) -> PageRequest1172:
    """The request in a 1172's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_PAGE_REQUEST, field="1172"), "1172")
    value = PageRequest1172(
        reader.octets(0, "page", PAGE_BYTES, PAGE_BYTES),
        reader.address(1, "home-address"),
        ApplicationEvent.from_cbor(reader.value(2, "event"), "1172.event"),
        None if reader.absent(3) else Order(reader.integer(3, "order", min(Order), max(Order))),
    )
    reader.done()
    return value
