"""Rules that a device leaves at the home agent (1204), on a virtual clock: state, place, admission (P1, P12, P14)."""

from dataclasses import replace
from typing import Any

import pytest

from locum.roles import actions as a
from locum.roles.action_values.flows import MAX_RULES, OTHERWISE_RULE, RuleVerdict
from locum.roles.action_values.paging import PageTriggered
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.paging.rules import FALLS_ASLEEP
from locum.roles.room import Places
from locum.roles.rules import ADMIN, CONFIGURATION, DEVICE, LEFT, KeptRule, RuleRefused, both_families
from locum.security.association import Replay
from locum.wire.control.paging.page import decode_1170
from locum.wire.control.paging.page_rules import DeviceState, encode_1204
from locum.wire.control.paging.rules import PageRule
from locum.wire.control.paging.status import (
    ItemStatus,
    PagingStatus,
    StatusAnswer,
)
from locum.wire.control.paging.way import Way
from locum.wire.flow import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.roles.home_agent.left_site import (
    AGENT,
    BRIEF,
    DROP,
    HOLD,
    HOMES,
    HOUR,
    NOBODY,
    SSH,
    Site,
    agent_rule,
    page_rule,
    tcp,
)
from tests.roles.home_agent.test_pages import Pages
from tests.roles.homeworld import AN1, AN2, AN3, AN4, HOA, HOA6, MOBILE, ONE, Home


def test_rules_of_the_device_are_in_force_while_it_sleeps() -> None:
    site = Site()
    site.home.device.register(AN1)
    assert site.device(SSH, page_rule(25, DROP), page_rule(80, HOLD)) == StatusAnswer(
        PagingStatus.OK, lifetime=HOUR
    )
    assert site.in_force() == {}, "they wait until it sleeps"
    site.sleep()
    both = {"device 22": RuleVerdict.PAGE, "device 25": RuleVerdict.DROP, "device 80": RuleVerdict.HOLD}
    assert site.in_force() == both and site.in_force(HOA6) == both
    site.home.device.register(AN2, BRIEF)
    assert site.in_force() == both, "it is on its way back"
    site.home.device.register(AN2)
    assert site.in_force() == {} and site.home.care_of() == [AN2]


def test_a_device_may_say_that_it_sleeps_while_it_is_registered() -> None:
    """Its care-of address then carries only what nothing else does, until it registers once more."""
    site = Site(replace(MOBILE, stand_in=None, stand_ins=(), default_care_of=None))
    site.home.device.register(AN1, 600)
    assert site.device(SSH, state=DeviceState.ASLEEP).status is PagingStatus.OK
    site.home.advance(FALLS_ASLEEP - 1)
    site.home.start()
    assert site.in_force() == {}, "its answer has to arrive"
    site.home.advance(2)
    assert site.in_force() == {"device 22": RuleVerdict.PAGE} and site.home.care_of() == [AN1]
    site.device(SSH, page_rule(80), state=DeviceState.ASLEEP)
    assert len(site.in_force()) == 2, "it was asleep"
    site.home.start()
    assert len(site.in_force()) == 2, "it is stored"
    site.home.advance(10)
    site.home.device.register(AN1, 600)
    assert site.in_force() == {}
    site.home.start()
    assert site.in_force() == {}


def test_default_care_of_address_serves_who_says_it_sleeps() -> None:
    site = Site()
    site.home.device.register(AN1)
    site.device(state=DeviceState.ASLEEP)
    site.home.now += FALLS_ASLEEP
    site.home.start()
    assert site.home.care_of() == [AN3]
    site.home.now += 1
    site.device(state=DeviceState.AWAKE)
    assert site.home.care_of() == [AN1]


