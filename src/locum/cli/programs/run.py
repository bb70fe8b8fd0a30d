"""`locum run`: a command whose packets have the home address, or go around it."""

import json
import os
import socket
import sys
from pathlib import Path

import click

from locum.cli.target import RUN_DIR, Target
from locum.node.control.client import NodeRefused, NodeUnreachable
from locum.node.exits import Exit

_SUFFIX = ".run"
_PATIENCE = 10.0  # seconds


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--around", is_flag=True, help="Go by the visited network, not by the home address.")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED, required=True)
@click.pass_obj
def run(target: Target, around: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND so that its connections have the home address: they outlive moves and sleep.

    With --around its packets go by the network that the device visits, such as to a captive portal. Needs no root: user,
    environment, terminal and exit code are those of COMMAND, which takes the place of this process. Children belong to it.
    """
    if command[0].startswith("-"):
        raise click.UsageError(f"{command[0]!r} is no option of locum run; write COMMAND behind --")
    _ask(_socket(target), around=around)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        click.echo(f"locum: {command[0]}: {problem.strerror}", err=True)
        code = Exit.COMMAND_MISSING if isinstance(problem, FileNotFoundError) else Exit.COMMAND_DENIED
        sys.exit(code)


def _socket(target: Target) -> Path:
    """The socket that was named, or the only one of this host."""
    if target.named is not None:
        return target.named.with_suffix(_SUFFIX)
    found = sorted(RUN_DIR.glob(f"*{_SUFFIX}")) if RUN_DIR.is_dir() else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise NodeUnreachable(f"no device's node runs here ({RUN_DIR}/*{_SUFFIX}); name one with --node NAME")
    names = ", ".join(path.stem for path in found)
    raise click.UsageError(f"several nodes run here ({names}); choose one with --node NAME")


def _ask(path: Path, *, around: bool) -> None:
    """Have this process put into its group. Raises NodeRefused or NodeUnreachable."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_PATIENCE)
        try:
            asking.connect(str(path))
            asking.sendall(json.dumps({"around": around}).encode() + b"\n")
            with asking.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else "no answer"
            raise NodeUnreachable(
                f"{path}: no device's node answers ({reason}); is `locum node run` running?"
            ) from None
    if not answer.get("ok"):
        raise NodeRefused(str(answer.get("error", "refused without a reason")))
