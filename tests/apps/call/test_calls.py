"""Calls on a virtual clock: named callers ring, others are refused, and the device gets what still rings (A7)."""

from collections.abc import Mapping
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.call.calls import MAX_CALLS, MAX_RINGING
from locum.apps.call.messages import MAX_DATAGRAM, MAX_FIELDS, SipError, read
from locum.apps.call.proxy import AGAIN, LAST, MAX_NOTES, Call
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError, checked_state
from locum.roles.app_network import Datagram, Ended, Listen, Opened
from locum.wire.control import Flow
from tests.apps.call.world import ACCOUNT, REGISTRAR, SETTINGS, World, invite

BOB = {"caller": "bob@example.org", "name": "Bob"}


def test_named_caller_rings_and_is_told() -> None:
    world = World()
    (ringing,) = world.hear(invite())
    assert ringing.code == 180 and ringing.to_address.parameters["tag"]
    assert world.told == [("call_from", BOB)]
    vias = ringing.headers.getlist("Via")
    assert vias[0] == f"SIP/2.0/UDP proxy.example.org:5070;branch=z9hG4bKa;rport=5062;received={REGISTRAR}"
    assert vias[1] == "SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKz"
    assert ringing.headers["Record-Route"] == "<sip:proxy.example.org;lr>"
    assert ringing.headers["CSeq"] == "1 INVITE" and ringing.headers["Call-ID"] == "c1"
    assert (world.sent[0].host, world.sent[0].port) == (REGISTRAR, 5062)


def test_ringing_call_goes_to_the_program_as_a_datagram() -> None:
    world = World()
    world.hear(invite())
    world.hear(invite("eve@example.org", call="c2", branch="z9hG4bKb"))
    assert world.result["datagrams"] == [[REGISTRAR, 5062, 5060, invite()]]
    assert world.result["calls"] == [
        {"event": "call_from", **BOB},
        {"event": "call_refused", "caller": "eve@example.org", "name": "Bob", "code": 486},
    ]


def test_repeated_invite_gets_the_same_answer_and_no_event() -> None:
    world = World()
    first = world.hear(invite())
    assert world.hear(invite())[0].headers["To"] == first[0].headers["To"]
    assert len(world.told) == 1


@pytest.mark.parametrize("word, code", [("busy", 486), ("unavailable", 480), ("decline", 603)])
def test_other_callers_get_the_configured_answer(word: str, code: int) -> None:
    """Repeated until the ACK is there (RFC 3261 section 17.2.1, timers G and H)."""
    world = World(others=word)
    (refused,) = world.hear(invite("eve@example.org"))
    assert refused.code == code and world.told[0][0] == "call_refused"
    world.advance(10)
    assert 4 <= len(world.sent) <= 6 and "datagrams" not in world.result
    assert world.hear(invite("eve@example.org", method="ACK", sequence="1 ACK")) == []
    world.advance(60)
    assert world.sent == [] and world.call.deadline() is None


def test_refused_call_without_ack_is_forgotten() -> None:
    world = World()
    world.hear(invite("eve@example.org"))
    world.advance(100)
    assert len(world.sent) < 15 and world.call.deadline() is None


def test_call_rings_on_and_is_missed_at_last() -> None:
    world = World(ring=150.0)
    world.hear(invite())
    world.advance(149)
    assert [world.parsed(sent).code for sent in world.sent] == [180, 180]  # type: ignore[union-attr]
    world.advance(1)
    assert [world.parsed(sent).code for sent in world.sent] == [480]  # type: ignore[union-attr]
    assert world.told[-1] == ("call_missed", {**BOB, "reason": "no answer"})
    assert "datagrams" not in world.result


