"""Connections in the place of ended ones, on a virtual clock (A3, A11)."""

import base64
import hashlib
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import pytest

from locum.apps.keep_alive.opening import MAX_HEAD, MqttClient, MqttOpening, WebSocketOpening, WebSocketPlace
from locum.apps.keep_alive.proxy import KeepAlive
from locum.apps.keep_alive.published import Published
from locum.apps.keep_alive.resuming import ENOUGH_UNREAD, LAST_RETRY, MAX_UNREAD, PATIENCE
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, Keep, Note, SettingError, Tell
from locum.roles.app_network import (
    Abort,
    Connect,
    Data,
    Ended,
    Finish,
    HandOver,
    Happening,
    Opened,
    Pause,
    Send,
)
from locum.wire.control import Flow

HOME, PEER = ip_address("10.9.0.5"), ip_address("192.0.2.1")
FLOW = Flow(6, HOME, 40000, PEER, 1883)
MQTT: Mapping[str, JSON] = {
    "protocol": "mqtt",
    "ports": [1883],
    "interval": 20.0,
    "jitter": 0.0,
    "on_end": "reconnect",
    "on_data": "event",
    "client_id": "sleeper",
}
CONNECT = b"\x10\x13\x00\x04MQTT\x04\x00\x00\x3c\x00\x07sleeper"
"""Without the clean session flag, keep alive 60 seconds (MQTT 3.1.1 section 3.1)."""
CONNACK_PRESENT = b"\x20\x02\x01\x00"
PUBLISH = b"\x32\x09\x00\x04news\x00\x07X"


class World:
    """One session that has ended, and the proxy that opens another one."""

    def __init__(self, table: Mapping[str, JSON], flow: Flow = FLOW) -> None:
        self.now = 100.0
        self.app = KeepAlive(KeepAlive.settings(table), Random(1))
        self.app.begin([AppSession(3, flow)], {}, now=self.now)
        self.app.timeout(now=self.now)
        self.effects = self.app.closed(3, 104, now=self.now)

    def at_deadline(self) -> list[Effect]:
        at = self.app.deadline()
        assert at is not None
        self.now = max(at, self.now)
        return self.app.timeout(now=self.now)

    def happens(self, event: Happening) -> list[Effect]:
        return self.app.happened(event, now=self.now)

    def open(self, *answers: bytes) -> list[Effect]:
        """The effects of the last answer."""
        assert [effect for effect in self.at_deadline() if isinstance(effect, Connect)]
        effects = self.happens(Opened(3, str(PEER)))
        for answer in answers:
            effects = self.happens(Data(3, answer))
        return effects


def words(effects: list[Effect]) -> list[bytes]:
    return [effect.data for effect in effects if isinstance(effect, Send)]


def told(effects: list[Effect]) -> list[tuple[str, Mapping[str, JSON]]]:
    return [(effect.kind, effect.detail) for effect in effects if isinstance(effect, Tell)]


def test_mqtt_session_goes_on_in_a_new_connection() -> None:
    world = World(MQTT)
    assert told(world.effects) == [("session_ended", {"error": 104, "protocol": "mqtt"})]
    assert world.at_deadline() == [Connect(3, str(PEER), 1883)]
    assert words(world.happens(Opened(3, str(PEER)))) == [CONNECT]
    assert world.happens(Data(3, CONNACK_PRESENT[:3])) == []
    assert told(world.happens(Data(3, CONNACK_PRESENT[3:] + PUBLISH))) == [
        ("session_resumed", {"session_present": True}),
        (
            "published",
            {"protocol": "mqtt", **Published("news", "X", 1, 1, False).detail()},
        ),
        ("message_available", {"protocol": "mqtt", "bytes": len(PUBLISH)}),
    ]
    assert [words(world.at_deadline()) for _ in range(3)] == [[b"\xc0\x00"]] * 3
    assert world.app.ending(now=world.now) == [Send(3, b"\xe0\x00"), Finish(3)]
    result = world.app.end(now=world.now)["result"]
    assert isinstance(result, dict) and result["resumed"] == {"3": 1}


SUBACK = b"\x90\x03\x00\x01\x01"


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("answer, rest", [(SUBACK, b""), (SUBACK + PUBLISH, PUBLISH), (PUBLISH, PUBLISH)])
def test_topics_are_subscribed_where_the_broker_has_no_session(answer: bytes, rest: bytes, size: int) -> None:
    """A message may come before the answer."""
    opening = MqttOpening(MqttClient("a", 60, topics=("news",)))
    assert opening.received(b"\x20\x02\x00\x00").say == b"\x82\x09\x00\x01\x00\x04news\x01"
    for start in range(0, len(answer), size):
        step = opening.received(answer[start : start + size])
        if step.opened:
            break
    assert step.opened and step.detail == {"session_present": False}
    assert step.rest + answer[start + size :] == rest


