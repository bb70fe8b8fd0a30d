"""State tables: they are complete in themselves, docs/states.md draws them, and other changes are refused."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from locum.roles.state_table import IllegalTransition, State, StateTable, name
from tests.roles.state_diagrams import PAGE, diagram, page, tables


@dataclass(frozen=True)
class Open:
    since: float = 0.0


@dataclass(frozen=True)
class Closed:
    pass


DOOR: StateTable[Literal["open", "close", "lock"]] = StateTable(
    "A door",
    "It opens and closes.",
    {Closed: {"open": Open, "lock": None}, Open: {"close": Closed}},
    start=(Closed,),
)


def test_change_in_the_table_returns_the_next_value() -> None:
    assert DOOR.change(Closed(), "open", Open(3.0)) == Open(3.0)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [(Open(), "open", Open()), (Closed(), "open", Closed()), (None, "open", Open())],
)
def test_change_outside_the_table_is_refused(before: object, event: Literal["open"], after: object) -> None:
    with pytest.raises(IllegalTransition, match=r"A door: .* by 'open' is not in the state table"):
        DOOR.change(before, event, after)


def test_diagram_has_every_arrow() -> None:
    assert diagram(DOOR).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> Closed",
        "    Closed --> Open: open",
        "    Closed --> [*]: lock",
        "    Open --> Closed: close",
    ]


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.title)
def test_every_state_can_be_reached_and_is_in_the_table(table: StateTable[Any]) -> None:
    reached: set[State] = set()
    new: set[State] = set(table.start) or {None}
    while new:
        reached |= new
        new = {after for state in new for after in table.transitions.get(state, {}).values()} - reached
    named = {name(transition) for transition in table.transitions}
    assert {name(state) for state in reached} - named <= {name(None)}, "a state without a row"
    assert named <= {name(state) for state in reached}, "a row for a state that nothing leads to"


def test_titles_of_tables_differ() -> None:
    titles = [table.title for table in tables()]
    assert len(set(titles)) == len(titles)


def test_page_of_states_is_what_the_tables_draw() -> None:
    assert PAGE.read_text() == page(), "make docs"
