"""The foreign agent's side of registration revocation (RFC 3543 section 4.2): peers, timing, answers.

The visitor list is the foreign agent's; this must not know links or forwarding.
"""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.registration import Options, Registration, RevocationSupport
from locum.roles.action_values.revocation import Revocation
from locum.roles.actions import Action, Count
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.mobile_ipv4.revocations import read_acknowledgment
from locum.roles.revocation import (
    Heard,
    Revocable,
    RevocationPeer,
    Revocations,
    Stamps,
    acknowledgment,
    unbelievable,
)
from locum.security.association import Association
from locum.wire.errors import WireError


class VisitorRevocation:
    """Revocations from and to a foreign agent; `home_agents` are associations by address."""

    def __init__(
        self, care_of_address: IPv4Address, home_agents: Mapping[Addr, Association], *, enabled: bool = True
    ) -> None:
        self._care_of_address = care_of_address
        self._home_agents = home_agents
        self._stamps = Stamps()
        self._heard = Heard()
        self.enabled = enabled and bool(home_agents)  # the X bit of advertisements (section 3.1)
        self.under_way = Revocations(self._stamps)

    # Negotiation -------------------------------------------------------------------------------------------------

    def fill(self, options: Options, registration: Registration, now: float) -> Options:
        """The options for the home agent with our support of revocations; needs an association."""
        if not self.enabled or registration.lifetime == 0 or registration.home_agent not in self._home_agents:
            return options
        timestamp = self._stamps.next(registration.home_address, now)
        return replace(options, revocations=RevocationSupport(timestamp, inform=True))

    def agreed(self, said: RevocationSupport | None) -> Revocable | None:
        """The home agent's revocation support for us alone; the caller has checked the authentication."""
        return None if said is None or not self.enabled else Revocable(said.timestamp, said.inform)

    # Ours --------------------------------------------------------------------------------------------------------

    def revoke(self, visitor: Visitor, *, reason: str, now: float) -> list[Action]:
        """Notify the home agent of the end of the visit; asks whether to notify the mobile node (I)."""
        association = self._home_agents.get(visitor.home_agent)
        if association is None or visitor.revocable is None:
            return []
        notice = Revocation(
            home_address=visitor.home_address,
            home_agent=visitor.home_agent,
            care_of=self._care_of_address,
            identifier=0,
            from_home_agent=False,
            inform=visitor.revocable.inform,
        )
        to = RevocationPeer(visitor.home_agent, association, source=self._care_of_address)
        return self.under_way.begin(notice, to, now=now, reason=reason)

    def acknowledged(self, message: bytes, source: Source) -> tuple[IPv4Address | None, list[Action]]:
        """The home agent has acknowledged; return the home address to notify, if any (I, section 3.4)."""
        try:
            answer = read_acknowledgment(message)
        except WireError as error:
            return None, [Count(f"revocation-{error.reason}")]
        notice, actions = self.under_way.acknowledged(answer, source)
        return (answer.home_address if notice is not None and answer.inform else None), actions

    # Theirs ------------------------------------------------------------------------------------------------------

    def believed(
        self, notice: Revocation, visitor: Visitor | None, source: Source
    ) -> tuple[bytes | None, list[Action]]:
        """The signed answer to a valid revocation; otherwise actions that count the reason.

        `visitor` is the named one, if it is served for that home agent. Without one no visit ends, and the
        answer only keeps the home agent from asking again.
        """
        association = self._home_agents.get(source.address)
        last = self._heard.get(source.address, notice.home_address)
        if visitor is not None and visitor.revocable is not None:
            last = visitor.revocable.timestamp
        reason = unbelievable(notice, notice.agent_proof, association, last, from_home_agent=True)
        if reason is None and notice.care_of != self._care_of_address:
            reason = "revocation-not-for-us"
        if reason is None and visitor is not None and visitor.revocable is None:
            reason = "revocation-not-agreed"
        if reason is not None or association is None:
            return None, [Count(reason or "revocation-not-authentic")]
        self._heard.set(source.address, notice.home_address, notice.identifier)
        told = notice.inform and visitor is not None
        return acknowledgment(notice, association, between_agents=True, inform=told), []
