"""Progress of each session of a wake (C3): one value per session, and views of all values.

Offsets are those of the kernel, so none is in a row. It must not know fetches, nor how bytes are put back.
"""

from collections.abc import Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from locum.roles.mobile_node.handover import AwaySession
from locum.wire.control import FinalState, Flow


class Room(Enum):
    """Room in the socket of a session."""

    OPEN = "open"  # it may have room
    FULL = "full"  # it took less than was given: its program must read first
    SLOW = "slow"  # its program did not read in the time that it had
    GONE = "gone"  # no process holds it any more


@dataclass(frozen=True, slots=True)
class SessionProgress:
    """One session. `offset` bytes are in the socket again, of `target` that are to be there."""

    session: AwaySession
    offset: int = 0
    target: int = 0
    room: Room = Room.OPEN
    rested: bool = False  # its program had time to read, and the socket has taken nothing since
    unread: bool = False  # bytes were left after a round: no round waits for this program any more
    beyond: int = 0  # bytes that it may get beyond its receive buffer
    final: FinalState | None = None  # the last state at the stand-in, once it is known
    tail: bool = False  # the end of the received data is here: it came with the final state

    @property
    def behind(self) -> bool:
        """True if bytes are missing."""
        return self.lacking > 0

    @property
    def lacking(self) -> int:
        """Bytes that are to be in the socket and are not."""
        return self.target - self.offset

    @property
    def taking(self) -> bool:
        """True if bytes are missing and the socket may take some now."""
        return self.behind and self.room is Room.OPEN

    def placed(self, offset: int) -> "SessionProgress":
        """Return it with so many bytes in the socket, by the kernel's count."""
        return self if offset == self.offset else replace(self, offset=offset)

    def took(self, taken: int, given: int) -> "SessionProgress":
        """Return it after the socket took so many of the bytes given.

        One whose program had its time to read and that takes nothing is not waited for.
        """
        rested, room = self.rested and not taken, self.room
        if taken < given and room is not Room.GONE:
            room = Room.SLOW if rested else Room.FULL
        tail = self.tail and taken == given
        return replace(self, offset=self.offset + taken, room=room, rested=rested, tail=tail)

    def after_rest(self, left: int) -> "SessionProgress":
        """Return it after its program had time to read, and left so many bytes."""
        unread = self.unread or left > 0
        match self.room:
            case Room.FULL if left:
                return replace(self, unread=unread, room=Room.SLOW)
            case Room.FULL:
                return replace(self, unread=unread, room=Room.OPEN, rested=True)
            case Room.SLOW if not left:
                return replace(self, unread=unread, room=Room.OPEN)
        return replace(self, unread=unread)

    def passed_over(self) -> "SessionProgress":
        """Return it as one that cannot take anything for now."""
        return self if self.room is Room.GONE else replace(self, room=Room.SLOW)

    def retried(self) -> "SessionProgress":
        """Return it as one that may have room once more, without time to read."""
        return replace(self, room=Room.OPEN if self.room is not Room.GONE else Room.GONE, rested=True)


