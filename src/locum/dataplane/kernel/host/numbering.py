"""The number of a node among those of its network namespace: its tables, marks and rules contain it.

An alternative name of the re-injection device claims a number. The kernel allows each name once in a namespace, keeps it
with the device when a daemon dies, and drops it with the device.
"""

import errno
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.dataplane.kernel.libbpf import DataPlaneError

NUMBERS = 32  # so that tables of hosts and those of tunnels stay apart; see `node/host/network.py`
_CLAIM = "locum-node-"
_PREFIX = "lc-"  # of re-injection devices


def claim(route: IPRoute, index: int) -> int:
    """The number of the node whose re-injection device has this index, claimed now if it has none.

    Raises DataPlaneError where every number is taken.
    """
    devices = list(_devices(route))
    numbers = {device["index"]: _number(device) for device in devices}
    mine = numbers.pop(index, None)
    if mine is not None:
        return mine
    # A device without a number belongs to a daemon of an earlier version, whose number is 0.
    first = 1 if None in numbers.values() else 0
    for number in range(first, NUMBERS):
        try:
            route.link("property_add", index=index, altname=f"{_CLAIM}{number}")
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                continue
            if error.code in (errno.EOPNOTSUPP, errno.EINVAL):  # before Linux 5.5
                return first
            raise
        return number
    raise DataPlaneError(f"{NUMBERS} nodes run in this network namespace already: no more can")


def others(route: IPRoute, index: int) -> list[str]:
    """Names of the re-injection devices of other nodes in the namespace; `index` is that of one's own."""
    return [device.get_attr("IFLA_IFNAME") for device in _devices(route) if device["index"] != index]


def _devices(route: IPRoute) -> Iterator[Any]:
    for link in route.get_links():
        if link.get_attr("IFLA_IFNAME", "").startswith(_PREFIX):
            yield link


def _number(link: Any) -> int | None:
    names = link.get_attr("IFLA_PROP_LIST")
    for name in names.get_attrs("IFLA_ALT_IFNAME") if names is not None else ():
        if name.startswith(_CLAIM) and name[len(_CLAIM) :].isdigit():
            return int(name[len(_CLAIM) :])
    return None
