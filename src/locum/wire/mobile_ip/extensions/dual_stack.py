"""IPv6 home prefixes under Mobile IPv4, 152 (RFC 5454 section 2). A home address is a prefix of 128 bits."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, Unknown, short, unknown

DUAL_STACK = 152
LINK_LOCAL = 255  # prefix length that says: a link-local address (section 2.2)

_PREFIX_REQUEST, _PREFIX_REPLY, _TUNNELING_MODE = 1, 2, 3


class PrefixCode(IntEnum):
    """Result of a request for an IPv6 prefix (section 2.2)."""

    TUNNELED_TO_HOME_ADDRESS = 0
    TUNNELED_TO_CARE_OF_ADDRESS = 1
    REASON_UNSPECIFIED = 8
    ADMINISTRATIVELY_PROHIBITED = 9

    @property
    def accepted(self) -> bool:
        """True if the prefix is bound."""
        return self < PrefixCode.REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Ipv6PrefixRequest(Extension):
    """The mobile node asks that this prefix be bound along with its IPv4 home address.

    Bits of `prefix` beyond `prefix_length` are zero. All zero asks the home agent to choose (section 3.7.1).
    """

    prefix: IPv6Address
    prefix_length: int = 128  # 0 to 128, or LINK_LOCAL

    def encode(self) -> bytes:
        """The whole extension."""
        return short(DUAL_STACK, _PREFIX_REQUEST, bytes((self.prefix_length,)) + self.prefix.packed)


@dataclass(frozen=True, slots=True)
class Ipv6PrefixReply(Extension):
    """The home agent's answer for one prefix; the reply's own code comes before it (section 3.2)."""

    code: PrefixCode | int
    prefix: IPv6Address
    prefix_length: int = 128

    @property
    def accepted(self) -> bool:
        """True if the prefix is bound; an unknown code is a refusal."""
        return self.code in (PrefixCode.TUNNELED_TO_HOME_ADDRESS, PrefixCode.TUNNELED_TO_CARE_OF_ADDRESS)

    def encode(self) -> bytes:
        """The whole extension; the byte after the prefix length is reserved."""
        head = bytes((self.code, self.prefix_length, 0))
        return short(DUAL_STACK, _PREFIX_REPLY, head + self.prefix.packed)


@dataclass(frozen=True, slots=True)
class Ipv6TunnelingMode(Extension):
    """The mobile node, with a co-located care-of address, lets IPv6 be tunneled to that address (section 2.3)."""

    def encode(self) -> bytes:
        """The whole extension; its one byte is reserved."""
        return short(DUAL_STACK, _TUNNELING_MODE, bytes(1))


def decode_dual_stack(frame: Frame) -> Extension:
    """Type 152; a sub-type that is not known is skipped like the type would be."""
    cursor = frame.cursor()
    subtype = cursor.u8("dual-stack.subtype")
    found: Ipv6PrefixRequest | Ipv6PrefixReply | Ipv6TunnelingMode | Unknown
    if subtype == _PREFIX_REQUEST:
        length = _prefix_length(cursor.u8("prefix-length"), frame)
        found = Ipv6PrefixRequest(_significant(cursor.address6("prefix"), length), length)
    elif subtype == _PREFIX_REPLY:
        code = cursor.u8("code")
        length = _prefix_length(cursor.u8("prefix-length"), frame)
        cursor.take(1, "reserved")
        prefix = _significant(cursor.address6("prefix"), length)
        found = Ipv6PrefixReply(PrefixCode(code) if code in set(PrefixCode) else code, prefix, length)
    elif subtype == _TUNNELING_MODE:
        cursor.take(1, "reserved")
        found = Ipv6TunnelingMode()
    else:
        return unknown(frame)
    cursor.done("dual-stack")
    return found


def _prefix_length(length: int, frame: Frame) -> int:
    if length > 128 and length != LINK_LOCAL:
        raise WireError("prefix-length", frame.data_start, "range")
    return length


def _significant(prefix: IPv6Address, length: int) -> IPv6Address:
    """The prefix without the bits beyond its length, which a receiver ignores."""
    if length >= 128:
        return prefix
    spare = 128 - length
    return IPv6Address(int(prefix) >> spare << spare)