class Progress:
    """Of the sessions of one handover, in their order."""

    def __init__(self, sessions: Iterable[AwaySession]) -> None:
        self._sessions = {session.flow: SessionProgress(session) for session in sessions}
        # All of these follow from the values: a question costs as much as there is to answer.
        self._flows = {value.session.session: flow for flow, value in self._sessions.items()}
        self._behind: dict[Flow, None] = {}
        self._taking: dict[Flow, None] = {}
        self._by_room: dict[Room, dict[Flow, None]] = {room: {} for room in Room}
        self._by_room[Room.OPEN] = dict.fromkeys(self._sessions)

    def __contains__(self, flow: Flow) -> bool:
        return flow in self._sessions

    def __getitem__(self, flow: Flow) -> SessionProgress:
        return self._sessions[flow]

    def session(self, flow: Flow) -> AwaySession:
        """By its flow."""
        return self._sessions[flow].session

    def numbered(self, number: int) -> SessionProgress | None:
        """By its number at the stand-in."""
        flow = self._flows.get(number)
        return None if flow is None else self._sessions[flow]

    def offset(self, flow: Flow) -> int:
        """Bytes received at the stand-in that are in the socket again."""
        return self._sessions[flow].offset

    def final(self, flow: Flow) -> FinalState:
        """Return its last state at the stand-in, which is known."""
        final = self._sessions[flow].final
        assert final is not None
        return final

    # Views -------------------------------------------------------------------------------------------------------

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Of all sessions."""
        return tuple(self._sessions)

    @property
    def behind(self) -> KeysView[Flow]:
        """Sessions that lack bytes."""
        return self._behind.keys()

    @property
    def full(self) -> KeysView[Flow]:
        """Sessions whose programs must read first."""
        return self._by_room[Room.FULL].keys()

    @property
    def slow(self) -> KeysView[Flow]:
        """Sessions whose programs did not read in the time that they had."""
        return self._by_room[Room.SLOW].keys()

    @property
    def gone(self) -> KeysView[Flow]:
        """Sessions whose programs have ended."""
        return self._by_room[Room.GONE].keys()

    @property
    def complete(self) -> tuple[Flow, ...]:
        """Sessions that lack nothing."""
        return tuple(flow for flow in self._sessions if flow not in self.behind)

    @property
    def readers(self) -> list[Flow]:
        """Sessions whose programs are worth waiting for while they read."""
        return [
            flow for flow, value in self._sessions.items() if not value.unread and value.room is not Room.SLOW
        ]

    def taking(self) -> Iterator[SessionProgress]:
        """Those that lack bytes and may take some now."""
        return (self._sessions[flow] for flow in self._taking)

    def remaining(self) -> int:
        """Missing bytes of the sessions with room."""
        return sum(value.lacking for value in self.taking())

    # Changes -----------------------------------------------------------------------------------------------------

    def number(self, numbers: Mapping[Flow, int]) -> None:
        """The stand-in's numbers of the sessions."""
        for flow, number in numbers.items():
            if (value := self._sessions.get(flow)) is not None:
                self._set(flow, replace(value, session=replace(value.session, session=number)))
        self._flows = {value.session.session: flow for flow, value in self._sessions.items()}

    def aim(self, targets: Mapping[Flow, int]) -> None:
        """Set the number of bytes to come."""
        for flow, target in targets.items():
            if (value := self._sessions.get(flow)) is not None:
                self._set(flow, replace(value, target=target))

    def place(self, positions: Iterable[tuple[Flow, int]], gone: Iterable[Flow]) -> None:
        """Set the positions in the kernel, and the ended programs."""
        for flow, position in positions:
            if (value := self._sessions.get(flow)) is not None:
                self._set(flow, value.placed(position))
        for flow in gone:
            if (value := self._sessions.get(flow)) is not None:
                self._set(flow, replace(value, room=Room.GONE))

    def took(self, flow: Flow, taken: int, given: int) -> None:
        """So many of the bytes given went in."""
        self._set(flow, self._sessions[flow].took(taken, given))

    def rested(self, unread: Iterable[tuple[Flow, int]]) -> None:
        """Programs had time to read; so much is left."""
        for flow, left in unread:
            if (value := self._sessions.get(flow)) is not None:
                self._set(flow, value.after_rest(left))

    def pass_over(self, flow: Flow) -> None:
        """This session cannot take anything for now."""
        self._set(flow, self._sessions[flow].passed_over())

    def try_again(self) -> None:
        """Mark all sockets as possibly having room: those that did not read get one more attempt."""
        for flow, value in self._sessions.items():
            if value.room in (Room.FULL, Room.SLOW):
                self._set(flow, value.retried())

    def go_beyond(self, sizes: Mapping[Flow, int]) -> None:
        """These may get so many bytes beyond their receive buffers, and are tried once more without time to read."""
        for flow, size in sizes.items():
            self._set(flow, replace(self._sessions[flow], beyond=size).retried())

    def stopped(self, finals: Mapping[Flow, FinalState]) -> None:
        """These are the last states; no tail is used yet."""
        for flow, value in self._sessions.items():
            self._set(flow, replace(value, final=finals.get(flow), tail=False))

    def tail_is_here(self, flow: Flow) -> None:
        """Note that the end of the received data is here."""
        self._set(flow, replace(self._sessions[flow], tail=True))

    def forget_tails(self) -> None:
        """Note that the ends of the received data are no longer here."""
        for flow, value in self._sessions.items():
            if value.tail:
                self._set(flow, replace(value, tail=False))

    def remove(self, flows: Iterable[Flow]) -> None:
        """These sessions are no part of it any more."""
        for flow in flows:
            if (value := self._sessions.pop(flow, None)) is not None:
                self._flows.pop(value.session.session, None)
            for view in (self._behind, self._taking, *self._by_room.values()):
                view.pop(flow, None)

    def _set(self, flow: Flow, value: SessionProgress) -> None:
        """Note the value of a session that is there."""
        before, self._sessions[flow] = self._sessions[flow], value
        if value.room is not before.room:
            del self._by_room[before.room][flow]
            self._by_room[value.room][flow] = None
        for view, belongs in ((self._behind, value.behind), (self._taking, value.taking)):
            if belongs:
                view[flow] = None
            else:
                view.pop(flow, None)
