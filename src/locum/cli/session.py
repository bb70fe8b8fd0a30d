"""`locum session | sleep | wake`: the live sessions of a device, and their holders."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from locum.cli import fates
from locum.cli.paging import wake_on
from locum.cli.target import Target, json_option, list_command
from locum.node.exits import Exit

_PATIENCE = 3700.0  # seconds; the node itself gives up earlier (sleep_seconds)
_WHERE = ("kind", "at", "flow", "programs", "pids", "reason")
_WOULD = ("fate", "programs", "pids", "flow", "reason")


@click.group()
def session() -> None:
    """Live sessions that are away or held."""


list_command(
    session,
    "session list",
    (
        "kind",
        "at",
        "handover",
        "session",
        "flow",
        "label",
        "programs",
        "state",
        "status",
        "total",
        "spool_disk",
        "bytes_back",
        "peer_closed",
        "error",
        "reason",
    ),
    "Live sessions and where each of them is.",
)


@session.command("drop")
@click.argument("session", required=False, metavar="[HANDOVER[/SESSION]]")
@click.option("--flow", metavar="FLOW", help="One session, as `locum session list` prints it.")
@click.option("--device", metavar="HOME_ADDRESS", help="All sessions of this device.")
@json_option
@click.pass_obj
def drop(target: Target, /, **arguments: Any) -> None:
    """End sessions that a stand-in holds. Their peers are reset; their programs see it when the device is back."""
    if sum(argument is not None for argument in arguments.values()) != 1:
        raise click.UsageError("name a session, or --flow, or --device")
    target.output.table(target.ask("session drop", **_given(**arguments)), ("handover", "session", "flow"))


class Seconds(click.ParamType[float]):
    """A time in seconds that ends."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        with contextlib.suppress(ValueError):
            if 0 < (seconds := float(value)) < float("inf"):
                return seconds
        self.fail(f"{value!r} is no number of seconds above 0", param, ctx)


@click.command()
@click.option("--for", "seconds", type=Seconds(), metavar="SECONDS", help="Wake again after so long.")
@click.option("--to", metavar="MNPS", help="The stand-in, by name or address. Default: the first.")
@click.option(
    "--until", metavar="FORM", help="Be woken by this too, in this sleep alone: a form of `locum wake-on`."
)
@click.option("--dry-run", is_flag=True, help="Show the result for each session; change nothing.")
@json_option
@click.pass_obj
def sleep(target: Target, seconds: float | None, to: str | None, until: str | None, dry_run: bool) -> None:
    """Hand the live sessions to the stand-in. Returns when it has them; on failure nothing has changed.

    Exit code 6: done, but some sessions stayed, or a wish to be woken is not in force.
    """
    wish = None if until is None else wake_on.until(until)
    if dry_run:
        rows = target.ask("sleep dry-run", timeout=_PATIENCE, **_given(to=to))
        target.output.table(rows, _WOULD)
        if rows and not target.output.json:
            click.echo(fates.forecast(rows))
        return
    asked = _given(**{"for": seconds, "to": to, "until": wish})
    _done(target, target.ask("sleep", timeout=_PATIENCE, **asked), "asleep")


def _done(target: Target, result: Mapping[str, Any], word: str) -> None:
    """Say how each session fared; ends the program if not all did as they should."""
    report = result.get("report")
    if report is None or target.output.json:
        target.output.done(result, word)
    else:
        for line in (fates.summary(word, report), *fates.details(report), *wake_on.watched(result)):
            click.echo(line)
    if word == "awake" and result.get("woken_by") and not target.output.json:
        click.echo(f"  woken by {result['woken_by']}")
    if (report is not None and fates.amiss(report)) or wake_on.amiss(result):
        sys.exit(Exit.PARTIAL)


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Options that select sessions."""
    for option in (
        click.option("--flow", metavar="FLOW", help="One session, as `locum session list` prints it."),
        click.option("--pid", type=click.IntRange(min=1), help="Sessions of this process."),
        click.option("--peer", metavar="ADDRESS", help="Sessions with this correspondent."),
        click.option("--port", type=click.IntRange(1, 65535), help="Sessions with this port at either end."),
    ):
        command = option(command)
    return command


def _given(**arguments: Any) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}


@click.command()
@_selecting
@click.option("--to", metavar="MNPS", help="The stand-in, by name or address. Default: the first.")
@json_option
@click.pass_obj
def give(target: Target, /, **arguments: Any) -> None:
    """Hand some sessions to a stand-in and stay awake. All sessions of their programs go along.

    Exit code 6: done, but some sessions stayed.
    """
    rows = target.ask("give", timeout=_PATIENCE, **_given(**arguments))
    target.output.table(rows, _WHERE)
    if any(row["kind"] == "stays" for row in rows):
        sys.exit(Exit.PARTIAL)


@click.command()
@_selecting
@json_option
@click.pass_obj
def take(target: Target, /, **arguments: Any) -> None:
    """Take given sessions back, with all that was given together with them. Without options: every one."""
    target.output.table(target.ask("take", timeout=_PATIENCE, **_given(**arguments)), _WHERE)


@click.command()
@click.option(
    "--to", required=True, metavar="AGENT|LINK", help="An access node's address, or a link it is heard on."
)
@json_option
@click.pass_obj
def move(target: Target, to: str) -> None:
    """Change the access node in good order: context and packets are there before the device is. Returns when it is."""
    target.output.done(target.ask("move", timeout=_PATIENCE, to=to), "moved")


@click.command()
@click.option(
    "--abandon", is_flag=True, help="Give them up instead: connections are reset, programs run at once."
)
@json_option
@click.pass_obj
def wake(target: Target, abandon: bool) -> None:
    """Take the live sessions back. Returns when the programs have them and run.

    Exit code 6: done, but some sessions were lost.
    """
    arguments = {"abandon": True} if abandon else {}
    result = target.ask("wake", timeout=_PATIENCE, **arguments)
    _done(target, result, "awake")
