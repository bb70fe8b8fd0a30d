"""The `locum` command: objects and verbs, like `ip`. Each object is a module of its own, imported when it is asked for.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no node answers, 4 wrong configuration, 5 missing privilege,
6 done, but some sessions stayed or were lost, a wish is not in force, or files are missing.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import click

from locum.cli.target import RUN_DIR, Target
from locum.node.control.client import NodeRefused, NodeUnreachable
from locum.node.exits import Exit

_COMMANDS = {
    "accept": "locum.cli.app:accept",
    "app": "locum.cli.app:app",
    "binding": "locum.cli.binding:binding",
    "config": "locum.cli.node:config_group",
    "context": "locum.cli.context:context",
    "counters": "locum.cli.node:counters",
    "demo": "locum.cli.demo:demo",
    "event": "locum.cli.paging.event:event",
    "doctor": "locum.cli.setup.doctor:doctor",
    "explain": "locum.cli.explain:explain",
    "flow": "locum.cli.flow:flow",
    "filter": "locum.cli.filter:filter_group",
    "give": "locum.cli.session:give",
    "group": "locum.cli.translation:group",
    "lab": "locum.cli.lab:lab",
    "location": "locum.cli.paging.location:location",
    "monitor": "locum.cli.node:monitor",
    "move": "locum.cli.session:move",
    "node": "locum.cli.node:node_group",
    "order": "locum.cli.orders.commands:order",
    "page": "locum.cli.paging.page:page",
    "peer": "locum.cli.peer:peer",
    "profile": "locum.cli.profile:profile",
    "run": "locum.cli.programs.run:run",
    "session": "locum.cli.session:session",
    "shutdown": "locum.cli.node:shutdown",
    "sleep": "locum.cli.session:sleep",
    "status": "locum.cli.node:status",
    "take": "locum.cli.session:take",
    "translation": "locum.cli.translation:translation",
    "trigger": "locum.cli.trigger:trigger",
    "tunnel": "locum.cli.binding:tunnel",
    "wake": "locum.cli.session:wake",
    "wake-on": "locum.cli.paging.wake_on:wake_on",
}


class Commands(click.Group):
    """Commands of other modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as problem:
            raise click.ClickException(f"locum {cmd_name} needs the Python package {problem.name}") from None
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--node", metavar="NAME", help="The node of that name on this host.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path, readable=False),
    envvar="LOCUM_SOCKET",
    help="Its control socket. [LOCUM_SOCKET]",
)
@click.option("-j", "--json", is_flag=True, help="Print JSON.")
@click.version_option(package_name="locum")
@click.pass_context
def cli(ctx: click.Context, node: str | None, socket: Path | None, json: bool) -> None:
    """Locum keeps a device's place on the network while the device sleeps.

    Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no node answers, 4 wrong configuration, 5 missing privilege,
    6 done, but some sessions stayed or were lost, a wish is not in force, or files are missing.
    """
    if node is not None:
        socket = RUN_DIR / f"{node}.sock"
    ctx.obj = Target(socket, json)


def main() -> None:
    """The console script."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(Exit.INTERRUPTED)
    except click.UsageError as problem:
        problem.show()
        sys.exit(Exit.USAGE)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except NodeRefused as problem:
        click.echo(f"locum: {problem}", err=True)
        sys.exit(Exit.FAILED)
    except NodeUnreachable as problem:
        click.echo(f"locum: {problem}", err=True)
        sys.exit(Exit.UNREACHABLE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
        sys.exit(Exit.FAILED)


if __name__ == "__main__":
    main()
