"""A user's own function (A8)."""

import pytest

from locum.apps.computing.compute import Compute
from locum.apps.computing.functions import MAX_PROGRAM
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Leave, SettingError
from tests.apps.computing.timeline import Timeline

MEDIAN = """
import statistics

def step(state, rows):
    seen = state.get("seen", []) + [float(row["celsius"]) for row in rows]
    return {"seen": seen[-5:], "median": statistics.median(seen), "steps": state.get("steps", 0) + 1}
"""


def timeline(program: str, **more: JSON) -> Timeline:
    return Timeline(ports=[7000], columns=["sensor", "celsius"], program=program, **more)


def test_state_goes_from_step_to_step() -> None:
    """Also through a crash and a handover."""
    one = timeline(MEDIAN, when="median > 3", emit={"to": "correspondent", "template": "{median}"})
    one.says(b"a,1\na,5\na,2\n")
    one.begin()
    one.says(b"a,9\na,1")
    assert [event["results"]["median"] for event in one.told()] == [3.5]
    assert one.sent() == [b"3.5\n"]
    one.wakes()
    one.begin()
    one.says(b"a,4\n")
    result = one.wakes()
    assert result["results"] == {"seen": [1.0, 5.0, 2.0, 9.0, 4.0], "median": 4.0, "steps": 3}


def test_rows_of_one_packet_come_together() -> None:
    one = timeline(
        "def step(state, rows):\n    return {'calls': state.get('calls', []) + [len(rows)]}",
        until={"rows": 6},
    )
    one.says(b"a,1\na,2\nbad\na,3\n")
    one.says(b"a,4\na,5\na,6\na,7\n")
    result = one.wakes()
    assert result["results"]["calls"] == [2, 1, 3] and result["late"] == 1


@pytest.mark.parametrize(
    "body, reason",
    [
        ("return state['x']", "KeyError in line 2: 'x'"),
        ("return 5", "no dict"),
        ("return {1: 2}", "no dict"),
        ("return {'x': {1}}", "no small JSON"),
        ("return {'x': float('nan')}", "no small JSON"),
        ("return {'x': 1 << 70}", "no small JSON"),
        ("x = []; x.append(x); return {'x': x}", "no small JSON"),
        ("return {'x': [[[[[[[[[[[1]]]]]]]]]]]}", "no small JSON"),
        ("return {'x': 'y' * 10000}", "more than"),
        ("return step(state, rows)", "RecursionError"),
        ("raise SystemExit(3)", "SystemExit in line 2: 3"),
        ("return {'x': 1}}", "SyntaxError in line 2"),
    ],
)
def test_failure_ends_the_computation_with_a_reason(body: str, reason: str) -> None:
    one = timeline(f"def step(state, rows):\n    {body}\n")
    one.says(b"a,1\n")
    (event,) = one.told("computation_failed")
    assert reason in event["reason"] and reason in one.notes()
    assert any(isinstance(effect, Leave) for effect in one.effects)
    assert reason in one.wakes()["failed"]


def test_failed_step_changes_no_state() -> None:
    one = timeline(
        "def step(state, rows):\n"
        "    state['seen'] = state.get('seen', 0) + 1\n"
        "    if rows[0]['celsius'] == 'x':\n"
        "        raise ValueError\n"
        "    return state"
    )
    one.says(b"a,1\n")
    one.says(b"a,x\n")
    assert one.wakes()["results"] == {"seen": 1}


def test_step_that_is_no_function() -> None:
    one = timeline("def step(state, rows):\n    pass\nstep = 3")
    one.says(b"a,1\n")
    assert "step is no function" in one.wakes()["failed"]


def test_json_numbers_keep_their_kind() -> None:
    one = Timeline(ports=[7000], format="json", program="def step(state, rows):\n    return dict(rows[-1])")
    one.says(b'{"a": 3, "b": 3.0, "c": 12345678901234567890}\n')
    assert repr(one.wakes()["results"]) == "{'a': 3, 'b': 3.0, 'c': 1.2345678901234567e+19}"


@pytest.mark.parametrize(
    "program",
    ["", "x = 3", " def step(state, rows): pass", "def step(state, rows): pass" + "#" * MAX_PROGRAM],
)
def test_wrong_programs_are_refused(program: str) -> None:
    with pytest.raises(SettingError, match="program"):
        Compute.settings({"ports": [1], "format": "json", "program": program})
