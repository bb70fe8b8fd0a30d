"""Flow rules at the home agent: destinations, permitted changes, and refusals (R5 to R8; RFC 7629)."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles.action_values.flows import MAX_RULES, OTHERWISE_RULE, RuleVerdict, Selector
from locum.roles.action_values.forwarding import Verdict
from locum.roles.rules import (
    ADMIN,
    CONFIGURATION,
    KeptRule,
    RuleRefused,
    Target,
    both_families,
    overlap,
)
from locum.wire.mobile_ip.extensions import FlowAction, FlowBinding
from locum.wire.mobile_ip.registration import Code
from locum.wire.mobile_ip.vendor import FlowOperation, FlowRule, Weight, encode_vendor
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, UnknownSelector
from tests.roles.homeworld import ACCEPTED, AN1, AN2, AN3, AN4, HOA, HOA6, MOBILE, Home, removal, rule
from tests.wire.strategies import selectors

PEER = IPv4Address("10.9.0.1")
HTTP = Ipv4Selector(protocol=(6, 6), source_port=(80, 80))
SSH = Ipv4Selector(protocol=(6, 6), source_port=(22, 22))
FROM_PEER = Ipv4Selector(source=(PEER, PEER))


def settled() -> Home:
    """The device with binding 1, a stand-in with binding 7 that gets packets of rules only."""
    home = Home()
    home.device.register(AN1, bid=1)
    home.one.register(AN3, bid=7, takes=Takes.RULED)
    home.advance(1)
    return home


def kept(
    identifier: int, priority: int, *to: Target, share: bool = False, selector: Selector = HTTP
) -> KeptRule:
    verdict = RuleVerdict.FORWARD if to else RuleVerdict.DROP
    return KeptRule(identifier, priority, verdict, both_families(selector), to, share, CONFIGURATION)


def test_a_stand_in_takes_one_flow_and_gives_it_back() -> None:
    home = settled()
    assert home.one.register(AN3, bid=7, takes=Takes.RULED, rules=rule(5, 10, 7)) == ACCEPTED
    assert home.care_of() == [AN1] and home.rules() == {5: [AN3]}
    assert home.entry().peer_tunnel is not None, "the rule may take what the stand-in says to the device"
    assert home.one.register(AN3, bid=7, takes=Takes.RULED) == ACCEPTED
    assert home.rules() == {5: [AN3]}, "a renewal says nothing of rules and leaves them"
    assert home.one.register(AN3, bid=7, takes=Takes.RULED, rules=removal(5)) == ACCEPTED
    assert home.rules() == {} and home.entry().peer is None


def test_rules_stand_in_the_order_of_their_priorities() -> None:
    home = settled()
    rules = (*rule(5, 30, 7), *rule(6, 10, 1, selector=SSH), *rule(7, 20, selector=FROM_PEER))
    assert home.device.register(AN1, bid=1, rules=rules) == ACCEPTED
    assert [flow_rule.identifier for flow_rule in home.flow_rules()] == [6, 7, 5]
    assert home.flow_rules()[1].verdict is RuleVerdict.DROP


def test_rules_apply_to_the_families_of_their_selectors() -> None:
    home = settled()
    label = Ipv6Selector(flow_label=(1, 9))
    icmp = Ipv4Selector(protocol=(1, 1))
    rules = (
        *rule(1, 1, 7),
        *rule(2, 2, 7, selector=FROM_PEER),
        *rule(3, 3, 7, selector=label),
        *rule(4, 4, 7, selector=icmp),
        *rule(5, 5, 7, selector=Ipv6Selector(next_header=(58, 58))),
    )
    home.one.register(AN3, bid=7, takes=Takes.RULED, rules=rules)
    assert list(home.rules()) == [1, 2, 4] and list(home.rules(HOA6)) == [1, 3, 5]
    assert home.flow_rules(HOA6)[0].selector == Ipv6Selector(next_header=(6, 6), source_port=(80, 80))


def test_rule_uses_its_live_bindings_in_order() -> None:
    home = settled()
    home.two.register(AN4, 50, bid=9, takes=Takes.RULED, rules=rule(5, 10, 9, 7, 1))
    assert home.rules() == {5: [AN4]}
    home.device.register(AN1, bid=1, rules=rule(6, 20, 9, 7, 1))
    home.advance(60)
    assert home.rules() == {6: [AN3]}, "rule 5 went with its stand-in; rule 6 takes the next"
    home.one.cancel()
    assert home.rules() == {6: [AN1]}
    home.device.register(AN1, 0, bid=1, multipath={})
    assert home.rules() == {}


def test_shared_by_weight() -> None:
    home = settled()
    home.two.register(AN4, bid=9, takes=Takes.RULED, more=(encode_vendor(Weight(3)),))
    home.device.register(AN1, bid=1, rules=rule(5, 10, 9, 7, 1, share=True))
    (made,) = home.flow_rules()
    assert [(candidate.tunnel.destination, candidate.weight) for candidate in made.candidates] == [
        (AN4, 3),
        (AN3, 1),
        (AN1, 1),
    ]
    home.two.cancel()
    assert home.rules()[5] == [AN3, AN1]


def test_rule_skips_a_device_going_to_sleep_if_it_can() -> None:
    home = settled()
    home.device.register(AN1, bid=1, rules=rule(5, 10, 1))
    home.device.register(AN1, 5, bid=1)
    assert 5 not in home.rules()


def test_unnamed_flow_bindings_replace_all_earlier_ones() -> None:
    """As RFC 7629 has it: no names, so a request with flow bindings says all of them."""
    home = settled()
    plain = tuple(FlowBinding(FlowAction.FORWARD, (1,), selector) for selector in (HTTP, SSH))
    assert home.device.register(AN1, bid=1, rules=plain) == ACCEPTED
    assert [flow_rule.selector for flow_rule in home.flow_rules()] == [HTTP, SSH]
    home.device.register(AN1, bid=1)
    assert len(home.flow_rules()) == 2
    home.device.register(AN1, bid=1, rules=(*plain[1:], *rule(5, 1, 1, selector=FROM_PEER)))
    assert [flow_rule.selector for flow_rule in home.flow_rules()] == [FROM_PEER, SSH]


def test_registrants_change_only_their_own_rules() -> None:
    home = settled()
    home.device.register(AN1, bid=1, rules=rule(5, 10, 1))
    home.one.register(AN3, bid=7, takes=Takes.RULED, rules=rule(6, 20, 7))
    home.two.register(AN4, bid=9, takes=Takes.RULED)
    before = home.tables()
    replaced = rule(6, 20, 9, operation=FlowOperation.REPLACE)
    assert (
        home.two.register(AN4, bid=9, takes=Takes.RULED, rules=replaced) == Code.ADMINISTRATIVELY_PROHIBITED
    )
    assert (
        home.two.register(AN4, bid=9, takes=Takes.RULED, rules=removal(5)) == Code.ADMINISTRATIVELY_PROHIBITED
    )
    assert home.tables() == before
    assert home.device.register(AN1, bid=1, rules=replaced) == ACCEPTED
    assert home.rules()[6] == [AN4]
    home.one.cancel()
    assert home.rules()[6] == [AN4], "it is the mobile node's now"
    home.device.cancel()
    assert home.rules() == {}, "a registrant that cancels everything loses its rules"


def test_administrator_rules_persist_and_obey_their_owner_only() -> None:
    home = settled()
    numbered = home.role.numbered(HOA, kept(1, 10, "mnps"))
    home.perform(home.role.add_rule(HOA, numbered, now=home.now))
    (line,) = home.role.list_rules(HOA)
    assert line.rule.identifier == 0x8000 and line.rule.owner == ADMIN and line.live == (4, 6)
    assert home.rules() == {0x8000: [AN3]}
    home.start()
    assert home.rules() == {0x8000: [AN3]}
    assert home.device.register(AN1, bid=1, rules=removal(0x8000)) == Code.ADMINISTRATIVELY_PROHIBITED
    home.device.cancel()
    home.one.cancel()
    assert home.rules() == {0x8000: [AN3]}, "without a stand-in it means the default CoA"
    home.perform(home.role.remove_rule(HOA, 0x8000, now=home.now))
    assert home.role.list_rules() == () and home.rules() == {}


def test_invalid_administrator_changes_are_refused() -> None:
    home = Home(replace(MOBILE, rules=(kept(40_000, 1, "mn"),)))
    with pytest.raises(RuleRefused, match="stays where it is"):
        home.role.remove_rule(HOA, 40_000, now=home.now)
    with pytest.raises(RuleRefused, match="no rule 7"):
        home.role.remove_rule(HOA, 7, now=home.now)
    with pytest.raises(RuleRefused, match="is not served"):
        home.role.add_rule(AN1, kept(1, 1, "mn"), now=home.now)
    with pytest.raises(RuleRefused, match="one way twice"):
        home.role.add_rule(HOA, kept(1, 2, "mn", "mn"), now=home.now)


def test_configured_rules_and_their_targets() -> None:
    rules = (
        kept(1, 1, "one", selector=HTTP),
        kept(2, 2, "mn", selector=SSH),
        kept(3, 3, "default", selector=FROM_PEER),
        kept(4, 4, 9, "two", selector=Ipv4Selector(protocol=(17, 17))),
    )
    home = Home(replace(MOBILE, rules=rules))
    assert home.rules() == {3: [AN3]}
    home.device.register(AN1)
    home.two.register(AN4, bid=9, takes=Takes.RULED)
    assert home.rules() == {
        2: [AN1],
        3: [AN3],
        4: [AN4],
    }
    home.one.register(AN2, takes=Takes.RULED)
    assert home.rules()[1] == [AN2]


def test_default_care_of_address_for_some_packets_only() -> None:
    """R6: the rest goes natively, and the entry says so, so that it is counted."""
    home = Home(replace(MOBILE, default_ruled=True, rules=(kept(1, 1, "default"),)))
    assert home.rules() == {1: [AN3]}
    assert home.entry().verdict is Verdict.NATIVE and home.entry().tunnels == ()


# Refusals ---------------------------------------------------------------------------------------------------------------

ICMP, ICMP6 = Ipv4Selector(protocol=(1, 1)), Ipv6Selector(next_header=(58, 58))
UNKNOWN = FlowBinding(FlowAction.FORWARD, (7,), UnknownSelector(9, b"what"))


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        (rule(6, 10, 7), Code.POORLY_FORMED_REQUEST),  # equal priority, overlapping
        (rule(6, 10, 7, selector=FROM_PEER), Code.POORLY_FORMED_REQUEST),
        (rule(5, 11, 7, selector=SSH), Code.INVALID_FB_IDENTIFIER),  # there already
        (rule(6, 11, 8), Code.INVALID_FB_IDENTIFIER),  # no such binding
        (rule(6, 11, 7, 8), Code.INVALID_FB_IDENTIFIER),
        (rule(6, 11, 7, operation=FlowOperation.REPLACE), Code.INVALID_FB_IDENTIFIER),
        (removal(6), Code.INVALID_FB_IDENTIFIER),
        ((UNKNOWN,), Code.POORLY_FORMED_REQUEST),
        (rule(6, 11, 7, selector=UnknownSelector(9, b"")), Code.POORLY_FORMED_REQUEST),
        ((encode_vendor(FlowRule(FlowOperation.ADD, 6)),), Code.POORLY_FORMED_REQUEST),  # nothing follows
        (
            (encode_vendor(FlowRule(FlowOperation.ADD, 6)), encode_vendor(Weight(1)), UNKNOWN),
            Code.POORLY_FORMED_REQUEST,
        ),
        (rule(0x4000, 11, 7), Code.POORLY_FORMED_REQUEST),  # kept for those without a name
        (rule(0xFFC0, 11, 7), Code.POORLY_FORMED_REQUEST),  # kept for the home agent's own
        (rule(6, 11, 7, 7), Code.POORLY_FORMED_REQUEST),
        ((*rule(6, 11, 7, selector=SSH), *removal(9)), Code.INVALID_FB_IDENTIFIER),  # all or none
        (2 * rule(6, 11, 7, selector=SSH), Code.POORLY_FORMED_REQUEST),  # one family twice
        ((*rule(6, 11, 7, selector=ICMP), *rule(6, 11, 7, selector=SSH)), Code.POORLY_FORMED_REQUEST),
        ((*rule(6, 11, 7, selector=ICMP), *rule(6, 11, 1, selector=ICMP6)), Code.POORLY_FORMED_REQUEST),
        ((*rule(6, 11, 7, selector=ICMP), *rule(6, 11, selector=ICMP6)), Code.POORLY_FORMED_REQUEST),
        ((*rule(6, 11, 7, selector=ICMP), *rule(6, 12, 7, selector=ICMP6)), Code.INVALID_FB_IDENTIFIER),
    ],
)
def test_changes_that_are_refused(rules: tuple[object, ...], code: Code) -> None:
    home = settled()
    home.one.register(AN3, bid=7, takes=Takes.RULED, rules=rule(5, 10, 7))
    home.advance(1)
    before = home.tables()
    assert home.one.register(AN3, bid=7, takes=Takes.RULED, rules=rules) == code
    assert home.tables() == before


def test_shared_among_more_than_there_is_room_for() -> None:
    home = settled()
    for bid in (2, 3, 4):
        home.device.register(IPv4Address(f"10.7.0.{bid}"), bid=bid)
    before = home.tables()
    five = rule(5, 10, 1, 2, 3, 4, 7, share=True)
    assert home.device.register(AN1, bid=1, rules=five) == Code.POORLY_FORMED_REQUEST
    assert home.tables() == before
    assert home.device.register(AN1, bid=1, rules=rule(5, 10, 1, 2, 3, 4, 7)) == ACCEPTED


def test_one_rule_with_a_selector_for_each_family() -> None:
    """The same name again right behind its flow binding; each family has its own selector, and one identifier goes."""
    home = settled()
    both = (*rule(6, 11, 7, selector=ICMP), *rule(6, 11, 7, selector=ICMP6))
    assert home.one.register(AN3, bid=7, takes=Takes.RULED, rules=both) == ACCEPTED
    assert [flow_rule.selector for flow_rule in home.flow_rules()] == [ICMP]
    assert [flow_rule.selector for flow_rule in home.flow_rules(HOA6)] == [ICMP6]
    before = home.rows["rule", f"{HOA} 6"]
    assert home.one.register(AN3, bid=7, takes=Takes.RULED, rules=both) == ACCEPTED, "the answer was lost"
    assert home.rows["rule", f"{HOA} 6"] == before
    home.start()
    assert home.rules() == home.rules(HOA6) == {6: [AN3]}
    assert home.one.register(AN3, bid=7, takes=Takes.RULED, rules=removal(6)) == ACCEPTED
    assert home.rules() == home.rules(HOA6) == {}


def test_no_new_rules_in_a_cancellation() -> None:
    home = settled()
    before = home.tables()
    assert home.device.cancel(rules=rule(5, 10, 7)) == Code.POORLY_FORMED_REQUEST
    assert home.tables() == before


def test_more_rules_than_there_is_room_for() -> None:
    """64 in the kernel; one is the home agent's own, for packets of the second stand-in."""
    home = settled()
    for number in range(63):
        selector = replace(HTTP, destination_port=(number, number))
        assert home.device.register(AN1, bid=1, rules=rule(number + 1, 9, 7, selector=selector)) == ACCEPTED
        home.advance(0.01)
    home.two.register(AN4, bid=9)
    assert len(home.entry().rules) == MAX_RULES
    before = home.tables()
    assert home.device.register(AN1, bid=1, rules=rule(64, 8, 7)) == Code.INSUFFICIENT_RESOURCES
    assert home.tables() == before
    alone = Home(replace(MOBILE, stand_ins=MOBILE.stand_ins[:1]))
    alone.device.register(AN1, bid=1)
    for number in range(65):
        selector = replace(HTTP, destination_port=(number, number))
        code = alone.device.register(AN1, bid=1, rules=rule(number + 1, 9, 1, selector=selector))
        assert code == (ACCEPTED if number < MAX_RULES else Code.INSUFFICIENT_RESOURCES)


