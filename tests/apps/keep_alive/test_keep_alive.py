"""The keep-alive proxy on a virtual clock (A3)."""

from collections.abc import Mapping
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import pytest

from locum.apps.keep_alive.proxy import MAX_ANSWERS, MAX_SPENT, KeepAlive
from locum.apps.keep_alive.web import QUIET
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, Keep, Leave, Replace, SettingError, Speak, Tell
from locum.wire.control import Flow

HOME, PEER = ip_address("10.9.0.5"), ip_address("192.0.2.1")


def flow(port: int, protocol: int = 6) -> Flow:
    return Flow(protocol, HOME, 40000, PEER, port)


def app(**table: JSON) -> KeepAlive:
    return KeepAlive(KeepAlive.settings(table), Random(1))


def words(effects: list[Effect]) -> list[tuple[int, bytes]]:
    return [(effect.session, effect.data) for effect in effects if isinstance(effect, Speak)]


def test_first_word_at_once_and_then_each_interval() -> None:
    """Also the first: the device may have been silent for long."""
    one = app(interval=10.0, jitter=2.0)
    one.begin([AppSession(3, flow(1883))], {}, now=100.0)
    assert one.deadline() == 100.0
    times = [100.0]
    for _ in range(50):
        assert words(one.timeout(now=times[-1])) == [(3, b"\xc0\x00")]
        at = one.deadline()
        assert at is not None
        times.append(at)
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert all(8.0 <= step <= 10.0 for step in steps) and len(set(steps)) > 10
    assert one.end(now=times[-1]) == {"result": {"keepalives": {"3": 50}}}


@pytest.mark.parametrize("port, wanted", [(1883, b"\xc0\x00"), (6667, b"PING :locum\r\n")])
def test_protocols_by_port(port: int, wanted: bytes) -> None:
    one = app()
    assert KeepAlive.wants(KeepAlive.settings({}), flow(port))
    one.begin([AppSession(0, flow(port))], {}, now=0.0)
    assert words(one.timeout(now=0.0)) == [(0, wanted)]


def test_websocket_ping_is_masked_with_another_key_each_time() -> None:
    """RFC 6455 section 5.3: the masking key is unpredictable."""
    one = app(protocol="websocket", ports=[8080])
    one.begin([AppSession(0, flow(8080))], {}, now=0.0)
    frames = {words(one.timeout(now=0.0))[0][1] for _ in range(20)}
    assert len(frames) > 15 and all(frame[:2] == b"\x89\x85" and len(frame) == 11 for frame in frames)


def test_unknown_ports_and_datagrams_are_left() -> None:
    settings = KeepAlive.settings({})
    assert not KeepAlive.wants(settings, flow(80)) and not KeepAlive.wants(settings, flow(1883, 17))
    payload = KeepAlive.settings({"payload": "hi", "ports": [80]})
    assert KeepAlive.wants(payload, flow(80)) and not KeepAlive.wants(payload, flow(1883))


def test_nothing_is_said_in_the_middle_of_a_message() -> None:
    one = app()
    effects = one.begin([AppSession(0, flow(1883), whole=False), AppSession(1, flow(1883))], {}, now=0.0)
    assert [effect.session for effect in effects if isinstance(effect, Leave)] == [0]
    assert [number for number, _ in words(one.timeout(now=0.0))] == [1]


def test_ended_session_is_told_and_left() -> None:
    one = app()
    one.begin([AppSession(0, flow(1883))], {}, now=0.0)
    assert one.closed(0, 104, now=1.0) == [Tell("session_ended", 0, {"error": 104, "protocol": "mqtt"})]
    assert one.deadline() is None and one.closed(0, 104, now=1.0) == []


