"""Handovers that outlast a run of the stand-in, and unclaimed ones.

This module must not know requests of devices.
"""

from collections.abc import Sequence
from dataclasses import replace

from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import DropSessions, ResumeSessions
from locum.roles.actions import Action, Emit, Persist
from locum.roles.flow_rows import TABLE, set_flows
from locum.roles.mnps.giving_back import GivingBack
from locum.roles.mnps.giving_up import GivingUp
from locum.roles.mnps.handover import Holding, Prepared, Restoring, Stopped, Stopping, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.listening import Listening
from locum.roles.mnps.parts import WaitingPart
from locum.roles.mnps.switching import Switching
from locum.roles.mnps.taking_over import PREPARED_TIMEOUT
from locum.roles.parts import readable


class Keeping(WaitingPart):
    """Of the handovers of `holdings`; stopped sessions are kept for `held_seconds`."""

    def __init__(
        self,
        holdings: Holdings,
        giving_back: GivingBack,
        giving_up: GivingUp,
        switching: Switching,
        listening: Listening,
        held_seconds: float,
    ) -> None:
        self._holdings, self._giving_back, self._giving_up = holdings, giving_back, giving_up
        self._switching, self._listening = switching, listening
        self._held_seconds = held_seconds

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the handovers of an earlier run; the registration has been restored before."""
        found, actions = readable(rows, TABLE, lambda row: TakenOver.from_row(row.key, row.value))
        for _row, taken in found:
            if isinstance(taken.state, Restoring):
                # Nothing has reached these sockets: their packets are held until the row says "holding".
                actions.append(DropSessions(taken.identifier))
                taken = replace(taken.at("restart", Prepared(now + PREPARED_TIMEOUT)), sessions=())
                actions.append(taken.persist())
            actions += self._restored_row(taken, now)
        actions += self._holdings.settle()
        for taken in self._holdings.all():
            actions += self._switching.want(taken, now) + self._listening.begin(taken)
        return actions

    def _restored_row(self, taken: TakenOver, now: float) -> list[Action]:
        """The data plane's share of a handover of an earlier run."""
        flows = [session.flow for session in taken.held]
        match taken.state:
            case Stopping():  # some sockets may be stopped: the device asks again, or goes on sleeping
                self._holdings.keep(taken.at("restart", Holding()))
                return [*set_flows(flows, FlowVerdict.DELIVER), ResumeSessions(taken.identifier)]
            case Stopped():
                self._holdings.keep(taken.at("restart", Stopped(None, now + self._held_seconds)))
                return [*set_flows(flows, FlowVerdict.HOLD)]
            case Holding():
                self._holdings.keep(taken)
                return [*set_flows(flows, FlowVerdict.DELIVER)]
        self._holdings.keep(taken)
        return [*set_flows(taken.flows, FlowVerdict.HOLD)]

    def timeout(self, *, now: float) -> list[Action]:
        """Remove unclaimed handovers."""
        actions: list[Action] = []
        for taken in self._holdings.due(now):
            unfetched = isinstance(taken.state, Stopped) and not self._giving_back.all_given(taken)
            actions += self._giving_up.end(taken, now, reset=unfetched)
            actions.append(Emit("handover-forgotten", None, taken.home_addresses[0]))
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._holdings.deadline()
