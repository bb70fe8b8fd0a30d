"""`locum node | config | status | counters | monitor | shutdown`: the node as a whole."""

import sys
from pathlib import Path

import click

from locum.cli.paging.event_lines import sentence
from locum.cli.target import Target, json_option
from locum.node.control.client import NodeClient
from locum.node.exits import Exit


@click.group("node")
def node_group() -> None:
    """Run a node."""


@node_group.command("run")
@click.argument("config", type=click.Path(path_type=Path))
def node_run(config: Path) -> None:
    """Run the node of a configuration file in the foreground; SIGTERM leaves the network as it was found."""
    from locum.node.daemon import run

    sys.exit(run(config))


@node_group.command("check")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@json_option
@click.pass_obj
def node_check(target: Target, config: Path | None) -> None:
    """Look for settings of the host that eat the node's packets, and print the command that ends each.

    Asks the running node; with CONFIG the host is examined without it. Exit code 1 if there are any.
    """
    found = target.ask("node check") if config is None else _examine(config)
    if found or target.output.json:
        target.output.table(found, ("where", "problem", "remedy"))
    else:
        click.echo("nothing in the way")
    sys.exit(Exit.FAILED if found else Exit.DONE)


def _examine(config: Path) -> list[dict[str, str]]:
    """Obstacles to the node of a configuration file."""
    import asyncio

    from locum.node.config.load import ConfigError, load
    from locum.node.host.obstacles import examine
    from locum.node.host.surroundings import said

    try:
        settings = load(config)
    except ConfigError as problem:
        click.echo(f"locum: {problem}", err=True)
        sys.exit(Exit.CONFIG)
    return [said(obstacle) for obstacle in asyncio.run(examine(settings))]


@click.group("config")
def config_group() -> None:
    """Look at configuration files."""


@config_group.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def config_check(target: Target, config: Path) -> None:
    """Read a configuration and report errors: file, table and key."""
    from locum.node.config.load import ConfigError, load

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
        checked = {"ok": True, "node": settings.node.name, "roles": list(settings.roles)}
        target.output.value({**checked, "warnings": list(settings.warnings)})
    else:
        for warning in settings.warnings:
            click.echo(f"locum: warning: {warning}", err=True)
        click.echo(f"{config}: {settings.node.name}: {', '.join(settings.roles)}")


@click.command()
@json_option
@click.pass_obj
def status(target: Target) -> None:
    """Roles of the node and how it is."""
    target.output.record(target.ask("status"))


@click.command()
@click.option("--prometheus", is_flag=True, help="Print Prometheus' text format.")
@json_option
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


@click.command()
@json_option
@click.pass_obj
def monitor(target: Target) -> None:
    """Events as they happen, until Ctrl-C."""
    with NodeClient(target.socket) as client:
        try:
            for event in client.events():
                target.output.event(event, sentence(event))
        except KeyboardInterrupt:
            return


@click.command()
@json_option
@click.pass_obj
def shutdown(target: Target) -> None:
    """End the node; the network is left as it was found."""
    target.output.done(target.ask("shutdown"), "stopping")
