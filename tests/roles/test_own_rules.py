"""Flow rules that a device registers itself: what rides in a request, and what each kind of answer makes of it."""

from ipaddress import IPv4Address

import pytest

from locum.roles.actions import MAX_RULES, Action, Emit, Forget, Persist, RuleVerdict
from locum.roles.attachment import Attachment
from locum.roles.own_rules import FIRST_IDENTIFIER as FIRST
from locum.roles.own_rules import TABLE, OwnRules
from locum.roles.rules import FIRST_ASSIGNED, MN, UNNAMED, KeptRule, RuleRefused
from locum.wire.extensions import FlowAction, FlowBinding, VendorNormal
from locum.wire.registration import Code, RegistrationReply
from locum.wire.traffic_selector import Ipv4Selector
from locum.wire.vendor import FlowOperation, FlowRule, decode_vendor

HOME, AGENT = IPv4Address("10.36.0.4"), IPv4Address("10.5.0.1")
WAY = Attachment("radio0", AGENT, IPv4Address("10.1.0.1"), False)
WEB, MAIL = (Ipv4Selector(destination_port=(port, port), protocol=(6, 6)) for port in (80, 25))


def rule(
    selector: Ipv4Selector = WEB, *, identifier: int = 0, priority: int = 5, to: tuple[int | str, ...] = (7,)
) -> KeptRule:
    verdict = RuleVerdict.FORWARD if to else RuleVerdict.DROP
    return KeptRule(identifier, priority, verdict, (selector,), to, owner="")


def answer(rules: OwnRules, code: Code = Code.ACCEPTED, lifetime: int = 300) -> list[Action]:
    return list(rules.replied(RegistrationReply(code, lifetime, HOME, AGENT, 1, ()), WAY))


def said(rules: OwnRules, lifetime: int = 300) -> list[object]:
    found = rules.extensions(WAY, lifetime)
    return [decode_vendor(each) if isinstance(each, VendorNormal) else each for each in found]


@pytest.fixture
def rules() -> OwnRules:
    return OwnRules()


def test_a_rule_rides_until_it_is_answered_and_then_stands(rules: OwnRules) -> None:
    made = rules.add(rule())
    assert (made.identifier, made.owner, rules.settled, list(rules.all())) == (FIRST, MN, False, [])
    wanted = [FlowRule(FlowOperation.ADD, FIRST, 5), FlowBinding(FlowAction.FORWARD, (7,), WEB)]
    assert said(rules) == wanted == said(rules)  # it is sent again until it is answered
    assert said(rules, lifetime=0) == []
    assert answer(rules, Code.IDENTIFICATION_MISMATCH) == []
    assert said(rules) == wanted
    assert answer(rules) == [Persist(TABLE, str(FIRST), made.to_row())]
    assert (rules.settled, list(rules.all()), said(rules)) == (True, [made], [])


def test_a_device_s_own_identifiers_are_no_one_else_s() -> None:
    """Those of stand-ins are below 16384, those that a home agent gives from FIRST_ASSIGNED on."""
    assert UNNAMED.stop <= FIRST < FIRST + MAX_RULES < FIRST_ASSIGNED


def test_it_is_removed_alike_and_an_identifier_is_given_again(rules: OwnRules) -> None:
    rules.add(rule(to=()))
    assert said(rules)[1] == FlowBinding(FlowAction.DROP, (), WEB)
    answer(rules)
    rules.remove(FIRST)
    assert said(rules) == [FlowRule(FlowOperation.REMOVE, FIRST)]
    assert answer(rules) == [Forget(TABLE, str(FIRST))]
    assert (list(rules.all()), rules.add(rule(MAIL)).identifier) == ([], FIRST)


def test_a_removal_whose_answer_was_lost_is_one(rules: OwnRules) -> None:
    rules.add(rule())
    answer(rules)
    rules.remove(FIRST)
    assert answer(rules, Code.INVALID_FB_IDENTIFIER) == [Forget(TABLE, str(FIRST))]
    assert (rules.refused, list(rules.all())) == (None, [])


@pytest.mark.parametrize("code", [Code.INVALID_FB_IDENTIFIER, Code.POORLY_FORMED_REQUEST])
def test_a_refusal_leaves_things_as_they_were(rules: OwnRules, code: Code) -> None:
    rules.add(rule())
    (told,) = answer(rules, code)
    assert isinstance(told, Emit) and told.detail == {"rule": FIRST, "code": int(code)}
    assert (rules.refused, list(rules.all()), rules.settled, said(rules)) == (code, [], True, [])
    rules.add(rule(MAIL))
    assert rules.refused is None


@pytest.mark.parametrize(
    "wrong",
    [
        rule(to=("mnps",)),
        rule(to=(7, 7)),
        rule(identifier=UNNAMED.start),
        rule(identifier=3),
        rule(MAIL, identifier=4, priority=9, to=(1, 2, 3, 4, 5, 6, 7, 8, 9)),
        rule(Ipv4Selector(protocol=(6, 6)), identifier=5),
    ],
)
def test_what_cannot_be_is_not_even_asked_for(rules: OwnRules, wrong: KeptRule) -> None:
    rules.add(rule(identifier=3))
    answer(rules)
    with pytest.raises(RuleRefused):
        rules.add(wrong)
    assert (rules.settled, len(rules.all())) == (True, 1)


def test_one_change_at_a_time(rules: OwnRules) -> None:
    rules.add(rule())
    with pytest.raises(RuleRefused, match="under way"):
        rules.add(rule(MAIL))
    rules.give_up()
    assert (rules.settled, said(rules), answer(rules)) == (True, [], [])
    with pytest.raises(RuleRefused, match=f"no rule {FIRST}"):
        rules.remove(FIRST)


def test_a_deregistration_ends_them_and_a_restart_does_not(rules: OwnRules) -> None:
    made = rules.add(rule())
    (row,) = answer(rules)
    assert isinstance(row, Persist)
    again = OwnRules()
    broken = [Persist(TABLE, "x", {}), Persist("visitor", "1", {})]
    assert again.restore([row, *broken])[1:] == [Forget(TABLE, "x")]
    assert list(again.all()) == [made]
    assert answer(again, lifetime=0) == [Forget(TABLE, str(FIRST))]
    assert list(again.all()) == []
