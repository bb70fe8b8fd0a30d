"""Forged, replayed and foreign messages of every kind change nothing and are never answered with more than they were."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.forwarding import ClearFlow, ReleaseHeld
from locum.roles.action_values.sessions import (
    DropSessions,
    FetchData,
    MeasureSessions,
    NotPerformed,
    Restored,
    RestoreSessions,
    ResumeSessions,
    StopSessions,
)
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.registrant.discovery import AgentDiscovery, Hearing
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.control import (
    Answer632,
    Cancel,
    Done,
    Fetch,
    Finish,
    Flow,
    Notice618,
    Reclaim,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_618,
    encode_634,
)
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from tests.roles.world import AN1, AN3, HA, HOA, MAC, PEER, STAND_IN, Host, World, flow

STRANGER = IPv4Address("10.66.0.6")
WRONG = Association(300, b"w" * 16)
RIGHT = Association(300, b"k" * 16)


def settled(**options: object) -> World:
    world = World(**options)  # type: ignore[arg-type]
    world.advance(5)
    return world


def give(world: World, host: Host, message: bytes, source: Source) -> list[a.Action]:
    """Actions of the role for the message; only counting and answering are allowed."""
    actions = host.role.receive(message, source, now=world.now)
    for action in actions:
        assert isinstance(action, a.Count | a.Reply | a.SendRegistration | a.Emit), action
        if isinstance(action, a.Reply):
            assert len(action.message) <= len(message)
            assert action.to == source
    return actions


def request(world: World, **changes: object) -> RegistrationRequest:
    whole = RegistrationRequest(300, HOA, HA, STRANGER, ntp64(world.now + 1), Flag.T)
    return replace(whole, **changes)  # type: ignore[arg-type]


def codes(actions: list[a.Action]) -> list[int]:
    return [
        int(RegistrationReply.decode(action.message).code)
        for action in actions
        if isinstance(action, a.Reply)
    ]


CORE = Source(STRANGER, 434, "core")


def test_registrations_at_the_home_agent() -> None:
    world = settled()
    before = world.ha.tables()
    forged = request(world).encode()
    assert codes(give(world, world.ha, forged, CORE)) == [Code.MOBILE_NODE_FAILED_AUTHENTICATION]
    wrong_key = signed(forged, AuthKind.MN_HA, WRONG)
    assert codes(give(world, world.ha, wrong_key, CORE)) == [Code.MOBILE_NODE_FAILED_AUTHENTICATION]
    stale = signed(request(world, identification=ntp64(world.now - 60)).encode(), AuthKind.MN_HA, RIGHT)
    assert codes(give(world, world.ha, stale, CORE)) == [Code.IDENTIFICATION_MISMATCH]
    foreign = signed(request(world, home_address=STRANGER).encode(), AuthKind.MN_HA, RIGHT)
    assert codes(give(world, world.ha, foreign, CORE)) == [Code.MOBILE_NODE_FAILED_AUTHENTICATION]
    assert world.ha.tables() == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"home_agent": STRANGER}, Code.UNKNOWN_HOME_AGENT),
        ({"flags": Flag(0)}, Code.REVERSE_TUNNEL_MANDATORY),
        ({"care_of_address": HA}, Code.POORLY_FORMED_REQUEST),
        ({"care_of_address": IPv4Address("224.0.0.5")}, Code.POORLY_FORMED_REQUEST),
    ],
)
def test_authenticated_but_unacceptable_requests_are_refused(changes: dict[str, object], code: Code) -> None:
    world = settled()
    before = world.ha.tables()
    message = signed(request(world, **changes).encode(), AuthKind.MN_HA, RIGHT)
    assert codes(give(world, world.ha, message, CORE)) == [code]
    assert world.ha.tables() == before


@pytest.mark.parametrize(
    "broken",
    [
        b"\x83\x09a@b",  # an NAI of 9 bytes of which 3 are there
        b"\x86",  # no length
        b"\x26\x00\x00\x20",  # a critical vendor extension of 32 bytes, of which none is there
        b"\x20\x02\x01\x02",  # an authentication shorter than its SPI
    ],
)
def test_authentic_request_with_a_broken_extension_gets_134(broken: bytes) -> None:
    world = settled()
    before = world.ha.tables()
    authentic = signed(request(world).encode(), AuthKind.MN_HA, RIGHT)
    (refused,) = [
        RegistrationReply.decode(action.message)
        for action in give(world, world.ha, authentic + broken, CORE)
        if isinstance(action, a.Reply)
    ]
    assert refused.code == Code.POORLY_FORMED_REQUEST and refused.extensions  # signed
    forged = signed(request(world).encode(), AuthKind.MN_HA, WRONG) + broken
    assert codes(give(world, world.ha, forged, CORE)) == [Code.MOBILE_NODE_FAILED_AUTHENTICATION]
    assert codes(give(world, world.ha, request(world).encode() + broken, CORE)) == []
    unknown = b"\x40\x01x"  # section 1.8: silence
    assert codes(give(world, world.ha, authentic + unknown + broken, CORE)) == []
    assert world.ha.tables() == before
    assert codes(world.ha.role.receive(authentic, CORE, now=world.now)) == [Code.ACCEPTED]


def test_simultaneous_bindings_up_to_four() -> None:
    world = settled()
    for number in range(1, 5):
        care_of = IPv4Address(f"10.7.0.{number}")
        whole = request(world, care_of_address=care_of, flags=Flag.T | Flag.S)
        message = signed(
            replace(whole, identification=ntp64(world.now + number)).encode(), AuthKind.MN_HA, RIGHT
        )
        actions = world.ha.role.receive(message, CORE, now=world.now)
        assert codes(actions) == [0 if number < 4 else Code.TOO_MANY_SIMULTANEOUS_BINDINGS]
        world.perform(world.ha, [action for action in actions if not isinstance(action, a.Reply)])
        world.check()
    assert len(world.ha.bindings[HOA].tunnels) == 4
    one = request(
        world, lifetime=0, care_of_address=IPv4Address("10.7.0.2"), identification=ntp64(world.now + 5)
    )
    world.give(world.ha, signed(one.encode(), AuthKind.MN_HA, RIGHT), CORE)
    assert len(world.ha.bindings[HOA].tunnels) == 3
    world.check()


def test_foreign_agent_must_authenticate_itself() -> None:
    world = settled(agents_keyed=True)
    before = world.ha.tables()
    message = signed(request(world).encode(), AuthKind.MN_HA, RIGHT)
    source = Source(AN1, 434, "core")
    actions = give(world, world.ha, message, source)
    assert codes(actions) in ([Code.FOREIGN_AGENT_FAILED_AUTHENTICATION], [])
    assert world.ha.tables() == before


def test_replayed_registrations_everywhere() -> None:
    for nonce in (False, True):
        from locum.security.association import Replay

        world = settled(replay=Replay.NONCE if nonce else Replay.TIMESTAMP)
        for host, source in (
            (world.ha, Source(AN1, 434, "core")),
            (world.mn, Source(AN1, 434, "radio0")),
        ):
            before = host.tables()
            for message in list(host.sent):
                if message[0] in (1, 3):
                    give(world, host, message, source)
            assert host.tables() == before


def test_forged_replies_and_advertisements_change_no_tables() -> None:
    world = settled()
    reply = RegistrationReply(0, 0, HOA, HA, ntp64(world.now))
    for message in (reply.encode(), signed(reply.encode(), AuthKind.MN_HA, WRONG)):
        for host, link in ((world.an1, "core"), (world.mn, "radio0")):
            before = host.tables()
            give(world, host, message, Source(HA, 434, link))
            assert host.tables() == before
    refusal = RegistrationReply(66, 0, HOA, HA, 1).encode()
    before = world.mn.tables()
    give(world, world.mn, refusal, Source(AN1, 434, "radio0"))
    assert world.mn.tables() == before


def test_relayed_forgeries_leave_no_visitor() -> None:
    world = settled(agents_keyed=True)
    before = world.an1.tables()
    source = Source(HOA, 434, "radio0", MAC)
    message = signed(request(world, care_of_address=AN1).encode(), AuthKind.MN_HA, WRONG)
    assert codes(give(world, world.an1, message, source)) in (
        [Code.FA_MOBILE_NODE_FAILED_AUTHENTICATION],
        [],
    )
    assert world.an1.tables() == before
    plain = settled()
    before = plain.an1.tables()
    for number in range(2000):
        care_of = AN1 if number % 2 else STRANGER
        forged = request(plain, care_of_address=care_of, home_address=IPv4Address(0x0A320000 + number))
        give(plain, plain.an1, signed(forged.encode(), AuthKind.MN_HA, WRONG), source)
    assert plain.an1.tables() == before
    plain.advance(10)
    assert plain.an1.tables() == before


def by_way_of(world: World, home_agent: IPv4Address, **changes: object) -> bytes:
    """A request of a host on the access link, through a home agent of its choice."""
    made = request(world, home_agent=home_agent, care_of_address=AN1, **changes)
    return signed(made.encode(), AuthKind.MN_HA, WRONG)


def accepted(message: bytes) -> bytes:
    """Answer of a home agent that accepts every request."""
    asked = RegistrationRequest.decode(message)
    reply = RegistrationReply(0, 300, asked.home_address, asked.home_agent, asked.identification)
    return signed(reply.encode(), AuthKind.MN_HA, WRONG)


ROGUE = Source(HOA, 434, "radio0", b"\x06" * 6)


def test_rogue_home_agent_cannot_displace_a_visitor() -> None:
    world = settled()
    before = world.an1.tables()
    prohibited = [Code.FA_ADMINISTRATIVELY_PROHIBITED]
    assert codes(give(world, world.an1, by_way_of(world, STRANGER), ROGUE)) == prohibited
    for taken in (
        AN1,
        STRANGER,
        HA,
    ):  # the agent's own address, the home agent's, another visitor's home agent
        message = by_way_of(world, STRANGER, home_address=taken)
        assert codes(give(world, world.an1, message, ROGUE)) == prohibited
    preconfigured = Source(HOA, 434, "eth0", b"\x06" * 6)
    message = signed(request(world, home_agent=STRANGER, care_of_address=AN3).encode(), AuthKind.MN_HA, WRONG)
    assert codes(give(world, world.an3, message, preconfigured)) == prohibited
    assert world.an1.tables() == before


def test_first_of_two_claims_to_a_home_address_wins() -> None:
    world = settled()
    where, other = IPv4Address("10.50.0.77"), IPv4Address("10.66.0.7")
    messages = {
        agent: by_way_of(world, agent, home_address=where, identification=number)
        for number, agent in ((1, STRANGER), (2, other))
    }
    for message in messages.values():
        assert [
            action
            for action in give(world, world.an1, message, ROGUE)
            if isinstance(action, a.SendRegistration)
        ]
    first = world.an1.role.receive(accepted(messages[STRANGER]), Source(STRANGER, 434, "core"), now=world.now)
    assert any(isinstance(action, a.Persist) for action in first)
    late = world.an1.role.receive(accepted(messages[other]), Source(other, 434, "core"), now=world.now)
    assert codes(late) == [Code.FA_ADMINISTRATIVELY_PROHIBITED]
    assert not any(isinstance(action, a.Persist) for action in late)


def test_reply_from_an_access_link_is_ignored() -> None:
    world = settled()
    before = world.an1.tables()
    message = by_way_of(world, HA)
    give(world, world.an1, message, ROGUE)
    forged = Source(HA, 434, "radio0", b"\x06" * 6)
    assert give(world, world.an1, accepted(message), forged) == [a.Count("reply-from-access-link")]
    assert world.an1.tables() == before


def test_a_copied_request_does_not_get_the_answer() -> None:
    world = settled()
    message = by_way_of(world, HA)
    first = replace(ROGUE, link_layer=MAC)
    assert len(give(world, world.an1, message, first)) == 2
    assert give(world, world.an1, message, ROGUE) == [a.Count("request-repeated-by-another")]
    actions = world.an1.role.receive(accepted(message), Source(HA, 434, "core"), now=world.now)
    assert [action.to for action in actions if isinstance(action, a.Reply)] == [first]


def test_unreachable_home_agent_address_is_refused() -> None:
    world = settled()
    actions = give(world, world.an1, by_way_of(world, HA), ROGUE)
    relayed = next(action for action in actions if isinstance(action, a.SendRegistration))
    refused = NotPerformed(relayed, "Network is unreachable")
    assert codes(world.an1.role.happened(refused, now=world.now)) == [Code.FA_HOME_NETWORK_UNREACHABLE]
    assert world.an1.role.happened(refused, now=world.now) == []


def test_foreign_advertisement_moves_no_device() -> None:
    world = settled()
    rogue = AgentAdvertisement(9000, ((STRANGER, 0),), 5, 300, AgentFlag.F | AgentFlag.T, (STRANGER,))
    before = world.mn.tables()
    give(world, world.mn, rogue.encode(), Source(STRANGER, 0, "radio0", MAC))
    assert world.mn.tables() == before


HANDOVER = bytes(range(16))
FOREIGN = Flow(6, STRANGER, 1, PEER, 80)


@pytest.mark.parametrize("authorised", [(), (STRANGER,)])
@pytest.mark.parametrize(
    "make",
    [
        lambda held: TakeoverPrepare(HANDOVER, (HOA,), (flow(0),)),
        lambda held: TakeoverPrepare(HANDOVER, (STRANGER,), (FOREIGN,)),
        lambda held: TakeoverPrepare(HANDOVER, (STRANGER,), (flow(0),)),
        lambda held: TakeoverTransfer(held, ({0: flow(0).to_cbor()},)),
        lambda held: Reclaim(held, (HOA,)),
        lambda held: Reclaim(None, (HOA,)),
        lambda held: Fetch(held, 0, 0, 1000),
        lambda held: Finish(held),
        lambda held: Done(held),
        lambda held: Cancel(held),
        lambda held: Finish(HANDOVER),
    ],
)
def test_control_messages_of_others_are_refused(
    make: Callable[[bytes], object], authorised: tuple[Addr, ...]
) -> None:
    world = World()
    world.advance(3)
    world.sleep()
    world.advance(2)
    held = bytes.fromhex(next(key for table, key in world.mnps.rows if table == "handover"))
    before = world.mnps.tables()
    body = encode_634(make(held))  # type: ignore[arg-type]
    actions = world.mnps.role.happened(a.Asked(9999, "634", body, STRANGER, authorised), now=world.now)
    assert all(isinstance(action, a.Count | a.Answer) for action in actions)
    answers = [decode_632(action.body) for action in actions if isinstance(action, a.Answer)]
    assert len(answers) == 1
    assert answers[0].status in (Status.NOT_AUTHORISED, Status.UNKNOWN_HANDOVER)
    assert answers[0].access_node is None and answers[0].sessions == ()
    assert world.mnps.tables() == before


def test_record_of_a_foreign_address_is_refused() -> None:
    world = World()
    body = encode_634(TakeoverPrepare(HANDOVER, (HOA,), (flow(0),)))
    world.perform(
        world.mnps,
        [
            action
            for action in world.mnps.role.happened(a.Asked(1, "634", body, HOA, (HOA,)), now=world.now)
            if not isinstance(action, a.Answer)
        ],
    )
    before = world.mnps.tables()
    for record in ({0: FOREIGN.to_cbor()}, {1: 2}, {0: "nonsense"}):
        transfer = encode_634(TakeoverTransfer(HANDOVER, (record,)))
        actions = world.mnps.role.happened(a.Asked(2, "634", transfer, HOA, (HOA,)), now=world.now)
        answers = [decode_632(action.body) for action in actions if isinstance(action, a.Answer)]
        assert answers[0].status in (Status.NOT_AUTHORISED, Status.MALFORMED)
        assert all(isinstance(action, a.Count | a.Answer) for action in actions)
    assert world.mnps.tables() == before


def test_home_address_outside_the_prefixes() -> None:
    world = World()
    body = encode_634(TakeoverPrepare(HANDOVER, (STRANGER,), ()))
    actions = world.mnps.role.happened(a.Asked(1, "634", body, STRANGER, (STRANGER,)), now=world.now)
    assert (
        decode_632(next(e.body for e in actions if isinstance(e, a.Answer))).status is Status.NOT_AUTHORISED
    )


def test_limits_of_the_stand_in() -> None:
    world = World()
    many = tuple(flow(number) for number in range(1000))
    body = encode_634(TakeoverPrepare(HANDOVER, (HOA,), many))
    actions = world.mnps.role.happened(a.Asked(1, "634", body, HOA, (HOA,)), now=world.now)
    assert decode_632(next(e.body for e in actions if isinstance(e, a.Answer))).status is Status.OK


def test_notices_of_strangers_are_ignored() -> None:
    world = settled()
    before = (world.mn.tables(), world.mnps.tables())
    for body in (b"", b"\xff", encode_618(Notice618(STRANGER, True, AN1)), bytes(2000)):
        for host in (world.mn, world.mnps):
            actions = host.role.happened(a.Asked(7, "618", body, STRANGER, ()), now=world.now)
            assert not any(isinstance(action, a.Emit) for action in actions)
            host.role.happened(a.Asked(7, "1172", body, STRANGER, ()), now=world.now)
    assert (world.mn.tables(), world.mnps.tables()) == before


def notice_status(host: Host, home_address: Addr, authorised: tuple[Addr, ...]) -> Status:
    """Status of a 618 of a known peer with authority for these home addresses."""
    body = encode_618(Notice618(home_address, False, AN3))
    actions = host.role.happened(a.Asked(8, "618", body, AN3, authorised), now=0.0)
    status = decode_632(next(action.body for action in actions if isinstance(action, a.Answer))).status
    assert any(isinstance(action, a.Emit) for action in actions) == (status is Status.OK)
    refused = {action.reason for action in actions if isinstance(action, a.Count)}
    assert refused == (
        set() if status is Status.OK else refused & {"notice-not-authorised", "notice-foreign"}
    )
    return status


def test_notices_outside_a_peers_authority_are_ignored() -> None:
    world = settled()
    neighbour = IPv4Address(int(HOA) + 1)  # of the same home network
    assert notice_status(world.mnps, HOA, (HOA,)) is Status.OK
    assert notice_status(world.mnps, HOA, (neighbour,)) is Status.NOT_AUTHORISED
    assert notice_status(world.mnps, neighbour, (HOA,)) is Status.NOT_AUTHORISED
    assert notice_status(world.mnps, HOA, ()) is Status.NOT_AUTHORISED
    assert notice_status(world.mnps, STRANGER, (STRANGER,)) is Status.NOT_AUTHORISED
    assert notice_status(world.mn, neighbour, (neighbour,)) is Status.NOT_AUTHORISED


def test_mobile_node_accepts_notices_of_authorised_peers_only() -> None:
    world = settled()
    assert notice_status(world.mn, HOA, (HOA,)) is Status.OK
    assert notice_status(world.mn, HOA, (IPv4Address(int(HOA) + 1),)) is Status.NOT_AUTHORISED
    assert notice_status(world.mn, HOA, ()) is Status.NOT_AUTHORISED


RANDOM = Random(7)
SETTLED = settled()


@given(st.binary(max_size=200), st.sampled_from(["ha", "an1", "an3", "mn", "mnps"]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_change_no_tables(message: bytes, name: str) -> None:
    host = next(host for host in SETTLED.hosts if host.name == name)
    before = host.tables()
    for link in ("radio0", "core"):
        give(SETTLED, host, message, Source(STRANGER, 434, link, MAC))
    host.role.happened(a.Asked(7, "634", message, STRANGER, (HOA,)), now=SETTLED.now)
    assert host.tables() == before


@given(st.integers(0, 1 << 30), st.sampled_from(["ha", "an1", "mn"]))
@settings(max_examples=300, deadline=None)
def test_one_flipped_bit_invalidates_a_message(where: int, name: str) -> None:
    """A message that was good once, with one bit changed."""
    host = next(host for host in SETTLED.hosts if host.name == name)
    good = [message for message in host.sent if message[0] == (3 if name == "mn" else 1)]
    if not good:
        return
    message = bytearray(good[where % len(good)])
    bit = where % (8 * len(message))
    message[bit // 8] ^= 1 << (bit % 8)
    before = host.tables()
    link = "core" if name == "ha" else "radio0"
    give(SETTLED, host, bytes(message), Source(AN1, 434, link, MAC))
    assert host.tables() == before


def test_unexpected_answers_are_ignored() -> None:
    world = settled()
    before = world.mn.tables()
    from locum.wire.control import encode_632

    for number in range(50):
        event = a.Answered(number, encode_632(Answer632(Status.OK)))
        assert world.mn.role.happened(event, now=world.now) == []
    assert world.mn.tables() == before
    assert STAND_IN is not None


def stand_in_does(world: World, exchange: int, request: object) -> list[a.Action]:
    """Of a request by the device."""
    body = encode_634(request)  # type: ignore[arg-type]
    return world.mnps.role.happened(a.Asked(exchange, "634", body, HOA, (HOA,)), now=world.now)


def test_failure_at_the_stand_in_is_answered() -> None:
    """A full disk while it restores, measures, reads or stops."""
    world = World()
    stand_in_does(world, 1, TakeoverPrepare(HANDOVER, (HOA,), (flow(0),)))

    def failing(exchange: int, request: object, kind: type) -> tuple[list[a.Action], Answer632]:
        asked = stand_in_does(world, exchange, request)
        action = next(stand_in_doe for stand_in_doe in asked if isinstance(stand_in_doe, kind))
        then = world.mnps.role.happened(NotPerformed(action, "the disk is full"), now=world.now)
        answers = [action for action in then if isinstance(action, a.Answer)]
        assert [answer.exchange for answer in answers] == [exchange]
        return then, decode_632(answers[0].body)

    transfer = TakeoverTransfer(HANDOVER, ({0: flow(0).to_cbor()},))
    actions, answer = failing(2, transfer, RestoreSessions)
    assert actions[0] == DropSessions(HANDOVER)
    assert actions.index(ClearFlow(flow(0))) < actions.index(ReleaseHeld(HOA))
    assert [session.status for session in answer.sessions] == [Status.REFUSED]

    other = bytes(reversed(HANDOVER))
    stand_in_does(world, 3, TakeoverPrepare(other, (HOA,), (flow(0),)))
    stand_in_does(world, 4, TakeoverTransfer(other, ({0: flow(0).to_cbor()},)))
    world.mnps.role.happened(Restored(other, (0,)), now=world.now)
    for exchange, request, kind in (
        (5, Reclaim(other, (HOA,)), MeasureSessions),
        (6, Reclaim(other, (HOA,)), MeasureSessions),
        (7, Fetch(other, 0, 0, 10), FetchData),
        (8, Finish(other), StopSessions),
        (9, Finish(other), StopSessions),
    ):
        actions, answer = failing(exchange, request, kind)
        assert answer.status is Status.BUSY
        assert (ResumeSessions(other) in actions) == (kind is StopSessions)


def advertised(care_of: IPv4Address, *, sequence: int, agent: IPv4Address = AN1) -> AgentAdvertisement:
    return AgentAdvertisement(
        lifetime=3,
        addresses=((agent, 0),),
        sequence=sequence,
        registration_lifetime=300,
        flags=AgentFlag.F | AgentFlag.T | AgentFlag.R,
        care_of_addresses=(care_of,),
    )


def test_unsolicited_unicast_advertisement_adds_no_agent() -> None:
    """It may come from another network, by the tunnel, with the TTL of a message on the link."""
    discovery = AgentDiscovery(("radio0",), Random(1))
    to_all = Source(AN1, 0, "radio0", b"\x05" * 6, IPv4Address("224.0.0.1"))
    to_us = replace(to_all, local=HOA)
    assert discovery.heard(advertised(AN1, sequence=900), to_us, 0.0) is Hearing.UNUSABLE
    assert discovery.heard(advertised(AN1, sequence=900), to_all, 0.0) is Hearing.NEW
    assert discovery.heard(advertised(STRANGER, sequence=901), to_us, 1.0) is Hearing.UNUSABLE
    assert discovery.heard(advertised(STRANGER, sequence=901, agent=STRANGER), to_us, 1.0) is Hearing.UNUSABLE
    other_layer = replace(to_us, link_layer=b"\x06" * 6)
    assert discovery.heard(advertised(AN1, sequence=0), other_layer, 1.0) is Hearing.UNUSABLE
    assert discovery.heard(advertised(AN1, sequence=901), to_us, 2.0) is Hearing.SAME
    assert (
        discovery.heard(advertised(AN1, sequence=0), to_us, 2.0) is Hearing.REBOOTED
    )  # RFC 3543 section 4.2
    (agent,) = discovery.agents(2.5)
    assert (agent.care_of, agent.expires_at) == (AN1, 3.0)
    discovery.search(3.5)
    assert discovery.heard(advertised(AN1, sequence=1), to_us, 3.6) is not Hearing.UNUSABLE
    discovery.settle()
    assert discovery.heard(advertised(STRANGER, sequence=2, agent=STRANGER), to_us, 3.7) is Hearing.UNUSABLE
