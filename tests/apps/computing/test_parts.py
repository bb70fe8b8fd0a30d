"""Lines, rows, exact sums and conditions of computations (A8)."""

import contextlib
import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.computing.conditions import MAX_CONDITION, Alarms, ConditionError, read
from locum.apps.computing.exact import Exact
from locum.apps.computing.lines import MAX_LINE, Lines
from locum.apps.computing.rows import BadRow, Csv, JsonLines, Row, group_of, number
from locum.roles.action_values.addresses import JSON

FINITE = st.floats(allow_nan=False, allow_infinity=False)


# Lines


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_packets(data: bytes, cuts: list[int]) -> None:
    whole, pieces = Lines(), Lines()
    places = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    found = [line for at, to in itertools.pairwise(places) for line in pieces.feed(data[at:to])]
    assert found == whole.feed(data) and pieces.partial == whole.partial
    assert found == [line for piece in data.split(b"\n")[:-1] if (line := piece.removesuffix(b"\r"))]


def test_long_line_is_left_out_and_counted() -> None:
    stream = Lines()
    assert stream.feed(b"a\n" + b"x" * MAX_LINE) == [b"a"] and stream.too_long == 0
    assert stream.feed(b"x" * MAX_LINE * 3) == [] and stream.too_long == 1
    assert stream.partial == b"" and stream.feed(b"x\nb\n") == [b"b"] and stream.too_long == 1
    assert stream.feed(b"y" * MAX_LINE + b"\n") == [b"y" * MAX_LINE]


def test_last_line_may_lack_its_end() -> None:
    stream = Lines()
    assert stream.feed(b"1\n2") == [b"1"] and stream.finish() == [b"2"] and stream.finish() == []
    assert Lines(b"half of", skipping=True).feed(b" a line\nwhole\n") == [b"whole"]


# Exact sums


@given(st.lists(FINITE, max_size=50))
def test_sum_and_mean_are_correctly_rounded(values: list[float]) -> None:
    """The same as with fractions, in any order."""
    total = Exact()
    for value in values:
        total.add(value)
    exact = sum(map(Fraction, values), Fraction(0))
    try:
        assert total.total() == float(exact)
    except OverflowError:
        assert total.total() is None
    if values:
        assert total.mean(len(values)) == float(exact / len(values))
    assert Exact.of(total.state()).state() == total.state()


@given(st.lists(FINITE), st.lists(FINITE))
def test_numbers_can_be_taken_away_again(stay: list[float], leave: list[float]) -> None:
    one, other = Exact(), Exact()
    for value in stay + leave:
        one.add(value)
    for value in leave:
        one.take_away(value)
    for value in stay:
        other.add(value)
    assert one.state() == other.state()


def test_sum_beyond_all_numbers_has_a_mean() -> None:
    total = Exact()
    total.add(1.7e308)
    total.add(1.7e308)
    assert total.total() is None and total.mean(2) == 1.7e308
    assert len(total.state()) < 140


@pytest.mark.parametrize("state", [b"", b"\x00\x00", b"\xff\xff\x01", b"\x00\x00" + bytes(600), "text", None])
def test_state_that_is_no_sum_is_refused(state: object) -> None:
    with pytest.raises(ValueError):
        Exact.of(state)


# Rows


def kind(read_line: Csv | JsonLines, line: bytes) -> str:
    with pytest.raises(BadRow) as caught:
        read_line.read(line)
    return caught.value.kind


def test_csv_rows() -> None:
    table = Csv(("sensor", "celsius"))
    assert table.read(b' a , "20.5"') is not None and table.read(b"sensor,celsius") is None
    assert table.read(b'"x, y",20.5') == {"sensor": "x, y", "celsius": "20.5"}
    assert Csv(("a", "b"), ";").read(b"1;2,5") == {"a": "1", "b": "2,5"}
    assert [kind(table, line) for line in (b"a", b"a,b,c")] == ["columns", "columns"]
    assert [kind(table, line) for line in (b'a,"b', b'a,"b"c', b"a\r,b")] == ["syntax"] * 3
    assert kind(table, b"\xff,1") == "encoding"


