"""The time of a message, which orders those of one sender, where clocks are wrong or are set. Pure functions.

It must not know messages.
"""

from typing import Final

AHEAD: Final = 60.0
"""Seconds that a sender's clock may be ahead: a later message would else keep true ones out."""


def latest(wall: float) -> float:
    """The latest time of a message in milliseconds; `wall` in seconds since 1970. One beyond is of a clock that is, or was, wrong."""
    return (wall + AHEAD) * 1000
