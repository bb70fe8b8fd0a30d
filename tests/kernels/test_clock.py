"""A clock that is really set, and a machine that really sleeps: the node's event loop wakes and its timers are right."""

import sys
from pathlib import Path

import pytest

from tests.kernels import clock_probe
from tests.kernels.kernel import debian_kernel
from tests.kernels.machine import run

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_loop_wakes_on_a_clock_step_and_after_a_suspension() -> None:
    command = [sys.executable, "-m", "tests.kernels.clock_probe"]
    outcome = run(debian_kernel(), command, directory=ROOT, environment={}, seconds=1000)
    said = [
        line.removeprefix("clock: ") for line in outcome.output.splitlines() if line.startswith("clock: ")
    ]
    expected: list[str] = []
    for seconds in clock_probe.STEPS:
        expected += ["told before the step False", f"told of the step {seconds}"]
    expected += ["suspended True", "told of the suspension True", "fired steady monotonic", "end"]
    assert said == expected, outcome.output


def test_the_probe_refuses_to_run_on_this_machine() -> None:
    assert not clock_probe.in_test_machine()
