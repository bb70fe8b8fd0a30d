"""Commands that ask a running node over its control socket."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click

from locum.cli import tables
from locum.node.client import NodeClient, NodeUnreachable

RUN_DIRECTORY = Path("/run/locum")
SLEEP_PATIENCE = 120.0
"""Seconds for a hand-over in either direction: a slow link may carry many megabytes back."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which node is meant, and how its answers are shown."""

    name: str | None
    socket: Path | None
    as_json: bool

    @property
    def path(self) -> Path:
        """The control socket. Without a name or a path it is the only one there is. Raises NodeUnreachable."""
        if self.name is not None:
            return RUN_DIRECTORY / f"{self.name}.sock"
        if self.socket is not None:
            return self.socket
        found = sorted(RUN_DIRECTORY.glob("*.sock")) if RUN_DIRECTORY.is_dir() else []
        if len(found) == 1:
            return found[0]
        if not found:
            raise NodeUnreachable(
                f"no node runs here: no socket in {RUN_DIRECTORY}; name one with --socket PATH"
            )
        names = ", ".join(path.stem for path in found)
        raise NodeUnreachable(f"several nodes run here ({names}); choose one with --node NAME")

    @contextmanager
    def client(self, timeout: float | None = 10.0) -> Iterator[NodeClient]:
        """A conversation with the node; `timeout` in seconds bounds each wait."""
        with NodeClient(self.path, timeout) as client:
            yield client

    def show(self, result: Any, show: Callable[[Any], None]) -> None:
        """Print a result, as JSON or for people."""
        if self.as_json:
            click.echo(json.dumps(result, indent=2))
        else:
            show(result)


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """Give the command its Target; `-j` may also stand behind the command's name."""

    @click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_obj
    def command(target: Target, /, as_json: bool, **arguments: Any) -> None:
        function(replace(target, as_json=target.as_json or as_json), **arguments)

    return update_wrapper(command, function)


def listing(group: str, what: str) -> click.Group:
    """`locum GROUP list`."""

    @click.group(group, help=what[0].upper() + what[1:] + ".")
    def objects() -> None:
        pass

    @objects.command("list", help=f"List {what}.")
    @asks
    def list_objects(target: Target) -> None:
        with target.client() as client:
            rows = client.request(f"{group} list")
        target.show(rows, lambda rows: tables.rows(rows, group))

    return objects


@click.command("status")
@asks
def status(target: Target) -> None:
    """Show the roles of the node and how each of them is."""
    with target.client() as client:
        target.show(client.request("status"), tables.tree)


@click.command("counters")
@click.option("--prometheus", is_flag=True, help="Print Prometheus' text format.")
@asks
def counters(target: Target, prometheus: bool) -> None:
    """Show every counter; drops and refusals with their reasons."""
    with target.client() as client:
        groups = client.request("counters")
        name = client.request("status").get("name", "") if prometheus else ""
    if prometheus:
        from locum.node.events import prometheus_text

        click.echo(prometheus_text(name, groups), nl=False)
    else:
        target.show(groups, tables.groups)


@click.command("sleep")
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="Wake again after SECONDS."
)
@asks
def sleep(target: Target, seconds: float | None) -> None:
    """Hand the open sessions over to the stand-in; returns when the device may lose its link."""
    arguments = {} if seconds is None else {"for": seconds}
    with target.client(SLEEP_PATIENCE) as client:
        target.show(client.request("sleep", **arguments), tables.tree)


@click.command("wake")
@asks
def wake(target: Target) -> None:
    """Take the sessions back; returns when the programs have them."""
    with target.client(SLEEP_PATIENCE) as client:
        target.show(client.request("wake"), tables.tree)


@click.command("monitor")
@asks
def monitor(target: Target) -> None:
    """Show events as they happen, until Ctrl-C."""
    with target.client() as client:
        try:
            for event in client.events():
                click.echo(json.dumps(event) if target.as_json else tables.event_line(event))
        except KeyboardInterrupt:
            return


COMMANDS: tuple[click.Command, ...] = (
    status,
    listing("binding", "the bindings and visitors of the node"),
    listing("session", "the live sessions, and where each of them is"),
    listing("tunnel", "the tunnels of the data plane, with their counters"),
    counters,
    sleep,
    wake,
    monitor,
)
