"""The call to a sleeping device on its access link, and its answer (P1, P11, P13), as an experimental message (RFC 4064).

Bytes in, values out; no key, no state. Both go between port 434 of the access node and that of the device, and end in
the authentication extension of the mobile node and its home agent: an access node passes them on and can make neither.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extended import Extended, open_message
from locum.wire.mobile_ip.extensions import Extension, VendorNormal, decode_extensions, encode_extensions
from locum.wire.mobile_ip.vendor import ENTERPRISE, VendorType

EXPERIMENTAL = 255  # type of the message (RFC 4064 section 3)
PAGE_BYTES = 8  # of a page's identifier

MAX_DETAIL = 200  # bytes of a cause in words

_CALL, _ANSWER = 1, 2
_FIXED = struct.Struct(
    "!BBBB8s4sQ"
)  # type, kind, cause or decision, flags, page, home address, identification
_FORWARDED, _ALLOCATED = 1, 2  # flags of a call; others are ignored
_ALLOCATION = struct.Struct("!4s4s")  # home address, mobility agent; behind the fixed part


class Reason(IntEnum):
    """Cause of the page, for a device that decides by it."""

    PACKET = 1
    EVENT = 2
    COMMAND = 3


class CallAnswerCode(IntEnum):
    """Decision of the device."""

    WAKING = 0
    AWAKE = 1  # it is awake already, or on its way
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class PageCall(Extended):
    """A home agent wants the device to wake."""

    page: bytes
    home_address: IPv4Address
    identification: int  # the home agent's time (RFC 5944 section 5.7.1); the same in each repetition
    reason: Reason
    extensions: tuple[Extension, ...] = ()
    forwarded: bool = False  # packets come to the access node, and wait there for the answer (P10)
    # Home address and mobility agent, from now on (P9)
    allocation: tuple[IPv4Address, IPv4Address] | None = None

    def encode(self) -> bytes:
        """The UDP payload."""
        flags = _FORWARDED * self.forwarded + _ALLOCATED * (self.allocation is not None)
        fixed = _fixed(_CALL, self.reason, self.page, self.home_address, self.identification, flags)
        if self.allocation is not None:
            fixed += _ALLOCATION.pack(*(address.packed for address in self.allocation))
        return fixed + encode_extensions(self.extensions)

    @property
    def detail(self) -> str:
        """The cause in words, for users; empty where it is not told. Raises WireError."""
        for extension in self.extensions:
            if isinstance(extension, VendorNormal) and (extension.vendor, extension.vendor_type) == (
                ENTERPRISE,
                VendorType.PAGE_CAUSE,
            ):
                return _words(extension.value)
        return ""

    @classmethod
    def decode(cls, data: bytes) -> "PageCall":
        """The call in a UDP payload. Raises WireError."""
        cursor = open_message(data, EXPERIMENTAL, _FIXED.size)
        number, page, home_address, identification, flags = _fields(data, _CALL)
        if number not in [*Reason]:
            raise WireError("page-call.reason", 2, "range")
        allocation = None
        if flags & _ALLOCATED:
            home, agent = _ALLOCATION.unpack(cursor.take(_ALLOCATION.size, "page-call.allocation"))
            allocation = IPv4Address(home), IPv4Address(agent)
        extensions = decode_extensions(cursor)
        forwarded = bool(flags & _FORWARDED)
        return cls(page, home_address, identification, Reason(number), extensions, forwarded, allocation)


@dataclass(frozen=True, slots=True)
class PageCallAnswer(Extended):
    """The device's answer to a call with the same page and identification."""

    page: bytes
    home_address: IPv4Address
    identification: int
    code: CallAnswerCode
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The UDP payload."""
        fixed = _fixed(_ANSWER, self.code, self.page, self.home_address, self.identification)
        return fixed + encode_extensions(self.extensions)

    @classmethod
    def decode(cls, data: bytes) -> "PageCallAnswer":
        """The answer in a UDP payload. Raises WireError."""
        cursor = open_message(data, EXPERIMENTAL, _FIXED.size)
        number, page, home_address, identification, _ = _fields(data, _ANSWER)
        if number not in [*CallAnswerCode]:
            raise WireError("page-call.code", 2, "range")
        return cls(page, home_address, identification, CallAnswerCode(number), decode_extensions(cursor))


def in_words(detail: str) -> tuple[VendorNormal, ...]:
    """The extension with a cause in words, cut to MAX_DETAIL bytes; none for none."""
    data = detail.encode()[:MAX_DETAIL].decode(errors="ignore").encode()
    return (VendorNormal(ENTERPRISE, VendorType.PAGE_CAUSE, data),) if data else ()


def _words(value: bytes) -> str:
    try:
        found = value.decode()
    except UnicodeDecodeError as problem:
        raise WireError("page-call.detail", problem.start, "not-utf-8") from None
    if len(value) > MAX_DETAIL or not found.isprintable():
        raise WireError("page-call.detail", 0, "not-words")
    return found


def _fixed(
    kind: int, number: int, page: bytes, home_address: IPv4Address, identification: int, flags: int = 0
) -> bytes:
    if len(page) != PAGE_BYTES:
        raise ValueError(f"the identifier of a page has {PAGE_BYTES} bytes, not {len(page)}")
    return _FIXED.pack(EXPERIMENTAL, kind, number, flags, page, home_address.packed, identification)


def _fields(data: bytes, wanted: int) -> tuple[int, bytes, IPv4Address, int, int]:
    _, kind, number, flags, page, home_address, identification = _FIXED.unpack_from(data)
    if kind != wanted:
        raise WireError("page-call.kind", 1, "range")
    return number, page, IPv4Address(home_address), identification, flags
