"""Orders that run at a stand-in while their device is awake, too (A4, A5): each is a handover of its own, without sessions.

It begins as soon as the device is registered, outlasts sleeps and wakes, and ends when the proxy has done its work: the device
asks now and then. The stand-in is responsible for the packets of such an order's connections and ports alone.
"""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.apps import AppOrder, When
from locum.roles.actions import Action, Answered, Ask, Count, Event, ForwardPacket, NoAnswer
from locum.roles.app_results import Outcome, datagrams, outcome
from locum.roles.mobile_node.handing_over import FallingAsleep
from locum.roles.mobile_node.handing_over_states import NotSlept, Slept
from locum.roles.mobile_node.handover import CONTROL_TIMEOUT, OwnStandIn
from locum.roles.mobile_node.order_rows import Condition
from locum.roles.mobile_node.orders import OwnOrders
from locum.roles.mobile_node.partial_handovers import PartialHandovers
from locum.roles.parts import Part
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire import cbor
from locum.wire.control.answer import Status
from locum.wire.control.order import (
    MAX_DATA,
    PATH,
    Operation,
    OrderRequest,
    decode_order_answer,
    encode_order,
)
from locum.wire.errors import WireError

FIRST_QUESTION: Final = 1 << 52
"""Above the numbers of all other requests of the role."""
SOON, LATE = 2.0, 60.0
"""Seconds until the next question about running orders, and until a failed beginning is tried again: first and at most."""
ALWAYS_BY_DEFAULT = frozenset({"download"})
"""Kinds whose orders begin at once. Others have a program at an awake device, such as its own server."""
ATTENDED = "ports"
"""Setting of these kinds by which they attend sessions of the device."""
NEEDS_REGISTRATION = (
    'when: "always" needs a stand-in that registers for single flows; set handover = "register" in '
    "[[mobile_node.stand_in]], and a registration at the stand-in"
)


