"""Message 618: a node is responsible for a home address, or no longer (C6), as CBOR by control.cddl."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor

MAX_NOTICE = 1024  # two addresses and a flag; the bound leaves room for nothing else


@dataclass(frozen=True, slots=True)
class Notice618:
    """`responsible`: the receiver now gets the packets of `home_address`; `node` is the sender."""

    home_address: IPv4Address | IPv6Address
    responsible: bool
    node: IPv4Address | IPv6Address


def encode_618(value: Notice618) -> bytes:
    """The CBOR body of a 618."""
    return cbor.encode({0: value.home_address.packed, 1: value.responsible, 2: value.node.packed})


def decode_618(data: bytes) -> Notice618:
    """The notice in a 618's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_NOTICE, field="618"), "618")
    value = Notice618(
        reader.address(0, "home-address"), reader.boolean(1, "responsible"), reader.address(2, "node")
    )
    reader.done()
    return value