def test_cancelled_call_is_missed() -> None:
    world = World()
    ringing = world.hear(invite())[0]
    answers = world.hear(invite(method="CANCEL", sequence="1 CANCEL"))
    assert sorted(answer.code for answer in answers) == [200, 487]
    assert {answer.headers["To"] for answer in answers} == {ringing.headers["To"]}
    assert (
        world.told[-1] == ("call_missed", {**BOB, "reason": "cancelled"}) and "datagrams" not in world.result
    )
    assert [answer.code for answer in world.hear(invite(method="CANCEL", sequence="1 CANCEL"))] == [200]
    world.hear(invite(method="ACK", sequence="1 ACK"))
    assert [answer.code for answer in world.hear(invite(method="CANCEL", sequence="1 CANCEL"))] == [481]


@pytest.mark.parametrize(
    "caller, named",
    [
        ("bob@example.org", True),
        ("BOB@Example.ORG", True),
        ("bob@example.org:5070", True),
        ("bobby@example.org", False),
        ("bob@example.org.evil.example", False),
        ("x@friends.example", True),
    ],
)
def test_callers_are_named_whole(caller: str, named: bool) -> None:
    world = World(callers=["bob@example.org", "@friends.example"])
    assert (world.hear(invite(caller))[0].code == 180) is named
    assert World(callers=["*"]).hear(invite(caller))[0].code == 180


@pytest.mark.parametrize(
    "data, code",
    [
        (invite(method="OPTIONS", sequence="1 OPTIONS"), 200),
        (invite(method="BYE", sequence="1 BYE"), 481),
        (invite(method="MESSAGE", sequence="1 MESSAGE"), 405),
        (invite(to="<sip:ann@example.org>;tag=x"), 481),
        (invite(fields="Require: 100rel, x\r\n"), 420),
    ],
)
def test_other_requests_are_answered_at_once(data: bytes, code: int) -> None:
    world = World()
    (answer,) = world.hear(data)
    assert answer.code == code and world.told == []
    if code == 420:
        assert answer.headers["Unsupported"] == "100rel, x"


def test_answer_without_rport_goes_to_the_port_of_via() -> None:
    world = World()
    world.hear(invite(rport=""))
    assert (world.sent[0].host, world.sent[0].port) == (REGISTRAR, 5070)


def test_many_calls_are_bounded() -> None:
    world = World(callers=["*"])
    for number in range(MAX_CALLS + 20):
        world.hear(invite(call=f"c{number}", branch=f"z9hG4bK{number}"))
    datagrams, calls = world.result["datagrams"], world.result["calls"]
    assert isinstance(datagrams, list) and len(datagrams) == MAX_RINGING and len(world.told) == MAX_CALLS
    assert isinstance(calls, list) and len(calls) == LAST


def test_state_of_the_largest_calls_is_within_its_bounds() -> None:
    world = World(callers=["*"])
    for number in range(MAX_RINGING):
        size = MAX_DATAGRAM - len(invite(call=f"c{number}", branch=f"z9hG4bK{number}"))
        world.hear(invite(call=f"c{number}", branch=f"z9hG4bK{number}") + b"x" * size)
    assert len(world.told) == MAX_RINGING
    assert checked_state(world.kept) and checked_state(world.call.end(now=world.now))


def test_ringing_call_outlives_the_process() -> None:
    world = World()
    world.hear(invite())
    world.sent = []
    world.start()
    (sent,) = world.sent
    assert b" 180 " in sent.data and world.result["datagrams"] == [[REGISTRAR, 5062, 5060, invite()]]
    assert len(world.told) == 1
    assert world.hear(invite(method="CANCEL", sequence="1 CANCEL"))[0].code in (200, 487)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\x00" * 4,
        b"GET / HTTP/1.1\r\n\r\n",
        invite()[:-2],
        invite().replace(b"Call-ID", b"X"),
        invite().replace(b"branch=z9hG4bKa", b"x=y"),
        invite().replace(b"CSeq: 1 INVITE", b"CSeq: 1 BYE"),
        invite().replace(b"CSeq: 1 INVITE", b"CSeq: one"),
        invite().replace(b"Max-Forwards: 69", b"Max-Forwards"),
        invite().replace(b"Max-Forwards: 69", b"Min-Expires: soon"),
        invite().replace(b"SIP/2.0/UDP proxy", b"\r\nX: SIP/2.0/UDP proxy"),
        invite(rport="").replace(b":5070", b":99999"),
        invite().replace(b"sip:bob@", b"\xff\xfe"),
        invite(fields=f"X: {'y' * 4000}\r\n"),
        invite(fields="X: y\r\n" * MAX_FIELDS),
        invite() + b"x" * 20000,
    ],
)
def test_other_datagrams_are_passed_over(data: bytes) -> None:
    world = World()
    assert world.hear(data) == [] and world.told == []
    assert world.hear(invite())[0].code == 180


