"""Replaces received bytes that a proxy has consumed, as far as its order allows (A1)."""

import logging
from collections.abc import Iterable

from locum.node.apps.running import Attended
from locum.roles.action_values.apps import Consume
from locum.roles.app_contract import MAX_REPLACEMENT
from locum.sessions.tcp.consumed import Replacement
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.spool import Spool

log = logging.getLogger("locum.apps")


def replace(
    spool: Spool, consume: Consume, shown: int, start: int, length: int, data: bytes
) -> Replacement | None:
    """The replacement that was carried out; None if the order leaves everything for the program.

    The proxy was shown the first `shown` bytes. Raises SessionError for a range or an amount that is not allowed, OSError when
    the disk does not take it. Repeating a replacement, as after a crash, changes nothing.
    """
    if consume is Consume.REPLAY:
        return None
    if start < 0 or start + length > shown:
        raise SessionError(f"it was shown {shown} bytes only")
    if len(data) > MAX_REPLACEMENT:
        raise SessionError(f"a replacement has at most {MAX_REPLACEMENT} bytes")
    new = Replacement(start, length, data if consume is Consume.REPLACE else b"")
    spool.consumed.replace(new)
    return new


def take_back(sessions: Iterable[Attended]) -> None:
    """Undo what a killed run of the daemon replaced among bytes that a proxy is shown again: it may get them in other pieces,
    whose ranges would cover parts of the earlier ones."""
    for attended in sessions:
        if isinstance(spool := attended.held.spool, Spool):
            try:
                spool.consumed.take_back(attended.shown)
            except OSError as problem:
                log.warning("%s: earlier replacements stay: %s", attended.held.name, problem)
