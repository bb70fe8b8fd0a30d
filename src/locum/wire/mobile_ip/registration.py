"""Registration (RFC 5944 sections 3.3 and 3.4). Bytes in, values out; no key, no state, no policy."""

import struct
from collections.abc import Callable
from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv4Address

from locum.wire.cursor import Cursor
from locum.wire.mobile_ip.extended import Extended, open_message
from locum.wire.mobile_ip.extensions import (
    Extension,
    decode_extensions,
    decode_intact,
    encode_extensions,
)
from locum.wire.values import value

UDP_PORT = 434
REGISTRATION_REQUEST = 1
REGISTRATION_REPLY = 3
LIFETIME_INFINITE = 0xFFFF

# Addresses as numbers: an IPv4Address is made of one faster than of bytes.
_REQUEST = struct.Struct("!BBHIIIQ")  # type, flags, lifetime, HoA, HA, CoA, identification (section 3.3)
_REPLY = struct.Struct("!BBH4s4sQ")  # type, code, lifetime, HoA, HA, identification (section 3.4)
REQUEST_BYTES = _REQUEST.size  # the fixed part
REPLY_BYTES = _REPLY.size


class Flag(IntFlag):
    """Bits of a registration request (section 3.3)."""

    S = 0x80  # simultaneous bindings
    B = 0x40  # broadcast datagrams
    D = 0x20  # decapsulation by the mobile node: the care-of address is co-located
    M = 0x10  # minimal encapsulation
    G = 0x08  # GRE encapsulation
    R = 0x04  # r, reserved: sent as zero
    T = 0x02  # reverse tunneling (RFC 3024)
    X = 0x01  # x, reserved: sent as zero


NO_FLAGS = Flag(0)
_FLAGS = tuple(Flag(bits) for bits in range(256))

# A home agent reads its own address and those of few agents again and again.
_agent = lru_cache(4096)(IPv4Address)


class Code(IntEnum):
    """Codes of a registration reply (section 3.4 and the RFCs named)."""

    ACCEPTED = 0
    ACCEPTED_NO_SIMULTANEOUS_BINDINGS = 1
    # by the foreign agent
    FA_REASON_UNSPECIFIED = 64
    FA_ADMINISTRATIVELY_PROHIBITED = 65
    FA_INSUFFICIENT_RESOURCES = 66
    FA_MOBILE_NODE_FAILED_AUTHENTICATION = 67
    FA_HOME_AGENT_FAILED_AUTHENTICATION = 68
    FA_REQUESTED_LIFETIME_TOO_LONG = 69
    FA_POORLY_FORMED_REQUEST = 70
    FA_POORLY_FORMED_REPLY = 71
    FA_REQUESTED_ENCAPSULATION_UNAVAILABLE = 72
    FA_RESERVED_AND_UNAVAILABLE = 73
    FA_REVERSE_TUNNEL_UNAVAILABLE = 74  # RFC 3024
    FA_REVERSE_TUNNEL_MANDATORY = 75  # RFC 3024
    FA_MOBILE_NODE_TOO_DISTANT = 76  # RFC 3024
    FA_INVALID_CARE_OF_ADDRESS = 77
    FA_REGISTRATION_TIMEOUT = 78
    FA_DELIVERY_STYLE_NOT_SUPPORTED = 79  # RFC 3024
    FA_HOME_NETWORK_UNREACHABLE = 80
    FA_HOME_AGENT_HOST_UNREACHABLE = 81
    FA_HOME_AGENT_PORT_UNREACHABLE = 82
    FA_HOME_AGENT_UNREACHABLE = 88
    FA_VENDOR_SPECIFIC_REASON = 89
    FA_NON_ZERO_HOME_AGENT_REQUIRED = 90  # RFC 4433
    FA_NON_ZERO_HOME_ADDRESS_REQUIRED = 96  # RFC 2794
    FA_MISSING_NAI = 97  # RFC 2794
    FA_MISSING_HOME_AGENT = 98  # RFC 2794
    FA_MISSING_HOME_ADDRESS = 99  # RFC 2794
    FA_UNKNOWN_CRITICAL_FROM_MOBILE_NODE = 100  # RFC 3115
    FA_UNKNOWN_CRITICAL_FROM_HOME_AGENT = 101  # RFC 3115
    FA_UNKNOWN_CHALLENGE = 104  # RFC 4721
    FA_MISSING_CHALLENGE = 105  # RFC 4721
    FA_STALE_CHALLENGE = 106  # RFC 4721
    FA_MISSING_KEY_GENERATION_NONCE = 107  # RFC 3957
    FA_MOBILE_NODE_FAILED_AAA = 108  # RFC 4721
    FA_WRONG_CHALLENGE_FROM_HOME_AGENT = 109  # RFC 4721
    FA_INVALID_HOME_AGENT_ADDRESS = 194
    # by the home agent
    REASON_UNSPECIFIED = 128
    ADMINISTRATIVELY_PROHIBITED = 129
    INSUFFICIENT_RESOURCES = 130
    MOBILE_NODE_FAILED_AUTHENTICATION = 131
    FOREIGN_AGENT_FAILED_AUTHENTICATION = 132
    IDENTIFICATION_MISMATCH = 133
    POORLY_FORMED_REQUEST = 134
    TOO_MANY_SIMULTANEOUS_BINDINGS = 135
    UNKNOWN_HOME_AGENT = 136
    REVERSE_TUNNEL_UNAVAILABLE = 137  # RFC 3024
    REVERSE_TUNNEL_MANDATORY = 138  # RFC 3024
    REQUESTED_ENCAPSULATION_UNAVAILABLE = 139
    UNKNOWN_CRITICAL_FROM_MOBILE_NODE = 140  # RFC 3115
    UNKNOWN_CRITICAL_FROM_FOREIGN_AGENT = 141  # RFC 3115
    UDP_ENCAPSULATION_UNAVAILABLE = 142  # RFC 3519
    REGISTER_WITH_REDIRECTED_HOME_AGENT = 143  # RFC 4433
    MOBILE_NODE_FAILED_AAA = 144  # RFC 4721
    MULTIPATH_NOT_ALLOWED = 152  # RFC 7629
    INVALID_FB_IDENTIFIER = 153  # RFC 7629

    @property
    def accepted(self) -> bool:
        """True if the registration is in force."""
        return self in (Code.ACCEPTED, Code.ACCEPTED_NO_SIMULTANEOUS_BINDINGS)