@pytest.mark.parametrize("back", ["registers", "says so", "removes its rules"])
def test_a_device_that_turns_back_does_not_fall_asleep(back: str) -> None:
    site = Site()
    site.home.device.register(AN1)
    site.home.advance(1)
    site.device(SSH, state=DeviceState.ASLEEP)
    site.home.advance(1)
    if back == "registers":
        site.home.device.register(AN1)
    else:
        site.device(SSH, lifetime=HOUR if back == "says so" else 0)
    site.home.advance(FALLS_ASLEEP + 1)
    assert site.in_force() == {} and site.home.care_of() == [AN1]


def test_a_registration_that_ends_is_a_sleep() -> None:
    site = Site()
    site.home.device.register(AN1, 30)
    site.device(SSH)
    site.home.advance(31)
    assert site.in_force() == {"device 22": RuleVerdict.PAGE}
    site.home.device.register(AN1)
    site.home.device.cancel()
    assert site.in_force() == {"device 22": RuleVerdict.PAGE}, "as one that is cancelled"


def test_a_delayed_message_does_not_put_an_awake_device_to_sleep() -> None:
    site = Site()
    late = site.message(SSH, state=DeviceState.ASLEEP)
    site.home.advance(10)
    site.home.device.register(AN1)
    assert site.give("1204", encode_1204(late), HOA).status is PagingStatus.OK
    site.home.advance(FALLS_ASLEEP)
    assert site.in_force() == {} and site.home.care_of() == [AN1]
    site.sleep()
    assert site.in_force() == {"device 22": RuleVerdict.PAGE}, "its rules count"


def test_a_device_with_nonces_is_believed() -> None:
    site = Site(replay=Replay.NONCE)
    site.home.device.register(AN1)
    site.home.device.register(AN1)
    site.device(SSH, state=DeviceState.ASLEEP, sent=site.time - 60_000)
    site.home.advance(FALLS_ASLEEP)
    assert site.in_force() == {"device 22": RuleVerdict.PAGE}


def test_access_node_may_send_the_rules_of_its_visitor() -> None:
    site = Site()
    site.sleep()
    assert site.device(SSH, peer=AN1).status is PagingStatus.OK
    assert site.in_force() == {"device 22": RuleVerdict.PAGE}


def test_way_and_rules_are_used_by_a_page() -> None:
    site = Site()
    way = Way("radio", b"\2\0\0\0\0\1", 320, 40, 20)
    site.device(SSH, way=way)
    site.sleep()
    site.home.start()
    pages = Pages(site.home)
    [rule] = site.home.flow_rules()
    pages.happened(PageTriggered(HOA, rule.identifier, Flow(6, HOA, 22, AN4, 4000), b"first", 60))
    assert decode_1170(pages.asked[0].body).way == way
    assert decode_1170(pages.asked[0].body).cause.rule == rule.identifier  # type: ignore[union-attr]


def test_a_device_that_says_it_is_awake_is_reached() -> None:
    site = Site()
    site.home.device.register(AN1)
    site.home.now += 1
    site.device(SSH, state=DeviceState.ASLEEP)
    site.home.advance(FALLS_ASLEEP)
    pages = Pages(site.home)
    [rule] = site.home.flow_rules()
    pages.happened(PageTriggered(HOA, rule.identifier, Flow(6, HOA, 22, AN4, 4000), b"first", 60))
    site.home.released.clear()
    site.home.now += 1
    site.device(SSH)
    assert pages.detail()["outcome"] == "reached" and len(site.home.released) == 4


# Place beside other rules


def test_rules_of_the_operator_win_ties() -> None:
    kept = KeptRule(1, 10, RuleVerdict.DROP, both_families(tcp(22)), owner=CONFIGURATION)
    site = Site(replace(MOBILE, rules=(kept,)))
    site.device(SSH, page_rule(23, priority=9))
    site.sleep()
    assert [rule.verdict for rule in site.home.flow_rules()] == [
        RuleVerdict.PAGE,
        RuleVerdict.DROP,
        RuleVerdict.PAGE,
    ]
    added = KeptRule(2, 9, RuleVerdict.DROP, both_families(tcp(23)), owner=ADMIN)
    site.home.perform(site.home.role.add_rule(HOA, added, now=site.home.now))
    assert [rule.identifier for rule in site.home.flow_rules()][:1] == [2]


