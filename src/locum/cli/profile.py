"""`locum profile`: profiles from the policy server, at home agents, access nodes and stand-ins."""

import click

from locum.cli.target import Target, json_option, list_command


@click.group()
def profile() -> None:
    """Profiles of mobile nodes, from the policy server."""


list_command(
    profile,
    "profile list",
    (
        "at",
        "home_address",
        "home_address_v6",
        "nai",
        "pool",
        "default_coa",
        "stand_ins",
        "rules",
        "filter_to",
        "filter_from",
        "paging",
        "control",
        "age",
        "remaining",
    ),
    "Home addresses served because of a profile, or policed by one, and its content.",
)


@profile.command()
@click.argument("home_address", required=False)
@json_option
@click.pass_obj
def refresh(target: Target, home_address: str | None) -> None:
    """Ask the policy server again now, for HOME_ADDRESS or for all."""
    result = target.ask("profile refresh", home_address=home_address)
    target.output.done(result, f"asked for {len(result)}")
