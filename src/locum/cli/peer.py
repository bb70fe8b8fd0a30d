"""`locum peer`: the nodes that this one has an association with."""

import click

from locum.cli.target import list_command


@click.group()
def peer() -> None:
    """Associations with other nodes."""


list_command(
    peer,
    "peer list",
    (
        "kind",
        "address",
        "name",
        "home_address",
        "speaks_for",
        "may_trigger",
        "spi",
        "algorithm",
        "replay",
        "last_heard",
        "asked",
        "failed",
        "received",
    ),
    "Peers without their keys: home addresses that each may speak for, time of its last message, requests in both "
    "directions, failures.",
)
