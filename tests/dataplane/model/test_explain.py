"""An explanation names the entry, the rule, the filter and the tunnel that decide about a packet."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.explain import Question, explain
from locum.dataplane.state import state_of
from locum.roles.action_values.flows import (
    OTHERWISE_RULE,
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    InstallFilter,
    InstallTranslation,
    Rule,
    RuleVerdict,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from locum.wire.traffic_selector import Ipv4Selector

HOME, PEER = ip_address("10.9.0.5"), ip_address("10.1.0.2")
AGENT, DEVICE, STAND_IN = (ip_address(a) for a in ("10.2.0.1", "10.2.0.2", "10.2.0.3"))
LINKS = ("core", "lan")
WEB = Question(PEER, HOME, 6, 4000, 80, link="core")


def home_agent(*more: Action) -> list[Action]:
    rules = (
        Rule(3, Ipv4Selector(protocol=(6, 6), destination_port=(80, 80)), RuleVerdict.FORWARD,
             (Candidate(Tunnel(AGENT, STAND_IN)),)),
        Rule(7, Ipv4Selector(dscp=(46, 46)), RuleVerdict.DROP),
        Rule(9, Ipv4Selector(protocol=(17, 17), destination_port=(5060, 5060)), RuleVerdict.PAGE),
    )  # fmt: skip
    entry = BindingEntry(HOME, Verdict.ENCAPSULATE, (Tunnel(AGENT, DEVICE),), rules=rules)
    return [LocalEndpoint(AGENT), InstallBinding(entry), *more]


def test_rules_in_order() -> None:
    state = state_of(home_agent())
    web = explain(state, WEB, links=LINKS)
    assert (web.outcome, web.tunnel) == (Outcome.ENCAPSULATED, Tunnel(AGENT, STAND_IN))
    assert web.rule is not None and web.rule.identifier == 3
    assert web.text.splitlines() == [
        "home agent: entry of 10.9.0.5: encapsulate",
        "flow rule 3 takes it: forward; destination_port 80, protocol 6",
        "tunnel 10.2.0.1 > 10.2.0.3 (ipip)",
        "the packet goes into the tunnel to 10.2.0.3",
    ]
    voice = explain(state, replace(WEB, destination_port=81, dscp=46), links=LINKS)
    assert (voice.outcome, voice.reason) == (Outcome.DROPPED, Reason.RULE_DROPPED)
    assert voice.verdict == "is dropped: rule-dropped"
    sip = explain(state, replace(WEB, protocol=17, destination_port=5060), links=LINKS)
    assert (sip.outcome, sip.text.splitlines()[1:]) == (Outcome.HELD, [
        "flow rule 9 takes it: page, and it waits until the device is awake; destination_port 5060, protocol 17",
        "the packet waits in the hold queue",
    ])  # fmt: skip
    other = explain(state, replace(WEB, destination_port=81), links=LINKS)
    assert other.rule is None and other.tunnel == Tunnel(AGENT, DEVICE)
    assert "none of its 3 flow rules takes it" in other.text


def test_access_node_on_the_same_host() -> None:
    """The tunnel ends where it begins; the visitor's filter is asked, and its link may be gone."""
    to_visitor = TunnelAcceptance(AGENT, HOME, Side.TO_HOME_ADDRESS, "lan", HOME)
    refused = FilterRule(9, Ipv4Selector(source_port=(4000, 4000)), FilterVerdict.DROP)
    state = state_of(home_agent(
        LocalEndpoint(STAND_IN), AcceptTunnel(to_visitor),
        InstallFilter(Filter(HOME, FilterPlace.TO_VISITOR, (refused,))),
    ))  # fmt: skip
    dropped = explain(state, WEB, links=LINKS)
    assert (dropped.reason, dropped.filters) == (
        Reason.FILTERED_TO_VISITOR,
        ((FilterPlace.TO_VISITOR, 9),),
    )
    delivered = explain(state, replace(WEB, source_port=4001), links=("core",))
    assert (delivered.outcome, delivered.link, delivered.tunnel) == (Outcome.DELIVERED, "lan", None)
    assert "which ends on this host" in delivered.text and "lan, which is not there" in delivered.text


def test_explanations_of_local_and_tunnelled_packets() -> None:
    outbound = OutboundEntry(HOME, None, Tunnel(DEVICE, AGENT))
    back = TunnelAcceptance(AGENT, HOME, Side.TO_HOME_ADDRESS)
    state = state_of([LocalEndpoint(DEVICE), AcceptTunnel(back), InstallOutbound(outbound)])
    sent = explain(state, Question(HOME, PEER, 17, 5000, 53), links=LINKS)
    assert (sent.outcome, sent.tunnel) == (Outcome.ENCAPSULATED, outbound.tunnel)
    came = explain(state, replace(WEB, outer_source=AGENT), links=LINKS)
    assert (came.outcome, came.steps) == (Outcome.PASSED, ("out of the tunnel from 10.2.0.1, to 10.9.0.5",))
    forged = explain(state, replace(WEB, outer_source=STAND_IN), links=LINKS)
    assert forged.reason is Reason.UNREGISTERED_SOURCE


def test_tunnel_through_a_nat_uses_udp() -> None:
    outside = TunnelAcceptance(STAND_IN, HOME, Side.FROM_HOME_ADDRESS, source_port=40001)
    state = state_of(home_agent(AcceptTunnel(outside)))
    came = explain(state, Question(HOME, PEER, 6, 80, 4000, outer_source=STAND_IN, link="core"), links=LINKS)
    assert came.steps[0] == "out of the tunnel from 10.2.0.3, from 10.9.0.5"


def test_questions_without_an_answer() -> None:
    state = state_of(home_agent())
    assert explain(state, Question(HOME, PEER, link="lan"), links=LINKS).steps == ("no entry is about it",)
    with pytest.raises(ValueError, match="there is no link air"):
        explain(state, replace(WEB, link="air"), links=LINKS)
    with pytest.raises(ValueError, match="two families"):
        explain(state, replace(WEB, source=ip_address("fd01::2")), links=LINKS)
    with pytest.raises(ValueError, match="no tunnel from fd02::1 ends on this host"):
        explain(state, replace(WEB, outer_source=ip_address("fd02::1")), links=LINKS)


def test_translation() -> None:
    """On the path to the stand-in its own address replaces the home address (R12)."""
    local = ip_address("10.4.0.1")
    translated = InstallTranslation(Translation(HOME, local, STAND_IN))
    found = explain(state_of(home_agent(translated)), WEB, links=LINKS)
    assert found.text.splitlines()[-2:] == [
        "translation: 10.9.0.5 becomes 10.4.0.1",
        "the packet goes into the tunnel to 10.2.0.3",
    ]
    other = explain(state_of(home_agent(translated)), replace(WEB, destination_port=81), links=LINKS)
    assert "translation" not in other.text, "it takes the tunnel to the device"


def test_packets_that_no_rule_names_are_explained() -> None:
    for verdict, words in (
        (RuleVerdict.DROP, "no rule names it: drop"),
        (RuleVerdict.HOLD, "no rule names it: hold, and it waits until the device is awake"),
    ):
        rest = Rule(OTHERWISE_RULE, Ipv4Selector(), verdict)
        state = state_of([InstallBinding(BindingEntry(HOME, Verdict.NATIVE, rules=(rest,)))])
        found = explain(state, WEB, links=LINKS)
        assert found.text.splitlines()[1] == f"the device sleeps, and {words}"
        assert found.outcome is (Outcome.DROPPED if verdict is RuleVerdict.DROP else Outcome.HELD)
