"""The meaning of a proxy's result: every shape of it gives an outcome."""

from ipaddress import IPv4Address

import pytest

from locum.roles.app_results import (
    MAX_DATAGRAMS,
    MAX_FAILURE,
    Outcome,
    ResultFile,
    datagrams,
    outcome,
    results,
    states,
    troubled,
)
from locum.wire.control import Flow
from locum.wire.ip import build_udp


def test_whole_result_is_read() -> None:
    state = {
        "own": 1,
        "result": {"done": True, "progress": {"received": 7}, "files": [["a", 7, "00ff"], ["b", 0, ""]]},
    }
    assert outcome(state) == Outcome(
        True, progress={"received": 7}, files=(ResultFile("a", 7, "00ff"), ResultFile("b", 0))
    )


def test_problem_joins_a_result_that_is_not_final() -> None:
    assert outcome(troubled({}, "it died")).problem == "it died"
    half = {"own": 1, "result": {"progress": 3}}
    assert troubled(half, "x" * 999) == {"own": 1, "result": {"progress": 3, "problem": "x" * MAX_FAILURE}}
    for state in ({"result": {"done": True}}, {"result": 7}):
        assert troubled(state, "it died") is state
    assert troubled(half, "") is half


def test_failure_is_shortened() -> None:
    assert outcome({"result": {"failed": "x" * 1000}}).failed == "x" * MAX_FAILURE


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"result": 7},
        {"result": {"done": 1, "failed": None, "files": 3}},
        {"result": {"files": [["a", -1, ""], ["a", True, ""], ["a", "1", ""], [], 7]}},
    ],
)
def test_other_shapes_count_as_absent(state: object) -> None:
    assert outcome(state) == Outcome()


def test_states_and_results_are_by_name() -> None:
    application = {"apps": {"one": {"result": 1, "own": 2}, "two": {"own": 3}, "three": 4}}
    assert states(application) == {"one": {"result": 1, "own": 2}, "two": {"own": 3}}
    assert results(application) == {"one": 1}
    assert states({"apps": 1}) == results({}) == {}


def test_datagrams_become_packets_to_the_home_address() -> None:
    home = IPv4Address("10.9.0.5")
    good = ["192.0.2.1", 5062, 5060, b"INVITE"]
    wrong: list[object] = [
        [],
        7,
        ["192.0.2.1", 5062, 5060, "text"],
        ["192.0.2.1", 0, 5060, b""],
        ["192.0.2.1", 5062, 65536, b""],
        ["name", 5062, 5060, b""],
        ["2001:db8::1", 5062, 5060, b""],
        ["192.0.2.1", 5062, 5060, bytes(65536)],
    ]
    application = {
        "apps": {"call": {"result": {"calls": 1, "datagrams": [good, *wrong]}}, "x": {"result": 3}}
    }
    (packet,) = datagrams(application, home)
    assert packet == build_udp(Flow(17, home, 5060, IPv4Address("192.0.2.1"), 5062), b"INVITE")
    assert results(application) == {"call": {"calls": 1}, "x": 3}
    many = {"apps": {"call": {"result": {"datagrams": [good] * 100}}}}
    assert len(datagrams(many, home)) == MAX_DATAGRAMS and datagrams({}, home) == []
