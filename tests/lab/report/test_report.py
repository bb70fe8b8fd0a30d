"""Checks, reports and timelines as files for programs and users."""

import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from locum.lab.errors import LabError
from locum.lab.report.checks import Checks
from locum.lab.report.report import Report, readable
from locum.lab.timeline import Event, Timeline


def checks() -> Checks:
    made = Checks()
    made.holds("sha256_equal", True)
    made.equal("server_connections", 1, 1, "connections")
    made.at_most("reclaim_gap_ms", 31.23456, 100, "ms")
    made.more_than("bytes_while_asleep", 31_400_000, 10_000_000, "bytes")
    made.fact("note", 5)
    return made


def report(made: Checks, failure: str = "") -> Report:
    return Report("fig06", made, Path("e.jsonl"), {"cn": Path("cn.pcap")}, 41.26, failure)


def test_a_report_has_the_shape_that_programs_expect(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "r.json"
    report(checks()).write(file)
    read = json.loads(file.read_text())
    assert (read["scenario"], read["ok"], read["events"], read["pcaps"]) == (
        "fig06",
        True,
        "e.jsonl",
        {"cn": "cn.pcap"},
    )
    assert {"name", "ok", "value", "unit"} <= set(read["checks"][0])
    assert [check["value"] for check in read["checks"]] == [True, 1, 31.235, 31_400_000, 5]


def test_failed_check_fails_the_report() -> None:
    made = checks()
    assert report(made).ok
    assert not made.equal("cn_resets", 1, 0)
    assert not report(made).ok
    assert not report(checks(), "the daemon of ha ended").ok
    assert not report(Checks()).ok, "nothing checked is not ok"


def test_report_table() -> None:
    made = checks()
    made.equal("cn_resets", 1, 0, "segments")
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report(made).print(console)
    text = console.export_text()
    assert "31.4 MB" in text and "NOT all checks hold" in text and "true" in text


def test_a_timeline_is_read_while_it_is_written(tmp_path: Path) -> None:
    heard: list[Event] = []
    timeline = Timeline(tmp_path, heard.append)
    begin = time.time()
    (tmp_path / "mn.jsonl").write_text(
        Event(begin + 1, "mn", "registered", "604").to_line() + "\n" + '{"time": 5, "node": "m'
    )
    timeline.mark("radio-cut", link="an1-mn")
    assert [event.kind for event in timeline.events()] == ["radio-cut", "registered"]
    assert heard[0].detail == {"link": "an1-mn"}
    assert timeline.wait("mn", "registered", begin).message == "604"
    assert timeline.count("mn", "registered") == 1
    with pytest.raises(LabError, match="mn did not say asleep"):
        timeline.wait("mn", "asleep", begin, patience=0.05)
    merged = timeline.merge(tmp_path / "all.jsonl.merged").read_text().splitlines()
    assert [json.loads(line)["node"] for line in merged] == ["lab", "mn"]


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(1, "connections", "1 connection"), (2, "connections", "2 connections"), (0, "packets", "0 packets"),
     (1, "processes", "1 process"), (1, "ms", "1 ms"), (1, "s", "1 s"), (True, "", "true"), (1, "bit/s", "1 bit/s")],
)  # fmt: skip
def test_one_item_has_no_plural(value: int, unit: str, said: str) -> None:
    assert readable(value, unit) == said
