"""Answers of a foreign agent to a failed request: codes 66, 71, 78, 80-82, 88, 97, 98, 101.

A sender that has not seen the request cannot cause them.
"""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.registrant.attachment import Registering
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.mobile_ip.extensions import AuthKind, Nai, VendorCritical
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REQUEST,
    REPLY_BYTES,
    REQUEST_BYTES,
    Code,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)
from tests.roles.world import AN1, HA, HOA, MAC, World

VISITOR = IPv4Address("10.50.0.77")
NOBODY = IPv4Address(0)
NAI = "somebody@example.org"
CORE = Source(HA, 434, "core")
AIR = Source(VISITOR, 434, "radio0", MAC, AN1)
KEY = Association(300, b"k" * 16)
AGENT_KEY = Association(400, b"a" * 16)  # of World(agents_keyed=True)
CRITICAL = VendorCritical(32473, 9, b"?")
UNKNOWN = bytes((99, 2, 0, 0))  # an unknown extension below 128
TRUNCATED = bytes((32, 200))  # an authentication that is cut off


class Relay:
    """The foreign agent an1 with one pending request of a visitor."""

    def __init__(self, **changes: object) -> None:
        self.keyed = bool(changes.pop("keyed", False))
        self.world = World(agents_keyed=self.keyed)
        self.world.advance(5)
        whole = RegistrationRequest(300, VISITOR, HA, AN1, ntp64(self.world.now) | 0x5A5A, Flag.T)
        self.request = replace(whole, **changes)  # type: ignore[arg-type]
        self.relayed = self.ask(self.request)

    def ask(self, request: RegistrationRequest) -> bytes:
        actions = self.agent.receive(signed(request.encode(), AuthKind.MN_HA, KEY), AIR, now=self.world.now)
        (sent,) = [action for action in actions if isinstance(action, a.SendRegistration)]
        assert sent.message[0] == REGISTRATION_REQUEST
        return sent.message

    @property
    def agent(self) -> ForeignAgent:
        assert isinstance(self.world.an1.role, ForeignAgent)
        return self.world.an1.role

    def icmp(self, kind: int, code: int, quoted: bytes | None = None, to: IPv4Address = HA) -> list[int]:
        """The codes of refusals after an ICMP error."""
        event = a.RegistrationUnreachable(to, kind, code, self.relayed if quoted is None else quoted)
        return self.refusals(self.agent.happened(event, now=self.world.now))

    def answer(self, tail: bytes = b"", *, source: Source = CORE, **changes: object) -> list[int]:
        """The codes sent to the visitor after a message in the name of the home agent."""
        whole = RegistrationReply(
            Code.ACCEPTED, 300, self.request.home_address, HA, self.request.identification
        )
        message = replace(whole, **changes).encode() + tail  # type: ignore[arg-type]
        return self.refusals(self.agent.receive(message, source, now=self.world.now))

    def signed_answer(self, **changes: object) -> list[int]:
        whole = RegistrationReply(
            Code.ACCEPTED, 300, self.request.home_address, HA, self.request.identification
        )
        message = signed(replace(whole, **changes).encode(), AuthKind.MN_HA, KEY)  # type: ignore[arg-type]
        if self.keyed:
            message = signed(message, AuthKind.FA_HA, AGENT_KEY)
        return self.refusals(self.agent.receive(message, CORE, now=self.world.now))

    def late(self) -> list[int]:
        """The codes after the time for a reply is over."""
        self.world.now += 8
        return self.refusals(self.agent.timeout(now=self.world.now))

    def refusals(self, actions: list[a.Action]) -> list[int]:
        codes: list[int] = []
        for action in actions:
            if isinstance(action, a.Reply):
                reply = RegistrationReply.decode(action.message)
                assert action.to == AIR and reply.identification == self.request.identification
                codes.append(int(reply.code))
        return codes


