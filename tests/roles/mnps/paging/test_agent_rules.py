"""1208 of a stand-in: before the answer to the 1206 that brought the rules, refreshed, removed, in any order (P2, P12)."""

from dataclasses import replace
from itertools import permutations

import pytest

from locum.roles import actions as a
from locum.roles.mnps.paging.agent_rules import LIFETIME, SILENT, STEP
from locum.roles.mnps.paging.waiting_requests import MAX_WAITING, PATIENCE
from locum.roles.mnps.role import StandIn
from locum.wire.control.paging.agent_rules import AgentRules1208
from locum.wire.control.paging.event_table import EventTable1206, Operation, encode_1206
from locum.wire.control.paging.rules import AgentRule
from locum.wire.control.paging.status import (
    ItemStatus,
    PagingStatus,
    StatusAnswer,
    decode_status_answer,
)
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.mnps.paging.table_bench import CONFIGURATION, HOA, RULE, Bench, entry, table
from tests.roles.world import STAND_IN, World

OTHER = AgentRule(8, 11, (Ipv4Selector(protocol=(6, 6)),))


def test_rules_reach_the_home_agent_before_the_answer() -> None:
    bench = Bench()
    exchange = bench.change(table(5, entry(), rules=(RULE,)))
    (sent,) = bench.rules
    assert (sent.home_addresses, sent.rules, sent.lifetime) == ((HOA,), (RULE,), LIFETIME)
    assert exchange not in bench.answers
    bench.advance(0.2)
    answer = decode_status_answer(bench.answers[exchange])
    assert answer == StatusAnswer(PagingStatus.OK, lifetime=LIFETIME)


def test_statuses_of_the_rules_reach_the_device() -> None:
    bench = Bench()
    bench.rules_answer = lambda _rules: StatusAnswer(
        PagingStatus.OK, items=(ItemStatus(8, PagingStatus.OVERLAPS, "with rule 3"),), lifetime=60
    )
    answer = bench.changed(table(5, entry(8), rules=(RULE, OTHER)))
    assert answer.status is PagingStatus.OK and answer.lifetime == 60
    assert answer.items == (ItemStatus(8, PagingStatus.OVERLAPS, "rule: with rule 3"),)


def test_refusal_of_all_rules_is_a_status_of_each() -> None:
    bench = Bench()
    bench.rules_answer = lambda _rules: StatusAnswer(PagingStatus.NOT_AUTHORISED, "no such device")
    answer = bench.changed(table(5, entry(), rules=(RULE, OTHER)))
    assert answer.status is PagingStatus.OK
    assert [(item.item, item.status) for item in answer.items] == [
        (7, PagingStatus.NOT_AUTHORISED),
        (8, PagingStatus.NOT_AUTHORISED),
    ]
    assert bench.counts["1208-not-authorised"] == 1 and "rules-refused" in bench.kinds()


def test_silent_home_agent_does_not_keep_the_device_waiting() -> None:
    bench = Bench()
    bench.rules_answer = lambda _rules: None
    exchange = bench.change(table(5, entry(), rules=(RULE,)))
    bench.advance(PATIENCE + 0.1)
    answer = decode_status_answer(bench.answers[exchange])
    assert answer.status is PagingStatus.OK
    assert answer.items == (ItemStatus(7, PagingStatus.BUSY, f"rule: {SILENT}"),)
    bench.advance(120)
    assert len(bench.rules) > 4
    bench.rules_answer = lambda rules: StatusAnswer(PagingStatus.OK, lifetime=rules.lifetime)
    bench.advance(70)
    before = len(bench.rules)
    bench.advance(LIFETIME / 2 - 80)
    assert len(bench.rules) == before, "it has the rules now"


def test_repeated_table_is_answered_without_the_home_agent() -> None:
    """The first request was answered already; later ones may not wait, nor be kept, until the home agent answers."""
    bench = Bench()
    bench.rules_answer = lambda _rules: None
    change = table(5, entry(), rules=(RULE,))
    exchanges = [bench.change(change)]
    bench.advance(PATIENCE + 0.1)
    for _ in range(20):
        exchanges.append(bench.change(change))
        bench.advance(PATIENCE + 0.1)
    assert all(exchange in bench.answers for exchange in exchanges)


