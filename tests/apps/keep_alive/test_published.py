"""Messages of a broker as events (A3, P3): topics, texts, properties of MQTT 5, and bounds."""

import json
from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.keep_alive.mqtt import Mqtt
from locum.apps.keep_alive.proxy import MAX_PUBLISHED, KeepAlive
from locum.apps.keep_alive.published import MAX_TEXT, MAX_TOPIC, Published
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import MAX_DETAIL, AppSession, Effect, SettingError, Tell
from tests.apps.keep_alive.test_keep_alive import app, flow


def variable(number: int) -> bytes:
    found = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        found.append(low | (0x80 if number else 0))
        if not number:
            return bytes(found)


def publish(
    topic: str, text: bytes, *, quality: int = 0, properties: bytes | None = None, retained: bool = False
) -> bytes:
    """A PUBLISH as a broker sends it; `properties` None: MQTT 3.1.1."""
    body = len(topic.encode()).to_bytes(2, "big") + topic.encode() + (b"\0\7" if quality else b"")
    body += b"" if properties is None else variable(len(properties)) + properties
    body += text
    return bytes((0x30 | quality << 1 | retained,)) + variable(len(body)) + body


def read(data: bytes, version: int = 4, piece: int = 1) -> list[Published | None]:
    one = Mqtt(version)
    return [
        message
        for at in range(0, len(data), piece)
        for message in one.received(data[at : at + piece]).published
    ]


@pytest.mark.parametrize("piece", [1, 3, 10_000])
def test_messages_are_read_whatever_their_pieces(piece: int) -> None:
    data = publish("alerts/fire", b"hall", quality=1) + b"\xd0\x00" + publish("x", b"", retained=True)
    assert read(data, 4, piece) == [
        Published("alerts/fire", "hall", 4, 1, False),
        Published("x", "", 0, 0, True),
    ]


def test_properties_of_version_5_and_aliases() -> None:
    alias = b"\x23\x00\x05"
    others = b"\x01\x01\x26\x00\x01k\x00\x02vv\x0b\x81\x01\x02\x00\x00\x00\x09"
    data = publish("a/b", b"first", properties=others + alias) + publish("", b"second", properties=alias)
    found = read(data, 5, 7)
    assert found == [Published("a/b", "first", 5, 0, False), Published("a/b", "second", 6, 0, False)]
    assert read(publish("", b"x", properties=b"\x23\x00\x06"), 5) == [None], "set before the capture"
    assert read(publish("a", b"x", properties=b"\x7f"), 5) == [None], "a property that nobody knows"
    assert read(publish("", b"x")) == [None]


@pytest.mark.parametrize(
    "unread",
    [
        publish("t" * (MAX_TOPIC + 1), b"x", properties=b"\x23\x00\x05"),
        publish("c", b"x", properties=b"\x26\x02\x58\x00\x00" + b"n" * 600 + b"\x23\x00\x05"),
    ],
    ids=["topic", "properties"],
)
def test_unread_messages_may_change_any_alias(unread: bytes) -> None:
    alias = b"\x23\x00\x05"
    data = publish("a/b", b"x", properties=alias) + unread + publish("", b"y", properties=alias)
    assert read(data, 5, 50) == [Published("a/b", "x", 1, 0, False), None, None]
    again = data + publish("d", b"z", properties=alias) + publish("", b"z", properties=alias)
    assert read(again, 5, 50)[3:] == [Published("d", "z", 1, 0, False)] * 2


def test_long_topics_are_not_told_and_long_texts_in_part() -> None:
    assert read(publish("t" * (MAX_TOPIC + 1), b"x")) == [None]
    (found,) = read(publish("t" * MAX_TOPIC, "ä".encode() * MAX_TEXT), piece=100)
    assert found is not None and found.text == "ä" * (MAX_TEXT // 2) and found.size == 2 * MAX_TEXT
    (found,) = read(publish("t", b"a" + "ä".encode() * MAX_TEXT))
    assert found is not None and found.text == "a" + "ä" * ((MAX_TEXT - 1) // 2)
    assert read(publish("t", b"\xff\xfe")) == [Published("t", None, 2, 0, False)]


def test_largest_event_is_within_its_bound() -> None:
    for letter in ("\x01", "\\", "/", "ÿ"):
        topic = letter * (MAX_TOPIC // len(letter.encode()))
        message = Published(topic, letter * (MAX_TEXT // len(letter.encode())), 1 << 28, 2, True)
        assert len(json.dumps({"protocol": "mqtt", "wake": True, **message.detail()})) <= MAX_DETAIL


@given(data=st.binary(max_size=200), version=st.sampled_from((4, 5)), piece=st.integers(1, 50))
def test_any_bytes_of_a_message_are_taken(data: bytes, version: int, piece: int) -> None:
    packet = b"\x30" + variable(len(data)) + data
    assert (
        len(read(packet + publish("a", b"", properties=b"" if version == 5 else None), version, piece)) == 2
    )


def told(effects: list[Effect]) -> list[Mapping[str, JSON]]:
    return [effect.detail for effect in effects if isinstance(effect, Tell) and effect.kind == "published"]


def test_messages_are_events_up_to_a_bound() -> None:
    one = app(protocol="mqtt", ports=[1883], on_data="wake", interval=10.0, jitter=0)
    one.begin([AppSession(3, flow(1883))], {}, now=0.0)
    one.timeout(now=0.0)
    many = b"".join(publish(f"n/{number}", b"x") for number in range(MAX_PUBLISHED + 2))
    found = told(one.received(3, many, now=1.0))
    assert [detail.get("topic") for detail in found] == [*(f"n/{n}" for n in range(MAX_PUBLISHED)), None]
    assert found[0]["wake"] is True and found[0]["protocol"] == "mqtt"
    assert found[-1] == {"protocol": "mqtt", "unread": 2, "wake": True}
    assert told(one.received(3, many, now=2.0)) == [], "counted until the next keep-alive"
    assert told(one.timeout(now=10.0)) == [{"protocol": "mqtt", "unread": MAX_PUBLISHED + 2, "wake": True}]
    assert [detail["topic"] for detail in told(one.received(3, publish("late", b""), now=11.0))] == ["late"]


def test_nothing_is_told_unless_asked_for() -> None:
    one = app(protocol="mqtt", ports=[1883])
    one.begin([AppSession(3, flow(1883))], {}, now=0.0)
    assert told(one.received(3, publish("a", b"x"), now=1.0)) == []


def test_version_is_a_setting() -> None:
    one = KeepAlive(KeepAlive.settings({"on_data": "event", "mqtt_version": "5"}), Random(1))
    one.begin([AppSession(3, flow(1883))], {}, now=0.0)
    (found,) = told(one.received(3, publish("a", b"x", properties=b""), now=1.0))
    assert (found["topic"], found["text"]) == ("a", "x")
    with pytest.raises(SettingError, match=r"mqtt_version: one of 3\.1\.1, 5 is expected"):
        KeepAlive.settings({"mqtt_version": "4"})