@pytest.mark.parametrize(
    "table, key",
    [
        ({"interval": 0.5}, "interval"),
        ({"interval": "30"}, "interval"),
        ({"interval": True}, "interval"),
        ({"interval": 10, "jitter": 11}, "jitter"),
        ({"protocol": "ssh", "ports": [22]}, "protocol"),
        ({"protocol": "mqtt"}, "ports"),
        ({"payload": "", "ports": [1]}, "payload"),
        ({"payload": "x" * 1025, "ports": [1]}, "payload"),
        ({"payload": "x", "protocol": "irc", "ports": [1]}, "payload"),
        ({"ports": []}, "ports"),
        ({"ports": [0]}, "ports"),
        ({"ports": [443]}, "ports"),
        ({"ports": [True]}, "ports"),
        ({"protocol": "auto", "ports": [80]}, "ports"),
        ({"protocol": 3, "ports": [80]}, "protocol"),
        ({"on_data": "reconnect"}, "on_data"),
        ({"on_data": 7}, "on_data"),
        ({"on_end": "resume"}, "on_end"),
        ({"intervall": 3}, "intervall"),
    ],
)
def test_wrong_settings_name_their_key(table: Mapping[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        KeepAlive.settings(table)
    assert caught.value.key == key


def test_auto_leaves_encrypted_ports_with_a_reason() -> None:
    settings = KeepAlive.settings({"protocol": "auto"})
    assert all(KeepAlive.wants(settings, flow(port)) for port in (22, 80, 443, 1883, 5222, 6667, 8883))
    one = KeepAlive(settings, Random(1))
    effects = one.begin([AppSession(0, flow(22)), AppSession(1, flow(8883))], {}, now=0.0)
    reasons = [effect.reason for effect in effects if isinstance(effect, Leave)]
    assert len(reasons) == 2 and all("the connection's keys" in reason for reason in reasons)
    assert one.deadline() is None


@pytest.mark.parametrize("port", [1883, 6667, 5222, 80])
def test_encrypted_session_is_left_at_its_first_bytes(port: int) -> None:
    one = app(protocol="auto")
    one.begin([AppSession(0, flow(port))], {}, now=0.0)
    (left,) = one.received(0, b"\x17\x03\x03\x00\x20" + bytes(32), now=1.0)
    assert isinstance(left, Leave) and one.timeout(now=2.0) == []
    assert one.received(0, b"more", now=3.0) == [] and one.closed(0, 0, now=4.0) == []


@pytest.mark.parametrize("port", [80, 5222])
def test_nothing_is_said_while_a_protocol_is_uncertain(port: int) -> None:
    one = app(protocol="auto")
    one.begin([AppSession(0, flow(port))], {}, now=0.0)
    assert words(one.timeout(now=0.0)) == []
    said = one.received(0, b"HTTP/1.1 408 Request Timeout\r\n\r\n", now=1.0)
    assert words(said) == [] and words(one.timeout(now=30.0)) == []
    (ended,) = one.closed(0, 0, now=31.0)
    assert isinstance(ended, Tell) and ended.kind == "session_ended"


def test_ping_of_an_irc_server_is_answered_once() -> None:
    one = app(on_data="event")
    one.begin([AppSession(0, flow(6667))], {}, now=0.0)
    assert words(one.received(0, b"PING :irc.exa", now=1.0)) == []
    assert one.received(0, b"mple\r\n", now=1.0) == [Speak(0, b"PONG :irc.example\r\n")]
    assert one.end(now=2.0) == {"result": {"keepalives": {"0": 0}, "answered": {"0": 1}}}


def test_answers_between_two_keep_alives_are_bounded() -> None:
    one = app()
    one.begin([AppSession(0, flow(6667))], {}, now=0.0)
    flood = b"PING :x\r\n" * 1000
    (said,) = words(one.received(0, flood, now=1.0))
    assert said[1] == b"PONG :x\r\n" * MAX_ANSWERS
    assert one.received(0, flood, now=2.0) == []
    one.timeout(now=30.0)
    assert len(words(one.received(0, flood, now=31.0))) == 1


def folded(effects: list[Effect]) -> list[Tell]:
    """Events about data, without those that name each message of a broker."""
    return [effect for effect in effects if isinstance(effect, Tell) and effect.kind != "published"]


def test_data_is_told_at_once_and_then_once_an_interval() -> None:
    one = app(on_data="event")
    one.begin([AppSession(0, flow(1883))], {}, now=0.0)
    assert one.received(0, b"\xd0\x00", now=1.0) == []
    publish = b"\x30\x07\x00\x04newsX"
    first: Mapping[str, JSON] = {"protocol": "mqtt", "bytes": len(publish)}
    assert folded(one.received(0, publish, now=2.0)) == [Tell("message_available", 0, first)]
    assert [folded(one.received(0, publish, now=now)) for now in (3.0, 4.0)] == [[], []]
    told = [effect for effect in one.timeout(now=30.0) if isinstance(effect, Tell)]
    assert told == [Tell("message_available", 0, {"protocol": "mqtt", "bytes": 2 * len(publish)})]
    assert [effect for effect in one.timeout(now=60.0) if isinstance(effect, Tell)] == []


@pytest.mark.parametrize("chosen", ["hold", "event", "wake"])
def test_ends_and_data_are_told_as_chosen(chosen: str) -> None:
    """A wake is a mark in the event, for those that page the device."""
    one = app(on_data=chosen, on_end=chosen)
    one.begin([AppSession(0, flow(1883))], {}, now=0.0)
    told = one.received(0, b"\x30\x07\x00\x04newsX", now=2.0) + one.closed(0, 104, now=3.0)
    details = [effect.detail for effect in folded(told)]
    assert len(details) == (0 if chosen == "hold" else 2)
    assert all(detail.get("wake", False) is (chosen == "wake") for detail in details)


def test_data_is_held_in_silence_by_default() -> None:
    one = app()
    one.begin([AppSession(0, flow(1883))], {}, now=0.0)
    assert one.received(0, b"\x30\x07\x00\x04newsX", now=2.0) == []


def test_websocket_of_an_earlier_sleep_is_still_one() -> None:
    """Its first ping is answered at once; other connections have to show what they are."""
    one = app(protocol="auto")
    sessions = [AppSession(0, flow(8080)), AppSession(1, flow(80))]
    one.begin(sessions, {}, now=0.0)
    ping = b"\x89\x04ping"
    assert words(one.received(0, ping, now=1.0)) == []
    effects = one.received(0, ping, now=2.0)
    assert len(words(effects)) == 1
    (kept,) = [effect.state for effect in effects if isinstance(effect, Keep)]
    state = one.end(now=3.0)
    assert state["websockets"] == kept["websockets"] == [str(flow(8080))]
    for given in (state, kept):
        again = app(protocol="auto")
        again.begin([AppSession(4, flow(8080)), AppSession(5, flow(80))], given, now=9.0)
        assert [number for number, _ in words(again.received(4, ping, now=9.5))] == [4]
        assert words(again.received(5, ping, now=9.5)) == []
    wrong = app(protocol="auto")
    wrong.begin([AppSession(4, flow(8080))], {"websockets": 7}, now=9.0)
    assert words(wrong.received(4, ping, now=9.5)) == []


def test_single_ping_is_answered_after_a_silence() -> None:
    """A server that pings once, and waits for the pong, is not kept waiting until its next ping (RFC 6455 section 5.5.2)."""
    one = app(protocol="auto", interval=100.0, jitter=0.0)
    one.begin([AppSession(0, flow(8080)), AppSession(1, flow(80))], {}, now=0.0)
    assert words(one.timeout(now=0.0)) == []
    assert words(one.received(0, b"\x89\x04ping", now=1.0)) == []
    assert words(one.received(1, b"\x89\x04ping", now=1.5)) == []
    assert one.deadline() == 1.0 + QUIET
    assert words(one.received(1, b"no frame", now=1.9)) == []
    effects = one.timeout(now=2.0)
    ((number, answer),) = words(effects)
    assert number == 0 and answer[:2] == b"\x8a\x84"
    assert [effect.state for effect in effects if isinstance(effect, Keep)] == [
        {"websockets": [str(flow(8080))]}
    ]
    assert one.deadline() == 100.0
    assert [number for number, _ in words(one.timeout(now=100.0))] == [0]
    assert len(words(one.received(0, b"\x89\x04ping", now=101.0))) == 1


def test_ended_connection_is_not_answered_later() -> None:
    one = app(protocol="auto")
    one.begin([AppSession(0, flow(8080)), AppSession(1, flow(80))], {}, now=0.0)
    one.received(0, b"\x89\x04ping", now=1.0)
    one.closed(0, 0, now=1.1)
    assert words(one.timeout(now=5.0)) == []


def _left_out(effects: list[Effect]) -> list[tuple[int, int, bytes]]:
    return [(effect.start, effect.length, effect.data) for effect in effects if isinstance(effect, Replace)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_program_may_do_without_answers_of_a_broker(size: int) -> None:
    """All PINGRESP but the first, for which the program may wait, however they arrive; the process is a second one."""
    one = app()
    one.begin([AppSession(0, flow(1883), shown=1000)], {}, now=0.0)
    stream = b"\xd0\x00" + b"\x30\x05\x00\x01t\xd0\x00" + b"\xd0\x00" + b"\x40\x02\x00\x07" + b"\xd0\x00"
    effects: list[Effect] = []
    for start in range(0, len(stream), size):
        effects += one.received(0, stream[start : start + size], now=0.0)
    assert _left_out(effects) == [(1009, 2, b""), (1015, 2, b"")]


@pytest.mark.parametrize("size", [1, 5, 100])
def test_program_may_do_without_answers_of_an_irc_server(size: int) -> None:
    one = app()
    one.begin([AppSession(0, flow(6667))], {}, now=0.0)
    lines = [
        b":irc PRIVMSG me :hello\r\n",
        b":irc PONG irc :locum\r\n",
        b"PING :x\r\n",
        b"PONG :own\r\n",
        b"PONG :locum\n",
    ]
    stream = b"".join(lines)
    effects: list[Effect] = []
    for start in range(0, len(stream), size):
        effects += one.received(0, stream[start : start + size], now=0.0)
    wanted = [(stream.index(line), len(line), b"") for line in (lines[1], lines[4])]
    assert _left_out(effects) == wanted


def test_broker_that_is_none_loses_no_byte() -> None:
    one = app()
    one.begin([AppSession(0, flow(1883))], {}, now=0.0)
    assert not _left_out(one.received(0, b"\xd0\x00HTTP\xd0\x00\xd0\x00", now=0.0))


def test_broker_that_answers_without_end_is_left_to_the_program() -> None:
    one = app()
    one.begin([AppSession(0, flow(1883))], {}, now=0.0)
    flood = b"\xd0\x00" * 20_000
    assert len(one.received(0, flood, now=1.0)) == MAX_SPENT
    assert one.received(0, flood, now=2.0) == []
    one.timeout(now=60.0)
    assert len(one.received(0, flood, now=61.0)) == MAX_SPENT
