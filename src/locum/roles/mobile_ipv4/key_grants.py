"""Requests and grants of keys in the extensions of RFC 3957, as neutral values. No key is known here."""

from collections.abc import Iterable

from locum.roles.action_values.registration import KeyGrant
from locum.security.association import Algorithm, Replay
from locum.wire.mobile_ip.extensions import (
    MN_FA_NONCE_REQUEST,
    MN_HA_NONCE_REQUEST,
    AgentNonceReply,
    Extension,
    HomeNonceReply,
    NonceRequest,
)

# RFC 4004 section 9.8 has 2 for HMAC-SHA-1; the others are those of IPsec's registry, where it has the same number
_ALGORITHMS = {1: Algorithm.HMAC_MD5, 2: Algorithm.HMAC_SHA_1, 5: Algorithm.HMAC_SHA_256}
_REPLAYS = {2: Replay.TIMESTAMP, 3: Replay.NONCE}  # RFC 4004 section 9.9
_ALGORITHM_NUMBERS = {algorithm: number for number, algorithm in _ALGORITHMS.items()}
_REPLAY_NUMBERS = {replay: number for number, replay in _REPLAYS.items()}


def asked_spi(said: Iterable[Extension]) -> int | None:
    """The SPI of a request for an association with the home agent; None without one."""
    return _asked(said, MN_HA_NONCE_REQUEST)


def asked_agent_spi(said: Iterable[Extension]) -> int | None:
    """The same of a request for an association with the foreign agent."""
    return _asked(said, MN_FA_NONCE_REQUEST)


def _asked(said: Iterable[Extension], kind: int) -> int | None:
    for extension in said:
        if isinstance(extension, NonceRequest) and extension.type == kind:
            return extension.spi
    return None


def ask(spi: int) -> NonceRequest:
    """The request for an association with the home agent; `spi` is for messages to the mobile node."""
    return NonceRequest(MN_HA_NONCE_REQUEST, spi)


def ask_for_agent(spi: int) -> NonceRequest:
    """The same for an association with the foreign agent."""
    return NonceRequest(MN_FA_NONCE_REQUEST, spi)


def write_grant(grant: KeyGrant) -> HomeNonceReply:
    """The grant as an extension."""
    return HomeNonceReply(
        grant.lifetime,
        grant.aaa_spi,
        grant.spi,
        _ALGORITHM_NUMBERS[grant.algorithm],
        _REPLAY_NUMBERS[grant.replay],
        grant.nonce,
    )


def granted_key(said: Iterable[Extension]) -> KeyGrant | None:
    """The grant in the extensions of a reply; None without one, or for an algorithm or a replay method unknown here."""
    for found in said:
        if isinstance(found, HomeNonceReply):
            algorithm, replay = _ALGORITHMS.get(found.algorithm), _REPLAYS.get(found.replay)
            if algorithm is None or replay is None:
                return None
            return KeyGrant(found.lifetime, found.aaa_spi, found.spi, algorithm, replay, found.nonce)
    return None


def write_agent_grant(grant: KeyGrant) -> AgentNonceReply:
    """The grant of an association with the foreign agent as an extension."""
    number = _ALGORITHM_NUMBERS[grant.algorithm]
    return AgentNonceReply(grant.lifetime, grant.aaa_spi, grant.spi, number, grant.nonce)


def granted_agent_key(said: Iterable[Extension]) -> KeyGrant | None:
    """The same in the extensions of a reply; replay protection is that of timestamps, it has none of its own."""
    for found in said:
        if isinstance(found, AgentNonceReply):
            algorithm = _ALGORITHMS.get(found.algorithm)
            if algorithm is None:
                return None
            return KeyGrant(
                found.lifetime, found.aaa_spi, found.spi, algorithm, Replay.TIMESTAMP, found.nonce
            )
    return None