_CODES = {int(code): code for code in Code}


@value
class RegistrationRequest(Extended):
    """Message 601, and 602 where an agent relays it."""

    lifetime: int  # seconds; 0 deregisters, LIFETIME_INFINITE never expires
    home_address: IPv4Address
    home_agent: IPv4Address
    care_of_address: IPv4Address
    identification: int  # 64 bits (section 5.7)
    flags: Flag = NO_FLAGS
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The UDP payload."""
        fixed = bytes((REGISTRATION_REQUEST, self.flags)) + self.lifetime.to_bytes(2, "big")
        addresses = self.home_address.packed + self.home_agent.packed + self.care_of_address.packed
        return fixed + addresses + self.identification.to_bytes(8, "big") + encode_extensions(self.extensions)

    @classmethod
    def decode(cls, data: bytes) -> "RegistrationRequest":
        """The request in a UDP payload; raises WireError."""
        return cls._read(open_message(data, REGISTRATION_REQUEST, REQUEST_BYTES), extended=True)

    @classmethod
    def decode_intact(cls, data: bytes) -> "RegistrationRequest":
        """The request up to its first extension that is poorly formed, to answer what is authentic; raises WireError."""
        return cls._read(
            open_message(data, REGISTRATION_REQUEST, REQUEST_BYTES), extended=True, extensions=decode_intact
        )

    @classmethod
    def decode_fixed(cls, data: bytes) -> "RegistrationRequest":
        """Only the fixed part, for answering a request whose extensions are poorly formed; raises WireError."""
        return cls._read(
            open_message(data[:REQUEST_BYTES], REGISTRATION_REQUEST, REQUEST_BYTES), extended=False
        )

    @classmethod
    def _read(
        cls,
        cursor: Cursor,
        *,
        extended: bool,
        extensions: Callable[[Cursor], tuple[Extension, ...]] = decode_extensions,
    ) -> "RegistrationRequest":
        _, flags, lifetime, home_address, home_agent, care_of, identification = _REQUEST.unpack_from(
            cursor.data
        )
        return cls(
            lifetime,
            IPv4Address(home_address),
            _agent(home_agent),
            _agent(care_of),
            identification,
            _FLAGS[flags],
            extensions(cursor) if extended else (),
        )


@value
class RegistrationReply(Extended):
    """Message 603, and 604 where an agent relays it."""

    code: Code | int  # an int where the code is not known
    lifetime: int  # seconds granted
    home_address: IPv4Address
    home_agent: IPv4Address
    identification: int
    extensions: tuple[Extension, ...] = ()

    @property
    def accepted(self) -> bool:
        """True if the registration is in force; an unknown code is a refusal."""
        return isinstance(self.code, Code) and self.code.accepted

    def encode(self) -> bytes:
        """The UDP payload."""
        home_address, home_agent = self.home_address.packed, self.home_agent.packed
        fixed = _REPLY.pack(
            REGISTRATION_REPLY, self.code, self.lifetime, home_address, home_agent, self.identification
        )
        return fixed + encode_extensions(self.extensions) if self.extensions else fixed

    @classmethod
    def decode(cls, data: bytes) -> "RegistrationReply":
        """The reply in a UDP payload; raises WireError."""
        return cls._read(open_message(data, REGISTRATION_REPLY, REPLY_BYTES), extended=True)

    @classmethod
    def decode_fixed(cls, data: bytes) -> "RegistrationReply":
        """Decode the fixed part only, to find the request of a malformed reply; raises WireError."""
        return cls._read(open_message(data[:REPLY_BYTES], REGISTRATION_REPLY, REPLY_BYTES), extended=False)

    @classmethod
    def _read(cls, cursor: Cursor, *, extended: bool) -> "RegistrationReply":
        _, code, lifetime, home_address, home_agent, identification = _REPLY.unpack_from(cursor.data)
        return cls(
            code=_CODES.get(code, code),
            lifetime=lifetime,
            home_address=IPv4Address(home_address),
            home_agent=_agent(home_agent),
            identification=identification,
            extensions=decode_extensions(cursor) if extended else (),
        )
