"""`locum filter`: filters for visitors and for programs of a stand-in."""

import click

from locum.cli.target import list_command


@click.group("filter")
def filter_group() -> None:
    """Filters of visitors at an access node, and of packets that a stand-in's programs send."""


list_command(
    filter_group,
    "filter list",
    ("home_address", "place", "id", "action", "selector", "packets", "bytes"),
    "Rules of every filter in their order, with counts of packets; 0 counts packets that matched no rule.",
)
