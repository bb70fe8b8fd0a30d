"""Connections that the stand-in accepted, as a part of one wake: their flows in its row, their fates in its report.

`receiving.py` brings them; the wake decides when.
"""

from dataclasses import replace

from locum.roles.actions import Action, Emit, Event
from locum.roles.mobile_node.wake.receiving import Receiving, released
from locum.roles.mobile_node.wake.still_away import StillAway
from locum.roles.session_report import Fate
from locum.roles.session_words import OPENED_MEANWHILE, SILENT
from locum.wire.control import Answer632, Status


class Newcomers:
    """Connections in `receiving`, added to the sessions of the wake."""

    def __init__(self, receiving: Receiving, away: StillAway) -> None:
        self._receiving, self._away = receiving, away

    @property
    def busy(self) -> bool:
        """The hand-over has to wait."""
        return self._receiving.busy

    def announced(self, answer: Answer632) -> list[Action]:
        """A reclaim names them. Their flows are in the row before anything can come for them."""
        actions = self._receiving.announced(answer.sessions if answer.status is Status.OK else ())
        handover, flows = self._away.handover, self._receiving.flows
        left = [flow for flow in handover.accepted if flow not in flows]
        if handover.accepted == flows:
            return actions
        self._away.handover = replace(handover, accepted=flows)
        return [self._away.handover.persist(), *actions, *(released(left) if left else ())]

    def begin(self, answer: Answer632) -> list[Action]:
        """The answer to the finish: they may come."""
        finals = answer.final if answer.status is Status.OK else ()
        actions = self._receiving.begin({final.session: final for final in finals})
        return [*actions, *self._note()]

    def happened(self, event: Event) -> list[Action] | None:
        """One of them has come, or will not; None: it is about something else.

        The row comes first: a next run may not take for held by the stand-in what lives here.
        """
        received = self._receiving.happened(event)
        return None if received is None else [*self._note(), *received]

    def forget(self) -> list[Action]:
        """The hand-over goes on without them; their flows are this host's as any other."""
        self._away.handover = replace(self._away.handover, accepted=())
        return self._receiving.forget()

    def give_up(self) -> list[Action]:
        """Those that are still to come do not: the stand-in answers no more."""
        flows = tuple(dict.fromkeys((*self._away.handover.accepted, *self._receiving.flows)))
        self.forget()
        self._away.lost += len(flows)
        actions = released(flows) if flows else []
        for flow in flows:
            self._away.report.tell(flow, Fate.LOST, SILENT)
            actions.append(Emit("session-lost", None, flow.local, flow, {"reason": SILENT}))
        return actions

    def _note(self) -> list[Action]:
        for flow in self._receiving.arrived:
            self._away.report.tell(flow, Fate.ARRIVED, OPENED_MEANWHILE)
        for flow, reason in self._receiving.failed.items():
            self._away.report.tell(flow, Fate.LOST, reason)
        if self._away.handover.accepted == self._receiving.flows:
            return []
        handover, receiving = self._away.handover, self._receiving
        back = dict.fromkeys((*handover.returned, *receiving.arrived.values()))
        self._away.handover = replace(handover, accepted=receiving.flows, returned=tuple(back))
        return [self._away.handover.persist()]
