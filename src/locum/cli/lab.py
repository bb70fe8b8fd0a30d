"""`locum lab list | run | shell | down`: scenarios in network namespaces, with measured facts."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from locum.lab import preflight
from locum.lab.errors import Interrupted, LabError
from locum.lab.place import LabPlace
from locum.lab.scenario import Scenario, perform
from locum.lab.scenarios import SCENARIOS
from locum.lab.timeline import Event
from locum.node.exits import Exit


def ready(console: Console) -> None:
    """Exit with one clear line when this machine cannot run a lab."""
    try:
        preflight.check()
    except preflight.MissingPrivilege as problem:
        console.out(f"locum: {problem}", highlight=False)
        sys.exit(Exit.PRIVILEGE)
    except LabError as problem:
        console.out(f"locum: {problem}", highlight=False)
        sys.exit(Exit.FAILED)


@click.group()
def lab() -> None:
    """Play the scenarios of the source text with real daemons, and measure what happened."""


@lab.command("list")
def list_scenarios() -> None:
    """Scenarios, and labs that stand on this machine."""
    console = Console()
    table = Table("scenario", "what it shows", box=None, padding=(0, 2, 0, 0))
    for name, scenario in SCENARIOS.items():
        table.add_row(name, scenario.title)
    console.print(table)
    for place in LabPlace.all():
        owner = place.owner_alive()
        state = f"running, pid {owner}" if owner else "standing; `locum lab down` removes it"
        console.out(f"lab {place.identity}: {place.scenario}, {state}", highlight=False)


@lab.command("run")
@click.argument("name", metavar="NAME", type=click.Choice(sorted(SCENARIOS)))
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here, as JSON."
)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Captures, events and logs go here."
)
@click.option("--keep", is_flag=True, help="Leave the lab standing, for `locum lab shell`.")
def run_scenario(name: str, report: Path | None, output: Path | None, keep: bool) -> None:
    """Build the lab, play scenario NAME, check what was measured."""
    console = Console(stderr=True)
    ready(console)
    folder = output or Path("lab-output") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    begin = time.time()

    def tell(event: Event) -> None:
        detail = " ".join(f"{key}={value}" for key, value in event.detail.items())
        console.out(f"{event.time - begin:7.2f}  {event.kind.replace('-', ' ')} {detail}", highlight=False)

    scenario: Scenario = SCENARIOS[name]()
    existed = folder.exists()
    try:
        result = perform(scenario, folder, keep=keep, listener=tell)
    except LabError as problem:
        console.out(f"locum: {problem}", highlight=False)
        sys.exit(Exit.FAILED)
    except Interrupted as reason:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        console.out(f"locum: {reason}: stopped; everything that the lab had made is removed", highlight=False)
        sys.exit(Exit.INTERRUPTED)
    result.print(Console())
    if report is not None:
        result.write(report)
    result.write(folder / "report.json")
    console.out(f"evidence: {folder}/ (pcap, events.jsonl, ladder.html, report.json)", highlight=False)
    sys.exit(0 if result.ok else Exit.FAILED)


@lab.command("shell", context_settings={"ignore_unknown_options": True})
@click.option("--lab", "identity", help="Which lab; the latest if there are several.")
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(node: str, identity: str | None, command: tuple[str, ...]) -> None:
    """A shell (or COMMAND) in the network namespace of NODE of a lab that stands or runs."""
    console = Console(stderr=True)
    ready(console)
    places = [place for place in LabPlace.all() if identity in (None, place.identity)]
    if not places:
        console.out("locum: no lab stands; start one with `locum lab run NAME --keep`", highlight=False)
        sys.exit(Exit.FAILED)
    place = places[-1]
    if not place.namespace_path(node).exists():
        names = ", ".join(path.name.rpartition("-")[2] for path in place.namespaces())
        console.out(f"locum: lab {place.identity} has no node {node!r}; it has {names}", highlight=False)
        sys.exit(2)
    environment = {**os.environ, "LOCUM_SOCKET": str(place.path / "run" / f"{node}.sock"), "PS1": f"{node}# "}
    words = list(command) or ["bash", "--norc"]
    os.execvpe("nsenter", ["nsenter", f"--net={place.namespace_path(node)}", "--", *words], environment)


@lab.command("down")
@click.option("--all", "everything", is_flag=True, help="Stop labs that are running as well.")
def down(everything: bool) -> None:
    """Remove labs that were kept, and what a run left that was killed."""
    console = Console()
    ready(console)
    for place in LabPlace.all():
        owner = place.owner_alive()
        if owner is not None and not everything:
            console.out(f"lab {place.identity} is running (pid {owner}): left alone", highlight=False)
            continue
        if owner is not None:
            _stop_owner(place, owner)
        scenario_name = place.scenario
        place.remove()
        console.out(f"lab {place.identity} ({scenario_name}) removed", highlight=False)


def _stop_owner(place: LabPlace, owner: int, patience: float = 30.0) -> None:
    """Ask a running lab to take itself down; it has `patience` seconds."""
    os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while place.owner_alive() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
