"""Writes the configuration file and the secrets of every daemon of a lab; all keys are new with every run.

It knows the file format as an operator does and nothing of the code that reads it.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from locum.lab.place import LabPlace
from locum.lab.topology import HOME_NETWORK4, HOME_NETWORK6, Topology

Value = str | int | float | bool | Sequence[str]
Table = Mapping[str, "Value | Table | Sequence[Table]"]

HOME_ADDRESS4 = IPv4Address("10.10.100.4")
HOME_ADDRESS6 = IPv6Address("2001:db8:100::4")
OTHER_ADDRESS4 = IPv4Address("10.10.100.5")
"""A second mobile node that the home agent knows: the stranger has its keys."""

DAEMONS = ("ha", "an1", "an2", "an3", "mnps", "mn")
"""In the order in which they are started."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scenario may want otherwise. Times in seconds, sizes in bytes."""

    mode: str = "fa"
    lifetime: int = 300
    short_lifetime: int = 10
    memory_bound: int = 64 << 20
    disk_bound: int = 4 << 30
    default_coa: bool = True
    other_mobile: bool = False
    """The stranger's host is a mobile node itself, registered for OTHER_ADDRESS4 with a co-located CoA."""

    @property
    def daemons(self) -> tuple[str, ...]:
        """The nodes that run a daemon, in the order in which they are started."""
        return (*DAEMONS, "evil") if self.other_mobile else DAEMONS


def to_toml(tables: Table) -> str:
    """TOML of nested tables and lists of tables. Strings are JSON strings, which TOML's basic strings contain."""
    lines: list[str] = []

    def emit(name: str, table: Table) -> None:
        below = {key: value for key, value in table.items() if isinstance(value, Mapping) or is_tables(value)}
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in below)
        for key, value in below.items():
            path = f"{name}.{key}" if name else key
            if isinstance(value, Mapping):
                lines.extend(["", f"[{path}]"])
                emit(path, value)
            elif isinstance(value, Sequence):
                for item in value:
                    lines.extend(["", f"[[{path}]]"])
                    assert isinstance(item, Mapping)
                    emit(path, item)

    emit("", tables)
    return "\n".join(lines) + "\n"


def is_tables(value: object) -> bool:
    return (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )


