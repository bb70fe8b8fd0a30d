"""Packets to a sleeper that nothing names, rules of its agents (1208), and every order of messages (P1, P2, P12, P14)."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.rules import CONFIGURATION
from locum.wire.control.paging.agent_rules import AgentRules1208, encode_1208
from locum.wire.control.paging.page_rules import DeviceState, encode_1204
from locum.wire.control.paging.rules import AgentRule
from locum.wire.control.paging.status import (
    PagingStatus,
    StatusAnswer,
)
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.home_agent.left_site import (
    AGENT,
    BRIEF,
    CALL,
    DROP,
    FORWARD,
    HOLD,
    HOMES,
    HOUR,
    NOBODY,
    SSH,
    Site,
    agent_rule,
    page_rule,
)
from tests.roles.homeworld import AN1, AN2, AN3, AN4, HOA, HOA6, MOBILE, ONE, TWO


def test_packets_that_nothing_names_follow_the_setting() -> None:
    for action, verdict in ((DROP, RuleVerdict.DROP), (HOLD, RuleVerdict.HOLD)):
        site = Site()
        site.home.device.register(AN1)
        site.device(SSH, CALL, otherwise=action)
        assert site.home.entry().rules == (), "it is awake"
        site.sleep()
        assert site.rest() == (verdict, []) and site.rest(HOA6) == (verdict, [])
        assert site.to()["device 5060"] == [AN3], "the agent has what a rule names"
        site.home.device.register(AN2)
        assert site.home.entry().rules == ()


def test_the_rest_goes_to_an_agent_as_before() -> None:
    site = Site()
    site.sleep()
    site.device(SSH)
    assert site.rest() is None and site.home.care_of() == [AN3]
    site.home.now += 1
    site.device(SSH, agent=TWO)
    assert site.rest() is None, "the agent is not registered"
    site.home.two.register(AN4, takes=Takes.RULED)
    assert site.rest() == (RuleVerdict.FORWARD, [AN4])
    site.home.two.cancel()
    assert site.rest() is None


def test_the_rest_goes_to_the_last_place_of_the_device() -> None:
    site = Site()
    site.device(otherwise=FORWARD)
    assert site.rest() is None, "there is none"
    site.home.device.register(AN1)
    site.home.device.register(AN2, BRIEF)
    assert site.rest() == (RuleVerdict.FORWARD, [AN2])
    site.home.advance(BRIEF + 1)
    assert site.rest() == (RuleVerdict.FORWARD, [AN2])
    site.home.start()
    assert site.rest() == (RuleVerdict.FORWARD, [AN2])


def test_a_stand_in_that_takes_everything_has_the_rest() -> None:
    """It has taken all flows over: the sleep must not break them."""
    site = Site()
    site.sleep()
    site.device(SSH, otherwise=DROP)
    site.home.one.register(AN4)
    assert site.rest() is None and site.home.care_of() == [AN4]
    assert site.in_force() == {"device 22": RuleVerdict.PAGE}
    site.home.one.cancel()
    assert site.rest() == (RuleVerdict.DROP, [])


def test_setting_of_the_home_agent_holds_without_a_message() -> None:
    site = Site(replace(MOBILE, asleep_otherwise=RuleVerdict.HOLD))
    site.sleep()
    assert site.rest() == (RuleVerdict.HOLD, [])
    assert site.home.role.list_rules(HOA)[-1].rule.owner == CONFIGURATION
    site.device(SSH)
    assert site.rest() is None, "the device has said otherwise"
    site.home.advance(HOUR + 1)
    assert site.rest() == (RuleVerdict.HOLD, [])
    site.home.released.clear()
    site.home.device.register(AN1)
    assert len(site.home.released) == 4, "what was held goes out, in order, before newcomers"


# Agents


def agents() -> Site:
    """Both stand-ins are registered for single flows, and the device sleeps."""
    site = Site()
    site.sleep()
    site.home.one.register(AN3, bid=7, takes=Takes.RULED)
    site.home.two.register(AN4, bid=8, takes=Takes.RULED)
    return site


def test_agents_have_sets_of_their_own() -> None:
    site = agents()
    assert site.agent(agent_rule(25)).status is PagingStatus.OK
    assert site.agent(agent_rule(25, port=80), agent_rule(26, agent=ONE), peer=TWO).status is PagingStatus.OK
    assert site.to() == {"one 25": [AN3], "two 25": [AN4], "two 26": [AN3]}
    site.home.now += 1
    site.agent(agent_rule(27))
    assert site.to() == {"one 27": [AN3], "two 25": [AN4], "two 26": [AN3]}
    site.home.start()
    assert site.to() == {"one 27": [AN3], "two 25": [AN4], "two 26": [AN3]}
    site.home.now += 1
    site.agent(lifetime=0)
    assert site.to() == {"two 25": [AN4], "two 26": [AN3]}
    site.home.device.register(AN1)
    assert site.to() == {}


def test_the_first_agent_keeps_packets_that_another_wants() -> None:
    site = agents()
    site.agent(agent_rule(25), agent_rule(80))
    wants = (agent_rule(1, port=25, priority=3), agent_rule(2, port=81), agent_rule(3, port=80))
    answer = site.agent(*wants, peer=TWO)
    assert answer.status is PagingStatus.OVERLAPS
    assert [(item.item, item.status) for item in answer.items] == [
        (1, PagingStatus.OVERLAPS),
        (3, PagingStatus.OVERLAPS),
    ]
    assert site.to() == {"one 25": [AN3], "one 80": [AN3]}
    wide = AgentRule(4, 20, (Ipv4Selector(protocol=(6, 6)),))
    assert site.agent(wide, peer=TWO).status is PagingStatus.OVERLAPS, "of the same priority"
    assert site.agent(replace(wide, priority=30), peer=TWO).status is PagingStatus.OK
    assert site.agent(agent_rule(25), agent_rule(90), sent=site.time + 1).status is PagingStatus.OK


def lost(site: Site) -> list[Any]:
    return [event.detail["name"] for event in site.home.events if event.kind == "agent-lost"]


def test_packets_of_an_agent_that_died_fall_back() -> None:
    site = Site()
    site.sleep()
    site.home.two.register(AN4, 60, takes=Takes.RULED)
    site.agent(agent_rule(25), peer=TWO)
    site.device(page_rule(80, AGENT, agent=TWO), otherwise=DROP)
    rest: dict[str, list[Addr]] = {"device None": []}
    assert site.to() == {"device 80": [AN4], "two 25": [AN4]} | rest and lost(site) == []
    site.home.advance(61)
    assert site.to() == rest and lost(site) == ["two"]
    site.home.start()
    assert site.to() == rest
    site.home.two.register(AN4, takes=Takes.RULED)
    assert site.to() == {"device 80": [AN4], "two 25": [AN4]} | rest, "it is back"


def test_another_agent_may_have_the_packets_of_a_dead_one() -> None:
    site = Site()
    site.sleep()
    site.home.two.register(AN4, 60, takes=Takes.RULED)
    site.agent(agent_rule(25), agent_rule(26), peer=TWO)
    assert site.agent(agent_rule(1, port=25)).status is PagingStatus.OVERLAPS
    site.home.advance(61)
    assert site.agent(agent_rule(1, port=25)).status is PagingStatus.OK
    assert site.to() == {"one 1": [AN3]} and site.ended() == [("1208", "superseded")]
    site.home.two.register(AN4, takes=Takes.RULED)
    assert site.to() == {"one 1": [AN3]}
    assert site.agent(agent_rule(25), peer=TWO).status is PagingStatus.OVERLAPS
    assert site.agent(agent_rule(26), peer=TWO).status is PagingStatus.OK


def test_a_death_while_the_home_agent_was_down_is_noticed() -> None:
    site = Site()
    site.sleep()
    site.home.two.register(AN4, 60, takes=Takes.RULED)
    site.agent(agent_rule(25), peer=TWO)
    site.home.now += 61
    site.home.start()
    assert site.to() == {} and lost(site) == ["two"]


def test_an_agent_that_gives_way_keeps_its_rules() -> None:
    site = agents()
    site.agent(agent_rule(25), peer=TWO)
    site.home.two.cancel()
    assert site.to() == {} and site.ended() == [] and lost(site) == []
    site.home.two.register(AN4, takes=Takes.RULED)
    assert site.to() == {"two 25": [AN4]}


@pytest.mark.parametrize(
    ("peer", "rule", "status"),
    [
        (HOA, agent_rule(25), PagingStatus.NOT_AUTHORISED),
        (AN1, agent_rule(25), PagingStatus.NOT_AUTHORISED),
        (ONE, agent_rule(25, agent=NOBODY), PagingStatus.REFUSED),
    ],
)
def test_only_stand_ins_of_the_device_are_agents(peer: Addr, rule: AgentRule, status: PagingStatus) -> None:
    site = agents()
    before = site.home.tables()
    answer = site.agent(rule, peer=peer)
    assert answer.status is status and site.home.tables() == before
    if status is PagingStatus.REFUSED:
        assert [(item.item, item.status) for item in answer.items] == [(25, PagingStatus.UNKNOWN)]


# Orders


def orders() -> Iterator[tuple[str, ...]]:
    yield from permutations(("1204", "1208", "brief", "agent", "again"))


@pytest.mark.parametrize("order", list(orders()), ids="-".join)
def test_every_order_ends_in_the_same_state(order: tuple[str, ...]) -> None:
    """The device's rules, its agent's, both registrations, and one message twice; then the device wakes."""
    site = Site()
    site.home.device.register(AN1)
    site.home.advance(1)
    device = encode_1204(site.message(SSH, otherwise=DROP, state=DeviceState.ASLEEP))
    agent = encode_1208(AgentRules1208(HOMES, (agent_rule(25),), HOUR, site.time))
    for step in order:
        site.home.advance(0.5)
        match step:
            case "1204" | "again":
                assert site.give("1204", device, HOA) == StatusAnswer(PagingStatus.OK, lifetime=HOUR)
            case "1208":
                assert site.give("1208", agent, TWO).status is PagingStatus.OK
            case "brief":
                site.home.device.register(AN1, BRIEF)
            case "agent":
                site.home.two.register(AN4, takes=Takes.RULED)
    site.home.start()
    site.home.advance(BRIEF + 1)
    assert site.to() == {"device 22": [], "two 25": [AN4], "device None": []}
    site.home.device.register(AN2)
    assert site.to() == {} and site.home.care_of() == [AN2]


STEPS = ("first", "second", "removal", "agent", "agent's second", "registration")


@pytest.mark.parametrize("lost", [(), ("second", "agent"), ("removal", "second")], ids=str)
def test_the_newest_messages_count_in_every_order(lost: tuple[str, ...]) -> None:
    """Of two senders, delayed, each twice, some lost, with the agent's registration in between; then all of it expires."""
    for order in permutations(STEPS):
        site = Site()
        site.sleep()
        start = site.time
        said = {
            "first": ("1204", encode_1204(site.message(SSH, otherwise=DROP, sent=start + 1)), HOA),
            "removal": ("1204", encode_1204(site.message(lifetime=0, sent=start + 2)), HOA),
            "second": ("1204", encode_1204(site.message(page_rule(80), lifetime=60, sent=start + 3)), AN1),
            "agent": ("1208", encode_1208(AgentRules1208(HOMES, (agent_rule(25),), 90, start + 1)), TWO),
            "agent's second": (
                "1208",
                encode_1208(AgentRules1208(HOMES, (agent_rule(26),), 90, start + 2)),
                TWO,
            ),
        }
        arrived = [step for step in order if step not in lost]
        for step in arrived:
            site.home.advance(0.1)
            if step == "registration":
                site.home.two.register(AN4, takes=Takes.RULED)
                continue
            first = site.give(*said[step])
            assert site.give(*said[step]) == first
        if order[0] < order[-1]:  # half of the orders
            site.home.start()
        newest = next((step for step in ("second", "removal", "first") if step in arrived), None)
        device: dict[str, list[Addr]] = {
            "second": {"device 80": list[Addr]()},
            "first": {"device 22": list[Addr](), "device None": list[Addr]()},
        }.get(newest or "", {})
        assert site.to() == device | {"two 26": [AN4]}, order
        site.home.advance(HOUR + 1)
        assert site.to() == {} and site.home.role.list_rules(HOA) == (), order
