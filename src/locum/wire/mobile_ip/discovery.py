"""Agent discovery: ICMP router discovery (RFC 1256) as RFC 5944 sections 2.1 and 2.2 extend it. ICMP messages, no IP.

The IP header around them (TTL 1, 224.0.0.1 or 224.0.0.11) is made by the sender.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum
from locum.wire.mobile_ip.extensions import MAX_EXTENSIONS, MAX_MESSAGE, decode_padding
from locum.wire.mobile_ip.extensions.agent import (
    MOBILITY_AGENT,
    PREFIX_LENGTHS,
    AgentFlag,
    MobilityAgent,
    PrefixLengths,
    check_flags,
    decode_mobility_agent,
    decode_prefix_lengths,
)
from locum.wire.mobile_ip.extensions.challenge import CHALLENGE, Challenge, decode_challenge
from locum.wire.mobile_ip.extensions.framing import PADDING, Extension, Frame, Unknown, next_frame, unknown
from locum.wire.mobile_ip.extensions.nai import (
    FOREIGN_AGENT_NAI,
    NAI_CARRYING,
    NaiCarrying,
    decode_nai_carrying,
)
from locum.wire.mobile_ip.extensions.padding import Padding

E_ = TypeVar("E_", bound=Extension)

__all__ = ["AgentAdvertisement", "AgentFlag", "AgentSolicitation", "next_sequence"]

ROUTER_ADVERTISEMENT = 9
ROUTER_SOLICITATION = 10
ALL_SYSTEMS = IPv4Address("224.0.0.1")
ALL_ROUTERS = IPv4Address("224.0.0.2")
ALL_AGENTS = IPv4Address("224.0.0.11")
TTL = 1

_COMMON_TRAFFIC, _NO_COMMON_TRAFFIC = 0, 16  # the code field (section 2.1)

_DECODERS: dict[int, Callable[[Frame], Extension]] = {
    PADDING: decode_padding,
    MOBILITY_AGENT: decode_mobility_agent,
    PREFIX_LENGTHS: decode_prefix_lengths,
    CHALLENGE: decode_challenge,
    NAI_CARRYING: decode_nai_carrying,
}


@dataclass(frozen=True, slots=True)
class AgentAdvertisement:
    """An agent's advertisement on a link.

    `addresses` are the router's, with their preferences (signed, the higher the better); `prefix_lengths` is empty or has
    one entry for each. `nai` is the foreign agent's. `extensions` are the skippable ones that are not known here.
    """

    lifetime: int  # seconds the advertisement is valid for
    addresses: tuple[tuple[IPv4Address, int], ...]
    sequence: int
    registration_lifetime: int  # seconds, the longest the agent accepts; 65535 is infinite
    flags: AgentFlag
    care_of_addresses: tuple[IPv4Address, ...]
    prefix_lengths: tuple[int, ...] = ()
    challenge: bytes | None = None  # 1 to 255 bytes, at least MIN_CHALLENGE from a sender
    nai: str | None = None
    routes_common_traffic: bool = True
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The ICMP message with its checksum, padded to an even length (section 2.1.3).

        Raises WireError for a combination of flags that section 2.1.1 forbids.
        """
        check_flags(self.flags, len(self.care_of_addresses))
        code = _COMMON_TRAFFIC if self.routes_common_traffic else _NO_COMMON_TRAFFIC
        body = bytes((ROUTER_ADVERTISEMENT, code, 0, 0, len(self.addresses), 2))
        body += self.lifetime.to_bytes(2, "big")
        for address, preference in self.addresses:
            body += address.packed + preference.to_bytes(4, "big", signed=True)
        body += b"".join(extension.encode() for extension in self._listed())
        if len(body) % 2:
            body += Padding().encode()
        return _with_checksum(body)

    def _listed(self) -> list[Extension]:
        listed: list[Extension] = [
            MobilityAgent(self.sequence, self.registration_lifetime, self.flags, self.care_of_addresses)
        ]
        if self.prefix_lengths:
            listed.append(PrefixLengths(self.prefix_lengths))
        if self.challenge is not None:
            listed.append(Challenge(self.challenge))
        if self.nai is not None:
            listed.append(NaiCarrying(FOREIGN_AGENT_NAI, self.nai))
        return listed + list(self.extensions)

    @classmethod
    def decode(cls, data: bytes) -> "AgentAdvertisement":
        """The advertisement in an ICMP message; raises WireError, with reason `not-an-agent` for a plain router's."""
        cursor = _open(data, ROUTER_ADVERTISEMENT)
        code = cursor.u8("code")
        if code not in (_COMMON_TRAFFIC, _NO_COMMON_TRAFFIC):
            raise WireError("code", 1, "range")
        cursor.take(2, "checksum")
        count, words = cursor.u8("num-addrs"), cursor.u8("addr-entry-size")
        if words < 2:
            raise WireError("addr-entry-size", 5, "range")
        lifetime = cursor.u16("lifetime")
        addresses = tuple(_router(cursor, words) for _ in range(count))
        found = _Found(cursor)
        agent = found.one(MobilityAgent)
        if agent is None:
            raise WireError("mobility-agent", len(data), "not-an-agent")
        prefixes = found.one(PrefixLengths)
        if prefixes is not None and len(prefixes.lengths) != count:
            raise WireError("prefix-lengths", 4, "count")
        challenge = found.one(Challenge)
        return cls(
            lifetime=lifetime,
            addresses=addresses,
            sequence=agent.sequence,
            registration_lifetime=agent.registration_lifetime,
            flags=agent.flags,
            care_of_addresses=agent.care_of_addresses,
            prefix_lengths=() if prefixes is None else prefixes.lengths,
            challenge=None if challenge is None else challenge.value,
            nai=found.nai(),
            routes_common_traffic=code == _COMMON_TRAFFIC,
            extensions=found.unknown(),
        )