def test_credentials_are_sent() -> None:
    first = MqttOpening(MqttClient("a", 60, "ann", "secret")).first(Random(1))
    assert first == b"\x10\x1a\x00\x04MQTT\x04\xc0\x00\x3c\x00\x01a\x00\x03ann\x00\x06secret"


@pytest.mark.parametrize(
    "answer, later",
    [
        (b"\x20\x02\x00\x03", True),
        (b"\x20\x02\x00\x05", False),
        (b"HTTP", False),
        (b"\x20\x02\x00\x63", False),
    ],
)
def test_refusals_of_a_broker_end_it_or_are_tried_later(answer: bytes, later: bool) -> None:
    world = World(MQTT)
    effects = world.open(answer)
    assert Abort(3) in effects
    world.happens(Ended(3))
    if later:
        assert isinstance(world.at_deadline()[0], Connect)
    else:
        assert [kind for kind, _ in told(effects)] == ["resume_failed"] and world.app.deadline() is None


def test_unreachable_correspondent_is_tried_less_and_less_often() -> None:
    world = World(MQTT)
    times = []
    for _ in range(14):
        assert [effect for effect in world.at_deadline() if isinstance(effect, Connect)]
        times.append(world.now)
        (note,) = world.happens(Ended(3, "connection refused"))
        assert isinstance(note, Note) and "connection refused" in note.text
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0] and waits[-1] == LAST_RETRY


def test_silent_server_is_given_up_after_a_time() -> None:
    world = World(MQTT)
    world.open()
    opened_at = world.now
    assert Abort(3) in world.at_deadline() and world.now == opened_at + PATIENCE
    assert world.happens(Ended(3)) == []
    assert isinstance(world.at_deadline()[0], Connect)


def test_server_that_hangs_up_again_and_again_is_tried_later() -> None:
    """Each attempt after a longer time, since none of the connections was open for long."""
    world, times = World(MQTT), []
    for _ in range(5):
        world.open(CONNACK_PRESENT)
        times.append(world.now)
        assert Abort(3) in world.happens(Data(3, b""))
        assert world.happens(Ended(3)) == []
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [1, 2, 4, 8]


def test_connection_is_handed_to_a_program_that_waits() -> None:
    world = World({**MQTT, "label": "feed"})
    world.open(CONNACK_PRESENT + PUBLISH)
    world.happens(Data(3, PUBLISH))
    assert world.app.ending(now=world.now) == [HandOver(3, "feed", 2 * PUBLISH)]


def test_much_unread_is_waited_with_and_too_much_is_not_handed() -> None:
    world = World({**MQTT, "label": "feed"})
    world.open(CONNACK_PRESENT)
    assert Pause(3) in world.happens(Data(3, bytes(ENOUGH_UNREAD)))
    assert Pause(3) not in world.happens(Data(3, bytes(1)))
    (note,) = [effect for effect in world.happens(Data(3, bytes(MAX_UNREAD))) if isinstance(effect, Note)]
    assert "not handed over" in note.text
    assert Finish(3) in world.app.ending(now=world.now)


def test_next_process_of_the_sleep_opens_it_again() -> None:
    """Not that of a later sleep, whose connection of the same ports is alive."""
    (state,) = [effect.state for effect in World(MQTT).effects if isinstance(effect, Keep)]
    for shown, wanted in ((70, True), (0, False)):
        again = KeepAlive(KeepAlive.settings(MQTT), Random(1))
        again.begin([AppSession(3, FLOW, shown=shown)], state, now=5.0)
        effects = again.timeout(now=5.0)
        assert any(isinstance(effect, Connect) for effect in effects) is wanted


def test_connection_that_was_no_mqtt_is_not_opened_again() -> None:
    app = KeepAlive(KeepAlive.settings(MQTT), Random(1))
    app.begin([AppSession(3, FLOW)], {}, now=0.0)
    app.received(3, b"HTTP/1.1 400 Bad Request\r\n\r\n", now=1.0)
    assert [kind for kind, _ in told(app.closed(3, 0, now=2.0))] == ["session_ended"]
    assert app.deadline() is None


