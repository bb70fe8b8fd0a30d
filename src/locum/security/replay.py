"""Replay protection for registrations (RFC 5944 section 5.7): timestamps and nonces, as functions of 64-bit numbers.

The clock, randomness and the last accepted value are passed in; nothing is kept here.
"""

from dataclasses import dataclass
from enum import Enum

NTP_EPOCH_OFFSET = 2_208_988_800  # seconds from 1900 to 1970
DEFAULT_TOLERANCE = 7.0  # seconds, section 5.7.1

_LOW = 0xFFFFFFFF
_MASK = 0xFFFFFFFFFFFFFFFF
_HALF = 1 << 63


class Verdict(Enum):
    """Result of checking an identification; a mismatch is answered with code 133."""

    OK = "ok"
    MISMATCH = "mismatch"


def ntp64(wall: float) -> int:
    """Wall-clock seconds since 1970 as an NTP timestamp: 32 bits of seconds since 1900, 32 bits of fraction.

    The seconds wrap in 2036; comparisons here are made modulo 2**64 and go on working.
    """
    return (int(wall * (1 << 32)) + (NTP_EPOCH_OFFSET << 32)) & _MASK


def wall_of(timestamp: int, *, near: float) -> float:
    """The wall-clock seconds since 1970 that an NTP timestamp stands for, in the era that lies nearest to `near`."""
    return near + difference(timestamp, ntp64(near)) / (1 << 32)


def difference(later: int, earlier: int) -> int:
    """Units of 2**-32 s by which `later` is ahead of `earlier`; negative if it is behind."""
    ahead = (later - earlier) & _MASK
    return ahead - (1 << 64) if ahead >= _HALF else ahead


def next_identification(wall: float, last: int | None) -> int:
    """The identification of the next request under timestamps: now, yet always ahead of the last one used."""
    now = ntp64(wall)
    if last is not None and difference(now, last) <= 0:
        return (last + 1) & _MASK
    return now


def mismatch_identification(identification: int, wall: float) -> int:
    """Identification of a reply with code 133: our time in the high half, the request's low half (section 5.7.1)."""
    return (ntp64(wall) & ~_LOW) | (identification & _LOW)


def answers(request: int, reply: int) -> bool:
    """True if a reply's identification belongs to that request: equal low halves (sections 5.7.1, 5.7.2)."""
    return request & _LOW == reply & _LOW


@dataclass(frozen=True, slots=True)
class TimestampWindow:
    """Accepts identifications within `tolerance` seconds of our clock and ahead of the last accepted one."""

    tolerance: float = DEFAULT_TOLERANCE

    def check(self, identification: int, now_wall: float, last: int | None) -> Verdict:
        """`now_wall` in seconds since 1970; `last` is the identification accepted last from that node, if any."""
        if abs(difference(identification, ntp64(now_wall))) > self.tolerance * (1 << 32):
            return Verdict.MISMATCH
        if last is not None and difference(identification, last) <= 0:
            return Verdict.MISMATCH
        return Verdict.OK


@dataclass(frozen=True, slots=True)
class NonceWindow:
    """Accepts identifications with our last reply's nonce in the high half (section 5.7.2)."""

    def check(self, identification: int, expected: int | None) -> Verdict:
        """`expected` is that nonce, 32 bits; None when none was given yet, which no identification can match."""
        if expected is None or identification >> 32 != expected:
            return Verdict.MISMATCH
        return Verdict.OK


def nonce_identification(home: int, mobile: int) -> int:
    """Identification under nonces: the home agent's 32 bits high, the mobile node's 32 bits low.

    In a request `home` is the nonce from the last reply and `mobile` is new; in a reply `home` is new and `mobile` is
    the request's.
    """
    return (home & _LOW) << 32 | (mobile & _LOW)


def home_nonce(identification: int) -> int:
    """The high half: the nonce that the mobile node's next request must carry."""
    return identification >> 32


def mobile_nonce(identification: int) -> int:
    """The low half: the nonce that the reply must carry."""
    return identification & _LOW
