"""Every scenario is played with real daemons and stock programs, and everything it measured is right."""

import os
from pathlib import Path

import pytest

from locum.lab.network.place import LabPlace
from locum.lab.report.checks import Check
from locum.lab.scenario import perform
from locum.lab.scenarios import SCENARIOS
from tests.lab.judging import only_late, wrong


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "late"),
    [
        (180.0, "ms", "<= 100.0", True),
        (12_000.0, "ms", "<= 100.0", False),
        (4.0, "s", "<= 1.0", True),
        (6.0, "s", "<= 1.0", False),
        (0.5, "s", "<= 0.0", False),
        (2.0, "s", ">= 3.0", False),
        (1, "", "<= 0", False),
    ],
)
def test_only_time_limits_may_be_late(value: float, unit: str, wanted: str, late: bool) -> None:
    assert only_late(Check("a", False, value, unit, wanted)) is late


EVERY = [
    pytest.param(name, marks=[pytest.mark.exhaustive] if scenario.exhaustive else [])
    for name, scenario in SCENARIOS.items()
]


@pytest.mark.parametrize("name", EVERY)
def test_scenario(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    whole = pytestconfig.getoption("whole_captures")
    report = perform(SCENARIOS[name](), tmp_path / name, whole_captures=whole)
    assert not report.failure, report.failure
    assert not wrong(report), wrong(report)
    assert not [place for place in LabPlace.all() if place.owner_alive() == os.getpid()], "the lab is gone"
    assert all(path.exists() for path in (report.events, *report.pcaps.values(), *report.ladder.values()))
