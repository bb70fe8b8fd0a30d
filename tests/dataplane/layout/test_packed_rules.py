"""Rules that are packed with parts of earlier ones have the bytes of rules that are packed anew."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from locum.dataplane.layout.rules import rules, rules_of
from locum.roles.action_values.flows import Candidate, Rule, RuleVerdict, Tunnel
from locum.wire.traffic_selector import Ipv4Selector

_AGENT = IPv4Address("192.0.2.1")


def _rule(identifier: int, *places: int) -> Rule:
    ways = [Candidate(Tunnel(_AGENT, IPv4Address("198.51.100.0") + place)) for place in places]
    verdict = RuleVerdict.FORWARD if ways else RuleVerdict.DROP
    return Rule(identifier, Ipv4Selector(protocol=(identifier, identifier)), verdict, tuple(ways))


def test_a_rule_that_stays_follows_the_places_of_its_tunnels() -> None:
    first, second, third, drop = _rule(1, 1), _rule(2, 2, 1), _rule(3, 3), _rule(4)
    known = None
    for wanted in (
        (first, second, third),
        (third, second, first),  # each tunnel has another place
        (second, drop),
        (drop, second, _rule(1, 1)),  # the tunnel of another object, which is equal
        (drop,),
        (first, _rule(2, 3, 2), third, drop),  # another rule with the identifier of an earlier one
    ):
        value, known = rules(wanted, known=known)
        assert value == rules(wanted)[0]
        assert rules_of(value) == wanted


def test_actions_without_a_target_come_back() -> None:
    """The programs know one action for both that hold; a daemon that adopts the rules knows two."""
    verdicts = (RuleVerdict.PAGE, RuleVerdict.HOLD, RuleVerdict.DROP)
    wanted = tuple(
        Rule(number, Ipv4Selector(protocol=(number, number)), verdict)
        for number, verdict in enumerate(verdicts, 1)
    )
    value, known = rules(wanted)
    assert rules_of(value) == wanted
    changed = (wanted[1], replace(wanted[0], verdict=RuleVerdict.HOLD))
    value, _ = rules(changed, known=known)
    assert rules_of(value) == changed


def test_a_rule_that_holds_leads_nowhere() -> None:
    with pytest.raises(ValueError, match="holds, and yet leads somewhere"):
        rules([replace(_rule(1, 1), verdict=RuleVerdict.HOLD)])
