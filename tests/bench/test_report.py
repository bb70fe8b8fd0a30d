"""The figures' arithmetic and the report's shape; nothing is measured here."""

import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from bench.__main__ import BENCHMARKS, NAMES, main
from bench.measurement import Measurement, in_turns, spread
from bench.report import quantity, row, show, write

COMPARED = Measurement(
    "tunnel_tcp", "Gbit/s", (9.0, 10.0, 11.0, 8.0, 12.0), (20.0, 19.0, 21.0, 18.0, 22.0), ("a note",)
)
ALONE = Measurement("ha_memory_100k", "bytes/binding", (512.0,), None)


def test_value_baseline_and_ratio_come_from_the_medians() -> None:
    assert (COMPARED.value, COMPARED.baseline, COMPARED.ratio) == (10.0, 20.0, 0.5)
    assert (ALONE.value, ALONE.baseline, ALONE.ratio) == (512.0, None, None)


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


@pytest.mark.parametrize(
    ("figure", "text"),
    [(None, "-"), (12345.6, "12,346"), (123.45, "123.5"), (1.234, "1.23"), (0.8512, "0.851"), (0.0, "0.000")],
)
def test_quantities_keep_about_four_digits(figure: float | None, text: str) -> None:
    assert quantity(figure) == text


def test_every_name_of_the_report_has_one_benchmark() -> None:
    assert sorted(NAMES) == sorted(set(NAMES))
    assert set(BENCHMARKS["bench.tunnel"]) <= set(NAMES)
    assert len(NAMES) == 25


def test_unknown_name_is_a_usage_error_with_the_known_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "warp_speed"])
    assert ended.value.code == 2
    assert "packet_cost_1m" in capsys.readouterr().err
