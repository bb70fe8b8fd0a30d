"""The requests that a node answers over CoAP: the path of each, and the roles that answer.

A path has its resource at the end point because it has a row here. Knows no message and no end point.
"""

from collections.abc import Mapping

SERVED: Mapping[str, tuple[str, ...]] = {
    "1135": ("location",),
    "1170": ("foreign_agent",),
    "1172": ("home_agent",),
    "1172a": ("foreign_agent",),
    "1204": ("home_agent",),
    "1206": ("mnps",),
    "1208": ("home_agent",),
    "1210": ("home_agent", "foreign_agent"),
    "1212": ("location",),
    "618": ("mobile_node", "mnps"),
    "622": ("foreign_agent",),
    "624": ("foreign_agent",),
    "634": ("mnps",),
    "order": ("mnps",),
    "trigger": ("mnps",),
}
"""Roles by path; the first that this host plays answers."""
