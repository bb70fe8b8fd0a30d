"""Fig. 8: a stand-in with a co-located care-of address, no foreign agent on its side (R4, R9).

No access node takes part on that side, so no context goes there.
"""

from typing import ClassVar

from locum.lab.checks import Checks
from locum.lab.configuration import Plan
from locum.lab.scenarios.fig07 import Fig07, told
from locum.lab.stand_ins import Registering, registering
from locum.lab.world import Lab, Nap

ASLEEP = 5.2


class Fig08(Fig07):
    """As fig07; the tunnel of the stand-in's registration ends in the stand-in itself."""

    name = "fig08"
    title = "the stand-in registers with a care-of address of its own"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(default_coa=False, tables=registering(stand_in))

    def _sleep(self, lab: Lab) -> Nap:
        return lab.nap(ASLEEP, [self.download.program])

    def _judge_context(self, lab: Lab, checks: Checks) -> None:
        for node in ("an1", "an3"):
            checks.equal(f"{node}_sent_624", told(lab, "sent", "624", node), 0, "messages")
