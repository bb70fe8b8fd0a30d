"""Connections that a device hands over wake it by no page rule, with the real home agent on a virtual clock (P1, P12)."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.sessions import LeftSession
from locum.roles.mobile_node.paging.configuration import PagingConfiguration
from locum.roles.mobile_node.paging.open_flows import (
    FIRST,
    NO_PRIORITY,
    NO_ROOM,
    NO_ROOM_THERE,
    OpenFlows,
)
from locum.roles.mobile_node.paging.own_paging import PATIENCE
from locum.roles.mobile_node.paging.telling import Told
from locum.roles.mobile_node.paging.wishes import PRIORITY, Wish
from locum.roles.mobile_node.selection import Selection
from locum.roles.mobile_node.states import Up
from locum.wire.control import Flow
from locum.wire.control.paging.page_rules import PageRules1204, decode_1204
from locum.wire.control.paging.rules import PageAction, PageRule
from locum.wire.control.paging.status import MAX_ITEMS, ItemStatus, PagingStatus, StatusAnswer
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.roles.mobile_node.paging.test_own_paging import OK, Answering, Real, in_force
from tests.roles.packets import packet_of, tunnel_of
from tests.roles.world import HOA, HOA6, PEER, STAND_IN, Host, Session, asleep, flow

PORTS = Ipv4Selector(destination_port=(40000, 40099), protocol=(6, 6))
"""Ports of the connections of the world; its own packets have others."""
WISH = Wish(0, "tcp", (PORTS,))
OTHER_HOST = IPv6Address("2001:db8:2::9")


class Watched(Real):
    """Its messages are read as they pass to the home agent."""

    def __init__(self, registers: bool = False) -> None:
        self.sets: list[PageRules1204] = []
        super().__init__(registers)

    def _ask(self, host: Host, action: a.Ask) -> None:
        if action.path == "1204":
            self.sets.append(decode_1204(action.body))
        super()._ask(host, action)

    def opens(self, number: int, pid: int = 100) -> None:
        self.sessions[flow(number)] = Session(flow(number), (pid,))

    def wakes(self, number: int) -> bool:
        """True if a packet of this connection pages the device."""
        return tunnel_of(self.ha.forwarding, packet_of(flow(number))) is None

    def spared(self) -> set[int]:
        """Numbers of the connections with a rule in the newest set."""
        return spared(self.sets[-1])


def spared(message: object) -> set[int]:
    assert isinstance(message, PageRules1204)
    selectors = [one.selectors[0] for one in message.rules if one.identifier >= FIRST]
    assert all(isinstance(selector, Ipv4Selector) for selector in selectors)
    ports = [selector.destination_port for selector in selectors if isinstance(selector, Ipv4Selector)]
    return {port[0] - 40000 for port in ports if port is not None}


@pytest.mark.parametrize("registers", [False, True])
def test_open_connection_wakes_nobody(registers: bool) -> None:
    world = Watched(registers)
    world.add(WISH)
    world.advance(1)
    world.sleep()
    world.advance(5)
    assert asleep(world) and in_force(world) == [""] and world.device.paging.open_problems == []
    assert world.live() == [RuleVerdict.PAGE] and world.spared() == {0, 1}
    assert not world.wakes(0) and not world.wakes(1) and world.wakes(7)
    world.peer_sends(0, 1000)
    assert world.sessions[flow(0)].at_stand_in == 1000
    world.advance(900)
    assert not world.wakes(0) and world.wakes(7), "also without a registration"
    world.wake()
    world.advance(20)
    assert isinstance(world.device.state, Up) and world.live() == []
    assert world.spared() == set(), "they are taken back"
    world.opens(2)
    del world.sessions[flow(0)]
    world.sleep()
    world.advance(5)
    assert world.spared() == {1, 2}, "each sleep has its own"
    assert not world.wakes(1) and not world.wakes(2) and world.wakes(0)


@pytest.mark.parametrize("registers", [False, True])
def test_connection_of_the_last_moment_wakes_nobody(registers: bool) -> None:
    world = Watched(registers)
    world.add(WISH)
    world.advance(1)
    world.after_freeze = lambda: world.opens(5)
    world.sleep()
    world.advance(20)
    assert asleep(world) and world.sessions[flow(5)].held_by_stand_in
    assert world.spared() == {0, 1, 5} and not world.wakes(5)
    items = {one.selectors: one.identifier for one in world.sets[-2].rules}
    kept = [one for one in world.sets[-1].rules if one.selectors in items]
    assert all(items[one.selectors] == one.identifier for one in kept) and len(kept) == 3


def test_connections_that_stay_page_the_device() -> None:
    world = Watched()
    world.left = (LeftSession(flow(3), "it stays", (), ()),)
    world.add(WISH)
    world.advance(1)
    world.refuse_capture = {flow(0)}
    world.sleep()
    world.advance(20)
    assert asleep(world) and world.spared() == {1}
    assert world.wakes(0) and world.wakes(3) and not world.wakes(1), "they are the device's"
    world.wake()
    world.advance(20)
    world.refuse_capture, world.refuse_restore = set(), {flow(1)}
    world.sleep()
    world.advance(20)
    assert asleep(world) and world.spared() == {0} and world.wakes(1) and not world.wakes(0)


def test_given_connections_have_their_rules_too() -> None:
    world = Watched(registers=True)
    world.add(WISH)
    world.advance(1)
    world.hand_over(Selection(flow=flow(1)))
    world.advance(5)
    world.sleep()
    world.advance(5)
    assert asleep(world) and world.spared() == {0, 1}


def test_restart_of_a_sleeper_keeps_the_rules() -> None:
    world = Watched()
    world.add(WISH)
    world.advance(1)
    world.sleep()
    world.advance(5)
    told = len(world.sets)
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(5)
    assert len(world.sets) == told and not world.wakes(0)
    world.add(Wish(0, "more", (replace(PORTS, source_port=(1, 100)),)))
    world.advance(1)
    assert len(world.sets) > told and world.spared() == {0, 1}
    assert not world.wakes(0) and not world.wakes(1) and world.wakes(9)


def test_wish_of_a_sleeper_spares_open_connections() -> None:
    world = Watched()
    world.sleep()
    world.advance(5)
    world.add(WISH)
    world.advance(5)
    assert world.spared() == {0, 1}


def test_cancelled_sleep_takes_the_rules_back() -> None:
    world = Watched()
    world.add(WISH)
    world.advance(1)
    world.drop_634 = lambda body: True
    world.sleep()
    world.advance(1)
    assert world.spared() == {0, 1}
    world.perform(world.mn, world.device.cancel(now=world.clock(world.mn)))
    world.drop_634 = lambda body: False
    world.advance(20)
    assert isinstance(world.device.state, Up) and world.spared() == set()


def test_sleep_waits_for_these_rules_before_it_prepares() -> None:
    world = Answering()
    world.add(WISH)
    world.advance(1)
    asked: list[str] = []
    world.watch = lambda action: asked.append(action.path) if isinstance(action, a.Ask) else None
    world.reply = lambda message: None if spared(message) else OK
    world.sleep()
    world.advance(1)
    assert asked == ["1204", "1204"]
    world.reply = lambda message: OK
    world.perform(world.mn, world.device.cancel(now=world.clock(world.mn)))
    world.advance(5)
    assert isinstance(world.device.state, Up) and "634" not in asked, "the stand-in knows nothing of it"
    asked.clear()
    world.sleep()
    world.advance(5)
    assert asleep(world) and asked[:3] == ["1204", "1204", "634"]


@pytest.mark.parametrize("after", [0, 1])
def test_silent_home_agent_holds_the_sleep_up_once(after: int) -> None:
    world = Answering()
    world.add(WISH)
    world.advance(1)
    answers = iter([OK] * after)
    world.reply = lambda message: next(answers, None)
    began, gone = world.now, list[float]()
    world.watch = lambda action: (
        gone.append(world.now) if isinstance(action, a.Ask) and action.path == "634" else None
    )
    world.sleep()
    world.advance(20)
    assert asleep(world) and gone[0] - began == pytest.approx(PATIENCE, abs=0.2)


def test_home_agent_without_room_gets_fewer_rules() -> None:
    world = Answering()
    for number in range(2, 12):
        world.sessions[flow(number)] = Session(flow(number), (100,))
    world.add(WISH)
    world.advance(1)
    world.news()

    def reply(message: object) -> StatusAnswer:
        assert isinstance(message, PageRules1204)
        late = [rule.identifier for rule in message.rules][8:]
        items = tuple(ItemStatus(item, PagingStatus.LIMIT) for item in late)
        return replace(OK, status=PagingStatus.LIMIT if late else PagingStatus.OK, items=items)

    world.reply = reply
    world.sleep()
    world.advance(5)
    last = world.news()[-1]
    assert isinstance(last, PageRules1204) and len(last.rules) == 8 and asleep(world)
    assert last.rules[-1].action is PageAction.PAGE and in_force(world) == [""]
    [problem] = world.device.paging.open_problems
    assert problem.startswith("5 open connections, such as ") and problem.endswith(NO_ROOM_THERE)


@pytest.mark.parametrize("items", [(), (ItemStatus(FIRST, PagingStatus.UNKNOWN, "no stand-in"),)])
def test_refused_rules_of_connections_do_not_hurt_wishes(items: tuple[ItemStatus, ...]) -> None:
    world = Answering()
    world.add(WISH)
    world.advance(1)

    def reply(message: object) -> StatusAnswer:
        assert isinstance(message, PageRules1204)
        bad = any(rule.identifier == FIRST for rule in message.rules)
        status = PagingStatus.REFUSED if items else PagingStatus.LIMIT
        return replace(OK, status=status, items=items) if bad else OK

    world.reply = reply
    world.sleep()
    world.advance(5)
    assert asleep(world) and in_force(world) == [""] and world.states()[0] is Told.TAKEN
    [problem] = world.device.paging.open_problems
    assert ("no stand-in" in problem) is bool(items)


# Which rules ---------------------------------------------------------------------------------------------------------


def made(
    rules: Sequence[PageRule], *flows: Flow, several: bool = False, elsewhere: dict[Flow, Addr] | None = None
) -> tuple[list[PageRule], list[str]]:
    """The rules for connections, and the problems."""
    found = OpenFlows(several=several)
    found.go(flows, STAND_IN)
    listed = found.before(tuple(rules), elsewhere or {})
    assert listed[len(listed) - len(rules) :] == tuple(rules)
    return list(listed[: len(listed) - len(rules)]), found.problems


def page(
    priority: int, selector: Ipv4Selector | Ipv6Selector, action: PageAction = PageAction.PAGE
) -> PageRule:
    return PageRule(priority + 1, priority, (selector,), action)


EXACT = Ipv4Selector(
    source=(PEER, PEER),
    destination=(HOA, HOA),
    source_port=(80, 80),
    destination_port=(40000, 40000),
    protocol=(6, 6),
)
MARKED = replace(PORTS, dscp=(46, 46))


@pytest.mark.parametrize(
    ("rules", "priority"),
    [
        ([page(PRIORITY, PORTS)], PRIORITY - 1),
        ([page(5, replace(PORTS, destination_port=(1, 2)))], None),
        ([page(5, replace(PORTS, protocol=(17, 17)))], None),
        ([page(5, PORTS, PageAction.DROP)], None),
        ([page(5, PORTS, PageAction.HOLD), page(6, PORTS)], None),
        ([page(5, MARKED, PageAction.DROP), page(6, PORTS)], 4),
        ([page(7, PORTS), page(5, PORTS)], 4),
        ([page(5, EXACT)], None),
        ([page(5, PORTS), page(9, EXACT)], None),
        ([page(5, PORTS), page(9, replace(EXACT, source_port=None))], 4),
    ],
)
def test_rule_comes_before_the_page_rule_alone(rules: list[PageRule], priority: int | None) -> None:
    found, problems = made(rules, flow(0))
    assert [rule.priority for rule in found] == ([] if priority is None else [priority]) and problems == []
    assert all(rule.action is PageAction.AGENT and rule.selectors == (EXACT,) for rule in found)


def test_page_rule_of_the_first_priority_stays_first() -> None:
    found, problems = made([page(0, PORTS)], flow(0))
    assert found == [] and problems == [f"the open connection {flow(0)} may wake the device: {NO_PRIORITY}"]


def test_connections_of_ipv6_have_rules_of_their_family() -> None:
    open6 = Flow(6, HOA6, 40000, OTHER_HOST, 80)
    [rule], _ = made([page(PRIORITY, PORTS)], open6)
    [selector] = rule.selectors
    assert isinstance(selector, Ipv6Selector) and selector.source == (OTHER_HOST, OTHER_HOST)
    assert made([page(5, replace(PORTS, destination=(HOA, HOA)))], open6) == ([], [])


def test_several_stand_ins_are_named() -> None:
    there = STAND_IN + 7
    rules, _ = made([page(5, PORTS)], flow(0), several=True, elsewhere={flow(1): there})
    assert {rule.agent for rule in rules} == {STAND_IN, there}
    assert [rule.agent for rule in made([page(5, PORTS)], flow(0))[0]] == [None]


def test_as_many_rules_as_fit_are_sent() -> None:
    rules = [page(PRIORITY, PORTS), page(PRIORITY + 1, replace(PORTS, source_port=(1, 2)))]
    found, problems = made(rules, *(flow(number) for number in range(100)))
    assert len(found) == MAX_ITEMS - 2 and len({rule.identifier for rule in found}) == len(found)
    assert problems == [f"38 open connections, such as {flow(62)}, may wake the device: {NO_ROOM}"]


def test_configured_rules_are_spared_as_wishes_are() -> None:
    world = Answering(PagingConfiguration((page(20, PORTS),)))
    world.advance(1)
    world.news()
    world.sleep()
    world.advance(5)
    last = world.news()[-1]
    assert isinstance(last, PageRules1204) and [rule.priority for rule in last.rules] == [19, 19, 20]
