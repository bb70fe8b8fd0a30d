"""Rows of an earlier run: those that can be read in their order, the others forgotten and counted."""

import pytest

from locum.roles.actions import Count, Forget, Persist
from locum.roles.parts import readable
from locum.wire.errors import WireError


class Refused(Exception):
    """An exception of one role."""


def row(key: str, number: object, table: str = "visitor") -> Persist:
    return Persist(table, key, {"number": number})  # type: ignore[arg-type, dict-item]


def number(found: Persist) -> int:
    return int(str(found.value["number"]))


def test_rows_of_the_table_keep_their_order() -> None:
    rows = [row("b", 2), row("x", 9, "key"), row("a", 1)]
    assert readable(rows, "visitor", number) == ([(rows[0], 2), (rows[2], 1)], [])


def test_unreadable_row_is_counted_and_forgotten() -> None:
    rows = [row("a", "one"), row("b", 2)]
    found, actions = readable(rows, "visitor", number)
    assert [value for _, value in found] == [2]
    assert actions == [Count("unreadable-row"), Forget("visitor", "a")]


@pytest.mark.parametrize(
    "error", [ValueError(), KeyError(), TypeError(), IndexError(), WireError("field", 0, "range"), Refused()]
)
def test_every_refusal_of_a_reader_is_an_unreadable_row(error: Exception) -> None:
    def read(_: Persist) -> int:
        raise error

    found, actions = readable([row("a", 1)], "visitor", read, Refused)
    assert found == [] and actions[0] == Count("unreadable-row")


def test_other_errors_are_ours() -> None:
    def read(_: Persist) -> int:
        raise Refused

    with pytest.raises(Refused):
        readable([row("a", 1)], "visitor", read)
