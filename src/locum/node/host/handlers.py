"""Performs the actions of roles that change the host's own addresses, routes and neighbours, or run its programs."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Protocol

from locum.node.config.settings import Address
from locum.node.host.network import HostNetwork
from locum.node.host.page_commands import PageCommands
from locum.node.host.page_decider import PageDecider
from locum.node.host.wake_card import WakeCards
from locum.node.performer import Handler
from locum.node.tables import HostStore
from locum.roles.action_values.forwarding import LeaveAgent, NeighbourEntry, RemoveNeighbour, UseAgent
from locum.roles.actions import Event
from locum.roles.profile_requests import OwnHomeAddress


class NeighbourListener(Protocol):
    """Listens for the neighbours on access links."""

    def neighbour(self, entry: NeighbourEntry) -> None: ...
    def remove_neighbour(self, entry: RemoveNeighbour) -> None: ...


class HomeAddressUser(Protocol):
    """Leads programs to the home address."""

    async def use(self, action: UseAgent) -> None: ...
    async def leave(self, action: LeaveAgent) -> None: ...
    async def changed(self, before: Address | None, now: Address) -> None: ...


class HostHandlers:
    """Performs these actions for the node with that name; `owned` is called with an IPv4 home address that it was given."""

    def __init__(
        self,
        node: str,
        network: HostNetwork,
        memberships: NeighbourListener | None,
        owned: Callable[[IPv4Address], None],
        feed: Callable[[str, Event], None],
        store: HostStore,
        uses: HomeAddressUser | None = None,
    ) -> None:
        """`feed` gives an event to a role; `uses` leads programs to the home address, if they shall use it."""
        self._uses = uses
        self._node, self._network = node, network
        self._memberships, self._owned = memberships, owned
        self._page_commands = PageCommands(lambda ended: feed("foreign_agent", ended))
        self._page_decider = PageDecider(lambda decided: feed("mobile_node", decided))
        self._wake_cards = WakeCards(store, lambda told: feed("mobile_node", told))

    def handlers(self) -> Mapping[type, Handler]:
        """The function for each type of action."""
        return {
            NeighbourEntry: self._neighbour,
            RemoveNeighbour: self._remove_neighbour,
            UseAgent: self._use_agent,
            LeaveAgent: self._leave_agent,
            OwnHomeAddress: self._own_home_address,
            **self._page_commands.handlers(),
            **self._page_decider.handlers(),
            **self._wake_cards.handlers(),
        }

    async def close(self) -> None:
        """End the programs that run for roles."""
        await self._page_commands.close()
        await self._page_decider.close()

    async def _neighbour(self, action: NeighbourEntry) -> None:
        if self._memberships is not None:
            self._memberships.neighbour(action)
        await self._network.visitor(action.link, action.address, action.link_layer)

    async def _remove_neighbour(self, action: RemoveNeighbour) -> None:
        if self._memberships is not None:
            self._memberships.remove_neighbour(action)
        await self._network.remove_visitor(action.link, action.address)

    async def _use_agent(self, action: UseAgent) -> None:
        if self._uses is not None:
            await self._uses.use(action)
            return
        if action.colocated:
            from locum.dataplane.kernel.device import device_name

            device = device_name(self._node)
            await self._network.use_home_address(action.link, device, action.home_addresses)
            return
        await self._network.use_agent(action.link, action.agent, action.link_layer, action.home_addresses)

    async def _own_home_address(self, action: OwnHomeAddress) -> None:
        if action.before is not None:
            await self._network.disown_home_address(action.before)
        await self._network.own_home_address(action.home_address)
        if self._uses is not None:
            await self._uses.changed(action.before, action.home_address)
        if isinstance(action.home_address, IPv4Address):
            self._owned(action.home_address)

    async def _leave_agent(self, action: LeaveAgent) -> None:
        if self._uses is not None:
            await self._uses.leave(action)
            return
        await self._network.leave_agent(action.link)
