"""[mobile_node.paging], [[mobile_node.page_rule]], agent_rule and event: values, and errors that name the key."""

import tomllib
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.config.paging.own_paging import own_paging
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.mobile_node.paging.configuration import NO_PAGING, PagingConfiguration
from locum.wire.control.paging.entry import (
    ActionKind,
    Condition,
    Entry,
    EntryAction,
    Limits,
    Operator,
    Pattern,
)
from locum.wire.control.paging.page_request import Order
from locum.wire.control.paging.rules import AgentRule, PageAction, PageRule
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

AGENT = IPv4Address("10.3.0.9")
SSH = (
    Ipv4Selector(destination_port=(22, 22), protocol=(6, 6)),
    Ipv6Selector(destination_port=(22, 22), next_header=(6, 6)),
)
RULE = 'page_rule = [{ priority = 3, protocol = "tcp", destination_port = 22'

A, P = '{ kind = "a" }', "{ priority = 1 }"


def many(table: str, number: int) -> str:
    return ", ".join([table] * number)


def read(text: str) -> PagingConfiguration:
    table = Table(Path("mn.toml"), "mobile_node", tomllib.loads(text))
    found = own_paging(table)
    table.close()
    return found


def test_no_table_leaves_nothing() -> None:
    assert read("") == NO_PAGING


def test_rules_of_both_kinds_are_read() -> None:
    found = read(
        f"""{RULE} }},
        {{ id = 9, priority = 4, family = 4, action = "agent", agent = "10.3.0.9", protocol = "udp" }},
        {{ priority = 5, action = "drop", family = 6 }}]
        agent_rule = [{{ priority = 1, protocol = "tcp", destination_port = 22 }}]
        paging = {{ otherwise = "agent", agent = "10.3.0.9", utc_offset = "-03:30" }}"""
    )
    assert found.rules == (
        PageRule(1, 3, SSH, PageAction.PAGE),
        PageRule(9, 4, (Ipv4Selector(protocol=(17, 17)),), PageAction.AGENT, AGENT),
        PageRule(2, 5, (Ipv6Selector(),), PageAction.DROP),
    )
    assert found.agent_rules == (AgentRule(1, 1, SSH),)
    assert (found.otherwise, found.agent, found.offset) == (PageAction.AGENT, AGENT, -210)


