"""Makes the rules and ways of `traffic`, from the start of a device's daemon to its end, and follows its agents."""

from collections.abc import Iterable
from pathlib import Path

from locum.node.config.settings import Address
from locum.node.host.network import HostNetwork
from locum.node.uses.traffic import Uses, nowhere, rules
from locum.roles.action_values.forwarding import LeaveAgent, UseAgent

_ASSUMED_MTU = 1500  # bytes, of a link that has gone


class UsedHomeAddress:
    """The home address as the address of programs of this host, with "all" or "run"; `device` is the re-injection device."""

    def __init__(self, uses: Uses, network: HostNetwork, device: str) -> None:
        self.uses, self._network, self._device = uses, network, device
        self._home_addresses: tuple[Address, ...] = ()
        self._link: str | None = None

    async def begin(self, home_addresses: Iterable[Address]) -> None:
        """Lead packets home, or nowhere while there is no agent. Raises OSError."""
        self._home_addresses = tuple(home for home in home_addresses if not home.is_unspecified)
        await self._ways()
        if self._home_addresses:
            table, number = self._network.mobile_table, self._network.number
            for key, record in rules(self.uses, self._home_addresses, table, number):
                await self._network.keep(key, record)

    async def use(self, action: UseAgent) -> None:
        """This agent is in use, or this link with its co-located care-of address."""
        held = {home.version for home in self._home_addresses}
        if not self._home_addresses or any(
            home not in self._home_addresses and home.version in held for home in action.home_addresses
        ):
            await self.begin(action.home_addresses)
        self._link = action.link
        if action.colocated:
            await self._ways()
        else:
            await self._network.use_agent(
                action.link, action.agent, action.link_layer, action.home_addresses, rules=False
            )

    async def leave(self, action: LeaveAgent) -> None:
        """No agent on this link is in use: unless another one is, packets go nowhere."""
        if self._link == action.link:
            self._link = None
            await self._ways()

    async def changed(self, before: Address | None, now: Address) -> None:
        """The home agent gave the device this home address, in place of another one."""
        others = [home for home in self._home_addresses if home not in (before, now)]
        await self.begin((now, *others))

    async def _ways(self) -> None:
        mtu = _ASSUMED_MTU if self._link is None else _mtu(self._link)
        ways = nowhere(
            self.uses, self._home_addresses, self._device, self._network.mobile_table, link_mtu=mtu
        )
        for key, record in ways:
            await self._network.keep(key, record)


def _mtu(link: str) -> int:
    try:
        return int(Path(f"/sys/class/net/{link}/mtu").read_text())
    except (OSError, ValueError):
        return _ASSUMED_MTU
