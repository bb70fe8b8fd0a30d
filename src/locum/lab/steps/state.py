"""A node's state, as its operator sees it and as a restart finds it: did anything change?

`snapshot` has the state that survives a restart, `everything` the state that must not move at all: all lists and every row of
the store. The store has the state that an accepted replay would change: identifications, expiry times, OSCORE windows and sequence
numbers; and the version of a row goes up whenever it is written, also with what it had before.
"""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from ipaddress import IPv4Address
from typing import Any

from locum.lab.errors import LabError
from locum.lab.world import Lab

LASTING: Mapping[str, frozenset[str]] = {
    "binding list": frozenset(("remaining",)),  # counts down; the store has when it ends
    "session list": frozenset(("total", "spool_disk")),  # a download goes on at the stand-in
    "tunnel list": frozenset(("packets", "bytes")),
}
"""Lists that a restart leaves unchanged, and their fields that change by themselves."""
PRESENT: Mapping[str, frozenset[str]] = {
    "flow list": frozenset(("packets", "bytes")),
    "filter list": frozenset(("packets", "bytes")),
    "translation list": frozenset(("packets_towards", "bytes_towards", "packets_back", "bytes_back")),
    "context list": frozenset(),
    "profile list": frozenset(),
    # An age, and requests of before whose time is over now: `asked` counts new ones, `received` messages of others.
    "peer list": frozenset(("last_heard", "failed")),
    "status": frozenset(),
}
"""The other lists."""
WINDOWS = "oscore"
"""The collection of the store that has the windows and sequence numbers of control associations."""


def snapshot(lab: Lab, node: str) -> dict[str, list[str]]:
    """Bindings, sessions and tunnels of a node."""
    return _lists(lab, node, LASTING, None)


def everything(lab: Lab, node: str, attacker: IPv4Address) -> dict[str, list[str]]:
    """Every row of every list and of the store of a node.

    The attacker is a member with associations of its own: that it spoke by them is all that may be seen of it.
    """
    lists = _lists(lab, node, {**LASTING, **PRESENT}, attacker)
    return {**lists, "store": _store(lab, node, attacker)}


def _lists(
    lab: Lab, node: str, moving: Mapping[str, frozenset[str]], attacker: IPv4Address | None
) -> dict[str, list[str]]:
    found = {name: _list(lab, node, name, words, attacker) for name, words in moving.items()}
    return {name: rows for name, rows in found.items() if rows is not None}


def _list(
    lab: Lab, node: str, name: str, moving: frozenset[str], attacker: IPv4Address | None
) -> list[str] | None:
    """The rows of a list; None when a node of this sort has no such list."""
    try:
        found = lab.ask(node, name)
    except LabError:
        return None
    rows = found if isinstance(found, list) else [found]
    return sorted(json.dumps(_strip(row, moving, attacker), sort_keys=True) for row in rows)


def _strip(value: Any, moving: frozenset[str], attacker: IPv4Address | None) -> Any:
    if isinstance(value, Mapping):
        if value.get("kind") == "control" and value.get("address") == str(attacker):
            moving |= {"received"}
        return {key: _strip(item, moving, attacker) for key, item in value.items() if key not in moving}
    if isinstance(value, list):
        return [_strip(item, moving, attacker) for item in value]
    return value


def _store(lab: Lab, node: str, attacker: IPv4Address) -> list[str]:
    """Every committed row of the node's database, but the window of an association with the attacker."""
    (file,) = (lab.place.path / "state" / node).glob("*.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT collection, key, value, version FROM entry").fetchall()
    own = f"-{attacker}"
    return sorted(json.dumps(row) for row in rows if not (row[0] == WINDOWS and row[1].endswith(own)))


def differences(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Removed rows and new rows, in words."""
    found = []
    for name in before.keys() | after.keys():
        earlier, later = before.get(name, []), after.get(name, [])
        found += [f"{name}: gone {row}" for row in earlier if row not in later]
        found += [f"{name}: new {row}" for row in later if row not in earlier]
    return found
