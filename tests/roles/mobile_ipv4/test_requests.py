"""Registration requests as neutral registrations: every flag, reason and option, and unsigned parts."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.registration import (
    NO_OPTIONS,
    BindingIdentifier,
    ContextTransferRequest,
    HomePrefix,
    Options,
    RefusalReason,
    Registration,
    RegistrationAnswer,
    RegistrationFlag,
    RevocationSupport,
    RuleChange,
    RuleOperation,
    StandInRole,
    UdpTunnelRequest,
)
from locum.roles.mobile_ipv4.replies import write_reply
from locum.roles.mobile_ipv4.requests import read_request
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.wire.mobile_ip import extensions as wire
from locum.wire.mobile_ip import vendor
from locum.wire.mobile_ip.extensions import AuthKind, Extension
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, UnknownSelector

HOA, HA, COA = IPv4Address("10.50.0.9"), IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1")
HOA6 = IPv6Address("2001:db8:50::9")
KEY, AGENT_KEY = Association(300, b"k" * 16), Association(2000, b"f" * 16)
WEB, WEB6 = Ipv4Selector(destination_port=(80, 80)), Ipv6Selector(destination_port=(80, 80))


def request(
    *said: Extension, flags: Flag = Flag.T, behind: tuple[Extension, ...] = (), agent: bool = False
) -> Registration:
    """Values of a signed request; `behind`: extensions after the mobile-home authentication."""
    plain = RegistrationRequest(300, HOA, HA, COA, 77, flags, said).encode()
    message = signed(plain, AuthKind.MN_HA, KEY) + wire.encode_extensions(behind)
    return read_request(signed(message, AuthKind.FA_HA, AGENT_KEY) if agent else message)


def named(operation: vendor.FlowOperation, identifier: int = 5) -> Extension:
    return vendor.encode_vendor(vendor.FlowRule(operation, identifier, 9, True))


def forward(selector: Ipv4Selector | Ipv6Selector | UnknownSelector, *to: int) -> wire.FlowBinding:
    return wire.FlowBinding(wire.FlowAction.FORWARD, to or (1,), selector)


def test_a_plain_request_has_no_options_and_a_proof() -> None:
    found = request()
    assert (found.home_address, found.home_agent, found.care_of) == (HOA, HA, COA)
    assert (found.lifetime, found.identification, found.flags) == (300, 77, RegistrationFlag.REVERSE_TUNNEL)
    assert found.options is NO_OPTIONS and found.agent_proof is None
    assert found.proof is not None and found.proof.holds(KEY)
    assert not found.proof.holds(Association(300, b"?" * 16)) and not found.proof.holds(AGENT_KEY)


def test_flags_have_their_numbers() -> None:
    meant = {
        Flag.S: RegistrationFlag.SIMULTANEOUS,
        Flag.B: RegistrationFlag.BROADCAST,
        Flag.D: RegistrationFlag.CO_LOCATED,
        Flag.M: RegistrationFlag.MINIMAL_ENCAPSULATION,
        Flag.G: RegistrationFlag.GRE,
        Flag.T: RegistrationFlag.REVERSE_TUNNEL,
    }
    assert set(meant.values()) == set(RegistrationFlag)
    assert all(request(flags=flag).flags is meaning for flag, meaning in meant.items())


@pytest.mark.parametrize("reason", [None, *RefusalReason])
def test_every_reason_has_a_code(reason: RefusalReason | None) -> None:
    answer = RegistrationAnswer(reason, 0, 77)
    reply = RegistrationReply.decode(write_reply(request(), answer, HA, mobile=KEY, agent=None))
    assert isinstance(reply.code, Code) and reply.code == (0 if reason is None else int(reason))


@pytest.mark.parametrize("reason", [None, *RefusalReason])
def test_replies_return_the_network_access_identifier(reason: RefusalReason | None) -> None:
    """Agents and a node without a home address know the reply by it, a refusal too (RFC 2794)."""
    asked, answer = request(wire.Nai("mn@example.org")), RegistrationAnswer(reason, 0, 77)
    reply = RegistrationReply.decode(write_reply(asked, answer, HA, mobile=KEY, agent=None))
    assert wire.Nai("mn@example.org") in reply.protected(AuthKind.MN_HA)


def test_options_are_read_from_signed_extensions() -> None:
    found = request(
        wire.Nai("mn@example.org"),
        wire.Ipv6PrefixRequest(HOA6),
        wire.Multipath(7, bulk=True),
        vendor.encode_vendor(vendor.Weight(3)),
        vendor.encode_vendor(vendor.MnpsRole(COA, Takes.RULED)),
        vendor.encode_vendor(vendor.DefaultCareOfAddress(COA)),
        vendor.encode_vendor(vendor.TransferContext(COA, True)),
        wire.UdpTunnelRequest(wire.InnerEncapsulation.GRE, force=True),
        wire.RevocationSupport(9, True),
        flags=Flag.T | Flag.D,
    ).options
    assert found == Options(
        nai="mn@example.org",
        prefixes=(HomePrefix(HOA6),),
        binding=BindingIdentifier(7, bulk=True),
        weight=3,
        stand_in=StandInRole(COA, ruled=True),
        default=COA,
        transfer=ContextTransferRequest(COA, towards=True),
        udp=UdpTunnelRequest(forced=True, plain_ip=False),
        revocations=RevocationSupport(9, inform=True),
    )


def test_the_last_of_two_context_transfers_counts() -> None:
    first, last = (vendor.encode_vendor(vendor.TransferContext(where, True)) for where in (COA, HA))
    assert request(first, last).options.transfer == ContextTransferRequest(HA, towards=True)


def test_the_first_of_two_udp_tunnel_requests_counts() -> None:
    said = (wire.UdpTunnelRequest(force=True), wire.UdpTunnelRequest(wire.InnerEncapsulation.GRE))
    expected = UdpTunnelRequest(forced=True, plain_ip=True)
    assert request(*said, flags=Flag.D).options.udp == expected
    assert request(behind=said, agent=True).options.udp == expected


def test_unsigned_extensions_are_ignored() -> None:
    behind = (
        wire.Nai("mn@example.org"),
        wire.Ipv6PrefixRequest(HOA6),
        vendor.encode_vendor(vendor.Weight(3)),
        wire.UdpTunnelRequest(),
        wire.RevocationSupport(9),
    )
    assert request(behind=behind).options == Options()


def test_the_end_of_the_tunnel_speaks_for_itself() -> None:
    said = (wire.UdpTunnelRequest(), wire.RevocationSupport(9))
    expected = Options(udp=UdpTunnelRequest(), revocations=RevocationSupport(9))
    by_agent = request(behind=said, agent=True)
    assert by_agent.options == expected
    assert by_agent.agent_proof is not None and by_agent.agent_proof.holds(AGENT_KEY)
    assert request(*said, flags=Flag.D).options == expected
    assert request(*said, agent=True).options == Options()
    assert request(behind=said, agent=True, flags=Flag.D).options == Options()


def test_rules_with_and_without_names() -> None:
    drop = wire.FlowBinding(wire.FlowAction.DROP, (), WEB)
    add, replace, remove = vendor.FlowOperation
    found = request(
        named(add),
        forward(WEB, 1, 2),
        named(add),
        forward(WEB6, 1, 2),
        named(replace),
        drop,
        named(remove),
        forward(WEB),
    )
    assert found.options.rules == (
        RuleChange(5, RuleOperation.ADD, 9, True, RuleVerdict.FORWARD, (WEB, WEB6), (1, 2)),
        RuleChange(5, RuleOperation.REPLACE, 9, True, RuleVerdict.DROP, (WEB,)),
        RuleChange(5, RuleOperation.REMOVE),
        RuleChange(None, selectors=(WEB,), to=(1,)),
    )


def test_the_same_name_a_third_time_begins_another_change() -> None:
    add = named(vendor.FlowOperation.ADD)
    found = request(add, forward(WEB), add, forward(WEB6), add, forward(WEB))
    assert [change.selectors for change in found.options.rules] == [(WEB, WEB6), (WEB,)]
    assert {change.identifier for change in found.options.rules} == {5}


def test_rules_that_cannot_be_meant_say_why() -> None:
    add = named(vendor.FlowOperation.ADD)
    unknown, places = "a selector's format is not known", "the rule leads to different places"
    for said, problem in (
        ((add, forward(UnknownSelector(9, b"?"))), unknown),
        ((forward(UnknownSelector(9, b"?")),), unknown),
        ((add, forward(WEB, 1), add, forward(WEB6, 2)), places),
        ((add, forward(WEB, 1), add, wire.FlowBinding(wire.FlowAction.DROP, (), WEB6)), places),
    ):
        (change,) = request(*said).options.rules
        assert (change.selectors, change.problem) == ((), problem)


@pytest.mark.parametrize(
    "said",
    [
        (vendor.encode_vendor(vendor.Weight(0)),),
        (named(vendor.FlowOperation.ADD),),
        (named(vendor.FlowOperation.ADD), wire.Ipv6PrefixRequest(HOA6), forward(WEB)),
        (named(vendor.FlowOperation.ADD), named(vendor.FlowOperation.ADD), forward(WEB)),
        (wire.VendorNormal(vendor.ENTERPRISE, vendor.VendorType.WEIGHT, b"?"),),
    ],
)
def test_an_unreadable_option_is_a_problem(said: tuple[Extension, ...]) -> None:
    found = request(wire.Nai("mn@example.org"), *said)
    assert found.options == Options(nai="mn@example.org", problem=RefusalReason.MALFORMED)


def test_a_critical_option_is_a_problem_of_who_said_it() -> None:
    critical = wire.VendorCritical(9, 1, b"x")
    assert request(critical).options.problem is RefusalReason.UNKNOWN_CRITICAL_OPTION
    by_agent = request(behind=(critical,), agent=True)
    assert by_agent.options.problem is RefusalReason.UNKNOWN_CRITICAL_OPTION_OF_AGENT