def test_rows_that_contradict_the_configuration_are_removed() -> None:
    home = settled()
    home.device.register(AN1, bid=1, rules=rule(5, 10, 1))
    home.mobile = replace(home.mobile, rules=(kept(5, 1, "mn", selector=SSH),))
    home.start()
    assert home.rules() == {5: [AN1]} and home.flow_rules()[0].selector == SSH
    assert home.counts["rule-does-not-fit"] == 1 and ("rule", f"{HOA} 5") not in home.rows


# Properties --------------------------------------------------------------------------------------------------------------

known = selectors.filter(lambda selector: not isinstance(selector, UnknownSelector))


@given(known, st.integers(1, OTHERWISE_RULE - 1), st.integers(0, 0xFFFF), st.booleans())
def test_a_rule_comes_back_from_its_row(
    selector: Selector, identifier: int, priority: int, share: bool
) -> None:
    whole = KeptRule(identifier, priority, RuleVerdict.FORWARD, both_families(selector), (1, "mn"), share)
    assert KeptRule.from_row(identifier, whole.to_row()) == whole


@given(known, known)
def test_overlap_is_mutual(one: Selector, two: Selector) -> None:
    assert overlap(one, one) and overlap(one, two) == overlap(two, one)


def test_overlap() -> None:
    wide = Ipv4Selector(source=(IPv4Address("10.0.0.0"), IPv4Address("10.255.255.255")))
    assert overlap(wide, FROM_PEER) and overlap(wide, HTTP)
    assert not overlap(HTTP, SSH) and not overlap(FROM_PEER, Ipv4Selector(source=(AN1, AN1)))
    assert not overlap(FROM_PEER, Ipv6Selector(source=(IPv6Address("::1"), IPv6Address("::1"))))