def test_first_of_many_requests_says_when_all_are_answered() -> None:
    bench = Bench()
    bench.rules_answer = lambda _rules: None
    change = table(5, entry(), rules=(RULE,))
    exchanges = []
    for _ in range(2 * MAX_WAITING):
        exchanges.append(bench.change(change))
        bench.advance(0.1)
    assert len(bench.role.event_tables._waiting._waiting[HOA]) == MAX_WAITING
    bench.advance(PATIENCE)
    assert [exchange for exchange in exchanges if exchange in bench.answers] == exchanges[MAX_WAITING:]


def test_rules_are_refreshed_within_the_granted_lifetime() -> None:
    bench = Bench()
    bench.rules_answer = lambda _rules: StatusAnswer(PagingStatus.OK, lifetime=100)
    bench.changed(table(5, entry(), rules=(RULE,)))
    bench.advance(1000)
    assert 19 <= len(bench.rules) <= 22
    times = [rules.sent for rules in bench.rules]
    assert times == sorted(set(times))


def test_rules_are_refreshed_after_a_restart() -> None:
    bench = Bench()
    bench.changed(table(5, entry(), rules=(RULE,)))
    bench.restart()
    bench.advance(1)
    assert [rules.rules for rules in bench.rules] == [(RULE,), (RULE,)]
    assert bench.rules[1].sent > bench.rules[0].sent


def test_rules_end_with_the_table() -> None:
    bench = Bench()
    bench.changed(table(5, entry(), rules=(RULE,)))
    bench.changed(table(6))
    assert (bench.rules[-1].rules, bench.rules[-1].lifetime) == ((), 0)
    assert not [key for _, key in bench.rows if key.endswith("rules")]
    bench.advance(2 * LIFETIME)
    assert len(bench.rules) == 2


def test_removal_is_repeated_over_a_restart() -> None:
    bench = Bench()
    bench.changed(table(5, entry(), rules=(RULE,)))
    bench.rules_answer = lambda _rules: None
    bench.changed(table(6))
    bench.restart()
    bench.rules_answer = lambda _rules: StatusAnswer(PagingStatus.OK)
    bench.advance(1)
    assert (bench.rules[-1].rules, bench.rules[-1].lifetime) == ((), 0)
    assert not [key for _, key in bench.rows if key.endswith("rules")]


def test_removal_ends_when_the_rules_have_expired_anyway() -> None:
    bench = Bench()
    bench.changed(table(5, entry(), rules=(RULE,)))
    bench.rules_answer = lambda _rules: None
    bench.changed(table(6))
    bench.advance(3 * LIFETIME)
    asked = len(bench.rules)
    bench.advance(3 * LIFETIME)
    assert len(bench.rules) == asked and not [key for _, key in bench.rows if key.endswith("rules")]


def test_busy_and_stale_are_asked_again() -> None:
    bench = Bench()
    answers = [PagingStatus.BUSY, PagingStatus.STALE, PagingStatus.OK]
    bench.rules_answer = lambda _rules: StatusAnswer(answers.pop(0), lifetime=LIFETIME)
    answer = bench.changed(table(5, entry(), rules=(RULE,)))
    assert answer.status is PagingStatus.OK and not answers
    assert bench.rules[2].sent >= bench.rules[1].sent + STEP
    assert bench.counts["1208-busy"] == bench.counts["1208-stale"] == 1


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xa0"])
def test_malformed_answer_is_asked_again(body: bytes) -> None:
    bench = Bench()
    bench.rules_answer = lambda _rules: None
    bench.change(table(5, entry(), rules=(RULE,)))
    (number,) = bench.role.event_tables.rules._by_request
    bench.tell(a.Answered(number, body))
    bench.advance(2)
    assert len(bench.rules) == 2 and any(name.startswith("1208-") for name in bench.counts)


