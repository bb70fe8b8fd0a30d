"""`locum binding | tunnel`: where home addresses are bound, and the tunnels that follow from it."""

import click

from locum.cli.target import Target, json_option, list_command


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
        "rules",
        "link",
        "next_hop",
        "remaining",
        "lost",
    ),
    "Home address, care-of addresses, default, those in force, lifetime left.",
)


@binding.command()
@click.argument("home_address")
@click.option(
    "--agent", metavar="ADDRESS", help="Only registrations with this access node, or care-of address."
)
@click.option("--reason", metavar="TEXT", help="Stands in the events of both ends.")
@json_option
@click.pass_obj
def revoke(target: Target, home_address: str, agent: str | None, reason: str | None) -> None:
    """End the registration of HOME_ADDRESS (RFC 3543) and notify the other end of the tunnel at once.

    Asked of a home agent or of an access node. The mobile node may register again.
    """
    result = target.ask("binding revoke", home_address=home_address, agent=agent, reason=reason)
    target.output.done(result, "revoked")


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
