"""Rules that page or lead to an agent at the home agent: in force while the device is asleep (P1, P2, P14, P17)."""

from dataclasses import replace

import pytest

from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.forwarding import Verdict
from locum.roles.rules import CONFIGURATION, DEFAULT, MN, KeptRule, RuleRefused, Target, both_families, check
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.homeworld import AN1, AN2, AN3, HOA, HOA6, MOBILE, Home

SSH = Ipv4Selector(protocol=(6, 6), destination_port=(22, 22))
MAIL = Ipv4Selector(protocol=(6, 6), source_port=(993, 993))
BRIEF = 5  # seconds: below the home agent's short_lifetime


def kept(identifier: int, verdict: RuleVerdict, selector: Ipv4Selector, *to: Target) -> KeptRule:
    return KeptRule(identifier, identifier, verdict, both_families(selector), to, owner=CONFIGURATION)


PAGE = kept(1, RuleVerdict.PAGE, SSH)
AGENT = kept(2, RuleVerdict.AGENT, MAIL, "one")


def added(home: Home, *rules: KeptRule) -> Home:
    for rule in rules:
        home.perform(home.role.add_rule(HOA, rule, now=home.now))
    return home


def verdicts(home: Home) -> dict[int, RuleVerdict]:
    return {rule.identifier: rule.verdict for rule in home.flow_rules()}


def test_rules_follow_the_state_of_the_device() -> None:
    """Asleep both are there, awake neither; each change is one change of the home address's entry."""
    home = added(Home(), PAGE, AGENT)
    home.one.register(AN3, bid=7, takes=Takes.RULED)
    both = {1: RuleVerdict.PAGE, 2: RuleVerdict.FORWARD}
    assert verdicts(home) == both, "the device has never registered"
    home.device.register(AN1)
    assert verdicts(home) == {} and home.care_of() == [AN1]
    home.device.register(AN1, BRIEF)
    assert verdicts(home) == both and home.rules()[2] == [AN3]
    assert [rule.identifier for rule in home.flow_rules(HOA6)] == [1, 2]
    home.advance(BRIEF + 1)
    assert verdicts(home) == both
    home.device.register(AN2, BRIEF)
    assert verdicts(home) == both, "a device that wakes is paged until it has registered in full"
    home.device.register(AN2)
    assert verdicts(home) == {} and home.care_of() == [AN2]


def test_waiting_packets_go_out_before_newcomers() -> None:
    home = added(Home(), PAGE)
    home.device.register(AN1, BRIEF)
    home.advance(BRIEF + 1)
    home.released.clear()
    home.device.register(AN2)
    first, last = (entry for entry in home.released if entry is not None and entry.home_address == HOA)
    assert [rule.identifier for rule in first.rules] == [1], "newcomers still wait"
    assert [tunnel.destination for tunnel in first.tunnels] == [AN2]
    assert last == home.entry() and not last.rules
    assert len(home.released) == 4, "both home addresses"


def test_a_rule_that_goes_releases_its_packets() -> None:
    home = added(Home(), PAGE)
    home.released.clear()
    home.perform(home.role.remove_rule(HOA, 1, now=home.now))
    assert home.released and verdicts(home) == {}
    added(home, PAGE)
    home.released.clear()
    home.perform(home.role.withdraw(HOA, now=home.now))
    assert home.released == [None] * 4


def test_a_device_without_any_way_has_an_entry_for_its_rules() -> None:
    home = added(Home(replace(MOBILE, default_care_of=None, stand_in=None, stand_ins=())), PAGE)
    assert (home.entry().verdict, home.entry().tunnels) == (Verdict.NATIVE, ())
    assert verdicts(home) == {1: RuleVerdict.PAGE}


def test_rows_keep_the_action() -> None:
    for rule in (PAGE, AGENT):
        assert KeptRule.from_row(rule.identifier, rule.to_row()) == rule


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (kept(1, RuleVerdict.PAGE, SSH, "one"), "pages and yet leads somewhere"),
        (kept(1, RuleVerdict.AGENT, SSH), "0 targets"),
        (kept(1, RuleVerdict.AGENT, SSH, MN), "which neither mn nor default is"),
        (kept(1, RuleVerdict.AGENT, SSH, "one", DEFAULT), "which neither mn nor default is"),
    ],
)
def test_impossible_rules_are_refused(rule: KeptRule, said: str) -> None:
    with pytest.raises(RuleRefused, match=said):
        check(rule)
