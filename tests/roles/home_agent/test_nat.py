"""NAT traversal (RFC 3519): the home agent's decision, and keepalives of a tunnel through a NAT."""

from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.registration import (
    NO_OPTIONS,
    ReceivedAnswer,
    Refusal,
    RefusalReason,
    UdpTunnelAnswer,
)
from locum.roles.foreign_agent.nat import AgentTraversal
from locum.roles.home_agent.configuration import TraversalPolicy
from locum.roles.home_agent.nat import Traversal, traversal
from locum.roles.mobile_ipv4.agent_options import read_agent_options, write_agent_options
from locum.roles.mobile_ipv4.answers import received_answer
from locum.roles.mobile_ipv4.own_requests import write_options
from locum.roles.mobile_ipv4.requests import registration
from locum.roles.nat import ANSWER_TIME, TRIES, KeepAlive, Outer, TraversalMode
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.nat import MobileTraversal
from locum.wire.mobile_ip.extensions import (
    DEFAULT_KEEPALIVE,
    Authentication,
    AuthKind,
    Extension,
    InnerEncapsulation,
    UdpTunnelCode,
    UdpTunnelReply,
    UdpTunnelRequest,
)
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.tunnel_data import TunnelData

HOA, HA = IPv4Address("10.50.0.9"), IPv4Address("10.5.0.1")
INSIDE, NAT = IPv4Address("192.168.7.2"), IPv4Address("203.0.113.9")
MN_HA = Authentication(AuthKind.MN_HA, 1000, bytes(32))
FA_HA = Authentication(AuthKind.FA_HA, 2000, bytes(32))
WAY = Attachment("radio0", HA, INSIDE, True)
THROUGH_AGENT = Attachment("radio0", IPv4Address("10.1.0.1"), IPv4Address("10.1.0.1"), False, b"\2" * 6)


def request(
    *extensions: Extension, flags: Flag = Flag.T | Flag.D, lifetime: int = 300
) -> RegistrationRequest:
    return RegistrationRequest(lifetime, HOA, HA, INSIDE, 1 << 40, flags, extensions)


def judge(
    asked: RegistrationRequest,
    *,
    seen: IPv4Address = NAT,
    port: int = 40001,
    policy: TraversalPolicy | None = None,
    agent_known: bool = False,
) -> Traversal:
    source = Source(seen, port, "eth0")
    return traversal(registration(asked), source, policy or TraversalPolicy(), agent_known=agent_known)


def test_udp_tunnel_goes_to_the_source_of_the_request() -> None:
    found = judge(request(UdpTunnelRequest(), MN_HA), policy=TraversalPolicy(interval=25))
    assert found.outer == Outer(NAT, 40001)
    assert found.answer == UdpTunnelAnswer(True, False, 25)


def test_udp_tunnel_without_a_nat_is_declined_unless_forced() -> None:
    assert judge(request(UdpTunnelRequest(), MN_HA), seen=INSIDE) == Traversal(None, UdpTunnelAnswer(False))
    forced = judge(request(UdpTunnelRequest(force=True), MN_HA), seen=INSIDE, port=434)
    assert forced.outer == Outer(INSIDE, 434, True)
    assert forced.answer is not None and forced.answer.forced
    policy = TraversalPolicy(forced=False)
    declined = judge(request(UdpTunnelRequest(force=True), MN_HA), seen=INSIDE, policy=policy)
    assert declined == Traversal(None, UdpTunnelAnswer(False))


def test_request_without_the_extension_gets_no_udp_tunnel() -> None:
    assert judge(request(MN_HA)) == Traversal()
    assert judge(request(UdpTunnelRequest(), MN_HA, lifetime=0)) == Traversal()
    assert judge(request(MN_HA, UdpTunnelRequest())) == Traversal()  # unsigned


def test_a_foreign_agent_asks_under_its_own_authentication() -> None:
    asked = request(MN_HA, UdpTunnelRequest(), FA_HA, flags=Flag.T)
    assert judge(asked, agent_known=True).outer == Outer(NAT, 40001)
    assert judge(asked) == Traversal()
    by_the_mobile_node = request(UdpTunnelRequest(), MN_HA, FA_HA, flags=Flag.T)
    assert (
        judge(by_the_mobile_node, agent_known=True) == Traversal()
    )  # section 4.4: not with an agent's address