def test_identifiers_of_configured_rules_are_others() -> None:
    site = Site()
    site.device(*(page_rule(item) for item in range(1, 61)))
    site.sleep()
    numbers = [rule.identifier for rule in site.home.flow_rules()]
    assert len(set(numbers)) == 60 and set(numbers) <= set(LEFT)
    for number in (OTHERWISE_RULE, LEFT.start, LEFT[-1]):
        rule = KeptRule(number, 1, RuleVerdict.DROP, both_families(tcp(1)))
        with pytest.raises(RuleRefused, match="given to rules of sleepers"):
            site.home.role.add_rule(HOA, rule, now=site.home.now)


def test_a_rule_that_stays_keeps_its_number() -> None:
    """Its counter in the kernel goes on."""
    site = Site()
    site.sleep()
    site.device(SSH, page_rule(80))
    before = [rule.identifier for rule in site.home.flow_rules()]
    site.home.now += 1
    site.device(page_rule(25), page_rule(80))
    after = [rule.identifier for rule in site.home.flow_rules()]
    assert after[0] == before[1] or after[1] == before[1]
    assert len({*before, *after}) == 3


def test_lists_show_who_left_a_rule() -> None:
    site = Site()
    site.device(SSH, otherwise=DROP)
    site.agent(agent_rule(25))
    lines = site.home.role.list_rules(HOA)
    assert [(line.rule.owner, line.item, line.live) for line in lines] == [
        (DEVICE, 22, (4, 6)),
        ("one", 25, (4, 6)),
        (DEVICE, None, (4, 6)),
    ]


# Admission


def test_repeated_messages_get_the_same_answer() -> None:
    site = Site()
    body = encode_1204(site.message(SSH, lifetime=100))
    first = site.give("1204", body, HOA)
    rows = dict(site.home.rows)
    site.home.advance(40)
    assert site.give("1204", body, HOA) == first and site.home.rows == rows
    site.home.advance(61)
    assert site.give("1204", body, HOA).status is PagingStatus.STALE, "it has ended"


def test_older_messages_are_refused() -> None:
    site = Site()
    old = site.message(SSH)
    site.home.now += 1
    assert site.device(page_rule(80)).status is PagingStatus.OK
    assert site.give("1204", encode_1204(old), HOA).status is PagingStatus.STALE
    assert site.device(SSH).status is PagingStatus.STALE, "another of the same time"
    site.home.now += 1
    assert site.device(lifetime=0).lifetime == 0
    assert site.give("1204", encode_1204(old), HOA).status is PagingStatus.STALE, "also after its removal"
    site.home.start()
    assert site.give("1204", encode_1204(old), HOA).status is PagingStatus.STALE, "and after a restart"
    assert site.home.counts == {"1204-stale": 4}


def test_removal_is_repeated_and_stored() -> None:
    site = Site()
    site.sleep()
    site.device(SSH, otherwise=DROP)
    site.home.now += 1
    body = encode_1204(site.message(lifetime=0))
    for _ in range(2):
        assert site.give("1204", body, HOA) == StatusAnswer(PagingStatus.OK, lifetime=0)
        assert site.in_force() == {} and site.rest() is None
    assert site.ended() == [("1204", "removed")]
    site.home.start()
    assert site.in_force() == {} and site.give("1204", body, HOA).status is PagingStatus.OK


def test_rules_end_with_their_lifetime() -> None:
    site = Site(configuration=HomeAgentConfiguration(Home().configuration.address, left_lifetime=500))
    site.sleep()
    assert site.device(SSH).lifetime == 500
    site.home.advance(499)
    site.home.start()
    assert site.in_force() and site.home.role.deadline() is not None
    site.home.advance(2)
    assert site.in_force() == {} and site.ended() == [("1204", "expired")]
    assert site.home.released, "packets that waited go where they go now"