def test_thousand_header_fields_are_passed_over() -> None:
    with pytest.raises(SipError, match=f"at most {MAX_FIELDS} header fields"):
        read(invite(fields="X: y\r\n" * 1000))


def test_notes_about_bad_datagrams_are_bounded() -> None:
    world = World()
    for _ in range(3 * MAX_NOTES):
        world.hear(b"x")
    assert len(world.notes.splitlines()) == MAX_NOTES


def test_port_is_tried_again_when_it_is_taken() -> None:
    one = Call(Call.settings(SETTINGS), Random(1))
    assert one.begin([], {}, now=0.0) == [Listen(1, 5060, 17)] and one.deadline() is None
    one.happened(Ended(1, "address in use"), now=1.0)
    assert one.deadline() == 1.0 + AGAIN and one.timeout(now=1.0 + AGAIN) == [Listen(1, 5060, 17)]
    problem = "port 5060 of the home address: address in use"
    assert one.end(now=6.5) == {"result": {"calls": [], "problem": problem}}
    assert one.deadline() is None and one.happened(Opened(1), now=7.0) == []
    assert one.end(now=7.5) == {"result": {"calls": []}}
    assert one.happened(Datagram(2, "192.0.2.1", 5060, invite()), now=8.0) == []
    here = ip_address("10.9.0.5")
    assert not Call.wants(Call.settings(SETTINGS), Flow(6, here, 5060, here, 5060))


@given(st.binary(max_size=400))
def test_any_bytes_give_a_message_or_an_error(data: bytes) -> None:
    for candidate in (data, invite().replace(b"Max-Forwards: 69", data), invite(fields="X: ") + data):
        try:
            assert read(candidate)
        except SipError as problem:
            assert str(problem)


@pytest.mark.parametrize(
    "table, key",
    [
        ({}, "contact"),
        ({"contact": "sip:10.9.0.5"}, "contact"),
        ({"contact": "tel:+123"}, "contact"),
        ({"contact": "ann"}, "contact"),
        ({"contact": "sip:ann@10.9.0.5"}, "callers"),
        ({**SETTINGS, "callers": []}, "callers"),
        ({**SETTINGS, "callers": ["bob"]}, "callers"),
        ({**SETTINGS, "callers": [3]}, "callers"),
        ({**SETTINGS, "others": "ring"}, "others"),
        ({**SETTINGS, "others": 3}, "others"),
        ({**SETTINGS, "ring": 4}, "ring"),
        ({**SETTINGS, "expires": 59}, "expires"),
        ({**SETTINGS, "password": "s3cret"}, "password"),
        ({**SETTINGS, "registrar": "sip.example.org"}, "password"),
        ({**ACCOUNT, "registrar": ""}, "registrar"),
        ({**ACCOUNT, "port": 0}, "port"),
        ({**ACCOUNT, "user": "a\r\nb"}, "user"),
        ({**ACCOUNT, "caller": "x"}, "caller"),
    ],
)
def test_wrong_settings_name_their_key(table: Mapping[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        Call.settings(table)
    assert caught.value.key == key and "s3cret" not in str(caught.value)
