"""Every scenario is played with real daemons and stock programs, and everything it measured is right."""

import os
from pathlib import Path

import pytest

from locum.lab.place import LabPlace
from locum.lab.scenario import perform
from locum.lab.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    report = perform(SCENARIOS[name](), tmp_path / name)
    assert not report.failure, report.failure
    wrong = [check for check in report.checks.made if not check.ok]
    assert not wrong, wrong
    assert not [place for place in LabPlace.all() if place.owner_alive() == os.getpid()], "the lab is gone"
    assert all(path.exists() for path in (report.events, *report.pcaps.values(), *report.ladder.values()))
