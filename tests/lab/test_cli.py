"""The lab's command line: what it lists, refuses, and cleans up when it is told to stop."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from locum.cli.lab import lab
from locum.lab.network import Network
from locum.lab.place import LabPlace, started_at
from locum.lab.scenarios import SCENARIOS
from locum.lab.topology import figure_5

RUN = [sys.executable, "-c", "from locum.cli.lab import lab; lab()"]


def test_every_scenario_is_listed_with_what_it_shows() -> None:
    result = CliRunner().invoke(lab, ["list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name, scenario in SCENARIOS.items():
        assert name in result.output and scenario.title in result.output


def test_an_unknown_scenario_is_refused() -> None:
    result = CliRunner().invoke(lab, ["run", "fig99"])
    assert result.exit_code == 2
    assert "fig06" in result.output


def test_down_removes_what_a_killed_run_left_and_leaves_a_running_one_alone() -> None:
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
        done = subprocess.run([*RUN, "down"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"lab {place.identity} (fig06) removed" in done.stdout
        assert not place.path.exists()
        assert not place.namespaces()
    finally:
        place.remove()


def test_a_shell_runs_in_the_namespace_of_a_node() -> None:
    place = LabPlace.claim("fig06")
    try:
        Network(place, figure_5()).build()
        command = [*RUN, "shell", "--lab", place.identity, "mnps", "ip", "-br", "-4", "addr"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "10.10.23.2/24" in done.stdout, done.stderr
        wrong = subprocess.run(
            [*RUN, "shell", "--lab", place.identity, "moon"], capture_output=True, text=True
        )
        assert wrong.returncode == 2
        assert "mnps" in wrong.stderr
    finally:
        place.remove()


def test_it_says_in_one_line_that_it_needs_root() -> None:
    script = "import os, sys; from locum.cli.lab import lab; os.setuid(65534); sys.argv[1:] = ['run', 'fig06']; lab()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.strip().endswith("run it as root")
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    run = subprocess.Popen(
        [*RUN, "run", "fig06", "--output", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    place = _place_of(run.pid)
    time.sleep(1.0)
    run.send_signal(number)
    _, complaint = run.communicate(timeout=30)
    assert run.returncode == 130, complaint
    assert "is removed" in complaint
    assert not place.namespaces()
    assert not place.mounts()
    assert not place.path.exists()
    assert not (tmp_path / "out").exists()


def _place_of(pid: int) -> LabPlace:
    """The lab that a process owns, as soon as its namespaces are there."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        for place in LabPlace.all():
            if place.owner_alive() == pid and len(place.namespaces()) > 5:
                return place
        time.sleep(0.05)
    raise AssertionError("no lab was built")
