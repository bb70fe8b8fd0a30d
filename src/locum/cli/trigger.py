"""`locum trigger`: make a stand-in take over a home address, or release it (C8); at any node it lets do so."""

import click

from locum.cli.selector import selector_keys, selector_options
from locum.cli.target import Target, json_option

_PATIENCE = 20.0  # seconds; the stand-in answers when the home agent has switched


@click.command()
@click.argument("operation", type=click.Choice(["take", "release"]))
@click.argument("home_address")
@click.option("--mnps", required=True, metavar="ADDRESS", help="The stand-in that is asked.")
@selector_options
@json_option
@click.pass_obj
def trigger(target: Target, /, operation: str, home_address: str, mnps: str, **options: str | None) -> None:
    """Ask a stand-in to take or release HOME_ADDRESS: all of it, or only the packets that the options describe."""
    result = target.ask(
        "trigger",
        timeout=_PATIENCE,
        operation=operation,
        home_address=home_address,
        mnps=mnps,
        selector=selector_keys(options),
    )
    target.output.done(result, "taken" if operation == "take" else "released")