class Configuration:
    """The files of one lab below <lab>/config/: <node>.toml and keys/."""

    def __init__(self, place: LabPlace, topology: Topology, plan: Plan, output: Path) -> None:
        self.place = place
        self.topology = topology
        self.plan = plan
        self.output = output
        self.folder = place.path / "config"

    def file(self, node: str) -> Path:
        return self.folder / f"{node}.toml"

    def events(self, node: str) -> Path:
        """The event stream of a daemon, JSON lines."""
        return self.output / "events" / f"{node}.jsonl"

    def socket(self, node: str) -> Path:
        return self.place.path / "run" / f"{node}.sock"

    @property
    def holder(self) -> Path:
        """The socket of the process that keeps the stand-in's connections while its daemon is dead."""
        return self.place.path / "run" / "holder.sock"

    def write(self) -> None:
        (self.folder / "keys").mkdir(parents=True, mode=0o700)
        (self.place.path / "run").mkdir(exist_ok=True)
        (self.output / "events").mkdir(parents=True, exist_ok=True)
        for name in (
            "mn-ha",
            "other-ha",
            "an1-ha",
            "an2-ha",
            "mn-mnps",
            "other-mnps",
            "an3-mnps",
            "an1-mn",
            "an2-mn",
        ):
            self._secret(name)
        for node in self.plan.daemons:
            self.file(node).write_text(to_toml(self._tables(node)))

    def key(self, name: str) -> Path:
        return self.folder / "keys" / f"{name}.hex"

    def _secret(self, name: str) -> None:
        path = self.key(name)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16) + "\n")

    def _tables(self, node: str) -> Table:
        roles: dict[str, Table] = {}
        if node == "ha":
            roles["home_agent"] = self._home_agent()
        elif node == "mnps":
            roles["mnps"] = self._mnps()
        elif node == "mn":
            roles["mobile_node"] = self._mobile_node()
        elif node == "evil":
            roles["mobile_node"] = self._other_mobile()
        else:
            roles["foreign_agent"] = self._foreign_agent(node)
        control: Table = {} if node in ("ha", "evil") else {"control": self._control(node)}
        return {"node": self._node(node), **control, **roles}

    def _node(self, node: str) -> Table:
        state = self.place.path / "state" / node
        state.mkdir(parents=True, exist_ok=True)
        return {
            "name": node,
            "interfaces": self.topology.interfaces(node),
            "state_dir": str(state),
            "run_dir": str(self.place.path / "run"),
            "bpf_dir": str(self.place.bpf_root),
            "log_events": str(self.events(node)),
        }

    def _home_agent(self) -> Table:
        known: list[Table] = [
            {
                "home_address": str(HOME_ADDRESS4),
                "home_address_v6": str(HOME_ADDRESS6),
                "spi": 1000,
                "key_file": str(self.key("mn-ha")),
                **self._default_coa(),
            },
            {"home_address": str(OTHER_ADDRESS4), "spi": 1001, "key_file": str(self.key("other-ha"))},
        ]
        agents: list[Table] = [
            {"address": str(self.care_of(name)), "spi": 2000 + index, "key_file": str(self.key(f"{name}-ha"))}
            for index, name in enumerate(("an1", "an2"))
        ]
        return {
            "address": str(self.topology.address4("ha")),
            "home_prefixes": [str(HOME_NETWORK4), str(HOME_NETWORK6)],
            "short_lifetime": self.plan.short_lifetime,
            "mobile": known,
            "foreign_agent": agents,
        }

    def _default_coa(self) -> Table:
        if not self.plan.default_coa:
            return {}
        return {
            "default_coa": str(self.care_of("an3")),
            "mnps": str(self.topology.address4("mnps")),
            "mnps_v6": str(self.topology.address6("mnps")),
        }

    def care_of(self, access_node: str) -> IPv4Address:
        """The care-of address that an access node offers: that of its access link."""
        return self.topology.address4(access_node, "wire0" if access_node == "an3" else "radio0")

    def _foreign_agent(self, node: str) -> Table:
        ha, mnps = self.topology.address4("ha"), self.topology
        common: Table = {
            "care_of_address": str(self.care_of(node)),
            "advertise_interval": 0.5,
            "short_lifetime": self.plan.short_lifetime,
        }
        if node == "an3":
            visitor: Table = {
                "home_address": str(HOME_ADDRESS4),
                "home_address_v6": str(HOME_ADDRESS6),
                "home_agent": str(ha),
                "link": "wire0",
                "next_hop": str(mnps.address4("mnps")),
                "next_hop_v6": str(mnps.address6("mnps")),
            }
            return {**common, "links": ["wire0"], "static": [visitor]}
        agent: Table = {
            "address": str(ha),
            "spi": 2000 + ("an1", "an2").index(node),
            "key_file": str(self.key(f"{node}-ha")),
        }
        return {**common, "links": ["radio0"], "home_agent": [agent]}

    def _mobile_node(self) -> Table:
        return {
            "home_address": str(HOME_ADDRESS4),
            "home_address_v6": str(HOME_ADDRESS6),
            "home_agent": str(self.topology.address4("ha")),
            "links": ["radio0"] if self.plan.mode == "colocated" else ["radio0", "radio1"],
            "mode": self.plan.mode,
            "lifetime": self.plan.lifetime,
            "brief_lifetime": self.plan.short_lifetime,
            "spi": 1000,
            "key_file": str(self.key("mn-ha")),
            "mnps": str(self.topology.address4("mnps")),
        }

    def _other_mobile(self) -> Table:
        return {
            "home_address": str(OTHER_ADDRESS4),
            "home_agent": str(self.topology.address4("ha")),
            "links": ["eth0"],
            "mode": "colocated",
            "spi": 1001,
            "key_file": str(self.key("other-ha")),
        }

    def _mnps(self) -> Table:
        return {
            "address": str(self.topology.address4("mnps")),
            "address_v6": str(self.topology.address6("mnps")),
            "access_node": str(self.care_of("an3")),
            "home_prefixes": [str(HOME_NETWORK4), str(HOME_NETWORK6)],
            "links": ["eth0"],
            "memory_bound": self.plan.memory_bound,
            "disk_bound": self.plan.disk_bound,
            "spool_dir": str(self.place.path / "state" / "mnps" / "spool"),
            "holder": str(self.holder),
        }

    def _control(self, node: str) -> Table:
        """Both ends of every association are drawn from one list, so that they cannot disagree."""
        own = {"mn": HOME_ADDRESS4, "mnps": self.topology.address4("mnps"), "other": OTHER_ADDRESS4}
        ends = {
            name: own.get(name) or self.care_of(name) for name in ("mn", "mnps", "an1", "an2", "an3", "other")
        }
        speaks_for = {"mn": [str(HOME_ADDRESS4), str(HOME_ADDRESS6)], "other": [str(OTHER_ADDRESS4)]}
        associations: list[Table] = []
        pairs = (("mn", "mnps"), ("other", "mnps"), ("an3", "mnps"), ("an1", "mn"), ("an2", "mn"))
        for number, (near, far) in enumerate(pairs, 1):
            identifiers = {near: f"{number:02x}01", far: f"{number:02x}02"}
            for self_name, peer in ((near, far), (far, near)):
                if self_name == node:
                    associations.append(
                        {
                            "peer": str(ends[peer]),
                            "sender_id": identifiers[node],
                            "recipient_id": identifiers[peer],
                            "secret_file": str(self.key(f"{near}-{far}")),
                            "home_addresses": speaks_for.get(peer, speaks_for["mn"]),
                        }
                    )
        return {"address": str(ends[node]), "association": associations}
