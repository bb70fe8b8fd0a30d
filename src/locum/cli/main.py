"""The `locum` command: objects and verbs like `ip`. Clients of a node's control socket, the lab, and the node itself.

What a command needs is imported when it runs: `locum wake` has to start at once.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from locum import __version__
from locum.cli import nodes
from locum.cli.exits import Exit
from locum.node.client import NodeRefused, NodeUnreachable

ELSEWHERE = {"lab": "locum.cli.lab:lab", "demo": "locum.cli.demo:demo"}
"""Commands that bring much with them: name -> module and attribute."""


class Commands(click.Group):
    """The commands; those of `ELSEWHERE` are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = ELSEWHERE[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--node", "name", metavar="NAME", help="Talk to the node of this name (socket /run/locum/NAME.sock)."
)
@click.option(
    "--socket", type=click.Path(path_type=Path), envvar="LOCUM_SOCKET", help="Talk to this control socket."
)
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@click.version_option(__version__, prog_name="locum")
@click.pass_context
def cli(ctx: click.Context, name: str | None, socket: Path | None, as_json: bool) -> None:
    """Keep a device's place on the network while it sleeps or is out of reach.

    \b
    Exit codes: 0 done, 1 it was tried and failed, 2 wrong usage, 3 no node answers,
    4 the configuration is wrong, 5 a privilege is missing.
    """
    ctx.obj = nodes.Target(name, socket, as_json)


@cli.group()
def node() -> None:
    """Run a node on this host."""


@node.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def node_run(config: Path, verbose: bool) -> None:
    """Run the node that CONFIG describes, in the foreground, until SIGTERM."""
    from locum.node.daemon import run

    sys.exit(run(config, verbose=verbose))


@cli.group()
def config() -> None:
    """Look at configuration files."""


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def config_check(file: Path) -> None:
    """Read FILE as a node would, and name the first thing that is wrong."""
    from locum.node.config import ConfigError, load

    try:
        loaded = load(file)
    except ConfigError as problem:
        fail(str(problem), Exit.CONFIG)
    click.echo(f"{file}: node {loaded.node.name}: {', '.join(loaded.roles)}")


for command in nodes.COMMANDS:
    cli.add_command(command)


def fail(reason: str, code: Exit) -> NoReturn:
    """End with one line for a person."""
    click.echo(f"locum: {reason}", err=True)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point. Every foreseeable failure is one line and a documented exit code."""
    try:
        return cli.main(args=arguments, prog_name="locum", standalone_mode=True)
    except NodeUnreachable as problem:
        fail(str(problem), Exit.UNREACHABLE)
    except NodeRefused as problem:
        fail(str(problem), Exit.FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)


if __name__ == "__main__":
    main()
