"""Writes the configuration file and the secrets of every daemon of a lab; all keys are new with every run.

It knows the file format as an operator does and nothing of the code that reads it.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from locum.lab.network.place import LabPlace
from locum.lab.network.topology import HOME_NETWORK4, HOME_NETWORK6, RENTED, Topology
from locum.lab.patience import patient

Value = str | int | float | bool | Sequence[str] | Sequence[int] | None
Table = Mapping[str, "Value | Table | Sequence[Table]"]

HOME_ADDRESS4 = IPv4Address("10.10.100.4")
HOME_ADDRESS6 = IPv6Address("2001:db8:100::4")
OTHER_ADDRESS4 = IPv4Address("10.10.100.5")
"""A second mobile node that the home agent knows: the stranger has its keys."""

SLEEP_SECONDS = 30.0
"""The bound on a whole hand-over that `locum` has by itself; the lab's patience is a factor on it."""
STAND_INS = ("mnps", "mnps2")
ACCESS_NODES = ("an1", "an2", "an3")
DAEMONS = ("ha", "an1", "an2", "an3", "mnps", "mn")
"""In the order in which they are started."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A control association of two nodes, with the additional keys of each, such as `home_addresses`."""

    near: str
    far: str
    at_near: Table = field(default_factory=dict)
    at_far: Table = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of a scenario. Times in seconds, sizes in bytes."""

    mode: str = "fa"
    lifetime: int = 300
    short_lifetime: int = 10
    memory_bound: int = 64 << 20
    disk_bound: int = 4 << 30
    default_coa: bool = True
    other_mobile: bool = False
    """The stranger's host is a mobile node itself, registered for OTHER_ADDRESS4 with a co-located CoA."""
    extras: tuple[str, ...] = ()
    """Further parts of the topology (`topology.EXTRAS`)."""
    domains: int = 1
    """Addressing domains, 1 to 3 (R18)."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """Additional configuration of each node; see `merged`. A value "key:NAME" becomes a secret's path."""
    associations: tuple[Pair, ...] = ()
    """Control associations besides those that every lab has."""
    routers: tuple[str, ...] = ()
    """Access nodes that are only routers here: without a daemon and without associations."""
    network: str = "figure 5"
    """Or `topology.RENTED`, in which commands of the scenario start the daemons."""
    machines: tuple[str, ...] = ()
    """Nodes with files of their own, as fresh machines have them (`lab/network/machines.py`)."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Kinds of application proxies that are installed in this lab alone, with the class of each (MODULE:CLASS)."""

    @property
    def daemons(self) -> tuple[str, ...]:
        """The nodes that run a daemon, in the order in which they are started."""
        if self.network == RENTED:
            return ()
        second = ("mnps2",) if "mnps2" in self.extras else ()
        more = tuple(node for node in self.tables if node not in (*DAEMONS, "mnps2", "evil"))
        found = (*DAEMONS[:-1], *second, *more, DAEMONS[-1], *(("evil",) if self.other_mobile else ()))
        return tuple(node for node in found if node not in self.routers)


PAIRS = (Pair("mn", "mnps"), Pair("other", "mnps"), Pair("an3", "mnps"), Pair("an1", "mn"), Pair("an2", "mn"))
"""The control associations that every lab has."""


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


def merged(table: Table, other: Table) -> Table:
    """A table with another one's entries: tables are merged, lists of tables get longer, all else is replaced.

    None values of another remove the key.

    A table for a key that has a list of tables is merged into the first of the list.
    """
    result = dict(table)
    for key, value in other.items():
        if value is None:
            result.pop(key, None)
            continue
        held = result.get(key)
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            result[key] = merged(held, value)
        elif isinstance(value, Mapping) and isinstance(held, list | tuple) and is_tables(held):
            first = held[0]
            assert isinstance(first, Mapping)
            result[key] = [merged(first, value), *held[1:]]
        elif is_tables(value) and isinstance(value, list | tuple) and isinstance(held, list | tuple):
            result[key] = [*held, *value]
        else:
            result[key] = value
    return result


