"""Drives the roles of a node with messages, events, commands and time.

A role's actions go to its performer. After each step the role's timer is set anew.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from locum.node.clock import FINE, STEP, SteadyClock
from locum.node.events import EventStream
from locum.node.performer import Performer
from locum.node.tables import RoleTables
from locum.roles import actions as do
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import ForwardGroup
from locum.roles.action_values.forwarding import FORWARDING
from locum.roles.actions import Action, Event, Role

log = logging.getLogger("locum.node")
_AFTER_FAILURE = 1.0  # seconds until a role that failed to decide is called again
_LONGEST_WAIT = 30.0  # seconds; in a loop whose timers stand still while the machine is suspended


@dataclass(slots=True)
class Slot:
    """A role and its driver."""

    name: str
    role: Role
    performer: Performer
    timer: asyncio.TimerHandle | None = None
    due: float = float("inf")  # steady seconds for which the timer is set
    unscheduled: bool = False  # the timer will be looked at soon
    told: set[Callable[[], None]] = field(default_factory=set)  # called after every step


class Driver:
    """The roles of one node by name, in `slots`, and their events and timers."""

    def __init__(self, clock: SteadyClock, events: EventStream) -> None:
        self.slots: dict[str, Slot] = {}
        self.stopping = False  # once set, no timer is set any more
        self._clock, self._events = clock, events

    def restored(
        self, tables: Callable[[str], RoleTables], others: dict[str, list[Action]], now: float
    ) -> Iterator[Action]:
        """The forwarding of each role as it is restored; all else, and groups, comes into `others`.

        An action is gone when the next one is wanted: together those of many bindings take more memory than the bindings.
        """
        for slot in self.slots.values():
            rest = others[slot.name] = []
            actions = slot.role.restore(tables(slot.name).rows(), now=now)
            actions.reverse()
            while actions:
                action = actions.pop()
                if type(action) in FORWARDING:
                    yield action
                if type(action) not in FORWARDING or isinstance(action, ForwardGroup):
                    rest.append(action)

    def deliver(self, role: str, message: bytes, source: Source) -> None:
        """Give a role a registration or discovery message."""
        slot = self.slots[role]
        self._step(slot, lambda now: slot.role.receive(message, source, now=now))

    def feed(self, role: str, event: Event) -> None:
        """Give a role an event; ignored if this node does not have the role."""
        slot = self.slots.get(role)
        if slot is not None:
            self._step(slot, lambda now: slot.role.happened(event, now=now))

    def tell(self, event: Event) -> None:
        """Give an event to every role."""
        for name in self.slots:
            self.feed(name, event)

    def command(self, role: str, command: Callable[[Role, float], Sequence[Action]]) -> None:
        """Let a role perform a user's command. Raises the role's errors."""
        slot = self.slots[role]
        slot.performer.perform(command(slot.role, self.now()))
        self._after(slot)

    def now(self) -> float:
        """Steady seconds; the roles already know of steps of the wall clock."""
        return self._look(STEP)

    def clock_set(self) -> None:
        """Tell the roles of a step of the wall clock, also of a small one: the kernel says that it was set."""
        self._look(FINE)

    def _look(self, least: float) -> float:
        now, before = self._clock.now(), self._clock.ahead
        if self._clock.stepped(now, least):
            self._clock.keep()
            self._events.emit("clock-stepped", detail={"seconds": round(self._clock.ahead - before, 3)})
            self.tell_wall_clock()
        return now

    def tell_wall_clock(self) -> None:
        """Tell every role how far the wall clock is ahead of steady seconds."""
        self.tell(do.WallClockStepped(self._clock.ahead))

    def schedule(self, slot: Slot) -> None:
        """Set the timer, unless one that is set comes first anyway."""
        slot.unscheduled = False
        if self.stopping:
            return
        due = slot.role.deadline()
        if due is None or (slot.timer is not None and slot.due <= due):
            return
        if slot.timer is not None:
            slot.timer.cancel()
        slot.due = due
        delay = min(max(0.0, due - self._clock.now()), _LONGEST_WAIT)
        slot.timer = asyncio.get_running_loop().call_later(delay, self._timeout, slot)

    def stop(self) -> None:
        """Cancel every timer; none is set any more."""
        self.stopping = True
        for slot in self.slots.values():
            if slot.timer is not None:
                slot.timer.cancel()

    def _step(self, slot: Slot, decide: Callable[[float], Sequence[Action]]) -> None:
        try:
            actions = decide(self.now())
        except Exception:
            self._events.count("internal-error")
            log.exception("%s failed to decide", slot.name)
            self._again(slot)
            return
        slot.performer.perform(actions)
        self._after(slot)

    def _again(self, slot: Slot) -> None:
        """Set the timer after a step that failed: what else is due has to happen, and a lasting fault must not spin."""
        if slot.timer is None and not self.stopping:
            slot.due = self._clock.now() + _AFTER_FAILURE
            slot.timer = asyncio.get_running_loop().call_later(_AFTER_FAILURE, self._timeout, slot)

    def _after(self, slot: Slot) -> None:
        if not slot.unscheduled:  # once for all the messages that are read in one go
            slot.unscheduled = True
            asyncio.get_running_loop().call_soon(self.schedule, slot)
        if slot.told:
            for tell in tuple(slot.told):
                tell()

    def _timeout(self, slot: Slot) -> None:
        slot.timer = None
        due = slot.role.deadline()
        if due is not None and due <= self._clock.now():
            self._step(slot, lambda now: slot.role.timeout(now=now))
        else:
            self.schedule(slot)
