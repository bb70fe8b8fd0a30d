"""Message 1170: a home agent pages a device by its access node (P1, P8, P9, P11), as CBOR by paging.cddl.

`outcome` has its answer.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.paging.cause import Cause, cause_from_cbor, cause_to_cbor
from locum.wire.control.paging.outcome import PAGE_BYTES
from locum.wire.control.paging.provision import MAX_PROVISION, NO_PROVISION, Provision
from locum.wire.control.paging.way import Way

PATH = "1170"  # of the CoAP resource
MAX_SECONDS = 3600  # of one page
MAX_CALL = 512  # bytes
MAX_PAGE = MAX_PROVISION + MAX_CALL + 1024  # bytes


@dataclass(frozen=True, slots=True)
class Page1170:
    """A page. Without `way` the access node takes its own for this visitor."""

    page: bytes  # its identifier, unique for the home agent
    home_address: IPv4Address | IPv6Address
    cause: Cause
    seconds: int  # to go on trying, 1 to MAX_SECONDS
    way: Way | None = None
    provision: Provision = NO_PROVISION
    call: bytes = b""  # signed by the home agent, for the device on its access link


def encode_1170(value: Page1170) -> bytes:
    """The CBOR body of a 1170."""
    body: dict[int, object] = {
        0: value.page,
        1: value.home_address.packed,
        2: cause_to_cbor(value.cause),
        3: value.seconds,
    }
    if value.way is not None:
        body[4] = value.way.to_cbor()
    if value.call:
        body[8] = value.call
    return cbor.encode(body | value.provision.to_map())


def decode_1170(data: bytes) -> Page1170:
    """The page in a 1170's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_PAGE, field="1170"), "1170")
    value = Page1170(
        reader.octets(0, "page", PAGE_BYTES, PAGE_BYTES),
        reader.address(1, "home-address"),
        cause_from_cbor(reader.value(2, "cause"), "1170.cause"),
        reader.integer(3, "seconds", 1, MAX_SECONDS),
        None if reader.absent(4) else Way.from_cbor(reader.value(4, "way"), "1170.way"),
        Provision.read(reader),
        b"" if reader.absent(8) else reader.octets(8, "call", 1, MAX_CALL),
    )
    reader.done()
    return value
