"""`locum doctor`: what is wrong with this host, and what to do about it."""

import sys
from dataclasses import asdict

import click

from locum.cli.target import Target, json_option
from locum.node.exits import Exit
from locum.node.setup.findings import findings
from locum.node.setup.host import SERVER, facts


@click.command()
@click.option("--server", is_flag=True, help=f"Look as at a server, also without {SERVER}.")
@json_option
@click.pass_obj
def doctor(target: Target, server: bool) -> None:
    """Say what is wrong with this host: one line each, with the reason and what to do.

    No node has to run, and nothing is changed. Exit codes: 0 nothing is wrong, 1 something is, 6 nothing was found, but
    something could not be looked at.
    """
    found = findings(facts(server or SERVER.exists()))
    if target.output.json:
        target.output.value([asdict(finding) for finding in found])
    else:
        for finding in found:
            click.echo(str(finding))
        if not found:
            click.echo("nothing is wrong with this host")
    if any(not finding.unknown for finding in found):
        sys.exit(Exit.FAILED)
    if found:
        sys.exit(Exit.PARTIAL)
