"""Draws the state tables of all roles into docs/states.md: python -m tests.roles.state_diagrams (`make docs`)."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import locum.roles
from locum.roles.state_table import State, StateTable, name

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "states.md"

HEAD = """# States

Machines of the roles that have named states. Each table below is the one that the code looks a change of state up in
(`src/locum/roles/state_table.py`); a change that is not in it is an error. `make docs` draws this page from the tables.

An arrow carries its events. It names the step that the machine takes, so several messages or timers may lead to it.
The dot is where no machine exists: before it begins, and after it has ended.
"""


def tables() -> list[StateTable[Any]]:
    """Every state table in the roles, by the modules that define them."""
    found: dict[int, StateTable[Any]] = {}
    for module in _modules():
        for value in vars(module).values():
            if isinstance(value, StateTable):
                found.setdefault(id(value), value)
    return list(found.values())


def _modules() -> Iterator[ModuleType]:
    names = (module.name for module in pkgutil.walk_packages(locum.roles.__path__, "locum.roles."))
    return (import_module(name) for name in sorted(names))


def page() -> str:
    """The text of docs/states.md."""
    drawn = sorted(tables(), key=lambda table: table.title)
    return "\n".join([HEAD, *(section(machine) for machine in drawn)])


def section(table: StateTable[Any]) -> str:
    """One machine: its title, and its diagram."""
    return f"## {table.title}\n\n{table.about}\n\n```mermaid\n{diagram(table)}\n```\n"


def diagram(table: StateTable[Any]) -> str:
    """The transitions in the language of Mermaid, one arrow for each pair of states."""
    arrows: dict[tuple[str, str], list[str]] = {("[*]", _drawn(state)): [] for state in table.start}
    for before, event, after in table:
        if before is after is None:  # the dot has no arrow to itself
            continue
        arrows.setdefault((_drawn(before), _drawn(after)), []).append(event)
    for state, following in table.transitions.items():
        if not following:
            arrows[_drawn(state), "[*]"] = []
    lines = [
        f"    {before} --> {after}" + (f": {', '.join(events)}" if events else "")
        for (before, after), events in arrows.items()
    ]
    return "\n".join(["stateDiagram-v2", *lines])


def _drawn(state: State) -> str:
    return "[*]" if state is None else name(state)


if __name__ == "__main__":
    PAGE.write_text(page())
