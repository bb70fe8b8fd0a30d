"""Pending fetches of a wake, and their data: fetching goes on while bytes are put back (C3).

A window over all sessions together. It must not know when to fetch, nor what becomes of the bytes.
"""

from collections.abc import Iterable

from locum.roles.actions import Action
from locum.roles.mobile_node.handover import StandInDialogue
from locum.wire.control import Fetch

# Bytes of one fetch: its answer is a single message of CoAP over TCP, without block-wise transfer.
CHUNK = 960 << 10
DEPTH = 4  # chunks under way or not yet used; with CHUNK more than a 200 Mbit/s link has in flight
MOST_ASKED = 64  # fetches under way: many sessions with little each come within a few round trips
MOST_KEPT = 64  # chunks kept for programs that do not read; dropped ones are fetched again

Want = tuple[int, int, int]  # the session's number, where it goes on, where it ends; bytes since the capture


class FetchAhead:
    """One handover's fetches. The cost of every call follows the pending fetches, not the sessions."""

    def __init__(self, dialogue: StandInDialogue, handover: bytes) -> None:
        self._dialogue = dialogue
        self._handover = handover
        self._asked: dict[int, Fetch] = {}
        self._arrived: dict[int, dict[int, bytes]] = {}  # by session, then by offset
        # By session: the end of each part that was asked for or came
        self._ends: dict[int, dict[int, int]] = {}

    def __contains__(self, request: int) -> bool:
        return request in self._asked

    @property
    def busy(self) -> bool:
        """An answer is being waited for."""
        return bool(self._asked)

    @property
    def arrived(self) -> tuple[int, ...]:
        """Sessions of which bytes are here."""
        return tuple(self._arrived)

    def more(self, wanted: Iterable[Want]) -> list[Action]:
        """Fetch missing data of these sessions, as far as the window is open."""
        actions: list[Action] = []
        room = DEPTH * CHUNK - sum(asked.limit for asked in self._asked.values())
        for number, offset, end in wanted:
            if room <= 0 or len(self._asked) >= MOST_ASKED:
                break
            room -= sum(map(len, self._arrived.get(number, {}).values()))
            position = self._reached(number, offset)
            while position < end and room > 0 and len(self._asked) < MOST_ASKED:
                value = Fetch(self._handover, number, position, min(CHUNK, end - position))
                actions += self._dialogue.ask(value, bulk=True)
                self._asked[self._dialogue.last] = value
                position += value.limit
                room -= value.limit
                self._ends.setdefault(number, {})[value.offset] = position
        return actions

    def _reached(self, number: int, offset: int) -> int:
        """Position of the first byte that was not requested."""
        ends = self._ends.get(number, {})
        while offset in ends:
            offset = ends[offset]
        return offset

    def keep(self, request: int, data: bytes) -> bool:
        """The answer to a fetch; false when it is not all that was asked for."""
        value = self._asked.pop(request)
        self.add(value.session, value.offset, data)
        return len(data) == value.limit

    def add(self, number: int, offset: int, data: bytes) -> None:
        """Add bytes of this session from another source."""
        if data:
            self._arrived.setdefault(number, {})[offset] = data
            self._ends.setdefault(number, {})[offset] = offset + len(data)

    def take(self, number: int, offset: int) -> bytes:
        """The bytes that come next in this session, if they have arrived."""
        parts = self._arrived.get(number, {})
        data = parts.pop(offset, b"")
        if data:
            del self._ends[number][offset]
            if not parts:
                del self._arrived[number]
        return data

    def put_back(self, number: int, offset: int, data: bytes) -> None:
        """The session takes no more now: keep its next bytes rather than fetch them again, and nothing behind them."""
        self.forget(number)
        if len(self._arrived) < MOST_KEPT:
            self.add(number, offset, data)

    def forget(self, number: int) -> None:
        """Drop unused data of this session; it may be fetched again."""
        self._asked = {request: asked for request, asked in self._asked.items() if asked.session != number}
        self._arrived.pop(number, None)
        self._ends.pop(number, None)

    def clear(self) -> None:
        """Of all sessions."""
        self._asked.clear()
        self._arrived.clear()
        self._ends.clear()
