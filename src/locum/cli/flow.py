"""`locum flow`: rules that say which packets of a home address go where."""

from typing import Any

import click

from locum.cli.selector import number_or_text, selector_keys, selector_options
from locum.cli.target import Target, json_option

_COLUMNS = ("home_address", "id", "priority", "owner", "text", "live", "packets", "bytes")
_home_option = click.option(
    "--home-address", metavar="ADDRESS", help="Whose rules, at a home agent that serves several devices."
)


@click.group()
def flow() -> None:
    """Flow rules of a home address: at its home agent, or at the device or stand-in, which registers them."""


@flow.command("list")
@_home_option
@json_option
@click.pass_obj
def flow_list(target: Target, home_address: str | None) -> None:
    """Rules in matching order, with counters. No IP version in "live": nothing is registered for it."""
    target.output.table(target.ask("flow list", **_given(home_address=home_address)), _COLUMNS)


@flow.command("add")
@_home_option
@click.option("--id", "identifier", type=int, metavar="NUMBER", help="Its identifier; without, a free one.")
@click.option(
    "--priority", type=int, metavar="NUMBER", help="The lowest is tried first; a stand-in gives its own."
)
@click.option(
    "--to",
    multiple=True,
    metavar="TARGET",
    help="A binding identifier, mn, mnps, default, or a stand-in's name (at the device the first two); several times: the "
    "first that is there.",
)
@click.option("--share", is_flag=True, help="Share flows among all targets by their weights.")
@click.option("--drop", is_flag=True, help="Drop the packets.")
@click.option(
    "--page", is_flag=True, help="At a home agent: while the device sleeps, page it and hold the packets."
)
@click.option("--hold", is_flag=True, help="At a home agent: while the device sleeps, hold the packets.")
@click.option(
    "--agent", is_flag=True, help="At a home agent: --to an application agent, while the device sleeps."
)
@selector_options
@json_option
@click.pass_obj
def flow_add(
    target: Target,
    /,
    home_address: str | None,
    identifier: int | None,
    priority: int | None,
    to: tuple[str, ...],
    share: bool,
    drop: bool,
    page: bool,
    hold: bool,
    agent: bool,
    **options: str | None,
) -> None:
    """Add a rule; without selector options it takes every packet.

    At a stand-in it leads to the stand-in itself, and identifier and priority are given to it.
    """
    flags = (("drop", drop), ("page", page), ("hold", hold), ("agent", agent))
    chosen = [action for action, flag in flags if flag]
    if (drop or page or hold) and to:
        raise click.UsageError(
            "a rule goes somewhere (--to TARGET), drops (--drop), pages (--page), or holds (--hold)"
        )
    if len(chosen) > 1:
        raise click.UsageError(
            f"a rule has one action, not {' and '.join(f'--{action}' for action in chosen)}"
        )
    rule: dict[str, Any] = {
        "action": chosen[0] if chosen else "forward",
        **({} if agent and not to else {"to": [number_or_text(name) for name in to]}),
        "share": share,
        **_given(id=identifier, priority=priority),
        **selector_keys(options),
    }
    made = target.ask("flow add", timeout=30.0, rule=rule, **_given(home_address=home_address))
    lines = [f"rule {row['id']}: {row['text']}" for row in (made, *made.get("others", ()))]
    target.output.done(made, "\n".join(lines))


@flow.command("remove")
@_home_option
@click.argument("identifier", type=int, metavar="ID")
@json_option
@click.pass_obj
def flow_remove(target: Target, home_address: str | None, identifier: int) -> None:
    """Take the rule ID away."""
    gone = target.ask("flow remove", timeout=30.0, id=identifier, **_given(home_address=home_address))
    target.output.done(gone, f"rule {gone['id']} is gone")


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