class AwakeOrders(Part):
    """`orders` are those of the device, `partial` its handovers while it is awake; `awake` says whether it is."""

    def __init__(
        self,
        orders: OwnOrders,
        partial: PartialHandovers,
        mobile: RegistrationClient,
        stand_ins: tuple[OwnStandIn, ...],
        awake: Callable[[], bool],
    ) -> None:
        self._awake = awake
        self._orders, self._partial, self._mobile = orders, partial, mobile
        self._stand_in = next((stand_in for stand_in in stand_ins if stand_in.registers), None)
        self._numbers = count(FIRST_QUESTION)
        self._asked: dict[int, str] = {}  # questions under way, by number: the order
        self._ending: set[str] = set()  # to be taken back
        self.held: set[str] = set()
        """Names of orders that are not to begin now."""
        self.seen: dict[str, Outcome] = {}
        """The last answers about running orders."""
        self._try_at, self._try_after = 0.0, SOON
        self._ask_at, self._ask_after = 0.0, SOON
        orders.standing = partial.orders
        partial.order_went, partial.order_returned, partial.order_back = (
            self._went,
            self._returned,
            self._back,
        )

    # Commands

    def default(self, kind: str, settings: Mapping[str, JSON]) -> When:
        """For an order of this kind that says nothing of it. One that attends the device's sessions runs while it sleeps."""
        always = kind in ALWAYS_BY_DEFAULT and not settings.get(ATTENDED)
        return When.ALWAYS if always and self._stand_in is not None else When.ASLEEP

    def refusal(self, app: AppOrder) -> str:
        """Why the order cannot run while the device is awake; empty if it can, or need not."""
        return NEEDS_REGISTRATION if app.when is When.ALWAYS and self._stand_in is None else ""

    @property
    def busy(self) -> bool:
        """True while a question is under way, or an order begins or ends."""
        return bool(self._asked or self._ending) or not self._partial.idle

    def hurry(self, *, now: float) -> list[Action]:
        """Begin waiting orders at once, and ask about running ones."""
        self._try_at, self._try_after = now, SOON
        return self._ask_all(now)

    def end(self, name: str) -> None:
        """Take it back, and let it not begin again."""
        self.held.add(name)
        if name in self._partial.orders():
            self._ending.add(name)

    # As a part of the role

    def step(self, now: float) -> list[Action] | None:
        """The next movement of an awake device; None if there is none."""
        if not self._partial.idle or self._mobile.registered is None:
            return None
        standing = self._partial.orders()
        self._ending &= standing.keys()
        for name in sorted(self._ending):
            self._ending.discard(name)
            return self._partial.end_order(name, now=now)
        app = self._waiting()
        if self._stand_in is None or now < self._try_at or app is None:
            return None
        configuration, application = self._orders.configuration([app]), self._orders.application([app])
        return self._partial.begin_order(app.name, self._stand_in, configuration, application)

    def _waiting(self) -> AppOrder | None:
        """The next order that is to begin."""
        besides = self._partial.orders().keys() | self.held
        return next(
            (
                order.app
                for order in self._orders.all()
                if order.condition is Condition.WAITING
                and order.app.when is When.ALWAYS
                and order.name not in besides
            ),
            None,
        )

    def _went(self, machine: FallingAsleep, now: float) -> list[Action]:
        actions = self._orders.refused(machine.refused_orders, now=now)
        stand_in = machine.handover.stand_in
        assert stand_in is not None
        if isinstance(machine.result, Slept):
            self._ask_at, self._ask_after = now + SOON, SOON
            return [*actions, *self._orders.went(machine.orders, stand_in, now=now)]
        if isinstance(machine.result, NotSlept) and not machine.refused_orders:
            actions += self._orders.postponed(machine.handover.order, machine.result.reason, now=now)
            self._later(now)
        return actions

    def _later(self, now: float) -> None:
        self._try_at = now + self._try_after
        self._try_after = min(2 * self._try_after, LATE)

    def _returned(self, application: Mapping[str, object], stand_in: Addr, now: float) -> list[Action]:
        home = self._mobile.configuration.home_address
        packets = [ForwardPacket(packet) for packet in datagrams(application, home)]
        return [*self._orders.returned(application, stand_in, now=now), *packets]

    def _back(self, name: str, now: float) -> list[Action]:
        self.seen.pop(name, None)
        actions = self._orders.unreported([name], now=now)
        if any(order.name == name and order.condition is Condition.WAITING for order in self._orders.all()):
            self._later(now)
        else:
            self._try_at, self._try_after = now, SOON
        return actions

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers to questions."""
        if not isinstance(event, Answered | NoAnswer) or event.request < FIRST_QUESTION:
            return None
        name = self._asked.pop(event.request, None)
        if name is None or isinstance(event, NoAnswer):
            return []
        try:
            answer = decode_order_answer(event.body)
            state = cbor.decode(answer.data, limit=MAX_DATA, field="order-answer.data") if answer.data else {}
        except WireError as error:
            return [Count(f"order-{error.reason}")]
        if answer.status is Status.BUSY:
            return []
        found = self.seen[name] = outcome(state)
        over = answer.status is not Status.OK or found.done or found.failed or found.problem
        if over and name in self._partial.resting_orders():
            self._ending.add(name)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Ask about orders that run. One that begins is the business of `step`."""
        if now < self._ask_at or not self._awake() or not self._partial.resting_orders():
            return []
        return self._ask_all(now)

    def _ask_all(self, now: float) -> list[Action]:
        self._ask_at = now + self._ask_after
        self._ask_after = min(2 * self._ask_after, LATE)
        home, asked = self._mobile.configuration.home_address, set(self._asked.values())
        actions: list[Action] = []
        for name, stand_in in self._partial.resting_orders().items():
            if name not in asked:
                number = next(self._numbers)
                self._asked[number] = name
                body = encode_order(OrderRequest(Operation.STATE, home, name))
                actions.append(Ask(number, stand_in, PATH, body, CONTROL_TIMEOUT))
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        if not self._awake():
            return None
        times = [self._ask_at] if self._partial.resting_orders() else []
        can = self._stand_in is not None and self._mobile.registered is not None and self._partial.idle
        if can and self._waiting() is not None:
            times.append(self._try_at)
        return min(times, default=None)
