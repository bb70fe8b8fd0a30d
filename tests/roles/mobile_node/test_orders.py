"""Orders of a device over sleeps, wakes, restarts and refusals, on a virtual clock."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.app_orders import MAX_APPS, MAX_SETTINGS
from locum.roles.action_values.apps import (
    AppDataUsed,
    AppOrder,
    AppsPaused,
    EndApps,
    PauseApps,
    StartApps,
    UseAppData,
)
from locum.roles.app_contract import MAX_STATE
from locum.roles.mnps.role import StandIn
from locum.roles.mobile_node.order_rows import Condition, Order
from locum.roles.mobile_node.orders import (
    MAX_ENDED,
    REMOVAL_PATIENCE,
    REMOVAL_RETRY_FIRST,
    OrderRefused,
    OwnOrders,
    of_order,
)
from locum.roles.mobile_node.role import SleepingNode
from locum.roles.mobile_node.states import Up
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control.answer import Status
from locum.wire.control.order import Operation, OrderAnswer
from tests.roles.world import HOA, STAND_IN, World, asleep, awake

FOX = AppOrder("fox", "download", {"url": "http://192.0.2.80/fox"})
HEN = AppOrder("hen", "download", {"url": "http://192.0.2.80/hen"})
MAIL = AppOrder("mail", "mail")
DONE = {"etag": "x", "result": {"done": True, "files": [["a", 7, "00"], ["b", 5, ""]]}}


class OrderWorld(World):
    """A stand-in that runs proxies: `returns` is what each returns at a reclaim, by name."""

    def __init__(self, configured: tuple[AppOrder, ...] = (), **options: Any) -> None:
        self.runs: list[StartApps] = []
        self.returns: dict[str, Mapping[str, object]] = {}
        self.unknown: set[str] = set()  # kinds
        self.removed: list[str] = []
        self.removal = OrderAnswer(Status.OK)
        super().__init__(**options)
        stand_in = self.mnps.role
        assert isinstance(stand_in, StandIn)
        self.mnps.make = lambda: StandIn(stand_in.configuration, self.random, self._check)
        self.start(self.mnps)
        device = replace(self.device.mobile.configuration, apps=configured)
        own = self.device.stand_ins
        self.mn.make = lambda: SleepingNode(
            RegistrationClient(replace(device, boot=self.boot), {}, self.random), own, self.random
        )
        self.start(self.mn)
        self.advance(3)

    def _check(self, order: AppOrder, _others: Sequence[AppOrder]) -> str | None:
        return f"[[mobile_node.app]] {order.name}: kind: no" if order.kind in self.unknown else None

    def _session_event(self, host: Any, action: a.Action) -> a.Event | None:
        match action:
            case StartApps():
                self.runs.append(action)
                return None
            case PauseApps(handover):
                return AppsPaused(handover, dict(self.returns))
            case EndApps():
                return None
            case UseAppData(exchange, request):
                assert request.operation is Operation.REMOVE
                self.removed.append(request.name)
                return AppDataUsed(exchange, request, self.removal)
        return super()._session_event(host, action)

    @property
    def orders(self) -> OwnOrders:
        return self.device.orders

    def order(self, app: AppOrder) -> None:
        self.perform(self.mn, self.orders.add(app, now=self.clock(self.mn)))

    def cancel(self, name: str) -> None:
        self.perform(self.mn, self.orders.cancel(name, now=self.clock(self.mn)))

    def night(self, **returns: Mapping[str, object]) -> StartApps | None:
        """A sleep and a wake; the proxies that ran."""
        before = len(self.runs)
        self.sleep()
        self.advance(5)
        assert asleep(self), self.device.state
        self.returns = returns
        self.wake()
        self.advance(8)
        assert awake(self), self.device.state
        return self.runs[-1] if len(self.runs) > before else None

    def conditions(self) -> dict[str, Condition]:
        return {order.name: order.condition for order in self.orders.all()}

    def kinds(self) -> list[str]:
        return [event.kind for event in self.mn.events if event.kind.startswith("order-")]


def test_order_runs_until_it_is_done() -> None:
    world = OrderWorld()
    world.order(FOX)
    assert world.conditions() == {"fox": Condition.WAITING}
    first = world.night(fox={"etag": "x", "at": 3, "result": {"progress": 3}})
    assert first is not None and first.apps == (FOX,) and first.states == {}
    assert world.conditions() == {"fox": Condition.WAITING}
    second = world.night(fox=DONE)
    assert second is not None and second.states == {"fox": {"etag": "x", "at": 3}}
    assert world.conditions() == {"fox": Condition.DONE}
    assert world.night() is None, "an order that is done does not run again"
    assert world.kinds() == ["order-added", "order-done"]
    done = next(event for event in world.mn.events if event.kind == "order-done")
    assert done.detail == {"order": "fox", "files": 2, "bytes": 12}


def test_order_that_is_done_in_part_says_so() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox={"result": {"done": True, "problem": "b is not decoded: damaged"}})
    (order,) = world.orders.all()
    assert (order.condition, order.reason) == (Condition.DONE, "b is not decoded: damaged")
    done = next(event for event in world.mn.events if event.kind == "order-done")
    assert done.detail["reason"] == order.reason


def test_order_is_running_while_the_device_sleeps() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.sleep()
    world.advance(5)
    assert world.conditions() == {"fox": Condition.RUNNING}
    assert world.orders.get("fox").stand_ins == (STAND_IN,)
    with pytest.raises(OrderRefused, match="wake the device first"):
        world.cancel("fox")
    world.start(world.mn)
    assert asleep(world) and world.conditions() == {"fox": Condition.RUNNING}
    world.returns = {"fox": DONE}
    world.wake()
    world.advance(8)
    assert world.conditions() == {"fox": Condition.DONE}


def test_order_on_its_way_to_the_stand_in_is_not_cancelled() -> None:
    """Its result would be that of the next order of its name."""
    world = OrderWorld()
    world.order(FOX)
    world.stand_in_silent = True
    world.sleep()
    world.advance(1)
    with pytest.raises(OrderRefused, match="on its way to the stand-in"):
        world.cancel("fox")
    world.advance(120)
    assert awake(world)
    world.cancel("fox")
    assert not world.orders.all()


def test_killed_daemon_learns_where_an_order_ran() -> None:
    """Its files are fetched and removed there, though the last answer before the sleep was lost."""
    world = OrderWorld()
    world.order(FOX)
    prepared: list[bytes] = []

    def is_second(body: bytes) -> bool:
        prepared.append(body)
        return len(prepared) > 1

    world.drop_632 = is_second
    world.sleep()
    while not world.runs:
        world.advance(0.1)
    world.start(world.mn)
    assert world.conditions() == {"fox": Condition.WAITING} and not world.orders.get("fox").stand_ins
    world.drop_632 = lambda _body: False
    world.returns = {"fox": DONE}
    world.advance(60)
    assert awake(world) and world.conditions() == {"fox": Condition.DONE}
    assert world.orders.get("fox").stand_ins == (STAND_IN,)
    world.cancel("fox")
    world.advance(3)
    assert world.removed == ["fox"]


def test_result_is_stored_before_the_stand_in_may_forget_it() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.sleep()
    world.advance(5)
    world.returns = {"fox": DONE}
    seen: list[a.Action] = []
    world.watch = seen.append
    world.wake()
    world.advance(8)
    kept = [
        number
        for number, action in enumerate(seen)
        if isinstance(action, a.Persist) and action.table == "order" and action.value["condition"] == "done"
    ]
    told = [
        number
        for number, action in enumerate(seen)
        if isinstance(action, a.Emit) and action.detail.get("request") in ("finish", "done")
    ]
    assert kept[0] < told[0]


def test_refused_order_fails_and_the_sleep_goes_on() -> None:
    world = OrderWorld((MAIL,))
    world.order(FOX)
    world.order(replace(HEN, kind="teleport"))
    world.unknown.add("teleport")
    ran = world.night(fox=DONE)
    assert ran is not None and ran.apps == (MAIL, FOX)
    assert world.conditions() == {"fox": Condition.DONE, "hen": Condition.FAILED}
    assert world.orders.get("hen").reason == "order hen: kind: no"
    assert world.night() is not None, "only the proxy of the configuration"
    assert world.runs[-1].apps == (MAIL,)


def test_refused_orders_alone_leave_a_sleep_without_proxies() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.order(HEN)
    world.unknown.add("download")
    assert world.night() is None
    assert set(world.conditions().values()) == {Condition.FAILED}


def test_refused_proxy_of_the_configuration_stops_the_sleep() -> None:
    world = OrderWorld((MAIL,))
    world.order(FOX)
    world.unknown.add("mail")
    world.sleep()
    world.advance(5)
    assert isinstance(world.device.state, Up)
    assert "[[mobile_node.app]] mail: kind: no" in (world.device.state.last or "")
    assert world.conditions() == {"fox": Condition.WAITING}


def test_failed_order_runs_no_more() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox={"result": {"failed": "404 Not Found"}})
    assert world.orders.get("fox").reason == "404 Not Found"
    assert world.night() is None
    assert world.kinds() == ["order-added", "order-failed"]


def test_problem_of_one_sleep_is_shown_until_the_next() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox={"result": {"problem": "it ended with SIGKILL"}})
    order = world.orders.get("fox")
    assert (order.condition, order.reason) == (Condition.WAITING, "it ended with SIGKILL")
    assert world.kinds() == ["order-added", "order-problem"]
    world.night(fox=DONE)
    assert world.orders.get("fox").reason == ""


def test_order_without_a_word_from_the_stand_in_waits_again() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox={"at": 3})
    world.sleep()
    world.advance(5)
    world.mnps.rows.clear()
    for session in world.sessions.values():
        session.held_by_stand_in = False
    world.start(world.mnps)  # it has lost its state
    world.wake()
    world.advance(20)
    assert world.conditions() == {"fox": Condition.WAITING}
    assert "order-unreported" in world.kinds()
    assert world.orders.application() == {"apps": {"fox": {"at": 3}}}


def test_power_lost_while_asleep_leaves_the_order_waiting() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.sleep()
    world.advance(5)
    world.boot_again()
    world.advance(20)
    assert awake(world) and world.conditions() == {"fox": Condition.WAITING}


def test_states_of_the_configuration_go_back_as_well() -> None:
    world = OrderWorld((MAIL,))
    world.night(mail={"seen": 3, "result": {"new": 2}})
    world.start(world.mn)
    world.advance(3)
    again = world.night(mail={"seen": 3})
    assert again is not None and again.states == {"mail": {"seen": 3}}


def test_state_of_a_removed_table_is_forgotten() -> None:
    world = OrderWorld((MAIL,))
    world.night(mail={"seen": 3})
    assert ("order", "state mail") in world.mn.rows
    orders = OwnOrders((), lambda: HOA)
    actions = orders.restore(list(world.mn.rows.values()), now=0.0)
    assert a.Forget("order", "state mail") in actions and orders.application() == {}


def test_cancelled_order_is_gone_at_both_ends() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox=DONE)
    world.cancel("fox")
    world.advance(3)
    assert world.removed == ["fox"] and not world.orders.removals() and not world.orders.all()
    assert not [key for key in world.mn.rows if key[0] == "order"]
    world.order(FOX)
    assert world.conditions() == {"fox": Condition.WAITING}


def test_order_that_never_ran_is_cancelled_without_a_message() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.cancel("fox")
    world.advance(3)
    assert world.removed == [] and not world.orders.removals()


def test_silent_stand_in_is_told_at_the_next_sleep() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox=DONE)
    world.stand_in_silent = True
    world.cancel("fox")
    world.advance(20)
    assert len(world.orders.removals()) == 1
    with pytest.raises(OrderRefused, match="still has files"):
        world.order(FOX)
    world.start(world.mn)
    world.advance(3)
    world.stand_in_silent = False
    world.night()
    assert world.removed == ["fox"] and not world.orders.removals()


def test_killed_before_the_stand_in_has_answered_it_asks_again() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox=DONE)
    world.stand_in_silent = True
    world.cancel("fox")
    world.start(world.mn)
    world.advance(REMOVAL_RETRY_FIRST)
    assert not world.removed and len(world.orders.removals()) == 1
    world.stand_in_silent = False
    world.advance(3 * REMOVAL_RETRY_FIRST)
    assert world.removed == ["fox"] and not world.orders.removals()


def test_busy_stand_in_is_asked_again_and_a_refusal_ends_it() -> None:
    world = OrderWorld()
    for app in (FOX, HEN):
        world.order(app)
    world.night(fox=DONE, hen=DONE)
    world.removal = OrderAnswer(Status.BUSY, "later")
    world.cancel("fox")
    world.advance(3)
    assert len(world.orders.removals()) == 1
    world.removal = OrderAnswer(Status.NOT_AUTHORISED)
    world.night()
    assert not world.orders.removals() and world.mn.counts["order-removal-refused"] == 1


def test_removal_is_given_up_in_the_end() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.night(fox=DONE)
    world.stand_in_silent = True
    world.cancel("fox")
    world.advance(20)
    late = world.clock(world.mn) + REMOVAL_PATIENCE + 1
    world.perform(world.mn, world.orders.ask_again(now=late))
    assert not world.orders.removals() and not [key for key in world.mn.rows if key[0] == "order"]


def test_collected_order_stays_known_and_its_files_go() -> None:
    world = OrderWorld()
    world.order(FOX)
    world.order(HEN)
    world.night(fox=DONE, hen={"result": {"progress": 1}})
    for name in ("fox", "hen"):
        world.perform(world.mn, world.orders.collected(name, now=world.clock(world.mn)))
    world.advance(3)
    assert world.conditions() == {"fox": Condition.COLLECTED, "hen": Condition.WAITING}
    assert world.removed == ["fox"] and world.kinds()[-2:] == ["order-collected", "order-files-removed"]
    world.start(world.mn)
    assert world.conditions()["fox"] is Condition.COLLECTED
    world.order(FOX)
    assert world.conditions()["fox"] is Condition.WAITING


def own(*configured: AppOrder) -> OwnOrders:
    return OwnOrders(configured, lambda: HOA)


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (FOX, "there is an order fox already"),
        (MAIL, "name of a table"),
        (AppOrder("", "download"), "1 to 64 printable"),
        (AppOrder("x" * 65, "download"), "1 to 64 printable"),
        (AppOrder("a\nb", "download"), "1 to 64 printable"),
        (AppOrder("x", ""), "1 to 64 printable"),
        (AppOrder("x", "download", {"x": "y" * MAX_SETTINGS}), "settings have at most"),
        (AppOrder("x", "download", {"x": 1 << 64}), "64 bits"),
        (AppOrder("x", "download", {"x": "\ud800"}), "texts of Unicode"),
    ],
)
def test_wrong_order_is_refused_at_once(app: AppOrder, reason: str) -> None:
    orders = own(MAIL)
    orders.add(FOX, now=0.0)
    with pytest.raises(OrderRefused, match=reason):
        orders.add(app, now=0.0)
    assert [order.name for order in orders.all()] == ["fox"]


@pytest.mark.parametrize(("depth", "fits"), [(8, True), (9, False)])
def test_order_that_no_message_carries_stops_no_sleep(depth: int, fits: bool) -> None:
    """Its settings are refused when it is ordered, also where the stand-in cannot be asked."""
    deep: Any = 0
    for _ in range(depth - 1):
        deep = [deep]
    world = OrderWorld()
    order = AppOrder("deep", "download", {"x": deep})
    if fits:
        world.order(order)
    else:
        with pytest.raises(OrderRefused, match="at most 8 deep"):
            world.order(order)
    world.night()
    assert len(world.runs) == fits


def test_orders_and_tables_share_one_bound() -> None:
    orders = own(MAIL)
    for number in range(MAX_APPS - 1):
        orders.add(AppOrder(f"order {number}", "download"), now=0.0)
    with pytest.raises(OrderRefused, match=f"at most {MAX_APPS} proxies"):
        orders.add(FOX, now=0.0)


def test_orders_that_have_ended_are_bounded() -> None:
    orders = own()
    for number in range(MAX_ENDED):
        orders.add(AppOrder(f"order {number}", "download"), now=0.0)
        orders.refused({f"order {number}": "no"}, now=0.0)
    with pytest.raises(OrderRefused, match="fetch or cancel some"):
        orders.add(FOX, now=0.0)


def test_oldest_collected_orders_give_way() -> None:
    orders = own()
    for number in range(MAX_ENDED + MAX_APPS + 3):
        name = f"order {number}"
        orders.add(AppOrder(name, "download"), now=float(number))
        orders.returned({"apps": {name: DONE}}, STAND_IN, now=float(number))
        orders.collected(name, now=float(number))
    assert len(orders.all()) == MAX_ENDED + MAX_APPS
    with pytest.raises(OrderRefused, match="there is no order"):
        orders.get("order 0")


def test_state_past_the_bound_is_not_kept() -> None:
    orders = own()
    orders.add(FOX, now=0.0)
    actions = orders.returned(
        {"apps": {"fox": {"x": bytes(MAX_STATE + 8192), "result": {"done": True}}}}, STAND_IN, now=0.0
    )
    assert a.Count("order-state-too-large") in actions
    assert orders.get("fox") == Order(FOX, Condition.DONE, 0.0, stand_ins=(STAND_IN,))


def test_unreadable_row_is_removed() -> None:
    rows = [
        a.Persist("order", "order fox", {"kind": 1}),
        a.Persist("order", "removal x", {}),
        a.Persist("order", "state mail", {"state": "zz"}),
    ]
    orders = own(MAIL)
    actions = orders.restore(rows, now=0.0)
    assert [action.key for action in actions if isinstance(action, a.Forget)] == [row.key for row in rows]
    assert not orders.all() and not orders.removals()


def test_reason_of_a_refusal_names_the_order() -> None:
    assert of_order("[[mobile_node.app]] fox: settings.url: no", "fox") == "order fox: settings.url: no"
    assert of_order("app fox: settings are a table", "fox") == "order fox: settings are a table"