def test_rules_without_a_home_agent_are_refused() -> None:
    from dataclasses import replace

    bench = Bench(replace(CONFIGURATION, home_agent=None))
    answer = bench.changed(table(5, rules=(RULE,)))
    assert answer.items and answer.items[0].status is PagingStatus.UNKNOWN
    assert "home_agent" in answer.items[0].text and bench.counts["1208-no-home-agent"] == 1
    bench.changed(table(6))
    assert not bench.rules


def test_home_agent_takes_the_rules_and_their_removal() -> None:
    world = World()
    world.advance(3)

    def change(table: EventTable1206) -> list[str]:
        world.perform(world.mn, [a.Ask(1 << 60, STAND_IN, "1206", encode_1206(table), 10.0)])
        world.advance(5)
        kinds = ("paging-rules-changed", "paging-rules-ended")
        return [event.kind for event in world.ha.events if event.kind in kinds]

    assert change(table(1, entry(), rules=(RULE, OTHER))) == ["paging-rules-changed"]
    role = world.mnps.role
    assert isinstance(role, StandIn)
    said = role.event_tables.rules.status(HOA)
    assert said is not None and said.status is PagingStatus.OK and said.lifetime
    world.kill(world.mnps)
    world.start(world.mnps)
    world.advance(said.lifetime)
    role = world.mnps.role
    assert isinstance(role, StandIn)
    said = role.event_tables.rules.status(HOA)
    assert said is not None and said.status is PagingStatus.OK
    assert "paging-rules-ended" not in world.ha.kinds(), "they are refreshed in time"
    assert change(table(2))[-1] == "paging-rules-ended"


def test_doubled_table_waits_for_the_same_answer() -> None:
    bench = Bench()
    bench.delay = 2.0
    change = table(5, entry(), rules=(RULE,))
    first, second = bench.change(change), bench.change(change)
    bench.advance(3)
    assert bench.answers[first] == bench.answers[second] and len(bench.rules) == 1


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_changes_in_any_order_end_alike(order: tuple[int, ...], *, killed: bool) -> None:
    """Each change is sent twice, delayed; the daemon may be killed between two of them."""
    changes = (
        table(1, entry(1), entry(2), rules=(RULE,)),
        EventTable1206((HOA,), Operation.PUT, 2, (entry(3),)),
        EventTable1206((HOA,), Operation.REMOVE, 3, removed=(1,)),
        table(4, entry(5), rules=(RULE, OTHER)),
    )
    bench = Bench()
    for place, number in enumerate(order):
        bench.change(changes[number])
        bench.advance(0.05)
        bench.change(changes[number])
        if killed and place == 1:
            bench.restart()
    bench.advance(30)
    (device,) = bench.role.event_tables.all()
    assert [kept.identifier for kept in device.table.entries] == [5]
    assert device.table.rules == (RULE, OTHER) and bench.rules[-1].rules == (RULE, OTHER)
    refused = [decode_status_answer(body).status for body in bench.answers.values()]
    assert set(refused) <= {PagingStatus.OK, PagingStatus.STALE}


def test_clock_that_is_set_back_is_followed() -> None:
    """The home agent's clock agrees, and it refuses the times of before."""
    bench = Bench()
    bench.step_wall_clock(3600)
    bench.changed(table(5, entry(), rules=(RULE,)))
    bench.step_wall_clock(-3600)

    def judge(rules: AgentRules1208) -> StatusAnswer:
        ahead = rules.sent > (bench.now + 60) * 1000
        return StatusAnswer(PagingStatus.REFUSED if ahead else PagingStatus.OK, lifetime=rules.lifetime)

    bench.rules_answer = judge
    bench.changed(table(6, entry(), rules=(replace(RULE, priority=11),)))
    assert bench.rules[-1].sent <= bench.now * 1000 and "1208-refused" in bench.counts
    assert bench.role.event_tables.rules.status(HOA) == StatusAnswer(PagingStatus.OK, lifetime=LIFETIME)
