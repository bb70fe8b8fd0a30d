"""Packets that nothing takes, on their way from the data plane to the proxies that log them (A2).

The kernel bounds their rate for each home address. Here a bounded number waits for each proxy until its process has room; packets
beyond are counted with those that the kernel left out.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from locum.dataplane.hold import HeldPacket
from locum.roles.action_values.addresses import Addr
from locum.roles.app_network import MAX_CAPTURED

WAITING = 256
"""Packets that wait for one proxy: less than a packet to it has room for."""
_COUNT = 0xFFFFFFFF

Row = list[object]
"""Nanoseconds since 1970, first bytes, whole length."""


class Logs(Protocol):
    """The kernel's side."""

    def begin(self, home_address: Addr, most: int) -> None:
        """Hand up headers of this home address's dropped packets, at most so many a second. Raises DataPlaneError."""

    def left_out(self, home_address: Addr) -> int:
        """Packets beyond that since `begin`."""

    def end(self, home_address: Addr) -> None:
        """No more."""


@dataclass(slots=True, eq=False)
class Capture:
    """Of one proxy. `left_out` since the last `take`."""

    homes: Sequence[Addr]
    per_second: int
    pending: Callable[[], None]
    rows: list[Row] = field(default_factory=list)
    left_out: int = 0


class Captures:
    """`clock` gives nanoseconds since 1970, `monotonic` those of the kernel's records."""

    def __init__(
        self,
        logs: Logs,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._logs, self._clock, self._monotonic = logs, clock, monotonic
        self._captures: dict[Hashable, Capture] = {}
        self._seen: dict[Addr, int] = {}  # packets that the kernel has left out, as far as they are told

    def begin(
        self, key: Hashable, homes: Sequence[Addr], per_second: int, pending: Callable[[], None]
    ) -> None:
        """For the proxy with this key; `pending` is called when there is something to take. Raises DataPlaneError."""
        if not 0 < per_second <= MAX_CAPTURED:
            raise ValueError(f"1 to {MAX_CAPTURED} packets a second are captured")
        self.end(key)
        self._captures[key] = Capture(homes, per_second, pending)
        try:
            self._write(homes)
        except Exception:
            self.end(key)
            raise

    def end(self, key: Hashable) -> None:
        """The proxy has ended, or wants no more."""
        capture = self._captures.pop(key, None)
        if capture is not None:
            self._write(capture.homes)

    def packet(self, packet: HeldPacket) -> None:
        """One from the data plane."""
        home = packet.home_address
        missed = (packet.gso_size - self._seen.get(home, 0)) & _COUNT
        self._seen[home] = packet.gso_size
        at = self._clock() - (self._monotonic() - packet.time)
        for capture in self._of(home):
            capture.left_out += missed
            if len(capture.rows) >= WAITING:
                capture.left_out += 1
                continue
            capture.rows.append([at, packet.data, packet.ifindex])
            if len(capture.rows) == 1:
                capture.pending()

    def take(self, key: Hashable) -> tuple[list[Row], int]:
        """The packets that wait for this proxy, and the number of packets left out since the last time."""
        capture = self._captures.get(key)
        if capture is None:
            return [], 0
        for home in capture.homes:
            count = self._logs.left_out(home) & _COUNT
            missed, self._seen[home] = (count - self._seen.get(home, 0)) & _COUNT, count
            for other in self._of(home):
                other.left_out += missed
        rows, left_out = capture.rows, capture.left_out
        capture.rows, capture.left_out = [], 0
        return rows, left_out

    def _of(self, home: Addr) -> list[Capture]:
        return [capture for capture in self._captures.values() if home in capture.homes]

    def _write(self, homes: Sequence[Addr]) -> None:
        """Tell the kernel the highest rate that is wanted."""
        for home in homes:
            self._seen[home] = 0
            most = max((capture.per_second for capture in self._of(home)), default=0)
            if most:
                self._logs.begin(home, most)
            else:
                del self._seen[home]
                self._logs.end(home)
