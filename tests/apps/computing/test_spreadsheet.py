"""Workbooks whose cells arriving values feed (A8). openpyxl, the library that most programs write .xlsx files with, makes them."""

import base64
import errno
import io
from collections.abc import Callable
from random import Random
from typing import Any

import openpyxl
import pytest

from locum.apps.computing.spreadsheet import MAX_INLINE, Spreadsheet
from locum.apps.computing.workbooks import MAX_WORK, MAX_WORKBOOK
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError
from locum.roles.app_network import MAX_LOAD, Failed, Files, Load, Loaded
from tests.apps.computing.timeline import Timeline


def workbook(fill: Callable[[Any], None]) -> bytes:
    book = openpyxl.Workbook()
    book.active.title = "Data"
    fill(book)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def temperatures(book: Any) -> None:
    """Values in B2:B11; results on a sheet of their own."""
    book["Data"]["A1"] = "celsius"
    out = book.create_sheet("My results")
    out["A1"] = "=AVERAGE(Data!B2:B11)"
    out["A2"] = '=IF(MAX(Data!B2:B11)>30,"hot","fine")'
    out["A3"] = "=COUNT(Data!B2:B11)"


PLAN: dict[str, JSON] = {
    "ports": [7000],
    "columns": ["sensor", "celsius"],
    "feed": {"celsius": "Data!B2:B11"},
    "results": {"mean": "'My results'!A1", "state": "'My results'!$A$2", "count": "'My results'!A3"},
}


def inline(fill: Callable[[Any], None] = temperatures, **more: JSON) -> Timeline:
    content = base64.b64encode(workbook(fill)).decode()
    return Timeline(Spreadsheet, **{**PLAN, "workbook": content, **more})


def test_values_of_several_packets_fill_cells() -> None:
    """Also through a crash; full cells complete the computation."""
    one = inline(when='state == "hot"')
    one.says(b"a,20\na,25\na,")
    assert one.told() == []
    one.begin()
    one.says(b"33\n")
    one.begin()
    assert [(event["why"], event["results"]) for event in one.told()] == [
        ("condition", {"mean": 26.0, "state": "hot", "count": 3})
    ]
    for value in range(8):
        one.says(b"a,%d\n" % value)
    assert one.told()[1]["complete"] == "full" and one.told()[1]["results"]["count"] == 10
    result = one.wakes()
    assert result["done"] is True and result["rows"] == 10 and result["results"]["mean"] == 9.9


def test_values_go_on_from_the_first_cell() -> None:
    one = inline(wrap=True)
    one.says(b"".join(b"a,%d\n" % value for value in range(14)))
    assert one.wakes()["results"] == {"mean": 8.5, "state": "fine", "count": 10}


def test_single_cell_has_the_newest_value() -> None:
    one = inline(feed={"celsius": "Data!B2"}, emit={"to": "correspondent", "rows": 2, "template": "{mean}"})
    one.says(b"a,1\na,2\na,3\na,4\n")
    assert one.sent() == [b"2.0\n", b"4.0\n"]


def test_five_sleeps_fill_one_workbook() -> None:
    one = inline()
    for sleep in range(5):
        one.says(b"a,%d\n" % sleep)
        result = one.wakes()
        one.begin()
    assert result["results"] == {"mean": 2.0, "state": "fine", "count": 5}


def test_workbook_is_a_file_of_the_order() -> None:
    """Values that come before it is there are in its cells then."""

    def with_noise(book: Any) -> None:
        temperatures(book)
        for row in range(3000):
            book["Data"].cell(row + 1, 8).value = random.randbytes(100).hex()

    random = Random(1)
    content = workbook(with_noise)
    assert MAX_LOAD < len(content) < 2 * MAX_LOAD
    one = Timeline(Spreadsheet, **PLAN, file="book.xlsx", when="count >= 1")
    one.says(b"a,8\n")
    assert one.told() == []
    assert one.happens(Files([("other", 1), ("book.xlsx", len(content))])) == [Load("book.xlsx", 0, MAX_LOAD)]
    assert one.happens(Loaded("book.xlsx", 0, content[:MAX_LOAD])) == [Load("book.xlsx", MAX_LOAD, MAX_LOAD)]
    one.happens(Loaded("book.xlsx", MAX_LOAD, content[MAX_LOAD:]))
    assert [event["results"]["mean"] for event in one.told()] == [8.0]


