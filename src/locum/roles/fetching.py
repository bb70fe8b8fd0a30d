"""Fetches of a wake that are under way, and what they brought: the radio is never idle while bytes are put back (C3).

A window over all sessions together. It must not know when to fetch, nor what becomes of the bytes.
"""

from collections.abc import Iterable

from locum.roles.actions import Action
from locum.roles.handover import AwaySession, Correspondence
from locum.wire.control import Fetch

# Bytes of one fetch: its answer is a single message of CoAP over TCP, without block-wise transfer.
CHUNK = 960 << 10
DEPTH = 4  # fetches under way and answers not yet used; with CHUNK more than a 200 Mbit/s link has in flight
MOST_KEPT = 64  # chunks kept for programs that do not read; what is dropped is fetched again


class FetchAhead:
    """One handover's fetches."""

    def __init__(self, correspondence: Correspondence, handover: bytes) -> None:
        self._correspondence = correspondence
        self._handover = handover
        self._asked: dict[int, Fetch] = {}
        self._arrived: dict[tuple[int, int], bytes] = {}  # by session and offset

    def __contains__(self, request: int) -> bool:
        return request in self._asked

    @property
    def busy(self) -> bool:
        """An answer is being waited for."""
        return bool(self._asked)

    def more(self, wanted: Iterable[tuple[AwaySession, int]]) -> list[Action]:
        """Ask for what these sessions lack up to the given positions, as far as the window is open."""
        actions: list[Action] = []
        listed = list(wanted)
        numbers = {session.session for session, _ in listed}
        unused = sum(number in numbers for number, _ in self._arrived)
        for session, end in listed:
            position = self._reached(session)
            while position < end and len(self._asked) + unused < DEPTH:
                value = Fetch(self._handover, session.session, position, min(CHUNK, end - position))
                actions += self._correspondence.ask(value, bulk=True)
                self._asked[self._correspondence.last] = value
                position += value.limit
        return actions

    def _reached(self, session: AwaySession) -> int:
        """Where the first byte is that has not been asked for."""
        ends = {
            at: at + len(data) for (number, at), data in self._arrived.items() if number == session.session
        }
        ends |= {
            each.offset: each.offset + each.limit
            for each in self._asked.values()
            if each.session == session.session
        }
        position = session.offset
        while position in ends:
            position = ends[position]
        return position

    def keep(self, request: int, data: bytes) -> bool:
        """The answer to a fetch; false when it is not all that was asked for."""
        value = self._asked.pop(request)
        self._arrived[value.session, value.offset] = data
        return len(data) == value.limit

    def has(self, session: AwaySession) -> bool:
        """The bytes that come next in this session are here."""
        return (session.session, session.offset) in self._arrived

    def take(self, session: AwaySession) -> bytes:
        """The bytes that come next in this session, if they have arrived."""
        return self._arrived.pop((session.session, session.offset), b"")

    def put_back(self, session: AwaySession, data: bytes) -> None:
        """The session takes no more now: keep its next bytes rather than fetch them again, and nothing behind them."""
        self.forget(session.session)
        if data and len(self._arrived) < MOST_KEPT:
            self._arrived[session.session, session.offset] = data

    def forget(self, session: int) -> None:
        """What this session has not used yet will be fetched again, or not."""
        self._asked = {number: each for number, each in self._asked.items() if each.session != session}
        self._arrived = {key: data for key, data in self._arrived.items() if key[0] != session}

    def clear(self) -> None:
        """Of all sessions."""
        self._asked.clear()
        self._arrived.clear()
