"""`locum page`: page a sleeping device, and see the pages of a home agent."""

import sys

import click

from locum.cli.target import Target, json_option
from locum.node.exits import Exit

_PATIENCE = 1300.0  # seconds; a page has an outcome before
_COLUMNS = (
    "home_address",
    "state",
    "cause",
    "rule",
    "access_node",
    "answered_by",
    "seconds",
    "attempts",
    "folded",
)


class _PageGroup(click.Group):
    """`locum page MN` pages; `locum page list` lists."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command with that name, or `now` for an address."""
        if args and args[0] not in self.commands:
            args = ["now", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_PageGroup, subcommand_metavar="HOME_ADDRESS | list")
def page() -> None:
    """At a home agent: page the sleeping device HOME_ADDRESS and wait for the outcome, or list pages."""


@page.command("now", hidden=True)
@click.argument("home_address")
@json_option
@click.pass_obj
def page_now(target: Target, home_address: str) -> None:
    """Page the device; returns when it is awake, or the page has failed."""
    result = target.ask("page", timeout=_PATIENCE, home_address=home_address)
    why = f": {result['reason']}" if result["reason"] else ""
    target.output.done(result, f"{result['state']} after {result['seconds']} s{why}")
    if result["state"] != "reached":
        sys.exit(Exit.FAILED)


@page.command("list")
@json_option
@click.pass_obj
def page_list(target: Target) -> None:
    """Pages in progress, and the last one of each device."""
    target.output.table(target.ask("page list"), _COLUMNS)