def test_payload_begins_with_its_opening_words() -> None:
    table: Mapping[str, JSON] = {"payload": "x", "ports": [9], "on_end": "reconnect", "opening": "HELLO\r\n"}
    world = World(table, Flow(6, HOME, 40000, PEER, 9))
    effects = world.open()
    assert words(effects) == [b"HELLO\r\n"] and told(effects) == [("session_resumed", {})]
    assert words(world.at_deadline()) == [b"x"]
    assert world.app.ending(now=world.now) == [Finish(3)]


# WebSocket ------------------------------------------------------------------------------------------------------------

WEB: Mapping[str, JSON] = {"protocol": "websocket", "ports": [8080], "on_end": "reconnect", "path": "/feed"}


def _answer(request: bytes, fields: str = "") -> bytes:
    (key,) = [
        line.split(b": ")[1] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")
    ]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    accept = base64.b64encode(digest).decode()
    head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    return head.encode()


def test_websocket_begins_anew_and_is_answered_for() -> None:
    world = World(WEB, Flow(6, HOME, 40000, PEER, 8080))
    (request,) = words(world.open())
    assert request.startswith(b"GET /feed HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n")
    effects = world.happens(Data(3, _answer(request) + b"\x89\x02hi"))
    assert told(effects) == [("session_resumed", {})]
    (pong,) = words(effects)
    assert pong[:2] == b"\x8a\x82"
    ping = [word for word in words(world.at_deadline()) if word[:1] == b"\x89"]
    assert len(ping) == 1
    farewell, end = world.app.ending(now=world.now)
    assert isinstance(farewell, Send) and farewell.data[:2] == b"\x88\x82" and end == Finish(3)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda _: b"HTTP/1.1 404 Not Found\r\n\r\n", "404"),
        (lambda answer: answer.replace(b"Accept: ", b"Accept: x"), "no handshake"),
        (lambda answer: answer[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "extensions"),
        (lambda answer: answer[:-2] + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n", "subprotocol"),
        (lambda _: b"x" * (MAX_HEAD + 1), "no end"),
        (lambda answer: answer[:-2] + b"x: " + b"y" * MAX_HEAD + b"\r\n\r\n", "more than"),
        (lambda _: b"\xff\xfe\r\n\r\n", "answers"),
    ],
)
def test_wrong_answers_to_a_websocket_handshake(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    opening = WebSocketOpening(WebSocketPlace("h", "/"))
    step = opening.received(change(_answer(opening.first(Random(1)))))
    assert reason in step.refused and not step.opened and not step.later


def test_server_that_is_not_ready_is_asked_later() -> None:
    opening = WebSocketOpening(WebSocketPlace("h", "/"))
    opening.first(Random(1))
    assert opening.received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").later


@pytest.mark.parametrize(
    "table, key",
    [
        ({"protocol": "irc", "ports": [6667]}, "on_end"),
        ({"protocol": "xmpp", "ports": [5222]}, "on_end"),
        ({}, "on_end"),
        ({"transport": "udp", "payload": "x", "ports": [9]}, "on_end"),
        ({"protocol": "mqtt", "ports": [1883]}, "client_id"),
        ({"protocol": "mqtt", "ports": [1883], "client_id": "a", "password": "x"}, "user"),
        ({"protocol": "mqtt", "ports": [1883], "client_id": "a", "path": "/"}, "path"),
        ({"protocol": "mqtt", "ports": [1883], "client_id": "a", "topics": "news"}, "topics"),
        ({"protocol": "mqtt", "ports": [1883], "client_id": "a", "topics": ["x"] * 17}, "topics"),
        ({"protocol": "mqtt", "ports": [1883], "client_id": "a", "label": "x" * 65}, "label"),
        ({"protocol": "websocket", "ports": [80]}, "path"),
        ({"protocol": "websocket", "ports": [80], "path": "feed"}, "path"),
        ({"protocol": "websocket", "ports": [80], "path": "/a b"}, "path"),
        ({"protocol": "websocket", "ports": [80], "path": "/", "host": "a b"}, "host"),
        ({"protocol": "websocket", "ports": [80], "path": "/", "subprotocol": ""}, "subprotocol"),
        ({"payload": "x", "ports": [9], "opening": 4}, "opening"),
    ],
)
def test_wrong_settings_of_a_resumption_name_their_key(table: Mapping[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        KeepAlive.settings({**table, "on_end": "reconnect"})
    assert caught.value.key == key


def test_settings_of_a_resumption_need_one() -> None:
    """A proxy without one has no network, and a smaller process."""
    with pytest.raises(SettingError) as caught:
        KeepAlive.settings({"client_id": "a"})
    assert caught.value.key == "client_id"
    assert not KeepAlive.needs_network(KeepAlive.settings({}))
    assert KeepAlive.needs_network(KeepAlive.settings(MQTT))
