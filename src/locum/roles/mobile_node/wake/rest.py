"""What a wake leaves behind when it ends before everything is back: values only."""

from collections.abc import Mapping
from dataclasses import dataclass

from locum.roles.mobile_node.handover import Handover
from locum.wire.control import FinalState, Flow


@dataclass(frozen=True, slots=True)
class Rest:
    """The sessions of the handover, their last states at the stand-in, and how many bytes of each are here."""

    handover: Handover
    finals: Mapping[Flow, FinalState]
    offsets: Mapping[Flow, int]
