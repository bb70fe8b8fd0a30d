"""The lab's command line: lists, refusals, and cleaning up after a signal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from locum.cli.lab import lab
from locum.cli.main import cli
from locum.lab.network import place as place_module
from locum.lab.network.namespaces import Network
from locum.lab.network.place import CGROUPS, LabPlace, cgroup_of, started_at
from locum.lab.network.topology import figure_5
from locum.lab.processes import is_frozen
from locum.lab.report.report import cleared
from locum.lab.scenarios import SCENARIOS
from locum.node.sessions.freezer_name import freezer_name
from locum.sessions.programs.freezer import Freezer
from locum.sessions.programs.process import process

RUN = [sys.executable, "-c", "from locum.cli.lab import lab; lab()"]
# The user nobody may not be able to read this clone: everything is imported before.
AS_ROOT = """
import contextlib, difflib, io, os, sys
from locum.cli.lab import lab
for words in (["list"], ["-j", "list"], ["list", "-j"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        lab(words, standalone_mode=False)
"""


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Labs of this test alone: `locum lab down` removes every lab without an owner, also of another test run."""
    root = Path(f"/run/locum-lab-{os.getpid()}")
    monkeypatch.setattr(place_module, "ROOT", root)
    monkeypatch.setenv("LOCUM_LAB_DIRECTORY", str(root))
    yield
    assert not root.exists()


def test_every_scenario_is_listed_with_its_purpose() -> None:
    result = CliRunner().invoke(lab, ["list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name, scenario in SCENARIOS.items():
        assert name in result.output and scenario.title in result.output


@pytest.mark.parametrize("words", [["-j", "lab", "list"], ["lab", "list", "-j"]])
def test_scenarios_and_labs_are_listed_as_json(words: list[str]) -> None:
    place = LabPlace.claim("fig06")
    try:
        result = CliRunner().invoke(cli, words)
    finally:
        place.remove()
    assert result.exit_code == 0, result.output
    listed = json.loads(result.output)
    assert {scenario["name"]: scenario["title"] for scenario in listed["scenarios"]} == {
        name: scenario.title for name, scenario in SCENARIOS.items()
    }
    ours = {"lab": place.identity, "state": "running", "scenario": "fig06", "pid": os.getpid()}
    assert ours in listed["labs"]


@pytest.mark.parametrize("words", [[], ["-j"]])
def test_labs_of_root_belong_to_another_user(words: list[str]) -> None:
    place = LabPlace.claim("fig06")
    script = f"{AS_ROOT}\nos.setgid(65534); os.setuid(65534); lab()"
    try:
        command = [sys.executable, "-c", script, "list", *words]
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        place.remove()
    assert done.returncode == 0, done.stderr
    if words:
        labs = {lab["lab"]: lab["state"] for lab in json.loads(done.stdout)["labs"]}
        assert labs[place.identity] == "another user's"
    else:
        assert f"lab {place.identity}: another user's\n" in done.stdout


def test_an_unknown_scenario_is_refused() -> None:
    result = CliRunner().invoke(lab, ["run", "fig99"])
    assert result.exit_code == 2
    assert "fig06" in result.output


def test_down_removes_a_killed_run_and_keeps_a_running_one() -> None:
    sleeper = subprocess.Popen(["sleep", "1000"])
    place = LabPlace.claim("fig06")
    try:
        Network(place, figure_5()).build()
        place.mount_bpf()
        ours = subprocess.run([*RUN, "down"], capture_output=True, text=True)
        assert "left alone" in ours.stdout
        assert place.path.exists()
        place._write_owner({"pid": sleeper.pid, "started": started_at(sleeper.pid), "scenario": "fig06"})
        sleeper.kill()
        sleeper.wait()
        listed = json.loads(subprocess.run([*RUN, "list", "-j"], capture_output=True, text=True).stdout)
        standing = {"lab": place.identity, "state": "standing", "scenario": "fig06", "pid": None}
        assert standing in listed["labs"]
        done = subprocess.run([*RUN, "down"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"lab {place.identity} (fig06) removed" in done.stdout
        assert not place.path.exists()
        assert not place.namespaces()
    finally:
        place.remove()


def test_down_reports_removed_and_kept_labs_as_json() -> None:
    left, kept = LabPlace.claim("fig06"), LabPlace.claim("fig07")
    try:
        left.release_ownership()
        done = subprocess.run([*RUN, "down", "-j"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = {row["lab"]: row for row in json.loads(done.stdout)}
        assert told[left.identity]["removed"] is True and told[left.identity]["scenario"] == "fig06"
        assert told[kept.identity]["removed"] is False and told[kept.identity]["pid"] == os.getpid()
        assert kept.path.exists() and not left.path.exists()
    finally:
        left.remove()
        kept.remove()


def test_down_removes_only_the_named_labs() -> None:
    places = [LabPlace.claim(scenario) for scenario in ("fig06", "fig07", "fig08")]
    try:
        for place in places:
            place.release_ownership()
        unknown = subprocess.run([*RUN, "down", places[0].identity, "moon"], capture_output=True, text=True)
        assert unknown.returncode == 1
        assert unknown.stderr.startswith("locum: there is no lab 'moon'; these stand: ")
        assert all(place.path.exists() for place in places)
        done = subprocess.run([*RUN, "down", places[0].identity, "fig08"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [place.path.exists() for place in places] == [False, True, False]
    finally:
        for place in places:
            place.remove()


def test_down_removes_the_cgroups_of_a_killed_lab() -> None:
    """The names are those that the mobile node's daemon gives; another lab's stay."""
    root = next(root for root in (CGROUPS / "unified", CGROUPS) if (root / "cgroup.procs").exists())
    places = [LabPlace.claim("fig06"), LabPlace.claim("fig06")]
    program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    made = []
    try:
        for place in places:
            (place.path / "config").mkdir()
            (place.path / "config" / "mn.toml").touch()
            made.append(root / f"locum-{freezer_name('mn', place.path / 'run')}-1-1")
            made[-1].mkdir()
        asleep = process(program.pid)
        assert asleep is not None
        assert not Freezer(freezer_name("mn", places[0].path / "run"), places[0].path).freeze([asleep])
        frozen = cgroup_of(program.pid)
        assert frozen is not None and is_frozen(program.pid)
        places[0].remove()
        program.wait(5)  # its killer may have asked for its end already, so its status is ignored
        assert process(program.pid) is None
        assert not frozen.exists() and [path.exists() for path in made] == [False, True]
    finally:
        program.kill()
        for place in places:
            place.remove()
    assert not made[1].exists()


@pytest.mark.parametrize("option", ["--report", "--output"])
def test_unwritable_report_file_is_refused_before_the_build(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    words = ["run", "fig06", "--output", str(tmp_path / "out"), option, str(tmp_path / "file" / "below")]
    done = subprocess.run([*RUN, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"{option}: {tmp_path / 'file'}" in done.stderr
    assert "Not a directory" in done.stderr or "File exists" in done.stderr
    assert not (tmp_path / "out").exists()


def test_run_is_refused_in_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    done = subprocess.run([*RUN, "run", "fig06", "--output", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"locum: {tmp_path} exists and has no earlier run; give another --output\n"
    assert (tmp_path / "letter").read_text() == "mine"


def test_evidence_of_an_earlier_run_is_cleared(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "events").mkdir(parents=True)
    (output / "events" / "ha.jsonl").touch()
    assert cleared(output) and not output.exists()
    assert cleared(output), "nothing is there"


def test_run_reports_although_the_report_file_became_unwritable(
    tmp_path: Path,
) -> None:
    """The path for `--report` is gone by the end; the measurements are still printed."""
    wanted, output = tmp_path / "there" / "report.json", tmp_path / "out"
    run = subprocess.Popen(
        [*RUN, "run", "-j", "fig06-deregistration", "--output", str(output), "--report", str(wanted)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _place_of(run.pid)
    wanted.parent.rmdir()
    wanted.parent.touch()
    said, complaint = run.communicate(timeout=120)
    assert run.returncode == 1
    assert f"{wanted} cannot be written" in complaint and "Traceback" not in complaint
    printed = json.loads(said)
    assert printed["scenario"] == "fig06-deregistration" and printed["checks"]
    assert json.loads((output / "report.json").read_text()) == printed


def test_a_shell_runs_in_the_namespace_of_a_node() -> None:
    place = LabPlace.claim("fig06")
    try:
        Network(place, figure_5()).build()
        command = [*RUN, "shell", "--lab", place.identity, "mnps", "ip", "-br", "-4", "addr"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "10.10.23.2/24" in done.stdout, done.stderr
        asked = subprocess.run([*command[:-4], "curl", "--help"], capture_output=True, text=True)
        assert "Usage: curl" in asked.stdout, "its own help"
        other = subprocess.run([*RUN, "shell", "--lab", "none", "mnps"], capture_output=True, text=True)
        assert "no lab none stands; `locum lab list` names those that do" in other.stderr
        wrong = subprocess.run(
            [*RUN, "shell", "--lab", place.identity, "moon"], capture_output=True, text=True
        )
        assert wrong.returncode == 2
        assert "mnps" in wrong.stderr
    finally:
        place.remove()


def test_missing_root_is_one_line() -> None:
    script = f"{AS_ROOT}\nos.setuid(65534); sys.argv[1:] = ['run', 'fig06']; lab()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.strip().endswith("run it as root")
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_a_run_leaves_no_remains(tmp_path: Path, number: signal.Signals) -> None:
    run = subprocess.Popen(
        [*RUN, "run", "fig06", "--output", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    place = _place_of(run.pid)
    time.sleep(1.0)
    run.send_signal(number)
    _, complaint = run.communicate(timeout=120)
    assert run.returncode == 130, complaint
    assert "is removed" in complaint
    assert not place.namespaces()
    assert not place.mounts()
    assert not place.path.exists()
    assert not (tmp_path / "out").exists()


def _place_of(pid: int) -> LabPlace:
    """The lab that a process owns, as soon as its namespaces are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for place in LabPlace.all():
            if place.owner_alive() == pid and len(place.namespaces()) > 5:
                return place
        time.sleep(0.05)
    raise AssertionError("no lab was built")
