"""Arriving bytes of each protocol, in pieces of any length, and bytes that are none of it (A3)."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.keep_alive.conversation import Conversation, Fixed, Sip, is_tls
from locum.apps.keep_alive.irc import MAX_LINE, Irc
from locum.apps.keep_alive.mqtt import Mqtt
from locum.apps.keep_alive.settings import PROTOCOLS
from locum.apps.keep_alive.web import Web
from locum.apps.keep_alive.websocket import PONG, WebSocket, frame
from locum.apps.keep_alive.xmpp import MAX_STANZA, Xmpp

PING_IQ = b"<iq from='a.example' id='p&amp;1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>"
ANSWER_IQ = b'<iq type=\'result\' id="p&amp;1" to="a.example"/>'
MESSAGE = b"<message from='b@a.example'><body>hello</body></message>"
TEXT = b"\x81\x0bhello world"

# Bytes, the answers to them, and how many bytes are news.
Case = tuple[Callable[[], Conversation], bytes, tuple[bytes, ...], int]
CASES: dict[str, Case] = {
    "mqtt": (Mqtt, b"\xd0\x00\x30\x03\x00\x01a\xd0\x00\x40\x02\x00\x01", (), 9),
    "mqtt_long": (Mqtt, b"\x32\x80\x02" + bytes(256), (), 259),
    "irc": (
        Irc,
        b":a.example PING :1\r\nPING x\n:b!c@d PRIVMSG e :PING :f\r\n",
        (b"PONG :1\r\n", b"PONG x\r\n"),
        27,
    ),
    "irc_pong": (Irc, b":a.example PONG a.example :locum\r\n@t=1 PING :2\r\n", (b"PONG :2\r\n",), 0),
    "websocket_data": (
        lambda: WebSocket(Random(1)),
        TEXT + b"\x8a\x00\xc1\x7e\x00\x7e" + bytes(126),
        (),
        143,
    ),
    "xmpp": (Xmpp, MESSAGE, (), len(MESSAGE)),
    "xmpp_ping": (Xmpp, PING_IQ, (ANSWER_IQ,), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_and_news_in_one_piece(name: str) -> None:
    make, data, answers, news = CASES[name]
    conversation = make()
    heard = conversation.received(data)
    assert (heard.answers, heard.news, heard.leave, conversation.lost) == (answers, news, "", False)


@pytest.mark.parametrize("name", CASES)
def test_answers_do_not_depend_on_pieces(name: str) -> None:
    make, data, answers, _ = CASES[name]
    conversation = make()
    found = [answer for byte in data for answer in conversation.received(bytes((byte,))).answers]
    assert tuple(found) == answers and not conversation.lost


def test_pong_has_the_payload_of_the_ping() -> None:
    """RFC 6455 section 5.5.3."""
    heard = WebSocket(Random(7)).received(TEXT + b"\x89\x04abcd" + TEXT)
    (answer,) = heard.answers
    assert answer == frame(PONG, b"abcd", Random(7)) and heard.news == 2 * len(TEXT)
    key, masked = answer[2:6], answer[6:]
    assert answer[:2] == b"\x8a\x84" and bytes(a ^ b for a, b in zip(masked, key, strict=True)) == b"abcd"


@pytest.mark.parametrize(
    "data",
    [
        b"\x83\x00",  # reserved opcode
        b"\x09\x00",  # a fragmented ping
        b"\xc9\x00",  # a compressed ping
        b"\x89\x7e\x00\x80",  # a long ping
        b"\x81\x85",  # masked by a server
        b"\x81\x7e\x00\x7d",  # a length in more bytes than it needs
        b"\x81\x7f" + b"\xff" * 8,
    ],
)
def test_frames_no_server_sends_end_the_answers(data: bytes) -> None:
    one = WebSocket(Random(1))
    one.received(data)
    assert one.lost and one.received(b"\x89\x00").answers == ()


@pytest.mark.parametrize("data", [b"\x10\x00", b"\xd1\x00", b"\xd0\x01", b"\x30\xff\xff\xff\xff"])
def test_packets_no_broker_sends_end_the_reading(data: bytes) -> None:
    one = Mqtt()
    assert one.received(data).news > 0
    assert one.lost and one.ping(Random(1)) == b"\xc0\x00"


def test_xmpp_is_silent_until_a_stanza_was_readable() -> None:
    one = Xmpp()
    assert one.ping(Random(1)) == b"" and one.received(MESSAGE[:-1]).answers == ()
    assert one.ping(Random(1)) == b""
    one.received(MESSAGE[-1:])
    assert one.ping(Random(1)) == b" "


@pytest.mark.parametrize(
    "data",
    [
        b"not xml",
        b"</message>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><message/>",
        b"<message>&b;</message>",
        b"<message a='" + b"x" * MAX_STANZA,
    ],
)
def test_xmpp_that_is_not_readable_is_never_answered(data: bytes) -> None:
    one = Xmpp()
    one.received(data)
    assert one.lost and one.ping(Random(1)) == b"" and one.received(PING_IQ).answers == ()


@pytest.mark.parametrize(
    "data",
    [
        PING_IQ.replace(b"get", b"set"),
        PING_IQ.replace(b"urn:xmpp:ping", b"jabber:iq:version"),
        PING_IQ.replace(b"id='p&amp;1' ", b""),
        b"<message><iq id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq></message>",
    ],
)
def test_other_stanzas_are_no_pings(data: bytes) -> None:
    assert Xmpp().received(data).answers == ()


def test_irc_line_without_end_is_passed_over() -> None:
    one = Irc()
    assert one.received(b"x" * (MAX_LINE + 1)).news == MAX_LINE + 1
    assert one.received(b"PING :in the middle\r\nPING :next\r\n").answers == (b"PONG :next\r\n",)


PACKED = b"\xc1\x04" + b"\xff" * 4  # compressed (RFC 7692)


@pytest.mark.parametrize(
    "pieces", [[PACKED, b"\x89\x01x"], [PACKED + b"\x89\x01x"], [TEXT, TEXT], [b"\x89\x01x"] * 2, [TEXT * 4]]
)
def test_whole_frames_show_a_websocket(pieces: list[bytes]) -> None:
    """Pings that came before it was sure are answered then."""
    one = Web(Random(1))
    heard = [(one.received(piece).answers, one.sure) for piece in pieces]
    assert heard[:-1] == [((), False)] * (len(pieces) - 1)
    answers, sure = heard[-1]
    assert sure and not one.lost and one.ping(Random(1))[:2] == b"\x89\x85"
    assert len(answers) == b"".join(pieces).count(b"\x89")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\x89\x01x"],  # three bytes may be anything
        [PACKED],
        [TEXT[:-1]],
        [bytes((byte,)) for byte in PACKED * 2],  # a single byte fits everywhere
        [b"HTTP/1.1 200 OK\r\n\r\n", TEXT, TEXT, TEXT],
        [b"\x00" * 4, b"\x83\x00", TEXT, TEXT, TEXT],
    ],
)
def test_uncertain_bytes_show_no_websocket(pieces: list[bytes]) -> None:
    one = Web(Random(1))
    assert all(one.received(piece).answers == () for piece in pieces)
    assert not one.sure and one.ping(Random(1)) == b"" and not one.lost


def test_ping_with_silence_behind_it_shows_a_websocket() -> None:
    one = Web(Random(1))
    assert one.received(b"\x89\x01x").answers == () and one.waits
    (answer,) = one.quiet()
    assert answer[:2] == b"\x8a\x81"
    assert one.sure
    assert one.received(b"\x89\x01y").answers != ()


@pytest.mark.parametrize(
    "pieces",
    [
        [TEXT],  # asks nothing
        [b"\x89\x02x"],  # half of a ping
        [b"\x89", b"\x01", b"x"],  # a single byte fits everywhere
        [b"HTTP/1.1 200 OK\r\n\r\n"],
        [b"\x89PNG\r\n\x1a\n" + bytes(74)],  # a small picture, which has the form of a ping
    ],
)
def test_silence_behind_other_bytes_shows_nothing(pieces: list[bytes]) -> None:
    one = Web(Random(1))
    for piece in pieces:
        one.received(piece)
    assert not one.waits or (one.quiet() == () and not one.sure)


class Counted(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        found: Any = bytes.__getitem__(self, key)
        Counted.copied += len(found) if isinstance(found, bytes) else 0
        return found


@pytest.mark.parametrize(
    "make, packet", [(Mqtt, b"\x30\x02\x00\x00"), (lambda: WebSocket(Random(1)), b"\x89\x02ab")]
)
def test_many_packets_in_one_arrival_are_read_once(make: Callable[[], Conversation], packet: bytes) -> None:
    """Bytes that are copied grow with the arrival, not with its square."""
    Counted.copied = 0
    data = Counted(packet * 5_000)
    conversation = make()
    heard = conversation.received(data)
    assert not conversation.lost and (heard.news, len(heard.answers)) in {(20_000, 0), (0, 5_000)}
    assert Counted.copied <= len(data)


def test_websocket_that_is_sure_may_be_lost_later() -> None:
    one = Web(Random(1))
    one.received(TEXT * 4)
    one.received(b"\x83\x00")
    assert one.lost and one.ping(Random(1)) == b""


def test_sip_and_payloads_say_the_same_each_time() -> None:
    assert Sip().ping(Random(1)) == b"\r\n\r\n" and Sip().received(b"\r\n").news == 0
    assert Fixed(b"hi").ping(Random(1)) == b"hi" and Fixed(b"hi").received(b"abc").news == 3


def test_tls_records_are_known_by_type_version_and_length() -> None:
    assert is_tls(b"\x17\x03\x03\x00\x20") and is_tls(b"\x16\x03\x01\x02\x00\x01")
    assert not any(
        map(
            is_tls,
            (b"\x17\x03\x03", b"\x17\x03\x05\x00\x20", b"\x17\x03\x03\x00\x00", b"\x30\x03\x03\x00\x20"),
        )
    )


@given(name=st.sampled_from(sorted(PROTOCOLS)), pieces=st.lists(st.binary(max_size=64), max_size=20))
def test_any_bytes_are_taken(name: str, pieces: list[bytes]) -> None:
    conversation = PROTOCOLS[name](Random(1))
    for piece in pieces:
        heard = conversation.received(piece)
        assert 0 <= heard.news <= sum(map(len, pieces))
    conversation.ping(Random(1))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pongs_to_own_pings_are_spent(size: int) -> None:
    """A pong with another payload is for a ping of the program."""
    pong = b"\x8a\x05locum"
    data = TEXT + pong + b"\x8a\x01y\x89\x01x" + TEXT + pong
    one = WebSocket(Random(1))
    heard = [one.received(data[start : start + size]) for start in range(0, len(data), size)]
    ranges = [place for part in heard for place in part.spent]
    assert [data[start : start + length] for start, length in ranges] == [pong, pong]
