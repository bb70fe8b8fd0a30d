"""Extensions of agent advertisements: mobility agent, 16, and prefix lengths, 19 (RFC 5944 sections 2.1.1 and 2.1.2)."""

from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, simple

MOBILITY_AGENT = 16
PREFIX_LENGTHS = 19
MAX_CARE_OF_ADDRESSES = 62  # the room in a length byte


class AgentFlag(IntFlag):
    """Bits of the mobility agent extension."""

    R = 0x8000  # registration required, even with a co-located care-of address
    B = 0x4000  # busy
    H = 0x2000  # home agent on this link
    F = 0x1000  # foreign agent on this link
    M = 0x0800  # minimal encapsulation
    G = 0x0400  # GRE encapsulation
    RESERVED_R = 0x0200  # r: sent as zero
    T = 0x0100  # reverse tunneling (RFC 3024)
    U = 0x0080  # UDP tunneling (RFC 3519)
    X = 0x0040  # registration revocation (RFC 3543)
    I = 0x0020  # noqa: E741 - the RFC's name: regional registration (RFC 4857)


_DEFINED = sum(AgentFlag)


@dataclass(frozen=True, slots=True)
class MobilityAgent(Extension):
    """Extension that turns a router advertisement into an agent advertisement."""

    sequence: int  # 0 to 65535; after 65535 comes 256 (section 2.3.2)
    registration_lifetime: int  # seconds; 65535 is infinite
    flags: AgentFlag
    care_of_addresses: tuple[IPv4Address, ...]

    def encode(self) -> bytes:
        """The whole extension."""
        numbers = (self.sequence, self.registration_lifetime, self.flags)
        head = b"".join(number.to_bytes(2, "big") for number in numbers)
        return simple(
            MOBILITY_AGENT,
            head + b"".join(care_of_address.packed for care_of_address in self.care_of_addresses),
        )


@dataclass(frozen=True, slots=True)
class PrefixLengths(Extension):
    """Bits of network prefix of each router address, in their order."""

    lengths: tuple[int, ...]  # 0 to 32 each

    def encode(self) -> bytes:
        """The whole extension."""
        return simple(PREFIX_LENGTHS, bytes(self.lengths))


def decode_mobility_agent(frame: Frame) -> MobilityAgent:
    """Type 16; reserved bits are ignored. Raises WireError where section 2.1.1 forbids a combination of bits."""
    cursor = frame.cursor()
    sequence = cursor.u16("sequence")
    lifetime = cursor.u16("registration-lifetime")
    flags = AgentFlag(cursor.u16("flags") & _DEFINED)
    addresses: list[IPv4Address] = []
    while cursor.remaining:
        addresses.append(cursor.address4("care-of-address"))
    check_flags(flags, len(addresses), frame.data_start + 4)
    return MobilityAgent(sequence, lifetime, flags, tuple(addresses))


def check_flags(flags: AgentFlag, care_of_addresses: int, offset: int = 0) -> None:
    """Raises WireError unless: F or H is set; R and B only with F; F only with a care-of address."""
    if not flags & (AgentFlag.F | AgentFlag.H):
        raise WireError("flags", offset, "neither-home-nor-foreign")
    if flags & (AgentFlag.R | AgentFlag.B) and not flags & AgentFlag.F:
        raise WireError("flags", offset, "not-foreign")
    if flags & AgentFlag.F and not care_of_addresses:
        raise WireError("care-of-address", offset, "missing")


def decode_prefix_lengths(frame: Frame) -> PrefixLengths:
    """Type 19."""
    if any(length > 32 for length in frame.data):
        raise WireError("prefix-length", frame.data_start, "range")
    return PrefixLengths(tuple(frame.data))
