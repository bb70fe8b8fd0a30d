"""`locum session | sleep | wake`: the live sessions of a device, and who has them."""

import click

from locum.cli.target import Target, json_option, list_command

_PATIENCE = 3700.0  # seconds; the node itself gives up earlier (sleep_seconds)


@click.group()
def session() -> None:
    """Live sessions that are away or held."""


list_command(
    session,
    "session list",
    (
        "kind",
        "session",
        "flow",
        "state",
        "status",
        "total",
        "spool_disk",
        "bytes_back",
        "peer_closed",
        "error",
    ),
    "Live sessions and where each of them is.",
)


@click.command()
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="Wake again after SECONDS."
)
@json_option
@click.pass_obj
def sleep(target: Target, seconds: float | None) -> None:
    """Hand the live sessions to the stand-in. Returns when it has them; on failure nothing has changed."""
    arguments = {} if seconds is None else {"for": seconds}
    result = target.ask("sleep", timeout=_PATIENCE, **arguments)
    target.output.done(result, "asleep")


@click.command()
@json_option
@click.pass_obj
def wake(target: Target) -> None:
    """Take the live sessions back. Returns when the programs have them and run."""
    target.output.done(target.ask("wake", timeout=_PATIENCE), "awake")
