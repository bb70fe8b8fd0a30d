"""A port that a sleeping device listens on, and its policy for new connections, as CBOR by control.cddl."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.errors import WireError

MAX_LISTENERS = 256  # of one handover, each for one address and port
MAX_WAITING = 1024  # accepted connections of one port
MAX_WINDOW = 0xFFFF  # bytes; there is no window scaling
_TCP = 6


class Policy(IntEnum):
    """Treatment of a peer that connects."""

    REFUSE = 0  # a reset, like a closed port
    IGNORE = 1  # nothing: it tries again
    ACCEPT = 2  # an open connection, whose bytes are held until the device is awake


@dataclass(frozen=True, slots=True)
class Listener:
    """One TCP port of a home address. `most` connections are accepted, each with `window` unread bytes."""

    address: IPv4Address | IPv6Address
    port: int
    policy: Policy
    most: int
    window: int

    def to_cbor(self) -> list[object]:
        """The CDDL rule `listener`."""
        return [_TCP, self.address.packed, self.port, int(self.policy), self.most, self.window]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Listener":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, 6)
        if len(items) != 6:
            raise WireError(field, 0, "truncated")
        cbor.integer(items[0], f"{field}.protocol", _TCP, _TCP)
        return cls(
            address=cbor.address(items[1], f"{field}.address"),
            port=cbor.integer(items[2], f"{field}.port", 1, 0xFFFF),
            policy=Policy(cbor.integer(items[3], f"{field}.policy", min(Policy), max(Policy))),
            most=cbor.integer(items[4], f"{field}.most", 1, MAX_WAITING),
            window=cbor.integer(items[5], f"{field}.window", 1, MAX_WINDOW),
        )
