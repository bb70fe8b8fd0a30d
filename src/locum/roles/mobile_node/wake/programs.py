"""The programs of one wake (C3): frozen, or running with their flows suspended during silence.

This module must not know about data that is put back.
"""

from collections.abc import Mapping
from dataclasses import replace

from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import Loosen, Tighten
from locum.roles.actions import Action, Emit
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.handover import Stage
from locum.roles.mobile_node.wake.course import Course
from locum.roles.mobile_node.wake.states import WAITING, Ended, Tightening
from locum.roles.mobile_node.wake.still_away import StillAway
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control import Flow


class Programs:
    """The programs of one wake. `loose`: they run, and their sockets are not in repair mode."""

    def __init__(self, mobile: RegistrationClient, course: Course, away: StillAway) -> None:
        self.loose = away.handover.loose
        self._mobile, self._course, self._away = mobile, course, away
        self._stranded_at: float | None = None  # steady seconds
        # By proxies at the stand-in; None: it has not told yet
        self.spoken: Mapping[Flow, bytes] | None = None
        self.surplus: Mapping[Flow, int] = {}

    @property
    def stranded(self) -> bool:
        """Return whether the programs run while the wake waits for the network or the stand-in."""
        return self.loose and not isinstance(self._course.state, Ended)

    def wait(self, now: float) -> None:
        """Measure the programs' patience from now on: the wake has made progress."""
        self._stranded_at = now + self._mobile.configuration.stranded

    def timeout(self, now: float) -> list[Action]:
        """Let the programs run, if they have stood still for too long."""
        at = self.deadline()
        return [] if at is None or at > now else self._loosen()

    def deadline(self) -> float | None:
        """Return the end of their patience in steady seconds; None: nothing that may last for ever keeps them frozen."""
        handover = self._away.handover
        waits = isinstance(self._course.state, WAITING) and handover.stage is not Stage.RETURNED
        return self._stranded_at if waits and not self.loose and handover.processes else None

    def tighten(self) -> list[Action]:
        """Freeze the programs and put their sockets into repair mode."""
        flows = self._away.handover.flows
        self._course.enter("freeze", Tightening(flows))
        said = self.spoken or {}
        spoken = tuple((flow, said[flow]) for flow in flows if said.get(flow))
        surplus = tuple((flow, self.surplus[flow]) for flow in flows if self.surplus.get(flow))
        return [Tighten(flows, spoken, surplus)]

    def _loosen(self) -> list[Action]:
        """Data written meanwhile waits in the sockets. The row comes first: a next run may freeze nothing."""
        self.loose = True
        handover = self._away.handover = replace(self._away.handover, loose=True)
        home_address = self._mobile.configuration.home_address
        detail = {"reason": "the network or the stand-in does not answer"}
        return [
            handover.persist(),
            *set_flows(handover.flows, FlowVerdict.SUSPEND),
            Loosen(handover.flows, handover.processes),
            Emit("programs-run", None, home_address, None, detail),
        ]
