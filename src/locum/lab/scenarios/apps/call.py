"""A device sleeps while its stand-in keeps a SIP registration and rings for a named caller, whom the device's telephone answers (A7, C12)."""

from functools import partial
from typing import Any

from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.errors import LabError
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.peers.sip import PORT, Telephony
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

CORRESPONDENT = str(figure_5((), 1).address4("cn"))
ORDER: Table = {
    "kind": "call",
    "name": "call",
    "settings": {
        "contact": f"sip:ann@{HOME_ADDRESS4}:{PORT}",
        "registrar": CORRESPONDENT,
        "domain": "example.org",
        "password_file": "key:sip",
        "callers": [f"sipp@{CORRESPONDENT}"],
    },
}


class AppCall(Scenario):
    """In each sleep a stranger is refused, and a friend rings until the device is awake and its telephone answers."""

    name = "app-call"
    title = "a stand-in registers, refuses a stranger and rings for a friend, in five sleeps"
    plan = Plan(tables={"mn": {"mobile_node": {"app": [ORDER]}}})
    exhaustive = True
    sleeps = 5
    renewing = 60.0
    """Seconds of the first sleep, in which the registration is renewed."""

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.telephony = Telephony(lab, lab.configuration.key("sip").read_text().strip())
        self.telephony.start()
        self.statuses: list[int] = []
        self.registrations: list[int] = []
        for number in range(self.sleeps):
            before = self.telephony.registrations
            self._close_lid(lab)
            wait_until("the registration", partial(self._registered, before), 30.0)
            if number == 0:
                lab.pause(self.renewing)
            self.registrations.append(self.telephony.registrations - before)
            self.statuses.append(self.telephony.stranger())
            friend = self.telephony.friend()
            wait_until("the event of the call", partial(self._called, lab, number), 30.0)
            lab.timeline.mark("rings")
            lab.open_lid("an1")
            self.statuses.append(self.telephony.ended(friend))

    @staticmethod
    def _close_lid(lab: Lab) -> None:
        """The telephone's sockets have no fixed peer and stay: the command says so, and has another status."""
        try:
            lab.command("mn", "sleep")
        except LabError as told:
            if "asleep: 3 sessions stayed" not in str(told):
                raise
        lab.timeline.mark("asleep")
        lab.cut("an1")

    def _registered(self, before: int) -> bool:
        return self.telephony.registrations > before

    def _called(self, lab: Lab, before: int) -> bool:
        return len(self._told(lab, "call_from")) > before

    @staticmethod
    def _told(lab: Lab, kind: str) -> list[dict[str, Any]]:
        """Details of events of this kind."""
        told = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
        return [tell["detail"] for tell in told if tell["event"] == kind]

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("calls_that_went_as_expected", self.statuses == [0] * 2 * self.sleeps, True)
        checks.equal("wakes_for_friends", len(self._told(lab, "call_from")), self.sleeps)
        checks.equal("calls_without_a_wake", len(self._told(lab, "call_refused")), self.sleeps)
        checks.equal("missed_calls", len(self._told(lab, "call_missed")), 0)
        checks.holds("refused_as_busy", all(told["code"] == 486 for told in self._told(lab, "call_refused")))
        renewed = 2 if self.renewing >= 45 else 1
        checks.at_least("registrations_in_the_first_sleep", self.registrations[0], renewed)
        checks.equal("handovers", handovers(lab), self.sleeps)
        judge_wakes(lab, checks, ("call_from",), most=self.sleeps)


class AppCallBrief(AppCall):
    """The same in two short sleeps."""

    name = "app-call-brief"
    title = "a stand-in registers, refuses a stranger and rings for a friend, in two sleeps"
    exhaustive = False
    sleeps = 2
    renewing = 0.0