def test_rules_end_while_the_home_agent_is_down() -> None:
    site = Site()
    site.sleep()
    site.device(SSH, lifetime=100)
    site.agent(agent_rule(25), lifetime=100)
    site.home.now += 101
    site.home.start()
    assert site.in_force() == {} and site.ended() == [("1204", "expired"), ("1208", "expired")]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"home_addresses": (ONE,)}, PagingStatus.NOT_AUTHORISED),
        ({"home_addresses": (HOA, NOBODY)}, PagingStatus.NOT_AUTHORISED),
        ({"peer": ONE}, PagingStatus.NOT_AUTHORISED),
        ({"otherwise": AGENT, "agent": NOBODY}, PagingStatus.UNKNOWN),
    ],
)
def test_messages_without_a_right_are_refused(changes: dict[str, Any], status: PagingStatus) -> None:
    site = Site()
    before = site.home.tables()
    assert site.device(SSH, **changes).status is status
    assert site.home.tables() == before and sum(site.home.counts.values()) == 1


def test_devices_that_are_not_served_are_unknown() -> None:
    site = Site()
    body = encode_1204(site.message(SSH, home_addresses=(NOBODY,)))
    assert site.give("1204", body, AN1, (NOBODY,)).status is PagingStatus.UNKNOWN
    body = encode_1204(site.message(SSH, home_addresses=(HOA, NOBODY)))
    assert site.give("1204", body, AN1, (HOA, NOBODY)).status is PagingStatus.UNKNOWN
    body = encode_1204(site.message(SSH, home_addresses=(HOA6,)))
    assert site.give("1204", body, AN1, HOMES).status is PagingStatus.OK, "by the IPv6 address alone"


def test_messages_of_the_future_are_refused() -> None:
    site = Site()
    assert site.device(SSH, sent=site.time + 61_000).status is PagingStatus.REFUSED
    assert site.device(SSH, sent=site.time + 59_000).status is PagingStatus.OK
    site.home.perform(site.home.role.happened(a.WallClockStepped(1000.0), now=site.home.now))
    assert site.device(SSH, sent=site.time + 1_059_000).status is PagingStatus.OK


def test_unreadable_messages_are_refused() -> None:
    site = Site()
    for path in ("1204", "1208"):
        answer = site.give(path, b"\xff", HOA)
        assert answer.status is PagingStatus.MALFORMED and answer.text
    assert sum(site.home.counts.values()) == 2


@pytest.mark.parametrize(
    ("rules", "items"),
    [
        ([SSH, page_rule(1, AGENT, agent=NOBODY)], [(1, PagingStatus.UNKNOWN)]),
        ([SSH, replace(SSH, identifier=1)], [(1, PagingStatus.OVERLAPS)]),
        ([SSH, PageRule(1, 10, (Ipv4Selector(),), DROP)], [(1, PagingStatus.OVERLAPS)]),
        ([PageRule(1, 1, (tcp(1), tcp(2)), DROP), SSH], [(1, PagingStatus.MALFORMED)]),
    ],
)
def test_one_bad_rule_refuses_them_all(rules: list[PageRule], items: list[tuple[int, PagingStatus]]) -> None:
    site = Site()
    site.sleep()
    site.device(page_rule(80))
    before = site.home.tables()
    site.home.now += 1
    answer = site.device(*rules)
    assert answer.status is not PagingStatus.OK
    assert [(item.item, item.status) for item in answer.items] == items
    assert site.home.tables() == before


def test_rules_of_each_family_are_one_rule() -> None:
    site = Site()
    site.sleep()
    two = (tcp(22), Ipv6Selector(next_header=(6, 6), destination_port=(23, 23)))
    assert site.device(PageRule(1, 1, two, DROP)).status is PagingStatus.OK
    assert site.home.flow_rules()[0].selector == two[0]
    assert site.home.flow_rules(HOA6)[0].selector == two[1]


