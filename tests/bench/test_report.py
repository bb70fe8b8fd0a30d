"""The figures' arithmetic and the report's shape; nothing is measured here."""

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest
from rich.console import Console

import bench.__main__ as command
from bench.__main__ import BENCHMARKS, NAMES, main
from bench.measurement import Measurement, Settings, Unmeasured, in_turns, spread
from bench.report import quantity, row, show, write

COMPARED = Measurement(
    "tunnel_tcp", "Gbit/s", (9.0, 10.0, 11.0, 8.0, 12.0), (18.0, 20.0, 22.0, 17.0, 24.0), ("a note",)
)
ALONE = Measurement("ha_memory_100k", "bytes/binding", (512.0,), None)


def test_value_and_baseline_are_medians() -> None:
    assert (COMPARED.value, COMPARED.baseline, COMPARED.ratio) == (10.0, 20.0, 0.5)
    assert (ALONE.value, ALONE.baseline, ALONE.ratio) == (512.0, None, None)


def test_ratio_is_the_median_of_the_pairs() -> None:
    """The machine became twice as fast in the middle, for both alike: no ratio of medians would be 2."""
    drifting = Measurement("x", "ns", (20.0, 20.0, 10.0, 10.0, 10.4), (10.0, 10.0, 5.0, 5.0, 10.0))
    assert drifting.ratios == (2.0, 2.0, 2.0, 2.0, 1.04)
    assert drifting.ratio == 2.0 and drifting.value / (drifting.baseline or 0) == pytest.approx(1.04)
    with pytest.raises(ValueError, match="shorter"):
        _ = Measurement("x", "ns", (1.0, 2.0), (1.0,)).ratio


def test_outlier_does_not_change_the_value() -> None:
    assert Measurement("x", "1/s", (10.0, 10.0, 900.0, 10.0, 10.0), None).value == 10.0


def test_a_baseline_of_zero_gives_no_ratio() -> None:
    assert Measurement("x", "ms", (1.0,), (0.0,)).ratio is None


def test_spread_is_half_the_range_over_the_median() -> None:
    assert spread((9.0, 10.0, 11.0)) == pytest.approx(0.1)
    assert spread((0.0, 0.0)) == 0.0


def test_samples_alternate_after_one_warm_up() -> None:
    order: list[str] = []
    counts: Counter[str] = Counter()

    def way(name: str) -> float:
        order.append(name)
        counts[name] += 1
        return counts[name]

    first, second = in_turns(3, lambda: way("a"), lambda: way("b"))
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert first == second == (2.0, 3.0, 4.0)  # the warm-up, sample 1, is not recorded


def test_a_row_has_exactly_the_five_fields(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.json"
    write((COMPARED, ALONE), file)
    assert json.loads(file.read_text()) == [
        {"name": "tunnel_tcp", "value": 10.0, "unit": "Gbit/s", "baseline": 20.0, "ratio": 0.5},
        {"name": "ha_memory_100k", "value": 512.0, "unit": "bytes/binding", "baseline": None, "ratio": None},
    ]
    assert list(row(ALONE)) == ["name", "value", "unit", "baseline", "ratio"]


def test_the_table_shows_spread_ratio_and_notes() -> None:
    console = Console(record=True, width=120)
    show((COMPARED, ALONE), console)
    text = console.export_text()
    assert "10.00 ±20%" in text
    assert "0.500" in text
    assert "tunnel_tcp: a note" in text


def test_rows_that_fail_stand_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of one module fail together and are measured one by one; the report is there before the next module runs."""
    report, seen = tmp_path / "report.json", []

    class Module:
        @staticmethod
        def measure(_settings: Settings, wanted: Collection[str]) -> list[Measurement]:
            if report.exists():
                seen.append([found["name"] for found in json.loads(report.read_text())])
            if "packet_cost_1m" in wanted:
                raise ZeroDivisionError("no packet [came]")
            return [] if "ha_memory_100k" in wanted else [Measurement(wanted[0], "ns", (1.0,), (2.0,))]  # type: ignore[index]

    monkeypatch.setattr(command, "import_module", lambda _name: Module)
    monkeypatch.setattr(command, "observe", lambda: "quiet")
    status = main(["--only", "packet_cost_1k", "packet_cost_1m", "ha_memory_100k", "--report", str(report)])
    assert status == 3
    found = {made["name"]: made for made in json.loads(report.read_text())}
    assert found["packet_cost_1k"]["ratio"] == 0.5 and "reason" not in found["packet_cost_1k"]
    assert found["packet_cost_1m"]["reason"] == "ZeroDivisionError: no packet [came]"
    assert found["ha_memory_100k"]["value"] is None
    assert seen == [["packet_cost_1k", "packet_cost_1m"]]
    shown = capsys.readouterr().out
    assert "packet_cost_1m: not measured: ZeroDivisionError: no packet [came]" in shown
    assert row(Unmeasured("x", "why"))["reason"] == "why"


@pytest.mark.parametrize(
    ("figure", "text"),
    [(None, "-"), (12345.6, "12,346"), (123.45, "123.5"), (1.234, "1.23"), (0.8512, "0.851"), (0.0, "0.000")],
)
def test_quantities_keep_about_four_digits(figure: float | None, text: str) -> None:
    assert quantity(figure) == text


def test_every_name_of_the_report_has_one_benchmark() -> None:
    assert sorted(NAMES) == sorted(set(NAMES))
    assert set(BENCHMARKS["bench.tunnel"]) <= set(NAMES)


def test_unknown_name_is_a_usage_error_with_the_known_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "warp_speed"])
    assert ended.value.code == 2
    assert "packet_cost_1m" in capsys.readouterr().err
