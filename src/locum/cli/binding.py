"""`locum binding | tunnel`: where home addresses are bound, and the tunnels that follow from it."""

import click

from locum.cli.target import list_command


@click.group()
def binding() -> None:
    """Bindings of a home agent, visitors of an access node."""


@click.group()
def tunnel() -> None:
    """Tunnels of the data plane."""


list_command(
    binding,
    "binding list",
    (
        "kind",
        "home_address",
        "home_address_v6",
        "care_of",
        "default_coa",
        "in_force",
        "link",
        "next_hop",
        "remaining",
    ),
    "Home address, care-of addresses, default, what is in force, lifetime left.",
)
list_command(
    tunnel,
    "tunnel list",
    (
        "direction",
        "home_address",
        "peer",
        "source",
        "destination",
        "encapsulation",
        "link",
        "next_hop",
        "packets",
        "bytes",
    ),
    "Tunnels and permissions to decapsulate, with their counters.",
)
