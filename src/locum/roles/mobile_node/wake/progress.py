"""How far each session of a wake has come back (C3): offsets, what is still to come, and which programs have to read.

Offsets are those of the kernel, so none is in a row. Every question costs as much as there is to answer, not a look at
every session. It must not know fetches, nor how bytes are put back.
"""

from collections.abc import Iterable, Iterator, Mapping

from locum.roles.mobile_node.handover import AwaySession
from locum.wire.control import Flow


class Progress:
    """Of the sessions of one handover, in their order."""

    def __init__(self, sessions: Iterable[AwaySession]) -> None:
        self._sessions = {each.flow: each for each in sessions}
        self._by_number = {each.session: each for each in self._sessions.values()}
        self._offsets = dict.fromkeys(self._sessions, 0)
        self._targets = dict.fromkeys(self._sessions, 0)
        self._taking: dict[Flow, None] = {}  # behind, and their sockets may have room
        self.behind: dict[Flow, None] = {}
        self.full: dict[Flow, None] = {}  # took less than was given: their programs must read first
        self.slow: dict[Flow, None] = {}  # did not read in the time that they had
        self.gone: dict[Flow, None] = {}  # nobody holds their sockets any more
        self.unread: set[Flow] = set()  # had bytes left after a round: not waited for any more
        self._rested: set[Flow] = set()  # had time to read, and have taken nothing since

    def __contains__(self, flow: Flow) -> bool:
        return flow in self._sessions

    def session(self, flow: Flow) -> AwaySession:
        """By its flow."""
        return self._sessions[flow]

    def numbered(self, number: int) -> AwaySession | None:
        """By its number at the stand-in."""
        return self._by_number.get(number)

    def offset(self, flow: Flow) -> int:
        """Bytes received at the stand-in that are in the socket again."""
        return self._offsets[flow]

    def target(self, flow: Flow) -> int:
        """Bytes that are to be in the socket."""
        return self._targets[flow]

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Of all sessions."""
        return tuple(self._sessions)

    @property
    def complete(self) -> tuple[Flow, ...]:
        """Sessions that lack nothing."""
        return tuple(flow for flow in self._sessions if flow not in self.behind)

    def taking(self) -> Iterator[AwaySession]:
        """Those that lack bytes and may take some now."""
        return (self._sessions[flow] for flow in self._taking)

    def takes(self, flow: Flow) -> bool:
        """Whether this is one of `taking`."""
        return flow in self._taking

    def remaining(self) -> int:
        """Bytes that those who take lack."""
        return sum(self._targets[flow] - self._offsets[flow] for flow in self._taking)

    # Changes -----------------------------------------------------------------------------------------------------

    def number(self, numbers: Mapping[Flow, int]) -> None:
        """The stand-in's numbers of the sessions."""
        for flow, number in numbers.items():
            if flow in self._sessions:
                known = self._sessions[flow]
                self._sessions[flow] = AwaySession(number, flow, known.processes, known.programs)
        self._by_number = {each.session: each for each in self._sessions.values()}

    def aim(self, targets: Mapping[Flow, int]) -> None:
        """How much is to come."""
        self._targets |= {flow: target for flow, target in targets.items() if flow in self._sessions}
        self._sort()

    def place(self, positions: Iterable[tuple[Flow, int]], gone: Iterable[Flow]) -> None:
        """How much the kernel has, and whose programs have ended."""
        self._offsets |= {flow: position for flow, position in positions if flow in self._sessions}
        self.gone |= dict.fromkeys(flow for flow in gone if flow in self._sessions)
        self._sort()

    def took(self, flow: Flow, taken: int, given: int) -> None:
        """So many of the bytes given went in. One that had its time to read and takes nothing is not waited for."""
        self._offsets[flow] += taken
        if taken:
            self._rested.discard(flow)
        if taken < given:
            (self.slow if flow in self._rested else self.full)[flow] = None
        self._settle(flow)

    def rested(self, unread: Iterable[tuple[Flow, int]]) -> None:
        """Programs had time to read; so much is left."""
        for flow, left in unread:
            if flow not in self._sessions:
                continue
            if left:
                self.unread.add(flow)
            if flow in self.full:
                del self.full[flow]
                if left:
                    self.slow[flow] = None
                else:
                    self._rested.add(flow)
            elif not left:
                self.slow.pop(flow, None)
            self._settle(flow)

    def pass_over(self, flow: Flow) -> None:
        """This session cannot take anything for now."""
        self.slow[flow] = None
        self._settle(flow)

    def try_again(self) -> None:
        """Everybody may have room: those who did not read get one try more, without time to read."""
        self._rested |= self.full.keys() | self.slow.keys()
        self.full.clear()
        self.slow.clear()
        self._sort()

    def retry(self, flows: Iterable[Flow]) -> None:
        """These may have room once more, without time to read."""
        for flow in flows:
            self.full.pop(flow, None)
            self.slow.pop(flow, None)
            self._rested.add(flow)
            self._settle(flow)

    def remove(self, flows: Iterable[Flow]) -> None:
        """These sessions are no part of it any more."""
        for flow in flows:
            if (session := self._sessions.pop(flow, None)) is not None:
                self._by_number.pop(session.session, None)
            for each in (self._offsets, self._targets, self._taking):
                each.pop(flow, None)
            for noted in (self.behind, self.full, self.slow, self.gone):
                noted.pop(flow, None)

    def _sort(self) -> None:
        for flow in self._sessions:
            self._settle(flow)

    def _settle(self, flow: Flow) -> None:
        behind = self._offsets[flow] < self._targets[flow]
        taking = behind and not (flow in self.full or flow in self.slow or flow in self.gone)
        for noted, belongs in ((self.behind, behind), (self._taking, taking)):
            if belongs:
                noted[flow] = None
            else:
                noted.pop(flow, None)
