"""Rounds of pre-copy (C3): whether another one is worth it, which programs read in it, and who gets more than fits.

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
    """The rounds of one wake. `beyond`: flows that may get bytes beyond their receive buffer, with how many."""

    def __init__(self, progress: Progress, bounds: MobileNodeConfiguration) -> None:
        self.beyond: dict[Flow, int] = {}
        self._progress, self._bounds = progress, bounds
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
        busy = self._progress.unread | self._progress.slow.keys()
        return [flow for flow in self._progress.flows if flow not in busy]

    def go_beyond(self) -> bool:
        """Let slow programs get what remains beyond their receive buffers, within the bounds; once for each session.

        Nothing that such a program writes could leave the device before, and some read only when they have written all.
        """
        progress = self._progress
        left = self._bounds.unread_beyond_total - sum(self.beyond.values())
        chosen: dict[Flow, int] = {}
        for flow in progress.slow:
            size = progress.target(flow) - progress.offset(flow)
            if (
                flow not in self.beyond
                and flow not in progress.gone
                and 0 < size <= min(self._bounds.unread_beyond, left)
            ):
                chosen[flow] = size
                left -= size
        self.beyond |= chosen
        progress.retry(chosen)
        return bool(chosen)
