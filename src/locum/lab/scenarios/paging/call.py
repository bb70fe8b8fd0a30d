"""A device sleeps while its stand-in keeps a SIP registration: the named caller wakes it and its telephone answers (P3, P4, A7)."""

from typing import ClassVar

from locum.lab.configuration import Plan
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs.peers.sip import Telephony
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.apps.call import ORDER
from locum.lab.scenarios.paging.fig11 import AGENTS, STAND_IN, cause
from locum.lab.steps.paging import PATIENCE, begun, judge_outcomes, state, wait_outcome
from locum.lab.world import Lab


class PageCall(Scenario):
    """A stranger's INVITE is refused at the stand-in, a friend's pages the device, which answers the same call."""

    name = "page-call"
    title = "the named caller's INVITE wakes the device and its telephone answers; another caller's does not"
    plan: ClassVar[Plan] = Plan(
        associations=AGENTS, tables={"mnps": STAND_IN, "mn": {"mobile_node": {"app": [ORDER]}}}
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.telephony = Telephony(lab, lab.configuration.key("sip").read_text().strip())
        self.telephony.start()
        lab.command("mn", "wake-on", "call")
        self.begin = lab.timeline.mark("lid-closes")
        try:
            lab.command("mn", "sleep")
        except LabError as told:  # the telephone's sockets have no fixed peer
            if "asleep: 3 sessions stayed" not in str(told):
                raise
        lab.timeline.mark("asleep")
        wait_until("the registration", lambda: self.telephony.registrations > 0, PATIENCE)
        self.stranger = self.telephony.stranger()
        self.pages_before = len(begun(lab, self.begin))
        self.state_before = state(lab)
        self.rings = lab.timeline.mark("rings")
        friend = self.telephony.friend()
        self.page = wait_outcome(lab, self.rings)
        self.friend = self.telephony.ended(friend)
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        self.awake = lab.timeline.mark("awake")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("stranger_is_refused", self.stranger, 0)
        checks.equal("pages_by_the_stranger", self.pages_before, 0, "pages")
        checks.equal("state_after_the_stranger", self.state_before, "asleep")
        checks.equal("page_of_the_friend", cause(self.page), "event call call_from")
        checks.equal("friend_talks_and_hangs_up", self.friend, 0)
        checks.equal("pages", len(begun(lab, self.begin)), 1, "pages")
        checks.fact("page_after_s", self.page.time - self.rings, "s")
        judge_outcomes(lab, checks)
