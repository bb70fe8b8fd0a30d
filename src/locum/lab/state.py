"""What a node has, as its operator sees it: to tell whether something changed that should not have."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from locum.lab.world import Lab

LISTS = ("binding list", "session list", "tunnel list")
PASSING = frozenset(
    [
        "remaining",
        "expires",
        "expiry",
        "lifetime",
        "until",
        "packets",
        "bytes",
        "held",
        "total",
        "received",
        "spilled",
        "since",
        "age",
        "time",
        "seconds",
        "renew",
        "identification",
        "deadline",
        "uptime",
    ]
)
"""Words in the names of values that move while nothing changes: what is left of a lifetime, how much was counted."""


def snapshot(lab: Lab, node: str) -> dict[str, list[str]]:
    """Every row of every list of a node, without what moves by itself."""
    return {name: sorted(_lasting(row) for row in lab.ask(node, name)) for name in LISTS}


def _lasting(value: Any) -> str:
    return json.dumps(_strip(value), sort_keys=True)


def _strip(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strip(item) for key, item in value.items() if not _passing(key)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_strip(item) for item in value]
    return value


def _passing(key: str) -> bool:
    return not PASSING.isdisjoint(key.replace("-", "_").split("_"))


def differences(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Rows that are gone and rows that are new, in words."""
    found = []
    for name in before:
        found += [f"{name}: gone {row}" for row in before[name] if row not in after[name]]
        found += [f"{name}: new {row}" for row in after[name] if row not in before[name]]
    return found
