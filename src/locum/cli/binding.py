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


@binding.command("forget-identification")
@click.argument("home_address", required=False)
@click.option("--all", "everything", is_flag=True, help="Of every home address.")
@json_option
@click.pass_obj
def forget_identification(target: Target, home_address: str | None, everything: bool) -> None:
    """Forget registration times of HOME_ADDRESS that lie in the future (RFC 5944 section 5.7.1).

    For a home agent whose clock was ahead. Requests that somebody has recorded meanwhile can be sent again when the
    clock comes there: give the devices new keys first, or make sure that nobody has.
    """
    if (home_address is None) is not everything:
        raise click.UsageError("name one home address, or --all")
    result = target.ask("binding forget-identification", home_address=home_address, all=everything)
    target.output.done(result, "forgotten")


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
