"""Fig. 6 in the form of Fig. 8: a mobile node with a co-located care-of address, no foreign agent (R9)."""

from locum.lab.configuration import Plan
from locum.lab.scenarios.sleep.fig06 import Fig06


class Colocated(Fig06):
    """Fig. 6 with a tunnel that ends in the mobile node itself."""

    name = "colocated"
    title = "asleep in the middle of a download, with a co-located care-of address"
    plan = Plan(mode="colocated")