class Configuration:
    """The files of one lab below <lab>/config/: <node>.toml and keys/."""

    def __init__(self, place: LabPlace, topology: Topology, plan: Plan, output: Path) -> None:
        self.place = place
        self.topology = topology
        self.plan = plan
        self.output = output
        self.folder = place.path / "config"
        self._written: set[str] = set()

    def file(self, node: str) -> Path:
        return self.folder / f"{node}.toml"

    def events(self, node: str) -> Path:
        """The event stream of a daemon, JSON lines."""
        return self.output / "events" / f"{node}.jsonl"

    def socket(self, node: str) -> Path:
        return self.place.path / "run" / f"{node}.sock"

    def holder(self, node: str) -> Path:
        """The socket of the process that keeps a stand-in's connections while its daemon is dead."""
        return self.place.path / "run" / f"{node}-holder.sock"

    def has_stand_in(self, node: str) -> bool:
        """True if a node's daemon is a stand-in, perhaps among other roles."""
        return node in self.plan.daemons and (node in STAND_INS or "mnps" in self.plan.tables.get(node, {}))

    def environment(self) -> dict[str, str]:
        """Additional variables of the daemons: where the kinds of proxies of this lab are installed."""
        if not self.plan.kinds:
            return {}
        found = [str(self.folder / "kinds"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(found)}

    def _install_kinds(self) -> None:
        """Write what an installed package has for its entry points, without the package."""
        information = self.folder / "kinds" / "lab_kinds-1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab_kinds\nVersion: 1\n")
        lines = [f"{kind} = {place}" for kind, place in self.plan.kinds.items()]
        (information / "entry_points.txt").write_text("\n".join(["[locum.apps]", *lines, ""]))

    def write(self) -> None:
        (self.folder / "keys").mkdir(parents=True, mode=0o700)
        (self.place.path / "run").mkdir(exist_ok=True)
        (self.output / "events").mkdir(parents=True, exist_ok=True)
        if self.plan.kinds:
            self._install_kinds()
        for node in self.plan.daemons:
            tables = merged(self._tables(node), self.plan.tables.get(node, {}))
            self.file(node).write_text(to_toml(self._with_keys(tables)))

    def key(self, name: str) -> Path:
        """The file of a secret, made when it is asked for first."""
        path = self.folder / "keys" / f"{name}.hex"
        if name not in self._written:
            self._written.add(name)
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16) + "\n")
        return path

    def _with_keys(self, table: Table) -> Table:
        """The table with the path of a secret for every "key:NAME"."""
        result: dict[str, Value | Table | Sequence[Table]] = {}
        for name, value in table.items():
            if isinstance(value, str) and value.startswith("key:"):
                result[name] = str(self.key(value[4:]))
            elif isinstance(value, Mapping):
                result[name] = self._with_keys(value)
            elif isinstance(value, list | tuple) and is_tables(value):
                result[name] = [self._with_keys(item) for item in value if isinstance(item, Mapping)]
            else:
                result[name] = value
        return result

    def _tables(self, node: str) -> Table:
        roles: dict[str, Table] = {}
        if node == "ha":
            roles["home_agent"] = self._home_agent()
        elif node in STAND_INS:
            roles["mnps"] = self._mnps(node)
        elif node == "mn":
            roles["mobile_node"] = self._mobile_node()
        elif node == "evil":
            roles["mobile_node"] = self._other_mobile()
        elif node in ACCESS_NODES:
            roles["foreign_agent"] = self._foreign_agent(node)
        if (
            self.has_stand_in(node) and node not in STAND_INS
        ):  # beside the roles that the node has anyway (R17)
            at = self.care_of(node) if node in ACCESS_NODES else self._end(node)
            roles["mnps"] = {**self._mnps(node), "access_node": str(at)}
        associations = self._associations(node)
        control: Table = {"control": {"address": str(self._end(node)), "association": associations}}
        return {"node": self._node(node), **(control if associations else {}), **roles}

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
            "sleep_seconds": patient(SLEEP_SECONDS),
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

    def _mnps(self, node: str) -> Table:
        return {
            "address": str(self._end(node)),
            "address_v6": str(self.topology.address6(node)),
            "access_node": str(self.care_of("an3")),
            "home_prefixes": [str(HOME_NETWORK4), str(HOME_NETWORK6)],
            "links": self.topology.interfaces(node),
            "memory_bound": self.plan.memory_bound,
            "disk_bound": self.plan.disk_bound,
            "spool_dir": str(self.place.path / "state" / node / "spool"),
            "holder": str(self.holder(node)),
        }

    def _end(self, node: str) -> IPv4Address:
        """The address of a node's control messages; a stand-in's own, which on an access node is not the care-of address."""
        homes = {"mn": HOME_ADDRESS4, "other": OTHER_ADDRESS4}
        if node in ACCESS_NODES and not self.has_stand_in(node):
            return self.care_of(node)
        return homes.get(node) or self.topology.address4(node)

    def _associations(self, node: str) -> list[Table]:
        """Both ends of every association are drawn from one list, so that they cannot disagree."""
        speaks_for = {"other": [str(OTHER_ADDRESS4)]}
        everything = [str(HOME_ADDRESS4), str(HOME_ADDRESS6)]
        associations: list[Table] = []
        for number, pair in enumerate((*PAIRS, *self.plan.associations), 1):
            if pair.near in self.plan.routers or pair.far in self.plan.routers:
                continue
            identifiers = {pair.near: f"{number:02x}01", pair.far: f"{number:02x}02"}
            ends = ((pair.near, pair.far, pair.at_near), (pair.far, pair.near, pair.at_far))
            for own, peer, options in ends:
                if own == node:
                    associations.append(
                        {
                            "peer": str(self._end(peer)),
                            "sender_id": identifiers[own],
                            "recipient_id": identifiers[peer],
                            "secret_file": str(self.key(f"{pair.near}-{pair.far}")),
                            "home_addresses": speaks_for.get(peer, everything),
                            **options,
                        }
                    )
        return associations
