"""Reports to an access node when delivery for a preconfigured home address starts and ends (R11, 618'').

Looks at the data plane's counters; it decides nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from locum.roles import actions as do
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import AcceptTunnel, TunnelAcceptance
from locum.roles.actions import Action
from locum.roles.foreign_agent.configuration import StaticVisitor

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane

_INTERVAL = 0.25  # seconds between looks
_QUIET = 20  # looks without a packet after which delivery has ceased


class DeliveryWatch:
    """Watches the acceptances of the static visitors; `feed` is called with `DeliveryMoved`."""

    def __init__(
        self,
        static: Sequence[StaticVisitor],
        plane: "DataPlane",
        feed: Callable[[do.DeliveryMoved], None],
    ) -> None:
        self._plane, self._feed = plane, feed
        self._names: dict[Addr, Addr] = {}  # every address of a visitor -> its IPv4 home address
        for visitor in static:
            self._names[visitor.home_address] = visitor.home_address
            if visitor.home_address_v6 is not None:
                self._names[visitor.home_address_v6] = visitor.home_address
        self._acceptances: dict[Addr, TunnelAcceptance] = {
            acceptance.home_address: acceptance
            for acceptance in plane.state.acceptances.values()
            if acceptance.home_address in self._names and acceptance.link is not None
        }
        self._counts = {address: self._count(acceptance) for address, acceptance in self._acceptances.items()}
        self._quiet: dict[Addr, int] = {visitor.home_address: _QUIET for visitor in static}
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def applied(self, actions: Sequence[Action]) -> None:
        """Acceptances that were changed."""
        for action in actions:
            match action:
                case AcceptTunnel(acceptance) if acceptance.home_address in self._names:
                    self._acceptances[acceptance.home_address] = acceptance
                    self._counts[acceptance.home_address] = self._count(acceptance)

    def _count(self, acceptance: TunnelAcceptance) -> int:
        return self._plane.acceptance_counters(acceptance).packets

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._look)
        moving: set[Addr] = set()
        for address, acceptance in self._acceptances.items():
            count = self._count(acceptance)
            if count > self._counts[address]:
                moving.add(self._names[address])
            self._counts[address] = count
        for home_address, quiet in self._quiet.items():
            if home_address in moving:
                self._quiet[home_address] = 0
                if quiet >= _QUIET:
                    self._feed(do.DeliveryMoved(home_address, True))
            elif quiet < _QUIET:
                self._quiet[home_address] = quiet + 1
                if quiet + 1 >= _QUIET:
                    self._feed(do.DeliveryMoved(home_address, False))