@pytest.mark.parametrize(
    ("kind", "number", "code"),
    [
        (3, 0, Code.FA_HOME_NETWORK_UNREACHABLE),
        (3, 9, Code.FA_HOME_NETWORK_UNREACHABLE),
        (3, 1, Code.FA_HOME_AGENT_HOST_UNREACHABLE),
        (3, 10, Code.FA_HOME_AGENT_HOST_UNREACHABLE),
        (3, 3, Code.FA_HOME_AGENT_PORT_UNREACHABLE),
        (3, 2, Code.FA_HOME_AGENT_UNREACHABLE),
        (3, 13, Code.FA_HOME_AGENT_UNREACHABLE),
        (11, 0, Code.FA_HOME_AGENT_UNREACHABLE),
        (12, 0, Code.FA_HOME_AGENT_UNREACHABLE),
    ],
)
def test_icmp_errors_end_the_request_that_they_repeat(kind: int, number: int, code: Code) -> None:
    relay = Relay()
    assert relay.icmp(kind, number, relay.relayed[:REQUEST_BYTES]) == [code]
    assert relay.icmp(kind, number) == []  # it is over
    assert relay.signed_answer() == [] and relay.late() == []


def test_irrelevant_icmp_errors_are_ignored() -> None:
    relay = Relay()
    assert relay.icmp(3, 4) == []  # too long for the path
    assert relay.icmp(5, 1) == [] and relay.icmp(8, 0) == []
    assert relay.late() == [Code.FA_REGISTRATION_TIMEOUT]


def test_icmp_errors_that_misquote_the_request_are_ignored() -> None:
    relay = Relay()
    fixed = relay.relayed[:REQUEST_BYTES]
    # The half of the identification without chance
    wrong_half = fixed[:16] + bytes((fixed[16] ^ 1,)) + fixed[17:]
    other_home = fixed[:4] + HOA.packed + fixed[8:]
    for quoted in (wrong_half, other_home, bytes(REQUEST_BYTES), b"\x07" * 60, fixed[:-1] + b"?"):
        assert relay.icmp(3, 3, quoted) == []
    assert relay.icmp(3, 3, to=AN1) == []  # it went elsewhere
    assert relay.signed_answer() == [0]


@pytest.mark.parametrize("kept", [0, 8, REQUEST_BYTES - 1])
def test_short_icmp_quote_only_sets_the_reason(kept: int) -> None:
    relay = Relay()
    assert relay.icmp(3, 1, relay.relayed[:kept]) == []
    assert relay.icmp(3, 3, relay.relayed[:kept], to=AN1) == []
    assert relay.late() == [Code.FA_HOME_AGENT_HOST_UNREACHABLE]
    relay = Relay()
    assert relay.icmp(3, 1, relay.relayed[:kept]) == []
    assert relay.signed_answer() == [0]


def test_an_icmp_error_ends_one_request_of_several() -> None:
    relay = Relay()
    first = relay.request
    relay.request = replace(first, identification=first.identification + 1)
    relay.ask(relay.request)
    relay.request = first
    assert relay.icmp(3, 3) == [Code.FA_HOME_AGENT_PORT_UNREACHABLE]
    relay.request = replace(first, identification=first.identification + 1)
    assert relay.signed_answer() == [0]


def test_icmp_error_about_a_visitor_without_a_home_address() -> None:
    relay = Relay(home_address=NOBODY, extensions=(Nai(NAI),))
    assert relay.icmp(3, 3, relay.relayed[:REQUEST_BYTES]) == [Code.FA_HOME_AGENT_PORT_UNREACHABLE]


@pytest.mark.parametrize("keyed", [False, True])
def test_unreadable_reply_is_refused(keyed: bool) -> None:
    relay = Relay(keyed=keyed)
    assert relay.answer(TRUNCATED, source=Source(AN1, 434, "core")) == []  # of another sender
    assert relay.answer(TRUNCATED, home_address=HOA) == []
    assert relay.answer(TRUNCATED, identification=relay.request.identification ^ 1) == []
    assert relay.answer(UNKNOWN) == []  # RFC 5944 section 1.8: silence
    assert relay.refusals(relay.agent.receive(b"\x03" * (REPLY_BYTES - 1), CORE, now=relay.world.now)) == []
    assert relay.answer(TRUNCATED) == [Code.FA_POORLY_FORMED_REPLY]
    assert relay.answer(TRUNCATED) == [] and relay.late() == []


