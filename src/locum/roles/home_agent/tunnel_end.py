"""What the other end of a home agent's tunnel asks for beside the registration itself: UDP (RFC 3519), revocation (RFC 3543).

Both are said by whom the tunnel ends at, the mobile node or the foreign agent, and answered to that one alone. It must not
know bindings.
"""

from dataclasses import dataclass, replace

from locum.roles.action_values.addresses import Source
from locum.roles.home_agent.binding import Binding
from locum.roles.home_agent.nat import TraversalPolicy, traversal
from locum.roles.home_agent.revocation_messages import BindingRevocation
from locum.roles.nat import Outer
from locum.roles.revocation import Revocable
from locum.wire.mobile_ip.extensions import Extension
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """What a request says of its end of the tunnel, and what is answered there."""

    outer: Outer | None = None
    revocable: Revocable | None = None
    to_mobile: tuple[Extension, ...] = ()  # before the mobile-home authentication
    to_agent: bytes = b""  # behind it, before the foreign-home authentication

    def of(self, binding: Binding) -> Binding:
        """The binding, with what is said of the care-of address that was registered last."""
        if self.outer is None and self.revocable is None:
            return binding
        *others, last = binding.care_of
        said = replace(last, outer=self.outer, revocable=self.revocable)
        return replace(binding, care_of=(*others, said))


PLAIN = TunnelEnd()


def tunnel_end(
    request: RegistrationRequest,
    source: Source,
    policy: TraversalPolicy,
    revocation: BindingRevocation,
    *,
    agent_known: bool,
    now: float,
) -> TunnelEnd:
    """What that request asks of the tunnel; `agent_known`: a foreign agent has authenticated it. Raises TraversalRefused."""
    through = traversal(request, source, policy, agent_known=agent_known)
    revocable = revocation.asked(request, source)
    said: list[Extension] = [] if through.reply is None else [through.reply]
    if revocable is not None:
        said.append(revocation.support(request.home_address, now))
    if not said:
        return PLAIN
    if request.flags & Flag.D:
        return TunnelEnd(through.outer, revocable, to_mobile=tuple(said))
    return TunnelEnd(through.outer, revocable, to_agent=b"".join(each.encode() for each in said))
