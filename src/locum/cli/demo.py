"""`locum demo`: Fig. 6 shown live in a terminal, with the facts and the message diagram at the end."""

import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from locum.cli.lab import ready
from locum.lab.errors import Interrupted, LabError
from locum.lab.report.report import Report
from locum.lab.scenario import perform
from locum.lab.scenarios.sleep.fig06 import SIZE, Fig06
from locum.lab.screen import Screen
from locum.node.exits import Exit


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Captures, events, diagram and report go here; files of an earlier demo are replaced.",
)
def demo(output: Path) -> None:
    """Show a device that falls asleep during a download without interrupting it."""
    console = Console()
    ready(console)
    if not _replace(output):
        console.out(f"locum: {output} exists and is not from a demo; give another --output", highlight=False)
        sys.exit(Exit.FAILED)
    console.out("Building the network of Fig. 5 in namespaces and starting the daemons ...", highlight=False)
    screen = Screen(console, SIZE)
    scenario = Fig06(on_download=screen.follow)
    try:
        with screen.live():
            report = perform(scenario, output, listener=screen.happened, watch=screen.watch)
    except LabError as problem:
        console.out(f"locum: {problem}", highlight=False)
        sys.exit(Exit.FAILED)
    except Interrupted as reason:
        shutil.rmtree(output, ignore_errors=True)
        console.out(
            f"locum: {reason}: stopped; everything that the demo had made is removed", highlight=False
        )
        sys.exit(Exit.INTERRUPTED)
    report.write(output / "report.json")
    _show(console, report, output)
    sys.exit(0 if report.ok else Exit.FAILED)


def _replace(output: Path) -> bool:
    """Clear an earlier demo's folder; False when there is something else at this path."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return True
    if not (output / "events").is_dir():
        return False
    shutil.rmtree(output)
    return True


def _show(console: Console, report: Report, output: Path) -> None:
    diagram = report.ladder["text"].read_text()
    if console.width >= max(len(line) for line in diagram.splitlines()):
        console.print(diagram, highlight=False, markup=False)
    report.print(console)
    console.out("\nlook yourself:", highlight=False)
    console.out(f"  messages  {output}/ladder.html (and ladder.txt)", highlight=False)
    console.out(
        f"  packets   {output}/pcap/*.pcap, one a node: tshark -r {output}/pcap/mn.pcap", highlight=False
    )
    console.out(f"  events    {output}/events.jsonl, facts in {output}/report.json", highlight=False)