def test_garbage_is_no_easier_to_forge_than_a_reply() -> None:
    """Even with an association, sender, home address and identification suffice to have a request refused."""
    assert Relay(keyed=True).answer() == [Code.FA_HOME_AGENT_FAILED_AUTHENTICATION]


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("code", [Code.ACCEPTED, Code.ADMINISTRATIVELY_PROHIBITED])
def test_unknown_critical_extension_is_refused(keyed: bool, code: Code) -> None:
    """RFC 3115: the foreign agent is not the reply's addressee, so it refuses in its place."""
    relay = Relay(keyed=keyed)
    assert relay.signed_answer(code=code, extensions=(CRITICAL,)) == [
        Code.FA_UNKNOWN_CRITICAL_FROM_HOME_AGENT
    ]
    assert not [visitor for visitor in relay.agent.visitors() if visitor.home_address == VISITOR]


def test_missing_parts_of_a_reply_have_their_codes() -> None:
    assert Relay().signed_answer(home_agent=NOBODY) == [Code.FA_MISSING_HOME_AGENT]
    nameless = Relay(home_address=NOBODY, extensions=(Nai(NAI),))
    assert nameless.signed_answer(home_address=VISITOR) == [Code.FA_MISSING_NAI]
    nameless = Relay(home_address=NOBODY, extensions=(Nai(NAI),))
    assert nameless.signed_answer(extensions=(Nai(NAI),)) == [Code.FA_MISSING_HOME_ADDRESS]


# The device ---------------------------------------------------------------------------------------------------------


def refused(world: World, code: Code) -> None:
    """Every agent answers requests at once with this code, and the home agent never gets one."""
    world.kill(world.ha)
    for host in (world.an1, world.an2):
        receive = host.role.receive

        def deny(message: bytes, source: Source, *, now: float, receive: object = receive) -> list[a.Action]:
            if message[:1] != bytes((REGISTRATION_REQUEST,)):
                return receive(message, source, now=now)  # type: ignore[operator, no-any-return]
            request = RegistrationRequest.decode_fixed(message)
            reply = RegistrationReply(code, 0, request.home_address, HA, request.identification)
            return [a.Reply(source, reply.encode())]

        host.role.receive = deny  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "code",
    [
        Code.FA_HOME_AGENT_HOST_UNREACHABLE,
        Code.FA_HOME_AGENT_PORT_UNREACHABLE,
        Code.FA_HOME_AGENT_UNREACHABLE,
    ],
)
def test_device_keeps_its_agent_without_a_home_agent(code: Code) -> None:
    world = World(lifetime=60)
    world.advance(5)
    via = world.mn.via
    refused(world, code)
    world.advance(100)
    requests = [event for event in world.mn.events if event.message == "601" and event.kind == "sent"]
    assert {request.detail["to"] for request in requests} == {str(AN1)}
    assert len(requests) < 12  # it backs off as without an answer
    assert world.mn.counts[f"denied-{int(code)}"] >= 5
    assert world.mn.via == via
    world.start(world.an1)
    world.start(world.ha)
    world.advance(40)
    assert world.device.mobile.registered is not None


def test_unreachable_home_network_makes_the_device_change_agent() -> None:
    world = World(lifetime=60)
    world.advance(5)
    refused(world, Code.FA_HOME_NETWORK_UNREACHABLE)
    world.advance(60)
    requests = [event for event in world.mn.events if event.message == "601" and event.kind == "sent"]
    assert len({request.detail["to"] for request in requests}) == 2


