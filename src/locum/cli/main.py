"""The `locum` command: objects and verbs, like `ip`. Everything heavy is imported by the command that needs it.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no node answers, 4 wrong configuration, 5 missing privilege.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from locum.cli.output import Output
from locum.node.client import NodeClient, NodeRefused, NodeUnreachable
from locum.node.exits import Exit

_RUN_DIR = Path("/run/locum")
_SLEEP_PATIENCE = 3700.0  # seconds; the node itself gives up earlier (sleep_seconds)
_LAZY = {"lab": "locum.cli.lab:lab", "demo": "locum.cli.demo:demo"}


class Commands(click.Group):
    """Commands of other modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _LAZY:
            module, name = _LAZY[cmd_name].split(":")
            try:
                command: click.Command = getattr(import_module(module), name)
            except ModuleNotFoundError as problem:
                raise click.ClickException(
                    f"locum {cmd_name} needs the Python package {problem.name}"
                ) from None
            return command
        return super().get_command(ctx, cmd_name)


class Target:
    """Which node a command talks to, and how it prints."""

    def __init__(self, socket: Path | None, json: bool) -> None:
        self._socket = socket
        self.output = Output(json)

    @property
    def socket(self) -> Path:
        """The socket that was named, or the only one of this host."""
        if self._socket is not None:
            return self._socket
        found = sorted(_RUN_DIR.glob("*.sock")) if _RUN_DIR.is_dir() else []
        if len(found) == 1:
            return found[0]
        if not found:
            raise NodeUnreachable(f"no node runs here ({_RUN_DIR}/*.sock); name one with --socket PATH")
        names = ", ".join(path.stem for path in found)
        raise click.UsageError(f"several nodes run here ({names}); choose one with --node NAME")

    def ask(self, request: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
        """The result of a request to the node."""
        with NodeClient(self.socket, timeout) as client:
            return client.request(request, **arguments)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-j` is taken before and after the command's name."""

    def chosen(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_object(Target).output.json = True  # type: ignore[union-attr]

    return click.option(
        "-j", "--json", is_flag=True, expose_value=False, callback=chosen, help="Print JSON."
    )(command)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--node", metavar="NAME", help="The node of that name on this host.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="LOCUM_SOCKET",
    help="Its control socket. [LOCUM_SOCKET]",
)
@click.option("-j", "--json", is_flag=True, help="Print JSON.")
@click.version_option(package_name="locum")
@click.pass_context
def cli(ctx: click.Context, node: str | None, socket: Path | None, json: bool) -> None:
    """Locum keeps a device's place on the network while the device sleeps.

    Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no node answers, 4 wrong configuration, 5 missing privilege.
    """
    if node is not None:
        socket = _RUN_DIR / f"{node}.sock"
    ctx.obj = Target(socket, json)


@cli.group("node")
def node_group() -> None:
    """Run a node."""


@node_group.command("run")
@click.argument("config", type=click.Path(path_type=Path))
def node_run(config: Path) -> None:
    """Run the node of a configuration file in the foreground; SIGTERM leaves the network as it was found."""
    from locum.node.daemon import run

    sys.exit(run(config))


@cli.group("config")
def config_group() -> None:
    """Look at configuration files."""


@config_group.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@_json_option
@click.pass_obj
def config_check(target: Target, config: Path) -> None:
    """Read a configuration; say what is wrong with it: file, table and key."""
    from locum.node.config import ConfigError, load

    try:
        settings = load(config)
    except ConfigError as problem:
        if target.output.json:
            target.output.value(
                {"ok": False, "file": problem.file, "table": problem.table, "key": problem.key,
                 "problem": problem.problem}
            )  # fmt: skip
        else:
            click.echo(f"locum: {problem}", err=True)
        sys.exit(Exit.CONFIG)
    if target.output.json:
        target.output.value({"ok": True, "node": settings.node.name, "roles": list(settings.roles)})
    else:
        click.echo(f"{config}: {settings.node.name}: {', '.join(settings.roles)}")


@cli.command()
@_json_option
@click.pass_obj
def status(target: Target) -> None:
    """Roles of the node and how it is."""
    target.output.record(target.ask("status"))


def _list_command(group: click.Group, request: str, columns: tuple[str, ...], text: str) -> None:
    @group.command("list", help=text)
    @_json_option
    @click.pass_obj
    def show(target: Target) -> None:
        target.output.table(target.ask(request), columns)


@cli.group()
def binding() -> None:
    """Bindings of a home agent, visitors of an access node."""


@cli.group()
def session() -> None:
    """Live sessions that are away or held."""


@cli.group()
def tunnel() -> None:
    """Tunnels of the data plane."""


_list_command(
    binding,
    "binding list",
    (
        "kind",
        "home_address",
        "home_address_v6",
        "care_of",
        "default_coa",
        "in_force",
        "link",
        "next_hop",
        "remaining",
    ),
    "Home address, care-of addresses, default, what is in force, lifetime left.",
)
_list_command(
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
_list_command(
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


@cli.command()
@click.option("--prometheus", is_flag=True, help="Print Prometheus' text format.")
@_json_option
@click.pass_obj
def counters(target: Target, prometheus: bool) -> None:
    """Every counter; drops and refusals with their reasons."""
    if prometheus:
        click.echo(target.ask("counters", format="prometheus"), nl=False)
        return
    groups = target.ask("counters")
    if target.output.json:
        target.output.value(groups)
        return
    rows = [
        {"group": group, "name": name, "count": count}
        for group in groups
        for name, count in groups[group].items()
    ]
    target.output.table(rows, ("group", "name", "count"))


@cli.command()
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="Wake again after SECONDS."
)
@_json_option
@click.pass_obj
def sleep(target: Target, seconds: float | None) -> None:
    """Hand the live sessions to the stand-in. Returns when it has them; on failure nothing has changed."""
    arguments = {} if seconds is None else {"for": seconds}
    result = target.ask("sleep", timeout=_SLEEP_PATIENCE, **arguments)
    target.output.done(result, "asleep")


@cli.command()
@_json_option
@click.pass_obj
def wake(target: Target) -> None:
    """Take the live sessions back. Returns when the programs have them and run."""
    target.output.done(target.ask("wake", timeout=_SLEEP_PATIENCE), "awake")


@cli.command()
@_json_option
@click.pass_obj
def monitor(target: Target) -> None:
    """Events as they happen, until Ctrl-C."""
    with NodeClient(target.socket) as client:
        try:
            for event in client.events():
                target.output.event(event)
        except KeyboardInterrupt:
            return


@cli.command()
@_json_option
@click.pass_obj
def shutdown(target: Target) -> None:
    """End the node; the network is left as it was found."""
    target.output.done(target.ask("shutdown"), "stopping")


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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more
        sys.exit(Exit.FAILED)


if __name__ == "__main__":
    main()
