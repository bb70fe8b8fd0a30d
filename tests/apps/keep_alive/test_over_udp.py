"""Keep-alives in captured UDP flows: SIP OPTIONS, STUN, and payloads (A3)."""

from collections.abc import Mapping
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Message, Request, Response

from locum.apps.keep_alive.options import MAX_DATAGRAM, MAX_FIELDS, SipOptions
from locum.apps.keep_alive.proxy import MAX_ANSWERS, KeepAlive
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, SettingError, Speak, Tell
from locum.wire.control import Flow

HOME, PEER = ip_address("10.9.0.5"), ip_address("192.0.2.1")
FLOW = Flow(17, HOME, 5062, PEER, 5060)
QUESTION = (
    b"OPTIONS sip:ann@10.9.0.5 SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.9;\r\n branch=z9hG4bK0\r\nFrom: <sip:pbx@192.0.2.1>;tag=1\r\nTo: <sip:ann@10.9.0.5>\r\n"
    b"i: 77@192.0.2.1\r\nCSeq: 102 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


def app(**table: JSON) -> KeepAlive:
    made = KeepAlive(KeepAlive.settings({"transport": "udp", "ports": [5060], **table}), Random(1))
    made.begin([AppSession(0, FLOW)], {}, now=0.0)
    return made


def words(effects: list[Effect]) -> list[bytes]:
    return [effect.data for effect in effects if isinstance(effect, Speak)]


def test_udp_flows_alone_are_attended() -> None:
    settings = KeepAlive.settings({"transport": "udp", "protocol": "sip", "ports": [5060]})
    assert KeepAlive.wants(settings, FLOW)
    assert not KeepAlive.wants(settings, Flow(6, HOME, 5062, PEER, 5060))
    assert not KeepAlive.needs_network(settings)


def test_questions_are_requests_that_a_library_reads() -> None:
    one = app(protocol="sip", on_data="event")
    seen = [Message.parse(words(one.timeout(now=30.0 * number))[0]) for number in range(3)]
    assert all(isinstance(request, Request) and request.method == "OPTIONS" for request in seen)
    assert [request.cseq.sequence for request in seen] == [1, 2, 3]
    assert len({request.via[0].parameters["branch"] for request in seen}) == 3
    assert len({request.call_id for request in seen}) == 1
    answer = f"SIP/2.0 200 OK\r\nCall-ID: {seen[0].call_id}\r\n\r\n".encode()
    assert one.received(0, answer, now=90.0) == [], "an answer is no news"
    other = b"SIP/2.0 200 OK\r\nCall-ID: other\r\n\r\n"
    assert [type(effect) for effect in one.received(0, other, now=91.0)] == [Tell]


def test_questions_of_the_correspondent_are_answered() -> None:
    one = app(protocol="sip", on_data="wake")
    (said,) = words(one.received(0, QUESTION, now=1.0))
    answer = Message.parse(said)
    assert isinstance(answer, Response) and answer.code == 200
    assert [via.host for via in answer.via] == ["192.0.2.1", "192.0.2.9"]
    assert answer.call_id == "77@192.0.2.1" and answer.headers["CSeq"] == "102 OPTIONS"
    assert answer.to_address.parameters["tag"]
    assert sum(len(words(one.received(0, QUESTION, now=2.0))) for _ in range(100)) == MAX_ANSWERS - 1


@pytest.mark.parametrize(
    "data",
    [
        QUESTION.replace(b"OPTIONS", b"INVITE"),
        QUESTION.replace(b"CSeq: 102 OPTIONS\r\n", b""),
        QUESTION[:-4] + b"\r\nX: 1" * 1000 + b"\r\n\r\n",
        QUESTION[:-2],
        QUESTION + bytes(MAX_DATAGRAM),
        b"\xff" + QUESTION,
        QUESTION.replace(b"tag=1", b"tag=\x001"),
        QUESTION.replace(b"tag=1", b"tag=1\nX-Injected: 1"),
        b"",
    ],
)
def test_other_messages_are_for_the_program(data: bytes) -> None:
    """Among them one with a thousand header fields."""
    assert QUESTION.count(b"\n") < MAX_FIELDS
    one = app(protocol="sip")
    assert words(one.received(0, data, now=1.0)) == []


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: QUESTION[:150] + tail + b"\r\n\r\n"))
def test_any_datagram_is_read(data: bytes) -> None:
    heard = SipOptions(FLOW, Random(1)).received(data)
    assert heard.answers or heard.news in (0, len(data))


def test_addresses_of_version_6_stand_in_brackets() -> None:
    flow = Flow(17, ip_address("2001:db8::5"), 5062, ip_address("2001:db8::1"), 5060)
    request = Message.parse(SipOptions(flow, Random(1)).ping(Random(2)))
    assert request.via[0].host == "[2001:db8::5]" and b"OPTIONS sip:[2001:db8::1]:5060 " in bytes(request)


def test_stun_indications_have_a_new_number_each_time() -> None:
    """RFC 8489 section 5: type 0x0011, no attributes, the magic cookie."""
    one = app(protocol="stun")
    said = [words(one.timeout(now=0.0))[0] for _ in range(5)]
    assert all(len(word) == 20 and word[:8] == b"\0\x11\0\0\x21\x12\xa4\x42" for word in said)
    assert len(set(said)) == 5


def test_payload_may_be_any_bytes() -> None:
    """The NAT keep-alive of ESP is one byte (RFC 3948 section 2.3)."""
    assert words(app(payload_hex="ff").timeout(now=0.0)) == [b"\xff"]
    assert words(app(payload="\r\n\r\n").timeout(now=0.0)) == [b"\r\n\r\n"]


@pytest.mark.parametrize(
    "table, key",
    [
        ({}, "protocol"),
        ({"protocol": "mqtt"}, "protocol"),
        ({"protocol": "auto"}, "protocol"),
        ({"protocol": "sip", "payload_hex": "ff"}, "payload"),
        ({"payload": "x", "payload_hex": "ff"}, "payload_hex"),
        ({"payload_hex": ""}, "payload_hex"),
        ({"payload_hex": "f"}, "payload_hex"),
        ({"payload_hex": 255}, "payload_hex"),
        ({"protocol": "sip", "transport": "sctp"}, "transport"),
    ],
)
def test_wrong_settings_over_udp_name_their_key(table: Mapping[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        KeepAlive.settings({"transport": "udp", "ports": [5060], **table})
    assert caught.value.key == key
