"""Texts that a device's event table has its proxy say: in WebSockets and in IRC, nowhere else (P3)."""

from ipaddress import ip_address
from random import Random

import pytest

from locum.apps.keep_alive.proxy import KeepAlive
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, Speak, Tell
from locum.wire.control import Flow

FLOW = Flow(6, ip_address("10.9.0.5"), 40000, ip_address("192.0.2.1"), 7)


def told(text: str, session: int = 0, **table: JSON) -> list[Effect]:
    one = KeepAlive(KeepAlive.settings(table | {"ports": [7]}), Random(1))
    one.begin([AppSession(0, FLOW)], {}, now=0.0)
    return one.tell(session, text, now=1.0)


@pytest.mark.parametrize("text", ["I am asleep", "Grüße", "x" * 125, "x" * 126, "x" * 1024])
def test_websocket_gets_one_text_message(text: str) -> None:
    (said,) = [effect.data for effect in told(text, protocol="websocket") if isinstance(effect, Speak)]
    size = len(text.encode())
    head = 2 if size < 126 else 4
    assert said[0] == 0x81 and said[1] & 0x80
    assert (said[1] & 0x7F if head == 2 else int.from_bytes(said[2:4], "big")) == size
    key, payload = said[head : head + 4], said[head + 4 :]
    assert bytes(byte ^ key[place % 4] for place, byte in enumerate(payload)).decode() == text


@pytest.mark.parametrize(
    "text, line",
    [
        ("AWAY :asleep", b"AWAY :asleep\r\n"),
        ("AWAY :a\r\nQUIT", b"AWAY :a\r\n"),
        ("x" * 600, b"x" * 510 + b"\r\n"),
    ],
)
def test_irc_gets_the_first_line(text: str, line: bytes) -> None:
    assert [effect.data for effect in told(text, protocol="irc") if isinstance(effect, Speak)] == [line]


@pytest.mark.parametrize(
    "table, session, text",
    [
        ({"protocol": "mqtt"}, 0, "hello"),
        ({"protocol": "xmpp"}, 0, "hello"),
        ({"payload": "x"}, 0, "hello"),
        ({"protocol": "irc"}, 0, "\n"),
        ({"protocol": "irc"}, 5, "AWAY"),
    ],
)
def test_text_without_words_is_an_event(table: dict[str, JSON], session: int, text: str) -> None:
    (said,) = told(text, session, **table)
    assert isinstance(said, Tell) and said.kind == "not_told" and "no words" in str(said.detail["reason"])
