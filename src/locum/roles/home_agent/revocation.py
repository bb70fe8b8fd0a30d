"""Bindings that a revocation ends at a home agent (RFC 3543 section 4.2): by hand, agent, or move.

`revocation_messages.py` reads, checks and repeats the messages; the home agent itself takes a care-of address away.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.revocation import Revocation
from locum.roles.actions import Action
from locum.roles.home_agent.binding import CareOf
from locum.roles.home_agent.registry import Home, Registrant
from locum.roles.home_agent.revocation_messages import BindingRevocation

# Seconds until an agent that was left is told: packets in flight, and what agents hand over
MOVED_GRACE = 10.0

Drop = Callable[
    [Registrant, Sequence[CareOf], str], list[Action]
]  # (registrant, its care-of addresses, reason)


class HomeRevocation:
    """Over the registrants in `homes`; `drop` takes care-of addresses away and lets the data plane follow."""

    def __init__(self, homes: Mapping[IPv4Address, Home], exchange: BindingRevocation, drop: Drop) -> None:
        self._homes, self._exchange, self._drop = homes, exchange, drop

    def revocable(self, home_address: IPv4Address, agent: Addr | None = None) -> tuple[CareOf, ...]:
        """Registrations that `revoke` would end."""
        return tuple(care_of for one in self._registrants(home_address) for care_of in _of(one, agent))

    def revoke(
        self, home_address: IPv4Address, *, agent: Addr | None = None, reason: str, now: float
    ) -> list[Action]:
        """End the registrations of a home address, or those with this agent or care-of address.

        The other ends are notified if they take revocations; the next in the order of choice gets the packets at once.
        """
        actions: list[Action] = []
        told: list[Action] = []
        for registrant in self._registrants(home_address):
            if gone := _of(registrant, agent):
                actions += self._drop(registrant, gone, reason)
                told += self.tell(registrant, gone, reason, now)
        return actions + told

    def tell(self, registrant: Registrant, gone: Sequence[CareOf], reason: str, now: float) -> list[Action]:
        """Notify the other ends of ended registrations."""
        home_address, association = registrant.home.mobile.home_address, registrant.association
        return self._exchange.revoke(home_address, gone, association, inform=True, reason=reason, now=now)

    def left(
        self,
        registrant: Registrant,
        before: Sequence[CareOf],
        here: Addr,
        source: Source,
        now: float,
    ) -> list[Action]:
        """Revoke at agents that a registration has left (section 4.2.1), after packets in flight."""
        home_address = registrant.home.mobile.home_address
        self._exchange.under_way.cancel(home_address, here)
        if len(before) == 1 and before[0].agent == source.address:
            return []  # a renewal
        bound = {care_of.address for care_of in registrant.binding.care_of}
        return self._exchange.revoke(
            home_address,
            [
                care_of
                for care_of in before
                if care_of.address not in bound and care_of.agent != source.address
            ],
            registrant.association,
            inform=False,
            reason="registered elsewhere",
            now=now,
            after=MOVED_GRACE,
        )

    def receive(self, notice: Revocation, source: Source) -> list[Action]:
        """A foreign agent has ended a registration."""
        registrant, held = None, None
        for one in self._registrants(notice.home_address):
            for care_of in one.binding.care_of:
                if (care_of.address, care_of.agent) == (notice.care_of, source.address):
                    registrant, held = one, care_of
        believed, actions = self._exchange.believed(notice, held, source)
        if not believed or registrant is None or held is None:
            return actions
        return [*self._drop(registrant, (held,), f"revoked by {source.address}"), *actions]

    def _registrants(self, home_address: IPv4Address) -> Iterator[Registrant]:
        if (home := self._homes.get(home_address)) is not None:
            yield home
            yield from home.stand_ins


def _of(registrant: Registrant, agent: Addr | None) -> tuple[CareOf, ...]:
    held = registrant.binding.care_of
    return tuple(care_of for care_of in held if agent is None or agent in (care_of.agent, care_of.address))
