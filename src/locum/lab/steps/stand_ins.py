"""Lab configuration of stand-ins that register (Figs. 7, 8 and 10), or share a host.

It knows the file format as an operator does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Pair, Table
from locum.lab.network.topology import figure_5

_TOPOLOGY = figure_5(("mnps2",))
_FIRST_SPI = 1100


@dataclass(frozen=True, slots=True)
class Registering:
    """A stand-in with a binding identifier. `colocated`: its care-of address is its own (R9). `at`: its daemon's node."""

    at: str
    bid: int
    colocated: bool = False

    @property
    def address(self) -> str:
        return str(_TOPOLOGY.address4(self.at))

    @property
    def address6(self) -> str:
        return str(_TOPOLOGY.address6(self.at))

    @property
    def secret(self) -> str:
        return f"key:{self.at}-ha-{self.bid}"

    @property
    def spi(self) -> int:
        return _FIRST_SPI + self.bid

    def own(self) -> Table:
        """Its table [mnps], in addition to the lab's usual one."""
        device: Table = {
            "home_address": str(HOME_ADDRESS4),
            "home_address_v6": str(HOME_ADDRESS6),
            "spi": self.spi,
            "key_file": self.secret,
            "bid": self.bid,
        }
        return {
            "mode": "register",
            "register_via": "colocated" if self.colocated else "fa",
            "home_agent": str(_TOPOLOGY.address4("ha")),
            "lifetime": 60,
            "mobile": [device],
        }


def registering(*stand_ins: Registering) -> Mapping[str, Table]:
    """`Plan.tables` for these: at the home agent, at each of them, at the device."""
    known: list[Table] = [
        {
            "name": f"at-{stand_in.at}",
            "address": stand_in.address,
            "address_v6": stand_in.address6,
            "spi": stand_in.spi,
            "key_file": stand_in.secret,
        }
        for stand_in in stand_ins
    ]
    names: list[Table] = [{"name": stand_in.at, "address": stand_in.address} for stand_in in stand_ins]
    tables: dict[str, Table] = {
        "ha": {"home_agent": {"mobile": {"stand_in": known}}},
        "mn": {"mobile_node": {"stand_in": names}},
    }
    for stand_in in stand_ins:
        tables[stand_in.at] = {**tables.get(stand_in.at, {}), "mnps": stand_in.own()}
    return tables


def bound_in_advance(at: str) -> Mapping[str, Table]:
    """`Plan.tables` for the one stand-in of the lab, by default care-of address, on its access node's host (R17)."""
    address, address6 = str(_TOPOLOGY.address4(at)), str(_TOPOLOGY.address6(at))
    wired = at == "an3"
    link = "wire0" if wired else "radio0"
    static: Table = {
        "home_address": str(HOME_ADDRESS4),
        "home_address_v6": str(HOME_ADDRESS6),
        "home_agent": str(_TOPOLOGY.address4("ha")),
        "link": link,
        "next_hop": address,
        "next_hop_v6": address6,
    }
    known: Table = {
        "default_coa": str(_TOPOLOGY.address4(at, link)),
        "mnps": address,
        "mnps_v6": address6,
    }
    return {
        "ha": {"home_agent": {"mobile": known}},
        at: {"mnps": {}, "foreign_agent": {"static": static if wired else [static]}},
        "mn": {"mobile_node": {"mnps": address}},
    }


def further(*nodes: str) -> tuple[Pair, ...]:
    """The associations of the device with further stand-ins."""
    return tuple(Pair("mn", node) for node in nodes)
