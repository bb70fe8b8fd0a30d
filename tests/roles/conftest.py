"""For tests of roles: every transition that a state table allows is noted.

A change that is in no table raises, so every timeline shows that its transitions are. With LOCUM_TRANSITIONS=1, and one
worker, the summary lists the transitions that no test of the run reached.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from locum.roles.state_table import State, StateTable, name, state_of
from tests.roles.state_diagrams import tables

Transition = tuple[str, State, str]  # title of the table, state, event
REACHED: set[Transition] = set()


@pytest.fixture(autouse=True, scope="session")
def transitions() -> Iterator[set[Transition]]:
    """Those that any test has reached so far."""
    with pytest.MonkeyPatch.context() as patch:
        change = StateTable.change

        def noted(table: StateTable[Any], before: object, event: str, after: Any) -> Any:
            value = change(table, before, event, after)
            REACHED.add((table.title, state_of(before), event))
            return value

        patch.setattr(StateTable, "change", noted)
        yield REACHED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The transitions that no test reached."""
    if not os.environ.get("LOCUM_TRANSITIONS"):
        return
    for table in tables():
        for before, event, after in table:
            if (table.title, before, event) not in REACHED:
                line = f"not reached: {table.title}: {name(before)} -- {event} --> {name(after)}"
                terminalreporter.write_line(line)
