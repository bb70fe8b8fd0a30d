"""`locum location`: locations of devices, at a location server (P6)."""

import click

from locum.cli.target import Target, json_option, list_command

_COLUMNS = (
    "home_address",
    "state",
    "access_node",
    "care_of",
    "node_id",
    "sip_uris",
    "by",
    "remaining",
)


@click.group()
def location() -> None:
    """Locations of devices at a location server."""


list_command(
    location,
    "location list",
    _COLUMNS,
    "Each device: its access node and care-of address, who has said so, and the seconds that are left.",
)


@location.command()
@click.argument("device")
@json_option
@click.pass_obj
def show(target: Target, device: str) -> None:
    """The location of DEVICE: a home address, a node identifier or a SIP URI."""
    found = target.ask("location show", device=device)
    target.output.table(found, (*_COLUMNS, "home_addresses", "way", "reporter", "updated"))
