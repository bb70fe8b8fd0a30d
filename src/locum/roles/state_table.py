"""State tables: the transitions of a machine as data. Every change of its state goes through its table.

docs/states.md draws the tables (`make docs`). This module must not know any machine.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Generic, TypeVar

State = type | Enum | None
"""A state is a class, whose instances carry its data, or a member of an enumeration. None: there is no machine."""

Event = TypeVar("Event", bound=str)
Value = TypeVar("Value")


class IllegalTransition(Exception):
    """A change of state that the table does not have: an error of this program."""


class StateTable(Generic[Event]):
    """The machine called `title`. `transitions` gives for each state and event the next state.

    `start` are the states in which a machine can begin, apart from what leads out of None.
    """

    def __init__(
        self,
        title: str,
        about: str,
        transitions: Mapping[State, Mapping[Event, State]],
        start: Sequence[State] = (),
    ) -> None:
        self.title, self.about, self.start = title, about, tuple(start)
        self.transitions = transitions

    def change(self, before: object, event: Event, after: Value) -> Value:
        """Return `after`, the next value of a machine whose present one is `before`; raises IllegalTransition."""
        state = state_of(before)
        following = self.transitions.get(state, {})
        if event not in following or following[event] != state_of(after):
            change = f"{name(state)} to {name(state_of(after))} by {event!r}"
            raise IllegalTransition(f"{self.title}: {change} is not in the state table")
        return after

    def __iter__(self) -> Iterator[tuple[State, str, State]]:
        """Return every transition: state, event, next state."""
        for state, following in self.transitions.items():
            for event, after in following.items():
                yield state, event, after


def state_of(value: object) -> State:
    """Return the state of a value."""
    return value if value is None or isinstance(value, Enum) else type(value)


def name(state: State) -> str:
    """Return the name of a state, for users."""
    if state is None:
        return "nothing"
    return state.name.capitalize() if isinstance(state, Enum) else state.__name__
