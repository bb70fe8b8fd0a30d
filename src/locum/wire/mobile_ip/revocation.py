"""Registration revocation (RFC 3543 sections 3.3 and 3.4). Bytes in, values out; no key, no state, no policy.

Both messages go to or come from UDP port 434 and end in an authentication extension: between agents the foreign-home one,
between a home agent and a mobile node without a foreign agent the mobile-home one. Unauthenticated messages are dropped.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.wire.mobile_ip.extended import Extended, open_message
from locum.wire.mobile_ip.extensions import Extension, decode_extensions, encode_extensions

REGISTRATION_REVOCATION = 7
REVOCATION_ACKNOWLEDGMENT = 15

_REVOCATION = struct.Struct("!BxH4s4s4sI")  # type, flags, the three addresses, identifier (section 3.3)
_ACKNOWLEDGMENT = struct.Struct("!BxH4sI")  # type, flags, home address, identifier (section 3.4)
_FROM_HOME_AGENT, _INFORM = 0x8000, 0x4000
_INFORMED = 0x8000


@dataclass(frozen=True, slots=True)
class RegistrationRevocation(Extended):
    """The sender no longer serves this binding (section 3.3)."""

    home_address: IPv4Address
    home_domain_address: IPv4Address  # the home agent's
    foreign_domain_address: IPv4Address  # the foreign agent's, or the co-located care-of address
    identifier: int  # 32 bits: the sender's clock, as in its revocation support extension (section 3.5)
    from_home_agent: bool  # A: tells a message from its own reflection
    inform: bool = False  # I: tell the mobile node; from a foreign agent: shall I tell it?
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The UDP payload; reserved parts are zero."""
        flags = (_FROM_HOME_AGENT if self.from_home_agent else 0) | (_INFORM if self.inform else 0)
        addresses = (self.home_address, self.home_domain_address, self.foreign_domain_address)
        packed = (address.packed for address in addresses)
        fixed = _REVOCATION.pack(REGISTRATION_REVOCATION, flags, *packed, self.identifier)
        return fixed + encode_extensions(self.extensions)

    @classmethod
    def decode(cls, data: bytes) -> "RegistrationRevocation":
        """The revocation in a UDP payload; reserved parts are ignored. Raises WireError."""
        cursor = open_message(data, REGISTRATION_REVOCATION, _REVOCATION.size)
        _, flags, home_address, home_domain, foreign_domain, identifier = _REVOCATION.unpack_from(data)
        return cls(
            home_address=IPv4Address(home_address),
            home_domain_address=IPv4Address(home_domain),
            foreign_domain_address=IPv4Address(foreign_domain),
            identifier=identifier,
            from_home_agent=bool(flags & _FROM_HOME_AGENT),
            inform=bool(flags & _INFORM),
            extensions=decode_extensions(cursor),
        )


@dataclass(frozen=True, slots=True)
class RevocationAcknowledgment(Extended):
    """The answer to each revocation that is valid (section 3.4)."""

    home_address: IPv4Address  # this and the identifier are those of the revocation
    identifier: int
    inform: bool = False  # I: from a home agent: tell the mobile node; from a foreign agent: it was told
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The UDP payload; reserved parts are zero."""
        flags = _INFORMED if self.inform else 0
        home_address = self.home_address.packed
        fixed = _ACKNOWLEDGMENT.pack(REVOCATION_ACKNOWLEDGMENT, flags, home_address, self.identifier)
        return fixed + encode_extensions(self.extensions)

    @classmethod
    def decode(cls, data: bytes) -> "RevocationAcknowledgment":
        """The acknowledgment in a UDP payload; reserved parts are ignored. Raises WireError."""
        cursor = open_message(data, REVOCATION_ACKNOWLEDGMENT, _ACKNOWLEDGMENT.size)
        _, flags, home_address, identifier = _ACKNOWLEDGMENT.unpack_from(data)
        return cls(
            home_address=IPv4Address(home_address),
            identifier=identifier,
            inform=bool(flags & _INFORMED),
            extensions=decode_extensions(cursor),
        )