@pytest.mark.parametrize("wanted", [InnerEncapsulation.GRE, InnerEncapsulation.MINIMAL, 99])
def test_other_encapsulations_are_refused(wanted: int) -> None:
    with pytest.raises(Refusal) as refused:
        judge(request(UdpTunnelRequest(wanted), MN_HA))
    assert refused.value.reason is RefusalReason.UDP_UNAVAILABLE


def test_home_agent_without_udp_refuses_requests_through_a_nat() -> None:
    policy = TraversalPolicy(willing=False)
    with pytest.raises(Refusal) as refused:
        judge(request(UdpTunnelRequest(), MN_HA), policy=policy)
    assert refused.value.reason is RefusalReason.PROHIBITED
    assert judge(request(UdpTunnelRequest(force=True), MN_HA), seen=INSIDE, policy=policy).outer is None


# Keeping it open


def echo(message: bytes) -> tuple[int, int]:
    """Identifier and sequence number of a keepalive."""
    inner = TunnelData.decode(message).payload
    return int.from_bytes(inner[24:26], "big"), int.from_bytes(inner[26:28], "big")


def test_keepalive_follows_an_answer_after_the_interval() -> None:
    alive = KeepAlive(HOA, HA, Random(1))
    assert alive.deadline() is None and alive.timeout(0.0) is None
    alive.start(25.0, 100.0)
    for number in range(1, 5):
        due = 100.0 + 25.0 * number
        assert alive.deadline() == due and alive.timeout(due - 0.1) is None
        message = alive.timeout(due)
        assert message is not None and echo(message) == (alive.identifier, number)
        alive.answered(*echo(message), due + 0.05)
        assert not alive.lost(due + 0.05)


def test_unanswered_keepalives_are_repeated_then_lost() -> None:
    alive = KeepAlive(HOA, HA, Random(1))
    alive.start(25.0, 0.0)
    sent = [25.0 + ANSWER_TIME * number for number in range(TRIES)]
    for at in sent:
        assert alive.deadline() == at and not alive.lost(at)
        assert alive.timeout(at) is not None
    assert not alive.lost(sent[-1] + ANSWER_TIME - 0.1)
    assert alive.lost(sent[-1] + ANSWER_TIME)
    alive.start(25.0, 60.0)  # registered anew
    assert not alive.lost(60.0) and alive.deadline() == 85.0


def test_only_the_answer_to_the_last_keepalive_counts() -> None:
    alive = KeepAlive(HOA, HA, Random(1))
    alive.start(10.0, 0.0)
    first = alive.timeout(10.0)
    second = alive.timeout(10.0 + ANSWER_TIME)
    assert first is not None and second is not None
    for identifier, sequence in (echo(first), (alive.identifier ^ 1, echo(second)[1])):
        alive.answered(identifier, sequence, 13.0)
        assert alive.deadline() == 10.0 + 2 * ANSWER_TIME
    alive.answered(*echo(second), 13.0)
    assert alive.deadline() == 10.0 + ANSWER_TIME + 10.0


def test_late_answer_of_an_earlier_tunnel_is_ignored() -> None:
    alive = KeepAlive(HOA, HA, Random(1))
    alive.start(10.0, 0.0)
    late = alive.timeout(10.0)
    alive.stop()
    alive.start(10.0, 20.0)
    asked = alive.timeout(30.0)
    assert late is not None and asked is not None and echo(late) != echo(asked)
    alive.answered(*echo(late), 30.1)
    assert alive.deadline() == 30.0 + ANSWER_TIME


@given(st.lists(st.floats(0.01, 400.0), max_size=40), st.booleans())
def test_the_deadline_is_never_passed_over(steps: list[float], answers: bool) -> None:
    alive, now = KeepAlive(HOA, HA, Random(1)), 0.0
    alive.start(30.0, now)
    for step in steps:
        now += step
        message = alive.timeout(now)
        if message is not None and answers:
            alive.answered(*echo(message), now)
        at = alive.deadline()
        assert at is not None and (at > now or alive.lost(now))


# The mobile node


def asked(node: MobileTraversal, way: Attachment, lifetime: int = 300) -> list[Extension]:
    """The extensions of a request."""
    return write_options(node.fill(NO_OPTIONS, way, lifetime), co_located=way.colocated)


def reply(*extensions: Extension, lifetime: int = 300, code: Code = Code.ACCEPTED) -> RegistrationReply:
    return RegistrationReply(code, lifetime, HOA, HA, 1 << 40, extensions)


