"""The sealed call to a sleeping device on its access link, and its sealed answer (P5), as an experimental message (RFC 4064).

Bytes in, values out; no key, no state. Both go between port 434 of the access node and that of the device. A stand-in and a
device seal the content; an access node reads the header alone (`wire/control/paging/direct_page.py` has the content).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from locum.wire.control.paging.outcome import PAGE_BYTES
from locum.wire.errors import WireError

EXPERIMENTAL = 255  # type of the message (RFC 4064 section 3)

# type, kind, two reserved bytes, page, home address, identification
_FIXED = struct.Struct("!BBxx8s4sQ")
MAX_MESSAGE = 1200  # bytes: it fits in one frame of any access link
HEADER_BYTES = _FIXED.size


class DirectKind(IntEnum):
    """Kinds of these messages beside those of `wire/mobile_ip/page_call.py`."""

    CALL = 3
    ANSWER = 4


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """A call or an answer. The header is not secret, but the seal covers it."""

    kind: DirectKind
    page: bytes  # an identifier of the stand-in's
    home_address: IPv4Address
    identification: (
        int  # the stand-in's time (RFC 5944 section 5.7.1); the same in repetitions and in the answer
    )
    sealed: bytes

    @property
    def header(self) -> bytes:
        """The bytes before the sealed ones."""
        if len(self.page) != PAGE_BYTES:
            raise ValueError(f"the identifier of a page has {PAGE_BYTES} bytes, not {len(self.page)}")
        return _FIXED.pack(EXPERIMENTAL, self.kind, self.page, self.home_address.packed, self.identification)

    def encode(self) -> bytes:
        """The UDP payload."""
        return self.header + self.sealed

    @classmethod
    def decode(cls, data: bytes) -> "DirectMessage":
        """The message in a UDP payload. Raises WireError."""
        if len(data) <= _FIXED.size:
            raise WireError("direct-call", len(data), "truncated")
        if len(data) > MAX_MESSAGE:
            raise WireError("direct-call", MAX_MESSAGE, "too-large")
        message_type, kind, page, home_address, identification = _FIXED.unpack_from(data)
        if message_type != EXPERIMENTAL:
            raise WireError("direct-call.type", 0, "range")
        if kind not in [*DirectKind]:
            raise WireError("direct-call.kind", 1, "range")
        if any(data[2:4]):  # the seal covers zeros
            raise WireError("direct-call.reserved", 2, "range")
        return cls(DirectKind(kind), page, IPv4Address(home_address), identification, data[_FIXED.size :])


def is_direct(message: bytes) -> bool:
    """True if a message to port 434 may be one of these."""
    return len(message) > 1 and message[0] == EXPERIMENTAL and message[1] in [*DirectKind]
