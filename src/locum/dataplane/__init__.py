"""Forwarding state to kernel maps, and the Python reference model of the same decision.

It must not know why a packet is forwarded as it is: it performs the forwarding actions of `roles.action_values`.
"""

from locum.dataplane.hold import HeldPacket
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.layout.maps import Counter
from locum.dataplane.limits import Limits
from locum.dataplane.model.explain import Explanation, Question
from locum.dataplane.plane import Changes, DataPlane
from locum.dataplane.state import ForwardingState

__all__ = [
    "Changes",
    "Counter",
    "DataPlane",
    "DataPlaneError",
    "Explanation",
    "ForwardingState",
    "HeldPacket",
    "Limits",
    "Question",
]
