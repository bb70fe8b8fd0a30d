"""Application proxies of handovers at their stand-in: checked before they are promised, started with the sessions, ended
by a reclaim (A1, C2, C3).

After a reclaim was answered no proxy speaks in these sessions any more: the device's sockets go on from there, also when
the device sleeps on. This module must not know how a proxy runs, nor any kind of them.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.app_orders import APPS, OrderError, orders, read_order
from locum.roles.action_values.apps import AppOrder, AppsPaused, EndApps, PauseApps, StartApps
from locum.roles.actions import Action, Count, Emit, Event, Persist
from locum.roles.mnps.handover import Holding, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart
from locum.wire.takes import Takes

AppCheck = Callable[[AppOrder, Sequence[AppOrder]], str | None]
"""Why this proxy cannot run here beside the others, naming table and key; None if it can."""


def refuse_all(order: AppOrder, others: Sequence[AppOrder] = ()) -> str | None:
    """The check of a stand-in without proxies."""
    return f"app {order.name}: the stand-in has no proxy of kind {order.kind}"


class Attending(WaitingPart):
    """Of the handovers of `holdings`. `paused` is called when the proxies of a handover have ended.

    `unpaused`: there is no such handover any more.
    """

    def __init__(self, holdings: Holdings, check: AppCheck) -> None:
        self._holdings, self._check = holdings, check
        self.paused: Callable[[TakenOver], list[Action]] = lambda _taken: []
        self.unpaused: Callable[[bytes], list[Action]] = lambda _handover: []

    def ordered(self, configuration: Mapping[str, object]) -> tuple[AppOrder, ...]:
        """The proxies in a 634's configuration. Raises OrderError, also for one that cannot run here.

        Of two that cannot run side by side the later one is to blame.
        """
        found = orders(configuration)
        for place, order in enumerate(found):
            if (reason := self._check(order, found[:place])) is not None:
                raise OrderError(reason, order.name)
        return found

    def fits(self, app: object, others: Iterable[object]) -> None:
        """Raise OrderError if this proxy of a 634's list cannot run here beside the others; wrong ones among these do not count."""
        order, beside = read_order(app), []
        for other in others:
            with contextlib.suppress(OrderError):
                beside.append(read_order(other))
        if (reason := self._check(order, beside)) is not None:
            raise OrderError(reason, order.name)

    def begin(self, taken: TakenOver) -> list[Action]:
        """The sessions live here: run the proxies. The handover is stored by the caller."""
        if not taken.attended or not isinstance(taken.state, Holding):
            return []
        states = taken.application.get(APPS, {})
        given = states if isinstance(states, dict) else {}
        homes, led = taken.home_addresses, taken.switch is Takes.RULED
        return [StartApps(taken.identifier, homes[0], taken.apps, given, homes, led)]

    def pause(self, taken: TakenOver) -> list[Action]:
        """The device reclaims: no proxy speaks any more. Empty if none runs."""
        return [PauseApps(taken.identifier)] if taken.attended else []

    def end(self, taken: TakenOver) -> list[Action]:
        """The handover ends."""
        return [EndApps(taken.identifier)] if taken.apps else []

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The proxies have ended: their states and words go to the device with the next answer."""
        if not isinstance(event, AppsPaused):
            return None
        taken = self._holdings.get(event.handover)
        if taken is None or not taken.attended:
            return [Count("result-unexpected"), *self.unpaused(event.handover)]
        application = dict(taken.application)
        if event.states:
            application[APPS] = dict(event.states)
        taken = replace(taken, attended=False, application=application)
        taken = replace(taken, spoken=dict(event.spoken), surplus=dict(event.surplus))
        self._holdings.keep(taken)
        detail: dict[str, JSON] = {
            "apps": [order.name for order in taken.apps],
            "spoken": sum(map(len, event.spoken.values())),
        }
        told = Emit("apps-paused", "634", taken.home_addresses[0], None, detail)
        return [taken.persist(), told, *self.paused(taken)]

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Run the proxies of an earlier run again; the handovers have been restored before."""
        return [action for taken in self._holdings.all() for action in self.begin(taken)]
