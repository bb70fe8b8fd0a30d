"""`locum context`: an access node's data about devices besides their registrations (C4)."""

import click

from locum.cli.target import list_command


@click.group()
def context() -> None:
    """Contexts of devices at an access node."""


list_command(
    context,
    "context list",
    (
        "home_address",
        "state",
        "registered",
        "blocks",
        "forwarded_to",
        "forwarded_from",
        "waiting",
        "transferring",
    ),
    "Contexts with the versions of their blocks, and packets in flight between access nodes.",
)
