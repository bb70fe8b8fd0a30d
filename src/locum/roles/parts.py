"""Parts of a role, each with state, rows and deadlines of its own; a role lists them once and calls all of them alike. Also the
reading of their rows.

This module must not know the work of a part.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from locum.roles.actions import Action, Count, Event, Forget, Persist, Table
from locum.wire.errors import WireError

Value = TypeVar("Value")

_UNREADABLE: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError, IndexError, WireError)


class Part(Protocol):
    """The calls that every part of a role gets. A part overrides those that it needs; times are steady seconds."""

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the rows of an earlier run; those of other parts are among them."""
        return []

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The actions that follow from an event; None when the event concerns another part."""
        return None

    def timeout(self, *, now: float) -> list[Action]:
        """Do everything that is due."""
        return []

    def deadline(self) -> float | None:
        """Time of the next `timeout`; None if there is none."""
        return None


class Parts(Part):
    """Parts in the order in which they are restored and called; a part comes after those that it builds on."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Restore all parts in order."""
        return [action for part in self._parts for action in part.restore(rows, now=now)]

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The actions of the first part that the event concerns; None if it concerns no part."""
        for part in self._parts:
            if (actions := part.happened(event, now=now)) is not None:
                return actions
        return None

    def timeout(self, *, now: float) -> list[Action]:
        """Call all parts in order."""
        return [action for part in self._parts for action in part.timeout(now=now)]

    def deadline(self) -> float | None:
        """The earliest deadline of all parts."""
        earliest: float | None = None
        for part in self._parts:
            at = part.deadline()
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest


def unreadable(row: Persist) -> list[Action]:
    """Forget a row that says nothing that can be used, and count it."""
    return [Count("unreadable-row"), Forget(row.table, row.key)]


def readable(
    rows: Iterable[Persist], table: Table, read: Callable[[Persist], Value], *refusals: type[Exception]
) -> tuple[list[tuple[Persist, Value]], list[Action]]:
    """The rows of one table with their values, in their order, and what is to be done about the others.

    `read` makes the value, and raises ValueError, KeyError, TypeError, IndexError, WireError or one of `refusals` for a row
    that it cannot use.
    """
    found: list[tuple[Persist, Value]] = []
    actions: list[Action] = []
    for row in rows:
        if row.table != table:
            continue
        try:
            found.append((row, read(row)))
        except (*_UNREADABLE, *refusals):
            actions += unreadable(row)
    return found, actions
