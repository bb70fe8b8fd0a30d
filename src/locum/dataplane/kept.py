"""The devices, rules and routes of a data plane that other programs of the host may take away.

It makes them again when it is told that one is gone. It must not look for losses itself.
"""

from pyroute2 import IPRoute

from locum.dataplane.kernel.device import IFF_UP
from locum.dataplane.kernel.host.lost import Key, device_key
from locum.dataplane.kernel.network import MtuRoutes
from locum.dataplane.kernel.renewal import Renewal


class Kept:
    """Devices, rules and routes of one node's data plane."""

    def __init__(self, route: IPRoute, device: int, mtu_routes: MtuRoutes, renewal: Renewal) -> None:
        """`device` is the index of the re-injection device."""
        self._route, self._device = route, device
        self._mtu_routes, self._renewal = mtu_routes, renewal

    def keeps(self, key: Key) -> bool:
        """True if this is one of them."""
        return self._mtu_routes.keeps(key) or key in self._renewal.kept() or key == device_key(self._device)

    def all(self) -> tuple[Key, ...]:
        """All of them."""
        return (device_key(self._device), *self._mtu_routes.kept(), *self._renewal.kept())

    def lost(self, key: Key) -> bool:
        """Do without this one until it is made again; true if packets need it meanwhile."""
        return key in self._renewal.kept() and self._renewal.lost(key)

    def make_again(self, key: Key) -> bool:
        """Make it unless it is there; true if it was missing. Raises NetlinkError or DataPlaneError."""
        if key in self._renewal.kept():
            return self._renewal.make_again()
        if key != device_key(self._device):
            return self._mtu_routes.make_again(key)
        if self._route.link("get", index=self._device)[0]["flags"] & IFF_UP:
            return False
        self._route.link("set", index=self._device, state="up")
        for route in self._mtu_routes.kept():  # they went when it went down
            self._mtu_routes.make_again(route)
        return True
