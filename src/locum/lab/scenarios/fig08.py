"""Fig. 8: a stand-in with a co-located care-of address, no foreign agent on its side (R4, R9)."""

from typing import ClassVar

from locum.lab.configuration import Plan
from locum.lab.scenarios.fig07 import Fig07
from locum.lab.stand_ins import Registering, registering


class Fig08(Fig07):
    """As fig07; the tunnel of the stand-in's registration ends in the stand-in itself."""

    name = "fig08"
    title = "the stand-in registers with a care-of address of its own"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(default_coa=False, tables=registering(stand_in))
