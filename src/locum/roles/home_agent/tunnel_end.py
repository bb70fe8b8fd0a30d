"""Requests of a tunnel's other end beside the registration: UDP (RFC 3519), revocation (RFC 3543).

Both come from the tunnel's end, the mobile node or the foreign agent, and are answered to that one alone. It must not
know bindings.
"""

from dataclasses import dataclass, replace

from locum.roles.action_values.addresses import Source
from locum.roles.action_values.registration import Registration, RevocationSupport, UdpTunnelAnswer
from locum.roles.home_agent.binding import Binding
from locum.roles.home_agent.configuration import TraversalPolicy
from locum.roles.home_agent.nat import traversal
from locum.roles.home_agent.revocation_messages import BindingRevocation
from locum.roles.nat import Outer
from locum.roles.revocation import Revocable


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """A request's extensions about its tunnel end, and their answers."""

    outer: Outer | None = None
    revocable: Revocable | None = None
    udp: UdpTunnelAnswer | None = None
    revocations: RevocationSupport | None = None

    def of(self, binding: Binding) -> Binding:
        """The binding, with the tunnel end of its last care-of address."""
        if self.outer is None and self.revocable is None:
            return binding
        *others, last = binding.care_of
        said = replace(last, outer=self.outer, revocable=self.revocable)
        return replace(binding, care_of=(*others, said))


PLAIN = TunnelEnd()


def tunnel_end(
    registration: Registration,
    source: Source,
    policy: TraversalPolicy,
    revocation: BindingRevocation,
    *,
    agent_known: bool,
    now: float,
) -> TunnelEnd:
    """The end of the tunnel after that registration; `agent_known`: a foreign agent has authenticated it. Raises Refusal."""
    through = traversal(registration, source, policy, agent_known=agent_known)
    revocable = revocation.asked(registration, source)
    if revocable is None and through.answer is None:
        return PLAIN
    support = None if revocable is None else revocation.support(registration.home_address, now)
    return TunnelEnd(through.outer, revocable, through.answer, support)
