"""Orders of a device: jobs for its stand-in without a program behind them, and states of all of its proxies (C2, A4, A5).

An order joins the proxies of the configuration in each 634 until it is done, has failed or is cancelled. What the stand-in
returns in a 632 is stored before the stand-in may forget it. This module must not know how files come to the device.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.app_orders import APPS, MAX_APPS, MAX_NAME, unfit
from locum.roles.action_values.apps import AppOrder
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, Forget, NoAnswer, Persist
from locum.roles.app_contract import MAX_STATE
from locum.roles.app_results import RESULT, Outcome, outcome, states
from locum.roles.mobile_node.handover import CONTROL_TIMEOUT
from locum.roles.mobile_node.order_rows import (
    ORDER,
    STATE,
    Condition,
    Order,
    Removal,
    order_from_row,
    order_row,
    removal_from_row,
    removal_row,
    state_from_row,
    state_row,
)
from locum.roles.parts import Part, readable
from locum.wire import cbor
from locum.wire.control.answer import Status
from locum.wire.control.order import PATH, Operation, OrderRequest, decode_order_answer, encode_order
from locum.wire.errors import WireError

TABLE: Final = "order"
MAX_ENDED = 64
"""Orders that have ended and that the device still knows; of those that are collected the oldest give way."""
FIRST_REQUEST = 1 << 48
"""Above the numbers of all other requests of the role; those of triggers are below these."""
REMOVAL_PATIENCE = 30 * 86400.0
"""Seconds in which the device tries to have files removed; the stand-in removes old ones by itself."""
REMOVAL_RETRY_FIRST, REMOVAL_RETRY_MAX = 60.0, 3600.0
"""Seconds after which a stand-in that has not answered is asked again, each time twice as many."""
_LONGEST_STATE = MAX_STATE + (4 << 10)  # bytes; the stand-in may have added a reason
_GOING = (Condition.WAITING, Condition.RUNNING)


class OrderRefused(Exception):
    """The command does not fit the orders that there are; the message is for users."""


class OwnOrders(Part):
    """`configured` are the proxies of the configuration; `home_address` gives the device's, also an assigned one."""

    def __init__(self, configured: Sequence[AppOrder], home_address: Callable[[], Addr]) -> None:
        self._configured, self._home_address = tuple(configured), home_address
        self._orders: dict[str, Order] = {}
        self._states: dict[str, Mapping[str, object]] = {}  # of the proxies of the configuration
        self._removals: dict[str, Removal] = {}
        self._asked: dict[int, str] = {}  # requests under way: the keys of their removals
        self._retry_at: float | None = None
        self._retries = 0  # since a stand-in has answered
        self.leaving: frozenset[str] = frozenset()
        """Names of the orders in a 634 that may not have been answered."""
        self._numbers = count(FIRST_REQUEST)
        self.standing: Callable[[], Collection[str]] = tuple
        """Names of the orders that are at a stand-in although the device is awake."""

    # Reading -----------------------------------------------------------------------------------------------------

    def all(self) -> Collection[Order]:
        """Every order that the device knows, the oldest first."""
        return self._orders.values()

    def get(self, name: str) -> Order:
        """The order of that name. Raises OrderRefused."""
        if (order := self._orders.get(name)) is not None:
            return order
        if any(app.name == name for app in self._configured):
            raise OrderRefused(f"{name} is no order, but a table [[mobile_node.app]] of the configuration")
        raise OrderRefused(f"there is no order {name}; `locum order list` names those that there are")

    def going(self) -> tuple[AppOrder, ...]:
        """The proxies that the next sleep's 634 asks for."""
        standing = self.standing()
        return tuple(app for app in self.unfinished() if app.name not in standing)

    def unfinished(self) -> tuple[AppOrder, ...]:
        """The proxies that run, or are to run."""
        return (
            *self._configured,
            *(order.app for order in self._orders.values() if order.condition in _GOING),
        )

    def names(self) -> frozenset[str]:
        """Names of the orders among these: a refused one is left out, and the sleep goes on."""
        return frozenset(app.name for app in self.going() if app.name in self._orders)

    def configuration(self, apps: Iterable[AppOrder] | None = None) -> Mapping[str, object]:
        """These, or all that go with a sleep, as a 634 has them (control.cddl, rule app)."""
        listed = [app.to_json() for app in (self.going() if apps is None else apps)]
        return {APPS: listed} if listed else {}

    def application(self, apps: Iterable[AppOrder] | None = None) -> Mapping[str, object]:
        """Their states, of earlier proxies; results stay here."""
        kept = self._states | {name: order.state for name, order in self._orders.items()}
        going = self.going() if apps is None else apps
        found = {app.name: without_result(kept.get(app.name, {})) for app in going}
        given = {name: state for name, state in found.items() if state}
        return {APPS: given} if given else {}

    def removals(self) -> Collection[Removal]:
        """Files that stand-ins are still to remove."""
        return self._removals.values()

    def removing(self, name: str) -> bool:
        """True while a stand-in is being asked to remove its files."""
        asked = [self._removals.get(key) for key in self._asked.values()]
        return any(removal is not None and removal.name == name for removal in asked)

    # Commands ----------------------------------------------------------------------------------------------------

    def check(self, app: AppOrder) -> None:
        """Raises OrderRefused if there is no room or another use of the name."""
        if any(other.name == app.name for other in self._configured):
            raise OrderRefused(f"{app.name} is the name of a table [[mobile_node.app]]; choose another")
        known = self._orders.get(app.name)
        if known is not None and known.condition is not Condition.COLLECTED:
            raise OrderRefused(f"there is an order {app.name} already; cancel it, or choose another name")
        if any(removal.name == app.name for removal in self._removals.values()):
            raise OrderRefused(
                f"the stand-in still has files of an earlier order {app.name}, and could not be told to remove them; "
                "choose another name"
            )
        for word in (app.name, app.kind):
            if not 0 < len(word) <= MAX_NAME or not word.isprintable():
                raise OrderRefused(f"names and kinds have 1 to {MAX_NAME} printable characters")
        if reason := unfit(app.settings):
            raise OrderRefused(reason)
        if len(self.unfinished()) >= MAX_APPS:
            raise OrderRefused(
                f"a device has at most {MAX_APPS} proxies, those of its configuration included"
            )
        ended = sum(order.condition in (Condition.DONE, Condition.FAILED) for order in self._orders.values())
        if ended >= MAX_ENDED:
            raise OrderRefused(f"{ended} orders have ended; fetch or cancel some of them first")

    def add(self, app: AppOrder, *, now: float) -> list[Action]:
        """Order it: it begins when the device sleeps. Raises OrderRefused."""
        self.check(app)
        self._orders.pop(app.name, None)  # one that was collected
        return [
            *self._keep(Order(app, Condition.WAITING, now)),
            *self._make_room(),
            self._told("order-added", app.name, kind=app.kind),
        ]

    def cancel(self, name: str, *, now: float) -> list[Action]:
        """Forget it, and have its files removed: now, or at the next sleep. Raises OrderRefused."""
        order = self.get(name)
        if order.condition is Condition.RUNNING:
            raise OrderRefused(f"{name} runs at the stand-in; wake the device first, if it sleeps")
        if name in self.leaving:
            # It would run all the same, and its result would be that of the next order of its name.
            raise OrderRefused(f"{name} is on its way to the stand-in; ask again when the device is awake")
        del self._orders[name]
        forgotten = Forget(TABLE, order_row(order)[0])
        return [forgotten, *self._remove(order, now), self._told("order-cancelled", name)]

    def collected(self, name: str, *, now: float) -> list[Action]:
        """Its files are at the device. One that is done ends with this, and its files are removed. Raises OrderRefused."""
        order = self.get(name)
        if order.condition is not Condition.DONE:
            return []
        ended = replace(order, condition=Condition.COLLECTED, at=now, stand_ins=())
        removing = self._remove(order, now)
        return [*self._keep(ended), *self._make_room(), *removing, self._told("order-collected", name)]

    def used(self, name: str, stand_in: Addr) -> list[Action]:
        """The stand-in has, or will have, files of it. Raises OrderRefused."""
        order = self.get(name)
        return self._keep(replace(order, stand_ins=_first(stand_in, order.stand_ins)))

    # Sleep and wake ----------------------------------------------------------------------------------------------

    def refused(self, reasons: Mapping[str, str], *, now: float) -> list[Action]:
        """The stand-in cannot run these orders: they have failed."""
        actions: list[Action] = []
        for name, reason in reasons.items():
            if (order := self._orders.get(name)) is not None and order.condition in _GOING:
                actions += self._fail(order, of_order(reason, name), now)
        return actions

    def went(self, names: Iterable[str], stand_in: Addr, *, now: float) -> list[Action]:
        """The stand-in runs these."""
        actions: list[Action] = []
        for name in names:
            if (order := self._orders.get(name)) is not None and order.condition is Condition.WAITING:
                known = _first(stand_in, order.stand_ins)
                running = replace(order, condition=Condition.RUNNING, at=now, reason="", stand_ins=known)
                actions += self._keep(running)
        return actions

    def postponed(self, name: str, reason: str, *, now: float) -> list[Action]:
        """It could not begin, and is tried again."""
        order = self._orders.get(name)
        if order is None or order.condition is not Condition.WAITING or order.reason == reason:
            return []
        return [*self._keep(replace(order, reason=reason)), self._told("order-problem", name, reason=reason)]

    def returned(self, application: Mapping[str, object], stand_in: Addr, *, now: float) -> list[Action]:
        """States and results in a 632; their rows are written before the stand-in is told that it may forget them."""
        actions: list[Action] = []
        for name, state in states(application).items():
            order = self._orders.get(name)
            result = outcome(state)
            if len(cbor.encode(dict(state))) > _LONGEST_STATE:  # no row could keep it
                actions.append(Count("order-state-too-large"))
                state = {}
            if any(app.name == name for app in self._configured):
                actions += self._keep_state(name, without_result(state))
            elif order is not None and order.condition in _GOING:
                # A daemon that was killed before the last answer does not know that it ran, nor where.
                known = _first(stand_in, order.stand_ins)
                actions += self._result(replace(order, state=state, stand_ins=known), result, now)
        return actions

    def awake(self, *, now: float) -> list[Action]:
        """The wake has ended: orders of which the stand-in said nothing wait for the next sleep."""
        standing = self.standing()
        missing = [name for name in self._orders if name not in standing]
        return [*self.unreported(missing, now=now), *self.ask_again(now=now)]

    def unreported(self, names: Iterable[str], *, now: float) -> list[Action]:
        """Those of them that ran are at no stand-in, and none has said anything of them: they wait."""
        actions: list[Action] = []
        for name in names:
            if (order := self._orders.get(name)) is not None and order.condition is Condition.RUNNING:
                actions += self._keep(replace(order, condition=Condition.WAITING, at=now))
                actions.append(self._told("order-unreported", order.name))
        return actions

    def ask_again(self, *, now: float) -> list[Action]:
        """Have files removed of which no stand-in has said yet that they are."""
        actions: list[Action] = []
        for key, removal in [*self._removals.items()]:
            if now - removal.since > REMOVAL_PATIENCE:
                actions += self._removed(key)
            elif key not in self._asked.values():
                actions += self._ask(removal)
        return actions

    # As a part of the role ---------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """The orders of an earlier run, the oldest first."""
        found, actions = readable(rows, TABLE, self._restore)
        actions += [action for _row, forgotten in found for action in forgotten]
        self._orders = dict(sorted(self._orders.items(), key=lambda item: (item[1].at, item[0])))
        return actions

    def _restore(self, row: Persist) -> list[Action]:
        kind, _, name = row.key.partition(" ")
        if kind == ORDER:
            self._orders[name] = order_from_row(name, row.value)
        elif kind == STATE:
            if all(app.name != name for app in self._configured):
                return [Forget(TABLE, row.key)]
            self._states[name] = state_from_row(row.value)
        else:
            removal = removal_from_row(row.value)
            self._removals[removal.key] = removal
        return []

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers to removals."""
        if not isinstance(event, Answered | NoAnswer) or event.request < FIRST_REQUEST:
            return None
        key = self._asked.pop(event.request, None)
        if key is None or key not in self._removals:
            return []
        if isinstance(event, NoAnswer):
            return self._retry("order-unanswered", now)
        try:
            status = decode_order_answer(event.body).status
        except WireError as error:
            return self._retry(f"order-{error.reason}", now)
        if status is Status.BUSY:
            return self._retry("order-busy", now)
        self._retries = 0
        if status is not Status.OK:  # asking again would not help
            return [Count("order-removal-refused"), *self._removed(key)]
        name = self._removals[key].name
        return [*self._removed(key), self._told("order-files-removed", name)]

    def timeout(self, *, now: float) -> list[Action]:
        """Ask stand-ins again that have not removed files."""
        if self._retry_at is None or now < self._retry_at:
            return []
        self._retry_at = None
        return self.ask_again(now=now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._retry_at if self._removals else None

    # Steps -------------------------------------------------------------------------------------------------------

    def _keep(self, order: Order) -> list[Action]:
        self._orders[order.name] = order
        return [Persist(TABLE, *order_row(order))]

    def _keep_state(self, name: str, state: Mapping[str, object]) -> list[Action]:
        if state == self._states.get(name, {}):
            return []
        self._states[name] = state
        return [Persist(TABLE, *state_row(name, state))]

    def _result(self, order: Order, result: Outcome, now: float) -> list[Action]:
        if result.failed:
            return self._fail(order, result.failed, now)
        if not result.done:
            waiting = replace(order, condition=Condition.WAITING, at=now, reason=result.problem)
            told = [self._told("order-problem", order.name, reason=result.problem)] if result.problem else []
            return [*self._keep(waiting), *told]
        size = sum(file.size for file in result.files)
        part: dict[str, JSON] = {"reason": result.problem} if result.problem else {}
        done = self._told("order-done", order.name, files=len(result.files), bytes=size, **part)
        return [*self._keep(replace(order, condition=Condition.DONE, at=now, reason=result.problem)), done]

    def _fail(self, order: Order, reason: str, now: float) -> list[Action]:
        failed = replace(order, condition=Condition.FAILED, at=now, reason=reason)
        return [*self._keep(failed), self._told("order-failed", order.name, reason=reason)]

    def _make_room(self) -> list[Action]:
        """Forget the oldest of those that are collected, past the bound."""
        over = len(self._orders) - MAX_ENDED - MAX_APPS
        collected = [order for order in self._orders.values() if order.condition is Condition.COLLECTED]
        actions: list[Action] = []
        for order in sorted(collected, key=lambda order: order.at)[: max(over, 0)]:
            del self._orders[order.name]
            actions.append(Forget(TABLE, order_row(order)[0]))
        return actions

    def _remove(self, order: Order, now: float) -> list[Action]:
        actions: list[Action] = []
        for stand_in in order.stand_ins:
            removal = Removal(order.name, stand_in, now)
            self._removals[removal.key] = removal
            actions += [Persist(TABLE, *removal_row(removal)), *self._ask(removal)]
        return actions

    def _retry(self, counted: str, now: float) -> list[Action]:
        """Ask again after a while, or at the next sleep or wake."""
        if self._retry_at is None:
            self._retry_at = now + min(REMOVAL_RETRY_FIRST * 2**self._retries, REMOVAL_RETRY_MAX)
            self._retries = min(self._retries + 1, 16)
        return [Count(counted)]

    def _ask(self, removal: Removal) -> list[Action]:
        number = next(self._numbers)
        self._asked[number] = removal.key
        request = OrderRequest(Operation.REMOVE, self._home_address(), removal.name)
        return [Ask(number, removal.stand_in, PATH, encode_order(request), CONTROL_TIMEOUT)]

    def _removed(self, key: str) -> list[Action]:
        del self._removals[key]
        return [Forget(TABLE, key)]

    def _told(self, event: str, name: str, **detail: JSON) -> Emit:
        return Emit(event, None, self._home_address(), None, {"order": name, **detail})


def of_order(reason: str, name: str) -> str:
    """The stand-in's reason for a refusal: it takes every proxy for a table of the configuration."""
    return reason.replace(f"[[mobile_node.app]] {name}", f"order {name}").replace(
        f"app {name}", f"order {name}"
    )


def without_result(state: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a state that is for the next proxy."""
    return {key: value for key, value in state.items() if key != RESULT}


def _first(stand_in: Addr, others: Iterable[Addr]) -> tuple[Addr, ...]:
    return (stand_in, *(other for other in others if other != stand_in))
