"""Repeats the keep-alives of held UDP sessions, where a rule of their device asks for them. It decides nothing."""

import asyncio

from locum.node.sessions.draining import HeldSocket
from locum.sessions.datagrams import stand_in
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.datagrams.spool import DatagramSpool


class Repeating:
    """One timer for each session that has such a rule; the first repetition comes after one interval."""

    def __init__(self) -> None:
        self._timers: dict[HeldSocket, asyncio.TimerHandle] = {}

    def begin(self, held: HeldSocket) -> None:
        """Repeat from now on, if its record has a keep-alive."""
        record = held.record
        if isinstance(record, DatagramRecord) and record.repeated is not None and held not in self._timers:
            later = asyncio.get_running_loop().call_later(record.repeated.seconds, self._repeat, held)
            self._timers[held] = later

    def end(self, held: HeldSocket) -> None:
        """No more of this session."""
        if (timer := self._timers.pop(held, None)) is not None:
            timer.cancel()

    def _repeat(self, held: HeldSocket) -> None:
        del self._timers[held]
        if isinstance(held.record, DatagramRecord) and isinstance(held.spool, DatagramSpool):
            stand_in.repeat(held.socket, held.record)
            held.spool.repeated()
            self.begin(held)
