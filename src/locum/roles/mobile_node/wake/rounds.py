"""Rounds of pre-copy (C3): the decision on another one, reading programs, and room beyond the buffer.

This module must not know requests, nor how bytes are put back.
"""

from locum.roles.mobile_node.wake.progress import Progress
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.wire.control import Flow

# Bytes. If no more than this remains, it comes with the finish, within the gap that is allowed.
LITTLE = 256 * 1024
# A sender as fast as the fetch would keep the pre-copy going for ever.
MAX_ROUNDS = 8


class Rounds:
    """The rounds of one wake."""

    def __init__(self, progress: Progress, bounds: MobileNodeConfiguration) -> None:
        self._progress, self._bounds = progress, bounds
        self._beyond = 0  # bytes that programs got beyond their receive buffers, or may get
        self._begun = 0
        self._drained = 0  # the last round in which programs got time to read

    def begin(self) -> bool:
        """Begin another round, if there is enough to fetch; False: return instead."""
        if self._progress.remaining() <= LITTLE or self._begun >= MAX_ROUNDS:
            return False
        self._begun += 1
        return True

    def readers(self) -> list[Flow]:
        """Return the flows whose programs read before the next round; once a round."""
        if self._drained >= self._begun:
            return []
        self._drained = self._begun
        return self._progress.readers

    def go_beyond(self) -> bool:
        """Give slow programs the rest beyond their receive buffers, within the bounds; once per session.

        Nothing that such a program writes could leave the device before, and some read only when they have written all.
        """
        left = self._bounds.unread_beyond_total - self._beyond
        chosen: dict[Flow, int] = {}
        for flow in self._progress.slow:
            size, had = self._progress[flow].lacking, self._progress[flow].beyond
            if not had and 0 < size <= min(self._bounds.unread_beyond, left):
                chosen[flow] = size
                left -= size
        self._beyond += sum(chosen.values())
        self._progress.go_beyond(chosen)
        return bool(chosen)