def test_json_rows() -> None:
    lines = JsonLines()
    assert lines.read(b'{"a": 1, "b": 2.5, "c": "x", "d": null, "e": true, "f": [1], "g": {}}') == {
        "a": 1,
        "b": 2.5,
        "c": "x",
        "d": None,
        "e": True,
    }
    deep = b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert [kind(lines, line) for line in (b"{", b"1 2", deep)] == ["syntax"] * 3
    assert [kind(lines, line) for line in (b"[1]", b"1")] == ["columns"] * 2
    assert [kind(lines, line) for line in (b'{"a": NaN}', b'{"a": -Infinity}')] == ["number"] * 2
    assert kind(lines, b"\xff") == "encoding"
    assert lines.read(b'{"a": ' + b"9" * 1000 + b"}") == {"a": math.inf}


@pytest.mark.parametrize("cell", ["1", "-1.5", "+.5", "1.", "1e3", 7, 2.5])
def test_numbers(cell: str | float) -> None:
    assert number({"a": cell}, "a") == float(cell)


@pytest.mark.parametrize(
    "cell", ["", "x", "nan", "inf", "1_000", "1e999", "0x10", "1,5", "\u0661", True, None, math.inf]
)
def test_other_cells_are_no_numbers(cell: str | float | None) -> None:
    with pytest.raises(BadRow, match="finite number"):
        number({"a": cell}, "a")
    with pytest.raises(BadRow, match="columns"):
        number({"a": cell}, "b")


@pytest.mark.parametrize(
    "row, key", [({"a": "x"}, "x"), ({"a": 7}, "7"), ({"a": 1.5}, "1.5"), ({"a": True}, "true")]
)
def test_keys_of_groups(row: Row, key: str) -> None:
    assert group_of(row, "a") == key and group_of(row, None) == ""


@pytest.mark.parametrize("row", [{}, {"a": ""}, {"a": None}, {"a": "x" * 65}])
def test_rows_without_a_key(row: Row) -> None:
    with pytest.raises(BadRow, match="key"):
        group_of(row, "a")


# Conditions

RESULTS: dict[str, JSON] = {"mean": 31.5, "count": 4, "max(a b)": 2, "state": "hot", "ok": True, "none": None}


@pytest.mark.parametrize(
    "text, holds",
    [
        ("mean > 30", True),
        ("30 < mean", True),
        ("mean<=30", False),
        ("count == 4 and mean != 4", True),
        ("count == 5 or mean > 30 and count > 3", True),
        ("(count == 5 or mean > 30) and count > 4", False),
        ("not count == 5", True),
        ("not (count == 4 or mean > 99)", False),
        ("max( a b ) >= 2e0", True),
        ("mean > -3.5", True),
        ('state == "hot"', True),
        ("state != 'hot'", False),
        ("state > 'a'", False),
        ("state == 3", False),
        ("ok == 1", False),
        ("missing == missing", False),
        ("not missing > 3", True),
        ("none < 1", False),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    assert read(text).holds(RESULTS) is holds


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "1 to"),
        ("mean", "comparison"),
        ("mean >", "instead of 'the end'"),
        ("mean > 30 30", "'30' is not expected"),
        ("(mean > 30", "closing bracket"),
        ("mean = 30", "cannot be read"),
        ("mean > 1e999", "too large"),
        ("__import__('os') > 3", "cannot be read|expected"),
        ("mean.real > 3", "cannot be read"),
        ("mean > 3x", "cannot be read|expected"),
        ("and > 3", "instead of 'and'"),
        ("mean > 3 and", "instead of 'the end'"),
        ("(" * MAX_CONDITION + "a", "1 to"),
    ],
)
def test_wrong_conditions_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConditionError, match=problem):
        read(text)


@given(st.text(max_size=MAX_CONDITION))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    with contextlib.suppress(ConditionError):
        assert read(text).holds(RESULTS) in (True, False)


def test_deepest_brackets_are_read() -> None:
    deep = (MAX_CONDITION - 10) // 2
    assert read("(" * deep + "mean > 3" + ")" * deep).holds(RESULTS)


def test_alarm_has_hysteresis() -> None:
    alarms = Alarms(read("mean > 30"), read("mean < 25"))
    means = [20, 31, 40, 29, 31, 24, 29, 31]
    assert [alarms.rises("", {"mean": mean}) for mean in means] == [
        False, True, False, False, False, False, False, True,
    ]  # fmt: skip
    plain = Alarms(read("mean > 30"))
    assert [plain.rises("", {"mean": mean}) for mean in means] == [
        False, True, False, False, True, False, False, True,
    ]  # fmt: skip
    assert plain.rises("other", {"mean": 31})
