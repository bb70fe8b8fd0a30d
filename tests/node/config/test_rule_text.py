"""Rules in their written form: reading and printing."""

import json
from typing import Any

import pytest

from locum.node.config.rule_table import filter_rules, flow_rules, inline_table
from locum.node.config.rule_text import policing_texts, rule_fields, rule_text
from locum.node.config.toml_table import ConfigError
from locum.roles.action_values.flows import OTHERWISE_RULE, FilterVerdict, RuleVerdict
from locum.roles.profile import Policing
from locum.roles.rules import DEVICE, LEFT, KeptRule, Target, both_families
from locum.wire.traffic_selector import Ipv4Selector


def read(text: str) -> KeptRule:
    return flow_rules([inline_table("a rule", text)])[0]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('protocol = "tcp", source_port = 80', {"protocol": "tcp", "source_port": 80}),
        ('protocol = "udp", destination_port = "5000-5999", family = 6',
         {"protocol": "udp", "destination_port": "5000-5999", "family": 6}),
        ('source = "10.9.0.0/16"', {"source": "10.9.0.0/16"}),
        ('source = "10.9.0.1", destination = "10.9.0.2-10.9.0.9"',
         {"source": "10.9.0.1", "destination": "10.9.0.2-10.9.0.9"}),
        ('protocol = 115, dscp = 46, spi = "256-511"', {"protocol": 115, "dscp": 46, "spi": "256-511"}),
        ('protocol = "icmp"', {"protocol": "icmp"}),
        ('protocol = "icmp", family = 4', {"protocol": "icmp", "family": 4}),
        ("flow_label = 7", {"flow_label": 7}),
        ('protocol = "icmpv6"', {"protocol": "icmpv6"}),
        ("", {}),
    ],
)  # fmt: skip
def test_written_rules_are_read(text: str, fields: dict[str, Any]) -> None:
    head = 'id = 3, priority = 5, to = ["mnps", 7], share = true'
    rule = read(f"{head}, {text}" if text else head)
    found = rule_fields(rule)
    head_fields = {"id": 3, "priority": 5, "action": "forward", "to": ["mnps", 7], "share": True}
    assert found == {**head_fields, "owner": "configuration", **fields}
    keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in found.items() if key != "owner")
    assert read(keys) == rule


def test_one_line() -> None:
    assert rule_text(read('priority = 1, protocol = "tcp", source_port = 80, to = ["mn", 3]')) == (
        "protocol=tcp source_port=80 to mn, else 3"
    )
    assert rule_text(read('priority = 1, action = "drop"')) == "everything is dropped"
    assert rule_text(read('priority = 1, action = "page", protocol = "tcp", destination_port = 22')) == (
        "protocol=tcp destination_port=22 pages the device while it sleeps"
    )
    assert rule_text(read('priority = 1, action = "hold"')) == "everything waits until the device is awake"
    assert rule_text(read('priority = 1, action = "agent"')) == "everything to mnps while the device sleeps"


@pytest.mark.parametrize(
    ("verdict", "to", "text"),
    [
        (RuleVerdict.DROP, (), "is dropped"),
        (RuleVerdict.HOLD, (), "waits"),
        (RuleVerdict.FORWARD, ("mn",), "to its last place"),
        (RuleVerdict.AGENT, ("office", "default"), "to office else default"),
    ],
)
def test_text_of_the_rule_for_the_rest(verdict: RuleVerdict, to: tuple[Target, ...], text: str) -> None:
    rule = KeptRule(OTHERWISE_RULE, 0xFFFF, verdict, (Ipv4Selector(),), to)
    assert rule_text(rule) == f"everything else {text} while the device sleeps"


def test_text_of_a_dropping_rule_that_was_left() -> None:
    rule = KeptRule(LEFT.start, 5, RuleVerdict.DROP, both_families(Ipv4Selector()), owner=DEVICE)
    assert rule_text(rule) == "everything is dropped while the device sleeps"


@pytest.mark.parametrize("action", ["page", "agent", "hold"])
def test_actions_for_a_sleeping_device_are_written_and_read(action: str) -> None:
    rule = read(f'id = 3, priority = 5, action = "{action}", protocol = "tcp"')
    keys = ", ".join(
        f"{key} = {json.dumps(found)}" for key, found in rule_fields(rule).items() if key != "owner"
    )
    assert read(keys) == rule


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('priority = 1, to = ["mn"], source = "10.0.0.9/8"', "source"),
        ('priority = 1, to = ["mn"], source = "10.0.0.1", destination = "::1"', "IPv4 and IPv6"),
        ('priority = 1, to = ["mn", "mn"]', "one way twice"),
        ('priority = 1, action = "page", to = ["mn"]', "pages and yet leads somewhere"),
        ('priority = 1, action = "agent", to = ["mn"]', "neither mn nor default"),
        ('priority = 1, action = "wake"', "action"),
        ("priority = 1", "has 0 targets"),
        ('priority = 1, to = ["mn"], action = "drop"', "yet leads somewhere"),
        ('priority = 1, to = ["mn"], protocol = "icmp", source_port = 1', "has no ports"),
        ("priority = 1, to = [1, 2, 3, 4, 5], share = true", "1 to 4"),
        ('priority = 70000, to = ["mn"]', "priority"),
        ('priority = 1, to = ["mn"], colour = "red"', "colour"),
        ('to = ["mn"]', "priority"),
    ],
)
def test_invalid_rules_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read(text)


def test_rules_that_contradict_each_other() -> None:
    tables = [inline_table("a rule", f'priority = 1, to = ["{name}"]') for name in ("mn", "mnps")]
    with pytest.raises(ConfigError, match="take the same packets"):
        flow_rules(tables)


def test_a_filter_is_a_line_a_rule() -> None:
    texts = (
        'id = 4, action = "drop", protocol = "udp", destination_port = 9',
        'id = 2, action = "allow", protocol = "tcp"',
    )
    rules = tuple(rule for text in texts for rule in filter_rules(inline_table("a filter", text)))
    lines = ["4: protocol=udp destination_port=9 is dropped", "2: protocol=tcp is allowed"]
    assert policing_texts(Policing(rules)) == lines
    assert policing_texts(Policing(rules, FilterVerdict.DROP)) == [*lines, "the rest is dropped"]
    assert policing_texts(Policing()) == []
