"""`locum lab list | run | shell | down`: scenarios in network namespaces, with measured facts."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from locum.cli.target import Target, json_option
from locum.lab import preflight
from locum.lab.errors import Interrupted, LabError
from locum.lab.network.place import LabPlace
from locum.lab.report.report import Report, cleared
from locum.lab.scenario import Scenario, perform
from locum.lab.scenarios import SCENARIOS
from locum.lab.timeline import Event
from locum.node.exits import Exit

ANOTHER_USERS = "another user's"


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
@click.pass_context
def lab(ctx: click.Context) -> None:
    """Play the scenarios of the source text with real daemons, and measure the results."""
    if ctx.obj is None:  # started by itself, not as a command of `locum`
        ctx.obj = Target(None, False)


@lab.command("list")
@json_option
@click.pass_obj
def list_scenarios(target: Target) -> None:
    """Scenarios, and labs that stand on this machine."""
    if target.output.json:
        scenarios = [{"name": name, "title": scenario.title} for name, scenario in SCENARIOS.items()]
        target.output.value({"scenarios": scenarios, "labs": [_described(place) for place in LabPlace.all()]})
        return
    console = Console()
    table = Table("scenario", "purpose", box=None, padding=(0, 2, 0, 0))
    for name, scenario in SCENARIOS.items():
        table.add_row(name, scenario.title)
    console.print(table)
    for place in LabPlace.all():
        found = _described(place)
        if found["state"] == ANOTHER_USERS:
            console.out(f"lab {place.identity}: {ANOTHER_USERS}", highlight=False)
            continue
        running = found["state"] == "running"
        state = f"running, pid {found['pid']}" if running else "standing; `locum lab down` removes it"
        console.out(f"lab {place.identity}: {found['scenario']}, {state}", highlight=False)


def _described(place: LabPlace) -> dict[str, Any]:
    """A lab as JSON: "running" belongs to a process, "standing" was kept or left."""
    if place.another_users:
        return {"lab": place.identity, "state": ANOTHER_USERS, "scenario": None, "pid": None}
    owner = place.owner_alive()
    state = "standing" if owner is None else "running"
    return {"lab": place.identity, "state": state, "scenario": place.scenario, "pid": owner}


@lab.command("run")
@click.argument("name", metavar="NAME", type=click.Choice(sorted(SCENARIOS)))
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here, as JSON."
)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Captures, events and logs go here."
)
@click.option("--keep", is_flag=True, help="Leave the lab standing, for `locum lab shell`.")
@json_option
@click.pass_obj
def run_scenario(target: Target, name: str, report: Path | None, output: Path | None, keep: bool) -> None:
    """Build the lab, play scenario NAME, check the measurements.

    The report is printed, and written to report.json in the output folder.
    """
    console = Console(stderr=True)
    ready(console)
    folder = output or Path("lab-output") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    existed = folder.exists()
    if report is not None:
        _prove_writable(console, report, "--report")
    if not cleared(folder):
        console.out(f"locum: {folder} exists and has no earlier run; give another --output", highlight=False)
        sys.exit(Exit.FAILED)
    _prove_writable(console, folder / "report.json", "--output")
    begin = time.time()

    def tell(event: Event) -> None:
        detail = " ".join(f"{key}={value}" for key, value in event.detail.items())
        console.out(f"{event.time - begin:7.2f}  {event.kind.replace('-', ' ')} {detail}", highlight=False)

    scenario: Scenario = SCENARIOS[name]()
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
    written = [_write(console, result, file) for file in (folder / "report.json", report) if file is not None]
    if target.output.json:
        target.output.value(result.as_json())
    else:
        result.print(Console())
    console.out(f"evidence: {folder}/ (pcap, events.jsonl, ladder.html, report.json)", highlight=False)
    sys.exit(0 if result.ok and all(written) else Exit.FAILED)


def _prove_writable(console: Console, file: Path, option: str) -> None:
    """Exit with one clear line, before anything is built, when a file could not be written at the end."""
    existed = file.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            pass
        if not existed:
            file.unlink()
    except OSError as problem:
        console.out(f"locum: {option}: {file} cannot be written: {problem.strerror}", highlight=False)
        sys.exit(Exit.FAILED)


def _write(console: Console, result: Report, file: Path) -> bool:
    """Write the report; if the disk is full, print an error and still write the other file."""
    try:
        result.write(file)
    except OSError as problem:
        console.out(f"locum: {file} cannot be written: {problem.strerror}", highlight=False)
        return False
    return True


@lab.command("shell", context_settings={"allow_interspersed_args": False})
@click.option("--lab", "identity", help="Which lab; the latest if there are several.")
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(node: str, identity: str | None, command: tuple[str, ...]) -> None:
    """A shell (or COMMAND) in the network namespace of NODE of a lab that stands or runs."""
    console = Console(stderr=True)
    ready(console)
    places = [place for place in LabPlace.all() if identity in (None, place.identity)]
    if not places:
        which = "no lab" if identity is None else f"no lab {identity}"
        console.out(
            f"locum: {which} stands; `locum lab list` names those that do, and `locum lab run NAME --keep` starts one",
            highlight=False,
        )
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
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Stop labs that are running as well.")
@json_option
@click.pass_obj
def down(target: Target, names: tuple[str, ...], everything: bool) -> None:
    """Remove labs that were kept, and remains of killed runs.

    NAME is a lab as `locum lab list` names it, or a scenario; without one, all labs are meant.
    """
    console = Console(stderr=target.output.json)
    ready(console)
    told = [_taken_down(place, everything) for place in _meant(names)]
    if target.output.json:
        target.output.value(told)
        return
    for found in told:
        left = f"is running (pid {found['pid']}): left alone; --all stops it"
        said = f"({found['scenario']}) removed" if found["removed"] else left
        console.out(f"lab {found['lab']} {said}", highlight=False)
    if not told:
        console.out("no lab stands on this machine", highlight=False)


def _meant(names: tuple[str, ...]) -> list[LabPlace]:
    """The labs of these names, or all without names. Exits with one line on an unknown name."""
    places = LabPlace.all()
    for name in names:
        if not any(name in (place.identity, place.scenario) for place in places):
            labs = ", ".join(f"{place.identity} ({place.scenario})" for place in places)
            there = f"these stand: {labs}" if labs else "none stands on this machine"
            Console(stderr=True).out(f"locum: there is no lab {name!r}; {there}", highlight=False)
            sys.exit(Exit.FAILED)
    return [place for place in places if not names or {place.identity, place.scenario} & set(names)]


def _taken_down(place: LabPlace, even_running: bool) -> dict[str, Any]:
    """Remove a lab, unless it is running and that is to be left alone; it as JSON, with `removed`."""
    found = _described(place)
    removed = found["state"] != ANOTHER_USERS and (found["pid"] is None or even_running)
    if removed:
        if found["pid"] is not None:
            _stop_owner(place, found["pid"])
        place.remove()
    return {**found, "removed": removed}


def _stop_owner(place: LabPlace, owner: int, patience: float = 30.0) -> None:
    """Ask a running lab to take itself down; it has `patience` seconds."""
    os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while place.owner_alive() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
