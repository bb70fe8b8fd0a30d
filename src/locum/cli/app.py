"""`locum app` and `locum accept`: application proxies at a stand-in, and connections that they opened for a device (A1, A11)."""

import os
import socket

import click

from locum.cli.target import Target, json_option, list_command
from locum.node.control.client import NodeClient
from locum.node.exits import Exit

_FIRST_SOCKET = 3  # the first inherited descriptor (sd_listen_fds(3))
_COLUMNS = (
    "app",
    "kind",
    "device",
    "state",
    "sessions",
    "events",
    "spoken",
    "restarts",
    "pid",
    "memory",
    "problem",
)


@click.group()
def app() -> None:
    """Application proxies that work for sleeping devices at a stand-in."""


list_command(
    app, "app kinds", ("kind", "origin", "problem"), "Kinds of proxies that a device can order here."
)


@app.command("list")
@json_option
@click.pass_obj
def list_(target: Target) -> None:
    """Proxies that run, and those that failed; then kinds that cannot be loaded, with the reason."""
    target.output.table(target.ask("app list"), _COLUMNS)
    if target.output.json:
        return
    for kind in target.ask("app kinds"):
        if kind["problem"]:
            text = f"kind {kind['kind']} ({kind['origin']}) cannot be loaded: {kind['problem']}"
            click.echo(text, err=True)


def _device(function: click.decorators.FC) -> click.decorators.FC:
    option = click.option(
        "--device", metavar="HOME_ADDRESS", help="Where several devices have a proxy of that name."
    )
    return option(function)


@app.command()
@click.argument("name", metavar="APP")
@_device
@json_option
@click.pass_obj
def show(target: Target, name: str, device: str | None) -> None:
    """One proxy, its settings, and how far it is with each session."""
    target.output.record(target.ask("app show", app=name, device=device))


@app.command()
@click.argument("name", metavar="APP")
@_device
@json_option
@click.pass_obj
def log(target: Target, name: str, device: str | None) -> None:
    """The last lines of one proxy."""
    said = target.ask("app log", app=name, device=device)
    if target.output.json:
        target.output.value(said)
        return
    for line in said["lines"]:
        click.echo(line)


class _WithProgram(click.Command):
    """A command whose arguments are those before --; the program's words stand behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            return super().parse_args(ctx, args)
        place = args.index("--")
        program = args[place + 1 :]
        rest = super().parse_args(ctx, args[:place])
        if ctx.params["command"]:
            raise click.UsageError(
                f"{ctx.params['command'][0]!r} stands before --; only LABEL and options do", ctx
            )
        ctx.params["command"] = tuple(program)
        return rest


@click.command(cls=_WithProgram)
@click.argument("label", metavar="[LABEL]", required=False)
@click.option("--wait", is_flag=True, help="Wait for a connection, also over a sleep and a wake.")
@click.option(
    "--socket", "inherited", is_flag=True, help="Give it as descriptor 3, as systemd does (LISTEN_FDS)."
)
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def accept(target: Target, label: str | None, wait: bool, inherited: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND with the connection that waits under LABEL as its standard input and output.

    A proxy opened the connection from the home address while the device slept, and handed it over. Without LABEL it is the one
    that has waited longest, whatever its label, which is printed. Write LABEL and options before --, and COMMAND behind it.
    """
    if not command:
        raise click.UsageError("COMMAND is missing; write it behind --")
    with NodeClient(target.socket, None) as client:
        connection, answer = client.request_socket("accept", label=label, wait=wait)
    if label is None:
        others = f"; others wait: {', '.join(answer['others'])}" if answer["others"] else ""
        click.echo(f"locum: {answer['label']} ({answer['flow']}){others}", err=True)
    os.environ["LOCUM_LABEL"] = answer["label"]
    _run(connection, command, inherited=inherited)


def _run(connection: socket.socket, command: tuple[str, ...], *, inherited: bool) -> None:
    """Become the program. The connection ends if it cannot be run."""
    if inherited:
        os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        _give(connection, _FIRST_SOCKET)
    else:
        _give(connection, 0)
        _give(connection, 1)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        click.echo(f"locum: {command[0]}: {problem.strerror}", err=True)
        raise click.exceptions.Exit(Exit.FAILED) from None


def _give(connection: socket.socket, descriptor: int) -> None:
    if connection.fileno() == descriptor:
        os.set_inheritable(descriptor, True)
    else:
        os.dup2(connection.fileno(), descriptor)
