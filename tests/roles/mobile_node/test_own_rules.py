"""Flow rules that a device registers: request extensions, and the effect of each kind of answer."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from locum.node.config.rule_table import selectors
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.action_values.flows import MAX_RULES, RuleVerdict
from locum.roles.action_values.registration import NO_OPTIONS, RuleChange
from locum.roles.actions import Action, Emit, Forget, Persist
from locum.roles.home_agent.requested_changes import changed_rules
from locum.roles.mobile_ipv4.answers import received_answer
from locum.roles.mobile_ipv4.own_requests import write_options
from locum.roles.mobile_ipv4.requests import read_request
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.mobile_node.own_rules import FIRST_IDENTIFIER as FIRST
from locum.roles.mobile_node.own_rules import TABLE, OwnRules
from locum.roles.registrant.attachment import Attachment
from locum.roles.rules import FIRST_ASSIGNED, MN, UNNAMED, KeptRule, RuleRefused, both_families
from locum.security.association import Association
from locum.wire.control import Flow
from locum.wire.mobile_ip.extensions import AuthKind, Extension, FlowAction, FlowBinding, VendorNormal
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.vendor import FlowOperation, FlowRule, decode_vendor
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

HOME, HOME6, AGENT = IPv4Address("10.36.0.4"), IPv6Address("2001:db8:36::4"), IPv4Address("10.5.0.1")
HOMES = (HOME, HOME6)
WAY = Attachment("radio0", AGENT, IPv4Address("10.1.0.1"), False)
WEB, MAIL = (Ipv4Selector(destination_port=(port, port), protocol=(6, 6)) for port in (80, 25))


def rule(
    selector: Ipv4Selector = WEB, *, identifier: int = 0, priority: int = 5, to: tuple[int | str, ...] = (7,)
) -> KeptRule:
    verdict = RuleVerdict.FORWARD if to else RuleVerdict.DROP
    return KeptRule(identifier, priority, verdict, both_families(selector), to, owner="")


def ask(rules: OwnRules, wanted: KeptRule, own: int | None = None) -> KeptRule:
    return rules.add(wanted, HOMES, own)


def answer(rules: OwnRules, code: Code = Code.ACCEPTED, lifetime: int = 300) -> list[Action]:
    reply = RegistrationReply(code, lifetime, HOME, AGENT, 1, ())
    return list(rules.replied(received_answer(reply), WAY))


def extensions(rules: OwnRules, lifetime: int = 300) -> list[Extension]:
    return write_options(rules.fill(NO_OPTIONS, WAY, lifetime), co_located=False)


def said(rules: OwnRules, lifetime: int = 300) -> list[object]:
    found = extensions(rules, lifetime)
    return [
        decode_vendor(extension) if isinstance(extension, VendorNormal) else extension for extension in found
    ]


@pytest.fixture
def rules() -> OwnRules:
    return OwnRules()


def test_rule_is_sent_until_answered_and_then_kept(rules: OwnRules) -> None:
    made = ask(rules, rule())
    assert (made.identifier, made.owner, rules.settled, list(rules.all())) == (FIRST, MN, False, [])
    wanted = [FlowRule(FlowOperation.ADD, FIRST, 5), FlowBinding(FlowAction.FORWARD, (7,), WEB)]
    assert said(rules) == wanted == said(rules)  # it is sent again until it is answered
    assert said(rules, lifetime=0) == []
    assert answer(rules, Code.IDENTIFICATION_MISMATCH) == []
    assert said(rules) == wanted
    assert answer(rules) == [Persist(TABLE, str(FIRST), made.to_row())]
    assert (rules.settled, list(rules.all()), said(rules)) == (True, [made], [])


@pytest.mark.parametrize(("verdict", "to"), [(RuleVerdict.PAGE, ()), (RuleVerdict.AGENT, (7,))])
def test_rules_for_the_time_of_sleep_are_not_registered(
    rules: OwnRules, verdict: RuleVerdict, to: tuple[int, ...]
) -> None:
    """RFC 7629 has no such action."""
    with pytest.raises(RuleRefused, match=f"the action {verdict.value}; add it at the home agent"):
        ask(rules, replace(rule(to=to), verdict=verdict))
    assert rules.settled and said(rules) == []


def test_own_identifiers_differ_from_all_others() -> None:
    """Those of stand-ins are below 16384, those that a home agent gives from FIRST_ASSIGNED on."""
    assert UNNAMED.stop <= FIRST < FIRST + MAX_RULES < FIRST_ASSIGNED


def test_removed_rule_frees_its_identifier(rules: OwnRules) -> None:
    ask(rules, rule(to=()))
    assert said(rules)[1] == FlowBinding(FlowAction.DROP, (), WEB)
    answer(rules)
    rules.remove(FIRST)
    assert said(rules) == [FlowRule(FlowOperation.REMOVE, FIRST)]
    assert answer(rules) == [Forget(TABLE, str(FIRST))]
    assert (list(rules.all()), ask(rules, rule(MAIL)).identifier) == ([], FIRST)


def test_removal_with_a_lost_answer_completes(rules: OwnRules) -> None:
    ask(rules, rule())
    answer(rules)
    rules.remove(FIRST)
    assert answer(rules, Code.INVALID_FB_IDENTIFIER) == [Forget(TABLE, str(FIRST))]
    assert (rules.refused, list(rules.all())) == (None, [])


@pytest.mark.parametrize("code", [Code.INVALID_FB_IDENTIFIER, Code.POORLY_FORMED_REQUEST])
def test_refused_rule_changes_no_rules(rules: OwnRules, code: Code) -> None:
    ask(rules, rule())
    (told,) = answer(rules, code)
    assert isinstance(told, Emit) and told.detail == {"rule": FIRST, "code": int(code)}
    assert (rules.refused, list(rules.all()), rules.settled, said(rules)) == (code, [], True, [])
    ask(rules, rule(MAIL))
    assert rules.refused is None


@pytest.mark.parametrize(
    "wrong",
    [
        rule(to=("mnps",)),
        rule(to=("mn",)),
        rule(to=(7, 7)),
        rule(identifier=UNNAMED.start),
        rule(identifier=3),
        rule(MAIL, identifier=4, priority=9, to=(1, 2, 3, 4, 5, 6, 7, 8, 9)),
        rule(Ipv4Selector(protocol=(6, 6)), identifier=5),
    ],
)
def test_invalid_rule_is_refused_before_it_is_sent(rules: OwnRules, wrong: KeptRule) -> None:
    ask(rules, rule(identifier=3))
    answer(rules)
    with pytest.raises(RuleRefused):
        ask(rules, wrong)
    assert (rules.settled, len(rules.all())) == (True, 1)


def test_second_change_waits_for_the_first(rules: OwnRules) -> None:
    ask(rules, rule())
    with pytest.raises(RuleRefused, match="under way"):
        ask(rules, rule(MAIL))
    rules.give_up()
    assert (rules.settled, said(rules), answer(rules)) == (True, [], [])
    with pytest.raises(RuleRefused, match=f"no rule {FIRST}"):
        rules.remove(FIRST)


def test_a_deregistration_ends_them_and_a_restart_does_not(rules: OwnRules) -> None:
    made = ask(rules, rule())
    (row,) = answer(rules)
    assert isinstance(row, Persist)
    again = OwnRules()
    broken = [Persist(TABLE, "x", {}), Persist("visitor", "1", {})]
    assert again.restore([row, *broken], now=0.0)[1:] == [Forget(TABLE, "x")]
    assert list(again.all()) == [made]
    assert answer(again, lifetime=0) == [Forget(TABLE, str(FIRST))]
    assert list(again.all()) == []


def test_device_is_a_target_by_its_binding_identifier(rules: OwnRules) -> None:
    made = ask(rules, rule(to=(1, "mn")), own=5)
    assert made.to == (1, 5)
    assert said(rules)[1] == FlowBinding(FlowAction.FORWARD, (1, 5), WEB)
    rules.give_up()
    with pytest.raises(RuleRefused, match=r"set bid in \[mobile_node\]"):
        ask(rules, rule(to=(1, "mn")))
    with pytest.raises(RuleRefused, match="twice"):
        ask(rules, rule(to=(5, "mn")), own=5)
    with pytest.raises(RuleRefused, match="office: a device's rules"):
        ask(rules, rule(to=("office",)), own=5)


V4, V6 = (HOME, HOME), (HOME6, HOME6)
UDP = {"protocol": "udp", "destination_port": 7000}


@pytest.mark.parametrize(
    ("keys", "travel"),
    [
        (UDP, [Ipv4Selector(destination_port=(7000, 7000), protocol=(17, 17))]),
        (
            UDP | {"family": 6},
            [Ipv6Selector(destination=V6, destination_port=(7000, 7000), next_header=(17, 17))],
        ),
        (
            UDP | {"family": 4},
            [Ipv4Selector(destination=V4, destination_port=(7000, 7000), protocol=(17, 17))],
        ),
        ({"protocol": "icmp"}, [Ipv4Selector(protocol=(1, 1)), Ipv6Selector(next_header=(58, 58))]),
        ({"protocol": "icmp", "family": 4}, [Ipv4Selector(protocol=(1, 1))]),
        ({"protocol": "icmpv6"}, [Ipv6Selector(next_header=(58, 58))]),
        ({"family": 6}, [Ipv6Selector(destination=V6)]),
        ({}, [Ipv4Selector()]),
    ],
)
def test_rules_of_each_family_survive_encoding(
    rules: OwnRules, keys: dict[str, object], travel: list[object]
) -> None:
    made = ask(rules, replace(rule(), selectors=selectors(Table(Path("rule"), "", keys))))
    assert [extension.selector for extension in said(rules) if isinstance(extension, FlowBinding)] == travel
    assert at_home(rules) == (made,)


def test_a_family_without_a_home_address_is_refused(rules: OwnRules) -> None:
    only = replace(rule(), selectors=(Ipv6Selector(next_header=(17, 17)),))
    with pytest.raises(RuleRefused, match="no IPv6 home address"):
        rules.add(only, HOMES[:1], None)


_KEYS = st.fixed_dictionaries(
    {},
    optional={
        "family": st.sampled_from((4, 6)),
        "protocol": st.sampled_from(("udp", "tcp", "icmp", "icmpv6", "esp", 2, 0, 200)),
        "dscp": st.integers(0, 63),
        "spi": st.integers(0, 9),
        "flow_label": st.integers(0, 9),
        "source": st.sampled_from(("10.9.0.0/24", "2001:db8:9::/64")),
        "destination": st.sampled_from(("10.36.0.4", "2001:db8:36::4")),
    },
)


@given(_KEYS)
@settings(max_examples=300)
def test_any_rule_is_equal_at_both_ends(keys: dict[str, object]) -> None:
    try:
        found = selectors(Table(Path("rule"), "", keys))
    except ConfigError:
        assume(False)
    rules = OwnRules()
    made = ask(rules, replace(rule(), selectors=found))
    assert at_home(rules) == (made,)
    assert changed_rules((made,), changes_of(rules), MN, {7}, MAX_RULES) == (made,), "asked once more"
    versions = {4 if isinstance(selector, Ipv4Selector) else 6 for selector in found}
    assert {4 if isinstance(selector, Ipv4Selector) else 6 for selector in made.selectors} == versions


def at_home(rules: OwnRules) -> tuple[KeptRule, ...]:
    """Rules of a home agent without others after the request."""
    return changed_rules((), changes_of(rules), MN, {7}, MAX_RULES)


def changes_of(rules: OwnRules) -> Sequence[RuleChange]:
    key = Association(300, b"k" * 16)
    request = RegistrationRequest(300, HOME, AGENT, AGENT, 1, Flag.T, tuple(extensions(rules)))
    return read_request(signed(request.encode(), AuthKind.MN_HA, key)).options.rules


def test_sessions_kept_by_a_rule_cannot_be_given(rules: OwnRules) -> None:
    from_web = replace(rule(to=("mn",)), selectors=(Ipv4Selector(source_port=(80, 80)),))
    web, mail = (Flow(6, HOME, 40000, AGENT, port) for port in (80, 25))
    made = ask(rules, from_web, own=5)
    answer(rules)
    assert (rules.keeps(web, 5), rules.keeps(mail, 5), rules.keeps(web, 6)) == (made, None, None)
    later = ask(rules, replace(from_web, identifier=9, priority=101, selectors=(Ipv4Selector(),)), own=5)
    answer(rules)
    assert later in rules.all() and rules.keeps(mail, 5) is None, "what is given comes before it"
