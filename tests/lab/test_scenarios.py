"""Every scenario is played with real daemons and stock programs, and everything it measured is right."""

from pathlib import Path

import pytest

from locum.lab.place import LabPlace
from locum.lab.scenario import perform
from locum.lab.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    before = {place.identity for place in LabPlace.all()}
    report = perform(SCENARIOS[name](), tmp_path / name)
    assert not report.failure, report.failure
    wrong = [check for check in report.checks.made if not check.ok]
    assert not wrong, wrong
    assert {place.identity for place in LabPlace.all()} <= before, "the lab is gone"
    assert all(path.exists() for path in (report.events, *report.pcaps.values(), *report.ladder.values()))
