"""Every scenario is played with real daemons and stock programs, and everything it measured is right."""

import os
from pathlib import Path

import pytest

from locum.lab.network.place import LabPlace
from locum.lab.report.checks import Check
from locum.lab.report.report import Report
from locum.lab.scenario import perform
from locum.lab.scenarios import SCENARIOS

SLOW_MACHINE = 5
"""Factor on limits in seconds. They are for waits that take a lifetime or a retransmission where the product is wrong."""


def wrong(report: Report) -> list[Check]:
    """The checks that do not hold, whatever else the machine does meanwhile.

    Limits in milliseconds are left out: they are for gaps of packets, which `make bench` and `locum lab run` judge.
    """
    return [check for check in report.checks.made if not check.ok and not only_late(check)]


def only_late(check: Check) -> bool:
    """Whether a slow machine alone can be the reason."""
    limit = check.wanted.removeprefix("<= ")
    if limit == check.wanted or check.unit not in ("ms", "s"):
        return False
    return check.unit == "ms" or float(check.value) <= SLOW_MACHINE * float(limit)


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "late"),
    [
        (180.0, "ms", "<= 100.0", True),
        (4.0, "s", "<= 1.0", True),
        (6.0, "s", "<= 1.0", False),
        (0.5, "s", "<= 0.0", False),
        (2.0, "s", ">= 3.0", False),
        (1, "", "<= 0", False),
    ],
)
def test_only_limits_of_time_may_be_late(value: float, unit: str, wanted: str, late: bool) -> None:
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
