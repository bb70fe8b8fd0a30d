"""Data of one wake on its way into the sockets (A12, C3): fetched ahead, put back, and read by the programs.

This module must not know when the device returns, nor when the wake ends.
"""

from collections.abc import Iterable, Mapping

from locum.roles.action_values.sessions import Drained, DrainRound, InjectData, Injected
from locum.roles.actions import Action
from locum.roles.mobile_node.wake.course import Course
from locum.roles.mobile_node.wake.programs import Programs
from locum.roles.mobile_node.wake.states import Draining, Fetching, Injecting
from locum.roles.mobile_node.wake.still_away import StillAway
from locum.wire.control import Flow

# Seconds that the programs get to read in a round.
DRAIN_PATIENCE = 0.5


class DataMoves:
    """Of one wake."""

    def __init__(self, course: Course, programs: Programs, away: StillAway) -> None:
        self._course, self._programs, self._away = course, programs, away

    def step(self) -> list[Action] | None:
        """Inject data while more is fetched; None: nothing is under way, and nothing is left to inject."""
        data = self._away.bytes
        fetches = data.fetch()
        if self._programs.loose and data.arrived:
            return [*fetches, *self._programs.tighten()]
        if pieces := data.pieces():
            return [*fetches, *self._inject(pieces)]
        if data.fetching:
            self._course.enter("fetch", Fetching())
            return fetches
        return None

    def _inject(self, pieces: Mapping[Flow, bytes]) -> list[Action]:
        self._course.enter("inject", Injecting(pieces))
        beyond = frozenset(flow for flow in pieces if self._away.progress[flow].beyond)
        return [InjectData(tuple(pieces.items()), beyond)]

    def injected(self, event: Injected) -> list[Action]:
        """The sockets have taken data, or failed."""
        assert isinstance(self._course.state, Injecting)
        pieces = self._course.state.pieces
        actions = self._away.lose(event.failures)
        self._away.bytes.took(event, pieces)
        return actions

    def drain(self, flows: Iterable[Flow]) -> list[Action]:
        """Let the programs read their data; those of other sessions stay frozen."""
        listed = tuple(flows)
        processes = dict.fromkeys(
            process for flow in listed for process in self._away.progress.session(flow).processes
        )
        self._course.enter("let read", Draining(frozenset(listed)))
        return [DrainRound(listed, tuple(processes), DRAIN_PATIENCE)]

    def drained(self, event: Drained, now: float) -> None:
        """The programs have had their time to read."""
        self._programs.wait(now)
        self._away.progress.rested(event.unread)