def test_events_are_read_with_all_their_keys() -> None:
    found = read(
        """
        paging.information = { reason = "condition", limit = 7, "on" = true }
        [[event]]
        id = 4
        name = "rows"
        app = "rows"
        kind = "computed"
        actions = ["page", "store"]
        where = [{ field = "rows", is = ">=", value = 100 }, { field = "why", is = "=", left = "reason" }]
        order = "before"
        tell = "later"
        every = 60
        quiet = ["22:00-07:00", "12:30-13:00"]
        later = false
        [[event]]
        kind = "delivered"
        [[event]]
        within = 60
        actions = ["direct"]
        pattern = [{ kind = "a" }, { kind = "b", app = "x" }]
        """
    )
    first, second, third = found.entries
    assert first == Entry(
        4,
        (
            Pattern(
                "rows",
                "computed",
                (
                    Condition("rows", Operator.AT_LEAST, 100),
                    Condition("why", Operator.EQUAL, "reason", left=True),
                ),
            ),
        ),
        (
            EntryAction(ActionKind.PAGE, Order.BEFORE),
            EntryAction(ActionKind.STORE),
            EntryAction(ActionKind.TELL, text="later"),
        ),
        limits=Limits(60, ((1320, 420), (750, 780)), later=False),
        name="rows",
    )
    assert second == Entry(1, (Pattern("*", "delivered"),), (EntryAction(ActionKind.PAGE),))
    assert (third.identifier, third.within, third.patterns) == (2, 60, (Pattern("*", "a"), Pattern("x", "b")))
    assert found.information == {"reason": "condition", "limit": 7, "on": True}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("page_rule = [{ }]", "[mobile_node.page_rule #1] priority: is missing"),
        (f"{RULE}, prio = 3 }}]", "[mobile_node.page_rule #1] prio: is not known"),
        (f'{RULE}, action = "forward" }}]', "[mobile_node.page_rule #1] action"),
        (f'{RULE}, agent = "10.3.0.9" }}]', '[mobile_node.page_rule #1] agent: is for action = "agent"'),
        (f"{RULE}, id = 16384 }}]", "[mobile_node.page_rule #1] id"),
        (f"{RULE}, id = 4 }}, {{ id = 4, priority = 1 }}]", "[mobile_node.page_rule #2] id: 4 is that of another"),
        (f"page_rule = [{many(P, 65)}]", "[mobile_node.page_rule #65]: there are at most 64"),
        (f"agent_rule = [{many(P, 65)}]", "[mobile_node.agent_rule #65]: there are at most"),
        ("event = [{ }]", "[mobile_node.event #1] kind: is missing"),
        (f"event = [{many(A, 65)}]", "[mobile_node.event #65]: there are at most 64"),
        ('event = [{ kind = "a", id = 2 }, { kind = "b", id = 2 }]', "[mobile_node.event #2] id: 2 is that of"),
        ('event = [{ kind = "" }]', "[mobile_node.event #1] kind: '' is not a text of 1 to 64"),
        ('event = [{ kind = "a", within = 5 }]', "[mobile_node.event #1] within: is for several patterns"),
        ('event = [{ kind = "a", pattern = [{ kind = "b" }] }]', "[mobile_node.event #1] kind: belongs into"),
        ('event = [{ pattern = [{ kind = "b", x = 1 }] }]', "[mobile_node.event #1.pattern #1] x: is not known"),
        (f"event = [{{ pattern = [{many(A, 9)}] }}]", "[mobile_node.event #1] pattern: there are"),
        ('event = [{ kind = "a", actions = [] }]', "[mobile_node.event #1] actions: is empty"),
        ('event = [{ kind = "a", actions = ["call"] }]', "[mobile_node.event #1] actions: 'call' is none of"),
        ('event = [{ kind = "a", actions = ["page", "page"] }]', "[mobile_node.event #1] actions: names one"),
        ('event = [{ kind = "a", actions = ["store"], order = "with" }]', "[mobile_node.event #1] order: is for"),
        ('event = [{ kind = "a", quiet = ["7-8"] }]', "[mobile_node.event #1] quiet"),
        ('event = [{ kind = "a", quiet = ["07:00-07:00"] }]', "[mobile_node.event #1] quiet"),
        (f'event = [{{ kind = "a", quiet = {["07:00-08:00"] * 5} }}]', "[mobile_node.event #1] quiet: names more"),
        ('event = [{ kind = "a", where = [{ field = "x", is = "~", value = 1 }] }]', "event #1.where #1] is"),
        ('event = [{ kind = "a", where = [{ field = "x", is = "=" }] }]', "event #1.where #1] value: is missing"),
        ('event = [{ kind = "a", where = [{ field = "x", is = "=", value = 1, left = "y" }] }]', "left: either this"),
        ('event = [{ kind = "a", where = [{ field = "x", is = "=", value = [1] }] }]', "where #1] value: [1] is not"),
        ('paging = { otherwise = "page" }', "[mobile_node.paging] otherwise"),
        ('paging = { otherwise = "drop", agent = "10.3.0.9" }', '[mobile_node.paging] agent: is for otherwise = "agent"'),
        ('paging = { utc_offset = "two" }', "[mobile_node.paging] utc_offset: 'two' is neither"),
        ('paging = { utc_offset = "+25:00" }', "[mobile_node.paging] utc_offset: '+25:00' is more"),
        ("paging = { information = { a = 1 } }", "[mobile_node.paging] information: is for the conditions"),
        ('event = [{ kind = "a" }]\npaging.information = { a = [1] }', "[mobile_node.paging.information] a"),
        (f'event = [{{ kind = "a" }}]\npaging.information = {{ {"a" * 65} = 1 }}', "names have 1 to 64"),
        ("paging = { other = 1 }", "[mobile_node.paging] other: is not known"),
    ],
)  # fmt: skip
def test_errors_name_table_and_key(text: str, where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert where in str(raised.value) and str(raised.value).startswith("mn.toml: [mobile_node.")