@dataclass(frozen=True, slots=True)
class AgentSolicitation:
    """Asks the agents of a link to advertise (section 2.2)."""

    def encode(self) -> bytes:
        """The ICMP message with its checksum."""
        return _with_checksum(bytes((ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0)))

    @classmethod
    def decode(cls, data: bytes) -> "AgentSolicitation":
        """The solicitation in an ICMP message; raises WireError. Bytes after the first eight are ignored."""
        cursor = _open(data, ROUTER_SOLICITATION)
        if cursor.u8("code"):
            raise WireError("code", 1, "range")
        cursor.take(6, "checksum")
        return cls()


def next_sequence(sequence: int) -> int:
    """The sequence number of the next advertisement: 0 to 255 are for an agent that has just started (section 2.3.2)."""
    return 256 if sequence >= 0xFFFF else sequence + 1


class _Found:
    """The extensions of one advertisement."""

    def __init__(self, cursor: Cursor) -> None:
        self.listed: list[Extension] = []
        while cursor.remaining:
            if len(self.listed) == MAX_EXTENSIONS:
                raise WireError("extension", cursor.offset, "too-many-extensions")
            frame = next_frame(cursor, long_types=frozenset())
            self.listed.append(_DECODERS.get(frame.type, unknown)(frame))

    def one(self, kind: type[E_]) -> E_ | None:
        """The only extension of that class, if any; WireError when it is repeated."""
        found = [extension for extension in self.listed if isinstance(extension, kind)]
        if len(found) > 1:
            raise WireError(kind.__name__, 0, "repeated")
        return found[0] if found else None

    def nai(self) -> str | None:
        """The foreign agent's identifier."""
        found = (extension for extension in self.listed if isinstance(extension, NaiCarrying))
        return next(
            (extension.identifier for extension in found if extension.subtype == FOREIGN_AGENT_NAI), None
        )

    def unknown(self) -> tuple[Extension, ...]:
        """The skippable extensions that are not known here."""
        return tuple(extension for extension in self.listed if isinstance(extension, Unknown))


def _router(cursor: Cursor, words: int) -> tuple[IPv4Address, int]:
    address = cursor.address4("router-address")
    preference = int.from_bytes(cursor.take(4, "preference-level"), "big", signed=True)
    cursor.take(4 * (words - 2), "addr-entry")
    return address, preference


def _open(data: bytes, expected: int) -> Cursor:
    if len(data) > MAX_MESSAGE:
        raise WireError("message", MAX_MESSAGE, "too-large")
    cursor = Cursor(data)
    if cursor.u8("type") != expected:
        raise WireError("type", 0, "unknown-message")
    if len(data) < 8:
        raise WireError("message", len(data), "truncated")
    if checksum(data):
        raise WireError("checksum", 2, "checksum")
    return cursor


def _with_checksum(message: bytes) -> bytes:
    return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