def test_critical_extension_unknown_to_the_device() -> None:
    world = World(colocated=True)
    world.kill(world.ha)
    world.advance(1)
    state = world.device.mobile.state
    assert isinstance(state, Registering)
    reply = RegistrationReply(Code.ACCEPTED, 300, HOA, HA, state.identification, (CRITICAL,))
    message = signed(reply.encode(), AuthKind.MN_HA, KEY)
    world.give(world.mn, message, Source(HA, 434, "radio0"))
    assert world.device.mobile.registered is None
    assert world.mn.counts["reply-unknown-critical"] == 1
    plain = signed(replace(reply, extensions=()).encode(), AuthKind.MN_HA, KEY)
    world.give(world.mn, plain, Source(HA, 434, "radio0"))
    assert world.device.mobile.registered is not None


def test_a_flood_of_icmp_errors_leaves_requests_alone() -> None:
    relay, random = Relay(), Random(3)
    for _ in range(2000):
        kind, number = random.choice((3, 11, 12, 4, 5)), random.randrange(16)
        quoted = bytes((REGISTRATION_REQUEST,)) + random.randbytes(random.choice((0, 7, 23, 40, 300)))
        assert relay.icmp(kind, number, quoted) == []
    assert relay.signed_answer() == [0]


@pytest.mark.parametrize("bounds", [{"max_visitors": 1}, {"room": 1}, {"max_visitors": 1, "room": 5}])
def test_visitors_above_the_bound_are_refused(bounds: dict[str, int]) -> None:
    """By number or by room in the data plane; a visitor that is there may renew, and leaves its place to another."""
    world = World()
    assert isinstance(world.an1.role, ForeignAgent)
    configuration = replace(world.an1.role.configuration, **bounds)  # type: ignore[arg-type]
    world.an1.make = lambda: ForeignAgent(configuration, {}, {}, (), world.random)
    world.start(world.an1)
    world.advance(5)
    agent = world.an1.role
    assert isinstance(agent, ForeignAgent)
    assert [visitor.home_address for visitor in agent.visitors()] == [HOA]

    def ask(home_address: IPv4Address) -> tuple[list[int], int]:
        """Codes of answers, and the number of requests that went on to the home agent."""
        request = RegistrationRequest(300, home_address, HA, AN1, ntp64(world.now) | 0x5A5A, Flag.T)
        message = signed(request.encode(), AuthKind.MN_HA, KEY)
        source = Source(home_address, 434, "radio0", MAC, AN1)
        actions = agent.receive(message, source, now=world.now)
        answers = [action.message for action in actions if isinstance(action, a.Reply)]
        sent = [action for action in actions if isinstance(action, a.SendRegistration)]
        return [RegistrationReply.decode(answer).code for answer in answers], len(sent)

    assert ask(VISITOR) == ([Code.FA_INSUFFICIENT_RESOURCES], 0)
    assert ask(HOA) == ([], 1)
    world.kill(world.mn)
    world.advance(2000)
    assert not agent.visitors()
    assert ask(VISITOR) == ([], 1)


def test_requests_under_way_count_among_the_visitors() -> None:
    """Of two places one is a visitor's: two more requests at a time could both be accepted."""
    relay = Relay()
    configuration = replace(relay.agent.configuration, max_visitors=2)
    relay.world.an1.make = lambda: ForeignAgent(configuration, {}, {}, (), relay.world.random)
    relay.world.start(relay.world.an1)
    relay.world.advance(5)
    assert len(relay.agent.visitors()) == 1
    relay.ask(relay.request)
    other = replace(relay.request, home_address=VISITOR + 1)
    message = signed(other.encode(), AuthKind.MN_HA, KEY)
    refused = relay.agent.receive(message, AIR, now=relay.world.now)
    assert relay.refusals(refused) == [Code.FA_INSUFFICIENT_RESOURCES]
    relay.ask(relay.request)  # again: its place is counted once
    assert relay.late() == [Code.FA_REGISTRATION_TIMEOUT]
    relay.ask(other)
