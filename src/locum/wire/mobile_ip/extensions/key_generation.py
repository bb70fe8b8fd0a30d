"""Key generation nonces of RFC 3957: extensions 40 to 43, in the long format, with the subtype of AAA servers.

The RFC's text was not at hand: formats and numbers are from memory, checked against IANA's registry and RFC 4004 as far as
these say them. No key is known here.
"""

from dataclasses import dataclass, field

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, long

MN_FA_NONCE_REQUEST = 40
MN_FA_NONCE_REPLY = 41
MN_HA_NONCE_REQUEST = 42
MN_HA_NONCE_REPLY = 43
FROM_AAA = 1  # the only subtype
MIN_NONCE = 16  # bytes of a key generation nonce


@dataclass(frozen=True, slots=True)
class NonceRequest(Extension):
    """The mobile node asks for an association with its home agent, or its foreign agent; `spi` is for messages to it."""

    type: int  # MN_FA_NONCE_REQUEST or MN_HA_NONCE_REQUEST
    spi: int

    def encode(self) -> bytes:
        """The whole extension."""
        return long(self.type, FROM_AAA, self.spi.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class AgentNonceReply(Extension):
    """The nonce of the association with the foreign agent."""

    lifetime: int  # seconds of the key, 32 bits
    aaa_spi: int
    spi: int  # of messages to the foreign agent
    algorithm: int
    nonce: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The whole extension."""
        spis = (
            self.lifetime.to_bytes(4, "big") + self.aaa_spi.to_bytes(4, "big") + self.spi.to_bytes(4, "big")
        )
        return long(MN_FA_NONCE_REPLY, FROM_AAA, spis + self.algorithm.to_bytes(2, "big") + self.nonce)


@dataclass(frozen=True, slots=True)
class HomeNonceReply(Extension):
    """The nonce of the association with the home agent."""

    lifetime: int  # seconds of the key, 32 bits
    aaa_spi: int
    spi: int  # of messages to the home agent
    algorithm: int  # 16 bits, as the next
    replay: int
    nonce: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The whole extension."""
        spis = (
            self.lifetime.to_bytes(4, "big") + self.aaa_spi.to_bytes(4, "big") + self.spi.to_bytes(4, "big")
        )
        methods = self.algorithm.to_bytes(2, "big") + self.replay.to_bytes(2, "big")
        return long(MN_HA_NONCE_REPLY, FROM_AAA, spis + methods + self.nonce)


def decode_nonce_request(frame: Frame) -> NonceRequest:
    """Types 40 and 42."""
    _check_subtype(frame)
    cursor = frame.cursor()
    spi = cursor.u32("key-generation.spi")
    cursor.done("key-generation")
    return NonceRequest(frame.type, spi)


def decode_agent_nonce_reply(frame: Frame) -> AgentNonceReply:
    """Type 41."""
    _check_subtype(frame)
    cursor = frame.cursor()
    lifetime, aaa_spi = cursor.u32("key-generation.lifetime"), cursor.u32("key-generation.aaa-spi")
    spi, algorithm = cursor.u32("key-generation.spi"), cursor.u16("key-generation.algorithm")
    return AgentNonceReply(lifetime, aaa_spi, spi, algorithm, _nonce(frame, cursor.rest()))


def decode_home_nonce_reply(frame: Frame) -> HomeNonceReply:
    """Type 43."""
    _check_subtype(frame)
    cursor = frame.cursor()
    lifetime, aaa_spi = cursor.u32("key-generation.lifetime"), cursor.u32("key-generation.aaa-spi")
    spi, algorithm = cursor.u32("key-generation.spi"), cursor.u16("key-generation.algorithm")
    replay = cursor.u16("key-generation.replay")
    return HomeNonceReply(lifetime, aaa_spi, spi, algorithm, replay, _nonce(frame, cursor.rest()))


def _check_subtype(frame: Frame) -> None:
    if frame.subtype != FROM_AAA:
        raise WireError("key-generation.subtype", frame.start + 1, "unknown-subtype")


def _nonce(frame: Frame, nonce: bytes) -> bytes:
    if len(nonce) < MIN_NONCE:
        raise WireError("key-generation.nonce", frame.data_start, "truncated")
    return nonce
