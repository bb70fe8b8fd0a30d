"""Performs a role's actions, in the order it decided (see `locum.roles.actions`); decides nothing itself.

Two ways to wait for the store. A home agent answers many strangers at once: its answers wait for the commit of their
own writes while further requests are taken (`Pipelined`). Every other role gets one event after the other: an
action that takes time keeps the ones behind it waiting (`Sequential`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from locum.node import words
from locum.node.events import EventStream
from locum.node.tables import RoleTables, StoreError
from locum.roles import actions as do
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import FORWARDING
from locum.roles.action_values.forwarding_order import home_address_of, net_effect
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.actions import Action
from locum.roles.profile_requests import AnswerPush

if TYPE_CHECKING:
    from locum.dataplane.performer import Refused

log = logging.getLogger("locum.performer")

# Performs one action at once (None) or gives what has to be awaited before the next one.
Handler = Callable[[Any], Awaitable[None] | None]

OUTGOING: frozenset[type] = frozenset((do.Reply, do.SendRegistration, do.Ask, do.Answer, AnswerPush))


class Performer:
    """Common part of both performers: store, events, counters, forwarding, handlers for the rest."""

    def __init__(
        self,
        tables: RoleTables,
        events: EventStream,
        forward: Callable[[Sequence[Action]], "Sequence[Refused]"],
        handlers: Mapping[type, Handler],
    ) -> None:
        """`forward` gives forwarding actions to the data plane and returns those that were refused.

        `handlers` perform the other kinds.
        """
        self._tables, self._events, self._forward, self._handlers = tables, events, forward, handlers
        self.tell_failure: Callable[[NotPerformed | do.NoAnswer], None] = lambda failure: None
        self._simple: dict[type, Callable[[Any], None]] = {
            do.Persist: self._persist, do.Forget: self._forget, do.Emit: self._emit, do.Count: self._count
        }  # fmt: skip
        self._begin()

    def _begin(self) -> None:
        """Start with an empty queue."""
        raise NotImplementedError

    def perform(self, actions: Iterable[Action]) -> None:
        """Perform these after all that were given before."""
        raise NotImplementedError

    async def saved(self) -> None:
        """Wait until the writes among the actions given so far are committed. Raises StoreError."""
        await self._tables.durable()

    def _at_once(self, action: Action) -> bool:
        """Perform an action that never waits; False if it is of another kind."""
        simple = self._simple.get(type(action))
        if simple is None:
            return False
        simple(action)
        return True

    def _persist(self, action: do.Persist) -> None:
        self._tables.put(action.table, action.key, action.value)

    def _forget(self, action: do.Forget) -> None:
        self._tables.forget(action.table, action.key)

    def _emit(self, action: do.Emit) -> None:
        self._events.emit(action.kind, action.message, action.home_address, action.flow, action.detail)

    def _count(self, action: do.Count) -> None:
        self._events.count(action.reason, action.number)

    def _failed(self, action: Action, problem: Exception) -> None:
        name = type(action).__name__
        self._events.count(f"failed-{name}")
        self._events.emit("action-failed", detail={"action": name, "reason": words.reason(problem)})
        log.warning("%s failed: %s", name, problem, exc_info=not isinstance(problem, OSError | StoreError))
        reason = f"the step '{words.step(action)}' failed: {words.reason(problem)}"
        self.tell_failure(
            do.NoAnswer(action.request, reason)
            if isinstance(action, do.Ask)
            else NotPerformed(action, reason)
        )


@dataclass(slots=True, eq=False)
class _Decision:
    """Actions of one decision whose answer must not promise forwarding that was refused."""

    actions: Sequence[Action]
    broken: bool = False

    def changes(self, home_addresses: Container[Addr | None]) -> bool:
        """True if it changes the forwarding of one of these."""
        return any(
            home_address_of(action) in home_addresses for action in self.actions if type(action) in FORWARDING
        )


class Pipelined(Performer):
    """Answers leave when their writes are committed; meanwhile the next message is taken."""

    def _begin(self) -> None:
        self._after_commit: dict[asyncio.Future[None], list[tuple[_Decision | None, list[Action]]]] = {}
        self._forwarding: list[Action] = []
        self._decisions: list[_Decision] = []  # those whose changes are in `_forwarding`
        # Sends many answers at once; gives back those that were not sent, each with the reason.
        self.answer: Callable[[Sequence[do.Reply]], Iterable[tuple[Action, Exception]]] = self._one_by_one

    def perform(self, actions: Iterable[Action]) -> None:
        """Change state now; from the first outgoing message on, the remaining actions wait for the commit."""
        waiting: list[Action] | None = None
        decision: _Decision | None = None
        actions = actions if isinstance(actions, list) else [*actions]
        for action in actions:
            if waiting is not None:
                waiting.append(action)
                continue
            kind = type(action)
            try:
                if kind in OUTGOING and (commit := self._tables.committed()) is not None:
                    waiting = [action]
                    self._after(commit).append((decision, waiting))
                elif kind in FORWARDING:
                    if decision is None:
                        decision = _Decision(actions)
                        self._decisions.append(decision)
                    if self._forwarding:
                        self._forwarding.append(action)
                    else:
                        self._later(action)
                elif not self._at_once(action):
                    self._handle(action)
            except Exception as problem:
                self._failed(action, problem)
                return

    def _after(self, commit: "asyncio.Future[None]") -> list[tuple[_Decision | None, list[Action]]]:
        waiting = self._after_commit.get(commit)
        if waiting is None:
            waiting = self._after_commit[commit] = []
            commit.add_done_callback(self._committed)
        return waiting

    def _later(self, action: Action) -> None:
        """The data plane takes the changes of many registrations together, before any of their answers leaves."""
        if not self._forwarding:
            asyncio.get_running_loop().call_soon(self._flush)
        self._forwarding.append(action)

    def _flush(self) -> None:
        actions, self._forwarding = self._forwarding, []
        decisions, self._decisions = self._decisions, []
        if not actions:
            return
        try:
            refused = self._forward(actions if len(actions) == 1 else net_effect(actions))
        except Exception as problem:
            self._failed(actions[0], problem)
            for decision in decisions:
                decision.broken = True
            return
        if refused:
            home_addresses = {one.home_address for one in refused}
            for decision in decisions:
                decision.broken = decision.changes(home_addresses)
            for one in refused:
                if one.tried:
                    self._failed(one.actions[0], one.problem)

    def _committed(self, commit: "asyncio.Future[None]") -> None:
        waiting = self._after_commit.pop(commit)
        self._flush()
        if (lost := commit.exception()) is not None:
            self._failed(waiting[0][1][0], StoreError(str(lost)))
            return
        replies: list[do.Reply] = []
        said: list[Action] = []  # records about them, behind them
        for decision, actions in waiting:
            if decision is not None and decision.broken:
                continue  # an answer must not promise actions that were not performed
            for action in actions:
                if isinstance(action, do.Reply):
                    replies.append(action)
                elif isinstance(action, do.Emit | do.Count):
                    said.append(action)
                else:
                    self._leave(replies, said)
                    replies, said = [], []
                    self._perform_one(action)
        self._leave(replies, said)

    def _leave(self, replies: Sequence[do.Reply], said: Sequence[Action]) -> None:
        """Answers leave together."""
        if replies:
            for action, problem in self.answer(replies):
                self._failed(action, problem)
        for action in said:
            self._perform_one(action)

    def _one_by_one(self, replies: Sequence[do.Reply]) -> Iterable[tuple[Action, Exception]]:
        for reply in replies:
            self._perform_one(reply)
        return ()

    def _perform_one(self, action: Action) -> None:
        try:
            if not self._at_once(action):
                self._handle(action)
        except Exception as problem:
            self._failed(action, problem)

    def _handle(self, action: Action) -> None:
        if self._handlers[type(action)](action) is not None:
            raise TypeError(f"{type(action).__name__} takes time and has no place in a pipelined role")


class Sequential(Performer):
    """One action after the other, however long each takes."""

    def _begin(self) -> None:
        self._queue: deque[Action | asyncio.Future[None]] = deque()  # a future is done when it is reached
        self._running: asyncio.Task[None] | None = None
        self._advancing = False
        self._unsaved = False

    def perform(self, actions: Iterable[Action]) -> None:
        """Append; immediate actions are done before this returns, if no earlier one is pending."""
        self._queue.extend(actions)
        if self._running is None and not self._advancing:
            self._advance()

    @property
    def idle(self) -> bool:
        """True if no action is waiting or running."""
        return self._running is None and not self._queue

    async def saved(self) -> None:
        if not self.idle:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(reached)
            await reached
        await super().saved()

    async def drained(self) -> None:
        """Wait until nothing is left to do."""
        while self._running is not None:
            await asyncio.wait([self._running])

    def _advance(self) -> None:
        self._advancing = True
        try:
            while self._queue:
                action = self._queue.popleft()
                if isinstance(action, asyncio.Future):
                    if not action.done():  # nobody waits any more
                        action.set_result(None)
                    continue
                try:
                    pending = self._start(action)
                except Exception as problem:
                    self._failed(action, problem)
                    continue
                if pending is not None:
                    self._running = asyncio.create_task(self._wait(action, pending))
                    return
        finally:
            self._advancing = False

    def _start(self, action: Action) -> Awaitable[None] | None:
        kind = type(action)
        if kind in FORWARDING:
            for refused in self._forward((action, *self._following())):
                self._failed(refused.actions[0], refused.problem)
            return None
        if kind in OUTGOING and self._unsaved:
            return self._when_saved(action)
        if self._at_once(action):
            self._unsaved |= kind in (do.Persist, do.Forget)
            return None
        return self._handlers[kind](action)

    async def _when_saved(self, action: Action) -> None:
        """Perform the action once its writes are committed; without them it does not take place."""
        await self._tables.durable()
        self._unsaved = False
        if (pending := self._handlers[type(action)](action)) is not None:
            await pending

    def _following(self) -> list[Action]:
        """The forwarding actions right behind: the data plane takes them together."""
        together: list[Action] = []
        while self._queue and type(action := self._queue[0]) in FORWARDING:
            together.append(cast(Action, action))
            self._queue.popleft()
        return together

    async def _wait(self, action: Action, pending: Awaitable[None]) -> None:
        try:
            await pending
        except Exception as problem:
            self._failed(action, problem)
        finally:
            self._running = None
            self._advance()
