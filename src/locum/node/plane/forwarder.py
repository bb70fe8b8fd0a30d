"""Gives changes of forwarding to the data plane; those that it refuses wait, and are made as soon as it can.

A home address whose changes wait keeps its earlier forwarding. Later changes of it are combined with those that wait.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locum.node import words
from locum.node.events import EventStream
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding_order import (
    INSTALLING,
    by_home_address,
    home_address_of,
    key_of,
    net_effect,
)
from locum.roles.actions import Action, ForwardingRefused

if TYPE_CHECKING:
    from locum.dataplane.performer import Refused
    from locum.dataplane.plane import DataPlane

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds until refused changes are tried again: doubled each time
_PAUSE = 0.01  # seconds between two turns of one round of tries
_ROUND = 16  # home addresses whose changes are tried in one turn: some milliseconds, where all are refused


@dataclass(slots=True)
class Waiting:
    """The changes of one home address that the data plane has refused; None: of an entry of the host."""

    home_address: Addr | None
    actions: list[Action]
    reason: str
    tries: int = 1  # 0: not tried so far


class Forwarder:
    """The way of all forwarding actions of a node. `tell` gets refusals, when the present step is over.

    `followers` are called with the actions afterwards.
    """

    def __init__(
        self, plane: "DataPlane", events: EventStream, tell: Callable[[ForwardingRefused], None]
    ) -> None:
        self._plane, self._events, self._tell = plane, events, tell
        self.followers: list[Callable[[Sequence[Action]], None]] = []
        self._waiting: dict[object, Waiting] = {}
        self._delay = FIRST_DELAY
        self._timer: asyncio.TimerHandle | None = None
        self._rest: list[object] = []  # what is still to be tried in this round, last one first

    def apply(self, actions: Sequence[Action]) -> Sequence["Refused"]:
        """Perform the actions, of each home address all or none. Returns those that were refused and wait now."""
        if self._waiting:
            refused = self._apply_with_waiting(actions)
        elif refused := self._plane.apply_each(actions):
            self.keep(refused)
        for follow in self.followers:
            follow(actions)
        return refused

    def keep(self, refused: Iterable["Refused"]) -> None:
        """Let refused changes wait, with the entries that could not be brought back, and say so.

        Those that were not tried are, in the next turns.
        """
        told: list[Addr] = []
        untried: list[object] = []
        for one in refused:
            place, reason = _place(one.home_address, one.actions), words.reason(one.problem)
            known = self._waiting.get(place)
            tries = (0 if known is None else known.tries) + one.tried
            if known is not None and not one.tried:
                reason = known.reason
            self._waiting[place] = Waiting(one.home_address, [*one.actions], reason, tries)
            if not one.tried:
                untried.append(place)
                continue
            self._events.count("forwarding-refused")
            if known is None or not known.tries or known.reason != reason:
                detail = {"reason": reason, "changes": len(one.actions)}
                self._events.emit("forwarding-refused", None, one.home_address, None, detail)
            if one.home_address is not None:
                told.append(one.home_address)
        for part in by_home_address(self._plane.take_lost()):
            self._miss(part)
        if told:
            asyncio.get_running_loop().call_soon(self._tell, ForwardingRefused(tuple(told)))
        if untried:
            self._rest = [*reversed(untried), *self._rest]
        self._schedule()

    def status(self) -> dict[str, Any]:
        """The number of home addresses whose changes wait, and the first reason; empty if there are none."""
        if not self._waiting:
            return {}
        return {"waiting": len(self._waiting), "reason": next(iter(self._waiting.values())).reason}

    def close(self) -> None:
        """Try nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _apply_with_waiting(self, actions: Sequence[Action]) -> Sequence["Refused"]:
        """Changes that wait go together with new ones of the same home address."""
        earlier: dict[object, Waiting] = {}
        for part in by_home_address(actions):
            place = _place(home_address_of(part[0]), part)
            if (waiting := self._waiting.get(place)) is not None:
                earlier[place] = waiting
        before = [action for waiting in earlier.values() for action in waiting.actions]
        refused = self._plane.apply_each(net_effect([*before, *actions]) if before else actions)
        self._settle(earlier, refused)
        if any(key_of(action) is not None and not isinstance(action, INSTALLING) for action in actions):
            self._delay = FIRST_DELAY  # there may be room now
            self._schedule()
        return refused

    def _settle(self, tried: dict[object, Waiting], refused: Sequence["Refused"]) -> None:
        still = {_place(one.home_address, one.actions) for one in refused}
        for place, waiting in tried.items():
            if place not in still:
                del self._waiting[place]
                if not waiting.tries:
                    continue  # it was never refused
                detail = {"tries": waiting.tries, "changes": len(waiting.actions)}
                self._events.emit("forwarding-resumed", None, waiting.home_address, None, detail)
        self.keep(refused)

    def _miss(self, lost: list[Action]) -> None:
        """Entries that were there before a change, and that its failure has taken away."""
        home_address = home_address_of(lost[0])
        place = _place(home_address, lost)
        waiting = self._waiting.get(place)
        if waiting is None:
            self._waiting[place] = Waiting(home_address, lost, "an entry was lost", 1)
        else:
            waiting.actions = net_effect([*lost, *waiting.actions])

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(
                _PAUSE if self._rest else self._delay, self._again
            )

    def _again(self) -> None:
        """Try all that waits, some in each turn of the event loop."""
        self._timer = None
        if not self._rest:
            self._rest = [*reversed(self._waiting)]
            self._delay = min(2 * self._delay, LONGEST_DELAY)
        places = [self._rest.pop() for _ in range(min(_ROUND, len(self._rest)))]
        tried = {place: self._waiting[place] for place in places if place in self._waiting}
        refused = self._plane.apply_each([action for waiting in tried.values() for action in waiting.actions])
        if len(refused) < len(tried):
            self._delay = FIRST_DELAY
        self._settle(tried, refused)


def _place(home_address: Addr | None, actions: Sequence[Action]) -> object:
    """The name under which changes wait: their home address, or the entry of the host that they are about."""
    return home_address if home_address is not None else key_of(actions[0])
