"""A bound for work on held packets in one turn of the event loop: packets, bytes and time."""

from collections.abc import Callable

MOST_PACKETS, MOST_BYTES = 2048, 16 << 20
# Also where the processor was away meanwhile.
LEAST_PACKETS, LEAST_BYTES = 128, 1 << 20
# The event loop may stand still for 50 ms, and a turn reads, sends, and has other work.
NANOSECONDS = 10_000_000


class Turn:
    """Work of a turn. `clock` gives nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._packets = self._bytes = self._end = 0
        self.begin()

    def begin(self) -> None:
        """A turn of the event loop begins."""
        self._packets = self._bytes = 0
        self._end = self._clock() + NANOSECONDS

    def join(self) -> None:
        """Take part in the turn that runs; one that began long ago has ended, and another begins."""
        if self._clock() > self._end + NANOSECONDS:
            self.begin()

    def spend(self, size: int) -> bool:
        """Count the work on a packet of so many bytes; false if it was the last of this turn."""
        self._packets += 1
        self._bytes += size
        return self.left

    @property
    def left(self) -> bool:
        """True if there may be more work in this turn."""
        if self._packets < LEAST_PACKETS and self._bytes < LEAST_BYTES:
            return True
        return self._packets < MOST_PACKETS and self._bytes < MOST_BYTES and self._clock() < self._end