@pytest.mark.parametrize(
    "files, answer, reason",
    [
        ([], None, "no file book.xlsx"),
        ([("book.xlsx", MAX_WORKBOOK + 1)], None, "more than"),
        ([("book.xlsx", 4)], Loaded("book.xlsx", 0, b"PK.."), "cannot be read"),
        ([("book.xlsx", 4)], Failed("book.xlsx", errno.EIO), "Input/output error"),
    ],
)
def test_file_that_is_no_workbook(files: list[tuple[str, int]], answer: Any, reason: str) -> None:
    one = Timeline(Spreadsheet, **PLAN, file="book.xlsx")
    one.happens(Files(files))
    if answer is not None:
        one.happens(answer)
    assert reason in one.told("computation_failed")[0]["reason"] and reason in one.wakes()["failed"]


def test_missing_sheet_ends_the_computation() -> None:
    one = inline(results={"mean": "Nowhere!A1"})
    assert "no sheet Nowhere" in one.told("computation_failed")[0]["reason"]


def formulas(**cells: str) -> Callable[[Any], None]:
    def fill(book: Any) -> None:
        for place, formula in cells.items():
            book["Data"][place] = formula

    return fill


@pytest.mark.parametrize(
    "formula, result",
    [("=B2/0", "#DIV"), ("=A1+1", "#CIRC"), ("=NO_SUCH(1)", "#NAME"), ("=1E308*10", "#NUM"), ("=B2>3", True),
     ("=REPT(\"x\",1000)", "x" * 256), ("=2^60", float(2**60)), ("=DATE(2026,11,29)", "2026-11-29"), ("=B2*2", 10.0)],
)  # fmt: skip
def test_results_of_cells(formula: str, result: object) -> None:
    one = inline(formulas(A1=formula), results={"it": "Data!A1"}, feed={"celsius": "Data!B2"})
    one.says(b"a,5\n")
    found = one.wakes()["results"]["it"]
    assert found == result and type(found) is type(result)


def test_too_many_formulas_end_the_computation() -> None:
    """The stand-in ends a process with one that takes for ever."""

    def fill(book: Any) -> None:
        for row in range(1, MAX_WORK + 100):
            book["Data"].cell(row, 3).value = f"=B$2*{row}"
        book["Data"]["D1"] = f"=SUM(C1:C{MAX_WORK + 100})"

    plan: dict[str, JSON] = {**PLAN, "feed": {"celsius": "Data!B2"}, "results": {"it": "Data!D1"}}
    one = Timeline(Spreadsheet, **plan, file="b")
    content = workbook(fill)
    one.happens(Files([("b", len(content))]))
    for at in range(0, len(content), MAX_LOAD):
        one.happens(Loaded("b", at, content[at : at + MAX_LOAD]))
    assert "exhausted: work" in one.told("computation_failed")[0]["reason"]


@pytest.mark.parametrize(
    "change, key",
    [
        ({"workbook": None}, "workbook"),
        ({"file": "x"}, "workbook"),
        ({"workbook": "not Base64!"}, "workbook"),
        ({"workbook": base64.b64encode(b"no archive").decode()}, "workbook"),
        ({"workbook": "A" * (MAX_INLINE + 1)}, "workbook"),
        ({"feed": None}, "feed"),
        ({"feed": {}}, "feed"),
        ({"feed": {"volt": "Data!A1"}}, "feed"),
        ({"feed": {"celsius": "A1"}}, "feed"),
        ({"feed": {"celsius": "Data!A1:A1001"}}, "feed"),
        ({"feed": {"celsius": "Data!A2:A1"}}, "feed"),
        ({"feed": {"celsius": "Data!A0"}}, "feed"),
        ({"feed": {"celsius": "Data!XFE1"}}, "feed"),
        ({"results": {"it": "Data!A1:A2"}}, "results"),
        ({"results": {"it": 3}}, "results"),
        ({"wrap": 1}, "wrap"),
        ({"when": "median > 3"}, "when"),
        ({"values": ["celsius"]}, "values"),
    ],
)
def test_wrong_settings_name_their_key(change: dict[str, JSON], key: str) -> None:
    content = base64.b64encode(workbook(temperatures)).decode()
    table = {
        name: value for name, value in {**PLAN, "workbook": content, **change}.items() if value is not None
    }
    with pytest.raises(SettingError) as caught:
        Spreadsheet.settings(table)
    assert caught.value.key == key
