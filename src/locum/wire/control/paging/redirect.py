"""Message 1210: a paging routine changes the forwarding of a device (P10), as CBOR by paging.cddl. `status` has its answer."""

from dataclasses import dataclass
from typing import TypeAlias

from locum.wire import cbor
from locum.wire.control.paging.outcome import PAGE_BYTES
from locum.wire.control.paging.rules import MAX_TIME, Address, home_addresses
from locum.wire.errors import WireError

PATH = "1210"  # of the CoAP resource
MAX_REDIRECT = 1024  # bytes

_DEVICE, _AGENT, _PAGING = 1, 2, 3


@dataclass(frozen=True, slots=True)
class ToDevice:
    """Packets go to the device at this access node. The care-of address is the end of the tunnel."""

    access_node: Address
    care_of: Address


@dataclass(frozen=True, slots=True)
class ToAgent:
    """Packets go to this application agent."""

    agent: Address


@dataclass(frozen=True, slots=True)
class ToPaging:
    """Packets meet the paging information of the device."""


Destination: TypeAlias = ToDevice | ToAgent | ToPaging


@dataclass(frozen=True, slots=True)
class Redirect1210:
    """A change of forwarding. `sent` orders the changes of one sender."""

    home_addresses: tuple[Address, ...]
    to: Destination
    sent: int  # milliseconds since 1970
    page: bytes | None = None  # the page that it belongs to
    home_agent: Address | None = None  # whose tunnel brings the packets; None: that of the sender


def encode_1210(value: Redirect1210) -> bytes:
    """The CBOR body of a 1210."""
    body: dict[int, object] = {
        0: [home.packed for home in value.home_addresses],
        1: _to_cbor(value.to),
        2: value.sent,
    }
    if value.page is not None:
        body[3] = value.page
    if value.home_agent is not None:
        body[4] = value.home_agent.packed
    return cbor.encode(body)


def decode_1210(data: bytes) -> Redirect1210:
    """The change in a 1210's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_REDIRECT, field="1210"), "1210")
    value = Redirect1210(
        home_addresses(reader, 0),
        _from_cbor(reader.value(1, "to"), "1210.to"),
        reader.integer(2, "sent", 0, MAX_TIME),
        None if reader.absent(3) else reader.octets(3, "page", PAGE_BYTES, PAGE_BYTES),
        None if reader.absent(4) else reader.address(4, "home-agent"),
    )
    reader.done()
    return value


def _to_cbor(destination: Destination) -> list[object]:
    match destination:
        case ToDevice():
            return [_DEVICE, destination.access_node.packed, destination.care_of.packed]
        case ToAgent():
            return [_AGENT, destination.agent.packed]
        case ToPaging():
            return [_PAGING]


def _from_cbor(value: object, field: str) -> Destination:
    match cbor.array(value, field, 3):
        case [int(kind), access_node, care_of] if kind == _DEVICE:
            return ToDevice(
                cbor.address(access_node, f"{field}.access-node"), cbor.address(care_of, f"{field}.care-of")
            )
        case [int(kind), agent] if kind == _AGENT:
            return ToAgent(cbor.address(agent, f"{field}.agent"))
        case [int(kind)] if kind == _PAGING:
            return ToPaging()
    raise WireError(field, 0, "not-a-destination")