def answer(*extensions: Extension, lifetime: int = 300, code: Code = Code.ACCEPTED) -> ReceivedAnswer:
    return received_answer(reply(*extensions, lifetime=lifetime, code=code))


def mobile(mode: TraversalMode = TraversalMode.AUTO, interval: float | None = None) -> MobileTraversal:
    return MobileTraversal(HOA, HA, mode, interval, Random(1))


def test_mobile_node_requests_udp_only_with_its_own_care_of() -> None:
    assert asked(mobile(), WAY) == [UdpTunnelRequest()]
    assert asked(mobile(TraversalMode.FORCE), WAY) == [UdpTunnelRequest(force=True)]
    assert asked(mobile(TraversalMode.OFF), WAY) == []
    assert asked(mobile(), THROUGH_AGENT) == [] and asked(mobile(), WAY, lifetime=0) == []


def test_configuration_overrides_the_keepalive_interval() -> None:
    for interval, said, expected in ((None, 0, DEFAULT_KEEPALIVE), (None, 40, 40), (7.0, 40, 7)):
        node = mobile(interval=interval)
        events = node.replied(answer(UdpTunnelReply(0, False, said), MN_HA), WAY)
        assert node.udp and [event.kind for event in events if isinstance(event, a.Emit)] == ["nat-traversal"]
        node.settled(True, 1000.0)
        assert node.deadline() == 1000.0 + expected


@pytest.mark.parametrize(
    "received",
    [
        answer(MN_HA),
        answer(UdpTunnelReply(UdpTunnelCode.DECLINED), MN_HA),
        answer(UdpTunnelReply(77), MN_HA),
        answer(MN_HA, UdpTunnelReply(0)),
        answer(UdpTunnelReply(0), MN_HA, lifetime=0),
    ],
)
def test_no_udp_without_a_signed_yes(received: ReceivedAnswer) -> None:
    node = mobile()
    node.replied(answer(UdpTunnelReply(0), MN_HA), WAY)
    node.settled(True, 0.0)
    node.replied(received, WAY)
    node.settled(bool(received.lifetime), 1.0)
    assert not node.udp and node.deadline() is None


def test_refused_reply_keeps_the_udp_tunnel() -> None:
    node = mobile()
    node.replied(answer(UdpTunnelReply(0), MN_HA), WAY)
    assert node.replied(answer(MN_HA, code=Code.INSUFFICIENT_RESOURCES), WAY) == () and node.udp


def test_keepalives_use_the_registration_path_after_a_restart() -> None:
    node = mobile()
    node.replied(answer(UdpTunnelReply(0, False, 20), MN_HA), WAY)
    again = mobile()
    again.from_row(node.to_row(), 500.0)
    assert again.udp and again.timeout(WAY, 519.0) == []
    (sent,) = again.timeout(WAY, 520.0)
    assert isinstance(sent, a.SendRegistration)
    assert (sent.to, sent.port, sent.source, sent.link) == (HA, 434, INSIDE, "radio0")
    assert TunnelData.decode(sent.message).next_header is InnerEncapsulation.IP


def test_foreign_agent_keeps_one_nat_mapping_for_all_visitors() -> None:
    visitors = {HA: HOA}
    agent = AgentTraversal(INSIDE, TraversalMode.AUTO, None, {HA}, lambda: visitors)
    asked = registration(request(flags=Flag.T))
    assert write_agent_options(agent.fill(NO_OPTIONS, asked, 0.0)) == UdpTunnelRequest().encode()
    alone = AgentTraversal(INSIDE, TraversalMode.AUTO, None, (), dict)
    assert write_agent_options(alone.fill(NO_OPTIONS, asked, 0.0)) == b""
    to_mobile, _ = read_agent_options(reply(UdpTunnelReply(0), MN_HA, FA_HA))
    assert not agent.agreed(HA, to_mobile, 0.0)
    to_agent, _ = read_agent_options(reply(MN_HA, UdpTunnelReply(0, False, 30), FA_HA))
    assert agent.agreed(HA, to_agent, 0.0)
    assert agent.deadline() == 30.0 and agent.timeout(now=29.0) == []
    assert len(agent.timeout(now=30.0)) == 1 and agent.deadline() == 60.0
    visitors.clear()
    assert agent.timeout(now=60.0) == [] and agent.deadline() is None