def test_limits_hold_for_all_rules_together() -> None:
    """Two stand-ins leave 63 places; the rule for the rest takes one."""
    kept = KeptRule(1, 1, RuleVerdict.DROP, both_families(tcp(1)), owner=CONFIGURATION)
    site = Site(replace(MOBILE, rules=(kept,)))
    site.sleep()
    many = [page_rule(item, priority=item) for item in range(100, 162)]
    answer = site.device(*many, otherwise=DROP)
    assert answer.status is PagingStatus.LIMIT
    assert answer.items == (ItemStatus(161, PagingStatus.LIMIT),), "the last one to be tried"
    assert site.device(*many).status is PagingStatus.OK
    assert site.agent(agent_rule(5000)).status is PagingStatus.LIMIT
    assert len(site.home.entry().rules) + 1 <= MAX_RULES
    more = KeptRule(2, 2, RuleVerdict.DROP, both_families(tcp(2)), owner=ADMIN)
    with pytest.raises(RuleRefused, match="no room for more"):
        site.home.role.add_rule(HOA, more, now=site.home.now)


def test_more_configured_rules_end_those_that_were_left() -> None:
    site = Site()
    site.sleep()
    site.device(*(page_rule(item) for item in range(100, 150)))
    site.agent(agent_rule(5000))
    kept = tuple(
        KeptRule(number, number, RuleVerdict.DROP, both_families(tcp(number)), owner=CONFIGURATION)
        for number in range(1, 41)
    )
    more = replace(site.home.mobile, rules=kept)
    site.home.perform(site.home.role.serve(more, now=site.home.now))
    assert site.ended() == [("1208", "no-room"), ("1204", "no-room")]
    assert len(site.home.flow_rules()) == 40
    other = replace(more, stand_ins=(), stand_in=None, rules=())
    site.agent(agent_rule(5000), sent=site.time + 1)
    site.home.perform(site.home.role.serve(other, now=site.home.now))
    assert site.ended()[2:] == [("1208", "not-authorised")]


def test_a_data_plane_without_room_refuses() -> None:
    room = Places(bindings=100, extended=100, acceptances=100, translations=100)
    site = Site(configuration=HomeAgentConfiguration(Home().configuration.address, room=room))
    site.home.device.register(AN1)
    answer = site.device(SSH)
    assert (answer.status, answer.text) == (
        PagingStatus.LIMIT,
        "the data plane has no room for these rules",
    )
    assert site.in_force() == {}


def test_withdrawn_devices_leave_no_rows() -> None:
    site = Site()
    site.device(SSH)
    site.agent(agent_rule(25))
    site.home.perform(site.home.role.withdraw(HOA, now=site.home.now))
    assert not [key for key in site.home.rows if key[0] == "left"]
    site.home.advance(HOUR + 1)


@pytest.mark.parametrize("changes", [{"sent": "x"}, {"rules": [{}]}, {"otherwise": "page"}, {"way": [1]}])
def test_damaged_rows_are_counted_and_left_out(changes: dict[str, Any]) -> None:
    site = Site()
    site.device(SSH, way=Way("radio"))
    key = ("left", f"{HOA} device")
    row = site.home.rows[key]
    site.home.rows[key] = replace(row, value={**row.value, **changes})
    site.home.start()
    assert site.home.counts == {"unreadable-row": 1} and key not in site.home.rows


def test_clock_that_is_set_back_locks_nobody_out() -> None:
    """Device and home agent had a wrong time; a message of that time is later than each that follows."""
    site = Site()
    ahead = 3600.0
    site.home.perform(site.home.role.happened(a.WallClockStepped(ahead), now=site.home.now))
    assert site.device(SSH, sent=site.time + 3_600_000).status is PagingStatus.OK
    assert site.agent(agent_rule(80), sent=site.time + 3_600_000).status is PagingStatus.OK
    site.home.perform(site.home.role.happened(a.WallClockStepped(0.0), now=site.home.now))
    assert site.device(page_rule(23)).status is PagingStatus.OK
    assert site.agent(agent_rule(81)).status is PagingStatus.OK
    assert site.device(SSH, sent=site.time - 1).status is PagingStatus.STALE
