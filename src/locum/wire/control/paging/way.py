"""Way to reach a sleeping device from its access node (P13), as CBOR by paging.cddl."""

from dataclasses import dataclass

from locum.wire import cbor
from locum.wire.errors import WireError

MAX_WAY = 32  # characters of the name
MAX_LINK_ADDRESS = 32  # bytes
MAX_CYCLE = 86_400_000  # milliseconds: a day
_ITEMS = 5


@dataclass(frozen=True, slots=True)
class Way:
    """Way by name, the device's address for it, and the slots in which the device listens.

    Slots begin at `offset + n * cycle` milliseconds since 1970 and are `length` milliseconds long. With cycle 0 the device always listens.
    """

    name: str  # of the plug-in at the access node
    link_address: bytes = b""
    cycle: int = 0
    offset: int = 0
    length: int = 0

    def to_cbor(self) -> list[object]:
        """The CDDL rule `way`."""
        return [self.name, self.link_address, self.cycle, self.offset, self.length]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Way":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, _ITEMS)
        if len(items) != _ITEMS:
            raise WireError(field, 0, "truncated")
        link_address = items[1]
        if not isinstance(link_address, bytes) or len(link_address) > MAX_LINK_ADDRESS:
            raise WireError(f"{field}.link-address", 0, "not-octets")
        cycle = cbor.integer(items[2], f"{field}.cycle", 0, MAX_CYCLE)
        return cls(
            name=cbor.text(items[0], f"{field}.name", MAX_WAY),
            link_address=link_address,
            cycle=cycle,
            offset=cbor.integer(items[3], f"{field}.offset", 0, max(cycle - 1, 0)),
            length=cbor.integer(items[4], f"{field}.length", 1 if cycle else 0, cycle),
        )
