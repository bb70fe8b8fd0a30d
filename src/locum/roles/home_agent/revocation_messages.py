"""The home agent's side of registration revocation (RFC 3543 section 4.2): peers, timing, answers.

Bindings are the home agent's; this must not know forwarding.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.registration import Registration, RegistrationFlag, RevocationSupport
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.actions import Action, Count, Reply
from locum.roles.home_agent.binding import CareOf
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


class BindingRevocation:
    """Revocations from and to the home agent at `address`, which others know as `known_as`; `foreign_agents` are
    associations by address.
    """

    def __init__(
        self,
        address: IPv4Address,
        foreign_agents: Mapping[Addr, Association],
        *,
        enabled: bool = True,
        known_as: IPv4Address | None = None,
    ) -> None:
        self._address = address
        self._known_as = known_as or address
        self._foreign_agents = foreign_agents
        self._enabled = enabled
        self._stamps = Stamps()
        self._heard = Heard()
        self.under_way = Revocations(self._stamps)

    # Negotiation -------------------------------------------------------------------------------------------------

    def asked(self, registration: Registration, source: Source) -> Revocable | None:
        """The peer's revocation support, under its own authentication (section 3.2)."""
        said = registration.options.revocations
        if said is None or not self._enabled or registration.lifetime == 0:
            return None
        if registration.flags & RegistrationFlag.CO_LOCATED or source.address in self._foreign_agents:
            return Revocable(said.timestamp, said.inform)
        return None

    def support(self, home_address: IPv4Address, now: float) -> RevocationSupport:
        """The answer's revocation support."""
        return RevocationSupport(self._stamps.next(home_address, now), inform=True)

    # Ours --------------------------------------------------------------------------------------------------------

    def revoke(
        self,
        home_address: IPv4Address,
        gone: Iterable[CareOf],
        mobile: Association,
        *,
        inform: bool,
        reason: str,
        now: float,
        after: float = 0.0,
    ) -> list[Action]:
        """Tell the other ends of care-of addresses that are no longer bound, `after` so many seconds.

        Those that cannot be notified expire.
        """
        actions: list[Action] = []
        for care_of in gone:
            to = self._peer(care_of, mobile)
            if to is None or care_of.revocable is None:
                continue
            notice = Revocation(
                home_address=home_address,
                home_agent=self._known_as,
                care_of=care_of.address,
                identifier=0,
                from_home_agent=True,
                inform=inform and care_of.revocable.inform,
            )
            actions += self.under_way.begin(notice, to, now=now, reason=reason, after=after)
        return actions

    def _peer(self, care_of: CareOf, mobile: Association) -> RevocationPeer | None:
        outer = care_of.outer
        if care_of.co_located:
            address, port = (care_of.address, None) if outer is None else (outer.address, outer.port)
            to = RevocationPeer(address, mobile, False, source=self._address)
        else:
            association = self._foreign_agents.get(care_of.agent)
            if association is None:
                return None
            port = None if outer is None else outer.port
            to = RevocationPeer(care_of.agent, association, source=self._address)
        if port is None:
            return to
        return replace(to, port=port)

    # Theirs ------------------------------------------------------------------------------------------------------

    def believed(self, notice: Revocation, held: CareOf | None, source: Source) -> tuple[bool, list[Action]]:
        """True if a foreign agent's revocation is valid; the actions answer it, or count the reason.

        `held` is the care-of address that it names, if it is bound by that agent. Without one there is nothing to end,
        and the answer only keeps the agent from asking again.
        """
        association = self._foreign_agents.get(source.address)
        last = self._heard.get(source.address, notice.home_address)
        if held is not None and held.revocable is not None:
            last = held.revocable.timestamp
        reason = unbelievable(notice, notice.agent_proof, association, last, from_home_agent=False)
        if reason is None and notice.home_agent not in (self._known_as, self._address):
            reason = "revocation-not-for-us"
        if reason is None and held is not None and held.revocable is None:
            reason = "revocation-not-agreed"
        if reason is not None or association is None:
            return False, [Count(reason or "revocation-not-authentic")]
        self._heard.set(source.address, notice.home_address, notice.identifier)
        answer = acknowledgment(notice, association, between_agents=True, inform=True)
        return True, [Reply(source, answer)]

    def acknowledged(self, answer: Acknowledgment, source: Source) -> list[Action]:
        """The other end has done it."""
        _, actions = self.under_way.acknowledged(answer, source)
        return actions
