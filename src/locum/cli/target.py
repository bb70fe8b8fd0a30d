"""The node that a command talks to, and its output format: options of every command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from locum.cli.output import Output
from locum.node.control.client import NodeClient, NodeUnreachable

RUN_DIR = Path("/run/locum")


class Target:
    """The node that a command talks to, and its output format."""

    def __init__(self, socket: Path | None, json: bool) -> None:
        self._socket = socket
        self.output = Output(json)

    @property
    def named(self) -> Path | None:
        """The control socket that was named, if any."""
        return self._socket

    @property
    def socket(self) -> Path:
        """The socket that was named, or the only one of this host."""
        if self._socket is not None:
            return self._socket
        found = sorted(RUN_DIR.glob("*.sock")) if RUN_DIR.is_dir() else []
        if len(found) == 1:
            return found[0]
        if not found:
            raise NodeUnreachable(f"no node runs here ({RUN_DIR}/*.sock); name one with --socket PATH")
        names = ", ".join(path.stem for path in found)
        raise click.UsageError(f"several nodes run here ({names}); choose one with --node NAME")

    def ask(self, request: str, *, timeout: float = 10.0, **arguments: Any) -> Any:
        """The result of a request to the node; `timeout` in seconds. Raises NodeRefused or NodeUnreachable."""
        with NodeClient(self.socket, timeout) as client:
            return client.request(request, **arguments)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-j` is taken before and after the command's name."""

    def chosen(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_object(Target).output.json = True  # type: ignore[union-attr]

    return click.option(
        "-j", "--json", is_flag=True, expose_value=False, callback=chosen, help="Print JSON."
    )(command)


def list_command(group: click.Group, request: str, columns: tuple[str, ...], text: str) -> None:
    """The verb of an object that shows rows: a request without arguments, whose last word it is, and the displayed columns."""

    @group.command(request.split()[-1], help=text)
    @json_option
    @click.pass_obj
    def show(target: Target) -> None:
        target.output.table(target.ask(request), columns)
