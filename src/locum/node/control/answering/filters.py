"""Requests about filters of the data plane: `locum filter list` (features R20, P16)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from locum.node.config.rule_text import selector_fields

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

Row = dict[str, Any]


def filter_list(node: "NodeView", arguments: Mapping[str, Any]) -> list[Row]:
    """Every rule of every filter in the order in which they are matched, with its counters; the rest is rule 0."""
    rows: list[Row] = []
    for entry in node.plane.state.filters.values():
        counters = node.plane.filter_counters(entry.home_address, entry.place)
        decisions = [
            (rule.identifier, rule.verdict, selector_fields((rule.selector,))) for rule in entry.rules
        ]
        for identifier, verdict, selector in [*decisions, (0, entry.otherwise, {})]:
            counter = counters.get(identifier)
            rows.append(
                {
                    "home_address": str(entry.home_address),
                    "place": entry.place.value,
                    "id": identifier,
                    "action": verdict.value,
                    "selector": selector,
                    "packets": counter.packets if counter else 0,
                    "bytes": counter.bytes if counter else 0,
                }
            )
    return rows
