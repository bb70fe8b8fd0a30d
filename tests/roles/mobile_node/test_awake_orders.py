"""Orders that run while their device is awake: begun at once, led by rules of their own, taken back when they are done."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from locum.roles import actions as a
from locum.roles.action_values.apps import (
    AppDataUsed,
    AppOrder,
    PacketsLed,
    PacketsWanted,
    UseAppData,
    When,
)
from locum.roles.mobile_node.awake_orders import LATE, NEEDS_REGISTRATION
from locum.roles.mobile_node.order_rows import Condition
from locum.wire import cbor
from locum.wire.control import Flow
from locum.wire.control.answer import Status
from locum.wire.control.order import Operation, OrderAnswer
from tests.roles.mobile_node.test_orders import DONE, FOX, HEN, OrderWorld
from tests.roles.world import HOA, PEER, asleep, awake

ALWAYS = replace(FOX, when=When.ALWAYS)
OTHER = replace(HEN, when=When.ALWAYS)
WEB = Flow(6, HOA, 61000, PEER, 80)


class AwakeWorld(OrderWorld):
    """The stand-in registers; `kept` are the states of its proxies, by name."""

    def __init__(self, **options: Any) -> None:
        self.kept: dict[str, Mapping[str, object]] = {}
        self.asked = 0
        self.led: list[PacketsLed] = []
        super().__init__(**{"registers": True, "default": False, **options})

    def _session_event(self, host: Any, action: a.Action) -> a.Event | None:
        match action:
            case PacketsLed():
                self.led.append(action)
                return None
            case UseAppData(exchange, request) if request.operation is Operation.STATE:
                self.asked += 1
                state = self.kept.get(request.name, {})
                answer = OrderAnswer(Status.OK, data=cbor.encode({"result": state.get("result")}))
                return AppDataUsed(exchange, request, answer)
        return super()._session_event(host, action)

    def want(self, *parts: Flow) -> None:
        self.tell(self.mnps, PacketsWanted(self.runs[-1].handover, parts))
        self.advance(2)

    def is_done(self, name: str) -> None:
        self.kept[name] = DONE
        self.returns[name] = DONE
        self.advance(LATE + 5)


def running(world: AwakeWorld) -> tuple[str, ...]:
    return tuple(world.device.partial_handovers.resting_orders())


def test_order_begins_at_once_and_is_taken_back_when_it_is_done() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    assert awake(world) and running(world) == ("fox",)
    assert world.conditions() == {"fox": Condition.RUNNING}
    assert [(run.apps, run.led, run.device) for run in world.runs] == [((ALWAYS,), True, HOA)]
    assert world.path_of_data() == "mn" and not world.ha.bindings[HOA].rules
    world.is_done("fox")
    assert world.conditions() == {"fox": Condition.DONE} and running(world) == ()
    assert world.kinds() == ["order-added", "order-done"]
    assert not [key for key in world.mnps.rows if key[0] == "handover"]
    asked = world.asked
    world.advance(10 * LATE)
    assert world.asked == asked  # nobody is asked about orders that have ended


def test_packets_of_its_connections_alone_go_to_the_stand_in() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.want(WEB)
    assert world.led == [PacketsLed(world.runs[0].handover, (WEB,))]
    assert len(world.ha.bindings[HOA].rules) == 1 and world.path_of_data() == "mn"
    world.want()
    assert not world.ha.bindings[HOA].rules


def test_order_outlasts_sleep_and_wake() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.want(WEB)
    world.order(HEN)
    run = world.night()
    assert run is not None and run.apps == (HEN,) and not run.led
    assert world.conditions() == {"fox": Condition.RUNNING, "hen": Condition.WAITING}
    assert running(world) == ("fox",) and len(world.ha.bindings[HOA].rules) == 1
    assert len(world.runs) == 2  # the first one was not started again


def test_stand_in_is_not_asked_while_the_device_sleeps() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.sleep()
    world.advance(5)
    asked = world.asked
    world.advance(10 * LATE)
    assert asleep(world) and world.asked == asked
    world.wake()
    world.is_done("fox")
    assert world.conditions() == {"fox": Condition.DONE}


def test_sleep_waits_for_an_order_that_is_just_beginning() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(0.01)
    assert not world.device.partial_handovers.idle
    world.sleep()
    world.advance(10)
    assert asleep(world) and world.conditions() == {"fox": Condition.RUNNING}


def test_order_given_while_asleep_begins_after_waking() -> None:
    world = AwakeWorld()
    world.sleep()
    world.advance(5)
    world.order(ALWAYS)
    world.advance(5)
    assert world.conditions() == {"fox": Condition.WAITING}
    world.wake()
    world.advance(10)
    assert world.conditions() == {"fox": Condition.RUNNING} and world.runs[-1].led


def test_refused_order_fails_and_others_begin() -> None:
    world = AwakeWorld()
    world.unknown.add("odd")
    world.order(AppOrder("odd", "odd", when=When.ALWAYS))
    world.order(OTHER)
    world.advance(5)
    assert world.conditions() == {"odd": Condition.FAILED, "hen": Condition.RUNNING}
    assert world.orders.get("odd").reason == "order odd: kind: no"


def test_silent_stand_in_is_asked_again_later() -> None:
    world = AwakeWorld()
    world.stand_in_silent = True
    world.order(ALWAYS)
    world.advance(15)
    assert world.conditions() == {"fox": Condition.WAITING}
    assert world.orders.get("fox").reason.startswith("the stand-in did not answer")
    world.stand_in_silent = False
    world.advance(2 * LATE)
    assert world.conditions() == {"fox": Condition.RUNNING} and world.orders.get("fox").reason == ""


def test_problem_is_shown_and_the_order_begins_again() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.kept["fox"] = world.returns["fox"] = {"at": 3, "result": {"problem": "no route"}}
    world.advance(LATE)
    assert "order-problem" in world.kinds() and len(world.runs) > 1
    assert world.runs[-1].states == {"fox": {"at": 3}}
    runs = len(world.runs)
    world.advance(10 * LATE)
    assert len(world.runs) - runs < 15  # ever later


def test_order_is_ended_by_command_and_cancelled() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.perform(world.mn, world.device.end_order("fox", now=world.clock(world.mn)))
    world.advance(5)
    assert world.conditions() == {"fox": Condition.WAITING} and running(world) == ()
    world.cancel("fox")
    world.advance(5)
    assert world.removed == ["fox"] and world.conditions() == {}


def test_killed_daemons_go_on_with_it() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.want(WEB)
    world.kill(world.mn)
    world.start(world.mn)
    world.kill(world.mnps)
    world.start(world.mnps)
    world.advance(5)
    assert running(world) == ("fox",) and world.conditions() == {"fox": Condition.RUNNING}
    assert [run.led for run in world.runs] == [True, True]
    world.is_done("fox")
    assert world.conditions() == {"fox": Condition.DONE}


def test_stand_in_that_has_lost_it_gets_it_again() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    for key in [key for key in world.mnps.rows if key[0] == "handover"]:
        del world.mnps.rows[key]
    world.kill(world.mnps)
    world.start(world.mnps)
    before = len(world.runs)
    world.perform(world.mn, world.device.end_order("fox", now=world.clock(world.mn)))
    world.advance(10)
    assert world.conditions() == {"fox": Condition.WAITING} and "order-unreported" in world.kinds()
    world.device.awake_orders.held.discard("fox")
    world.advance(LATE)
    assert world.conditions() == {"fox": Condition.RUNNING} and len(world.runs) == before + 1


def test_rebooted_device_finds_its_order_running() -> None:
    world = AwakeWorld()
    world.order(ALWAYS)
    world.advance(5)
    world.boot_again()
    world.advance(10)
    assert running(world) == ("fox",) and world.conditions() == {"fox": Condition.RUNNING}


def test_default_and_refusal_depend_on_the_stand_in() -> None:
    world = AwakeWorld()
    orders = world.device.awake_orders
    assert (orders.default("download", {}), orders.default("publish", {})) == (When.ALWAYS, When.ASLEEP)
    assert orders.default("download", {"ports": [80]}) is When.ASLEEP, (
        "it follows sessions of a sleeping device"
    )
    assert orders.refusal(ALWAYS) == ""
    plain = OrderWorld().device.awake_orders
    assert plain.default("download", {}) is When.ASLEEP
    assert plain.refusal(ALWAYS) == NEEDS_REGISTRATION and plain.refusal(FOX) == ""