changes = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(FlowOperation),
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(0, 9),
    ),
    max_size=12,
)


@settings(max_examples=100)
@given(changes)
def test_rules_agree_with_the_kernel_and_store_after_any_change(
    timeline: list[tuple[int, FlowOperation, int, int, int]],
) -> None:
    """Random changes in any order: refused ones change no state, and a restart restores the rules."""
    home = Home()
    care_ofs = (AN1, AN3, AN4)
    for number, registrant in enumerate(home.registrants):
        registrant.register(care_ofs[number], bid=number + 1, takes=Takes.RULED)
    for who, operation, identifier, priority, port in timeline:
        asked = removal(identifier)
        if operation is not FlowOperation.REMOVE:
            selector = replace(HTTP, destination_port=(port, port + 2))
            asked = rule(identifier, priority, who + 1, selector=selector, operation=operation)
        before = home.tables()
        code = home.registrants[who].register(care_ofs[who], bid=who + 1, takes=Takes.RULED, rules=asked)
        if code != ACCEPTED:
            assert home.tables() == before
    listed = home.role.list_rules(HOA)
    assert {f"{HOA} {line.rule.identifier}" for line in listed} == {
        key for table, key in home.rows if table == "rule"
    }
    assert list(home.rules()) == [line.rule.identifier for line in listed]
    before = home.tables()
    home.start()
    assert home.tables() == before
