"""A connection of each protocol in five sleeps: its server reads the same messages as without them (A3, C12)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from xml.etree import ElementTree

import h11
import pytest

from locum.apps.keep_alive.proxy import KeepAlive
from locum.apps.keep_alive.websocket import PING, PONG, frame
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Speak
from tests.apps.keep_alive.test_keep_alive import flow

SLEEPS, ASLEEP, INTERVAL = 5, 60.0, 10.0  # seconds
TEXT = 1
OPENED = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
Read = Callable[[bytes], tuple[list[str], int]]
"""The messages in all that a server has received, in order, and the number of keep-alives. Raises AssertionError for anything else."""


@dataclass(frozen=True, slots=True)
class Case:
    """`own` is a message of the device; the server says `question`, and `answer` is the right one."""

    settings: Mapping[str, JSON]
    port: int
    read: Read
    own: Callable[[int], bytes]
    question: Callable[[int], bytes] = lambda _: b""
    answer: Callable[[int], bytes] = lambda _: b""
    silent: bool = False
    opening: bytes = b""


def mqtt(data: bytes) -> tuple[list[str], int]:
    said, pings = [], 0
    while data:
        kind, size = data[0] >> 4, data[1]
        assert kind in (3, 12) and size < 128 and len(data) >= 2 + size
        if kind == 12:
            assert data[:2] == b"\xc0\x00"
            pings += 1
        else:
            said.append(data[: 2 + size].hex())
        data = data[2 + size :]
    return said, pings


def lines(data: bytes) -> tuple[list[str], int]:
    assert data.endswith(b"\n")
    every = data.decode().splitlines()
    said = [line for line in every if not line.startswith(("PING", "here"))]
    return said, len(every) - len(said)


def websocket(data: bytes) -> tuple[list[str], int]:
    said, pings = [], 0
    while data:
        size = data[1] & 0x7F
        assert data[0] & 0xF0 == 0x80 and data[1] & 0x80 and size < 126
        key, masked = data[2:6], data[6 : 6 + size]
        assert len(masked) == size
        text = bytes(byte ^ key[place % 4] for place, byte in enumerate(masked)).decode()
        match data[0] & 15:
            case 9:
                pings += 1
            case opcode:
                said.append(f"{opcode} {text}")
        data = data[6 + size :]
    return said, pings


def xmpp(data: bytes) -> tuple[list[str], int]:
    root = ElementTree.fromstring(data + b"</stream:stream>")
    said = [ElementTree.tostring(child).decode().strip() for child in root]
    white = [root.text or "", *(child.tail or "" for child in root)]
    assert all(not text.strip() for text in white)
    return said, sum(map(len, white))


def sip(data: bytes) -> tuple[list[str], int]:
    said = re.findall(rb"REGISTER [^\0]*?\r\n\r\n", data)
    rest = re.sub(rb"REGISTER [^\0]*?\r\n\r\n", b"", data)
    assert rest == b"\r\n\r\n" * (len(rest) // 4)
    return [message.decode() for message in said], len(rest) // 4


def http(data: bytes) -> tuple[list[str], int]:
    server, said = h11.Connection(h11.SERVER), []
    server.receive_data(data)
    while (event := server.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Request):
            said.append(event.target.decode())
        elif isinstance(event, h11.EndOfMessage):
            server.send(h11.Response(status_code=204, headers=[]))
            server.send(h11.EndOfMessage())
        elif event is h11.PAUSED:
            server.start_next_cycle()
    return said, 0


def _masked(opcode: int, text: bytes) -> bytes:
    return frame(opcode, text, Random(7))


CASES = {
    "mqtt": Case({}, 1883, mqtt, lambda n: bytes((0x30, 4, 0, 1, 97, n))),
    "irc": Case(
        {},
        6667,
        lines,
        lambda n: b"PRIVMSG #a :%d\r\n" % n,
        lambda n: b"PING :%d\r\n" % n,
        lambda n: b"PONG :%d\r\n" % n,
    ),
    "xmpp": Case(
        {},
        5222,
        xmpp,
        lambda n: b"<message><body>%d</body></message>" % n,
        lambda n: b"<iq from='a.example' id='%d' type='get'><ping xmlns='urn:xmpp:ping'/></iq>" % n,
        lambda n: b'<iq type=\'result\' id="%d" to="a.example"/>' % n,
        opening=OPENED,
    ),
    "websocket": Case(
        {"protocol": "websocket", "ports": [8080]},
        8080,
        websocket,
        lambda n: _masked(TEXT, b"%d" % n),
        lambda n: bytes((0x80 | PING, 1, 48 + n)),
        lambda n: _masked(PONG, b"%d" % n),
    ),
    "sip": Case(
        {"protocol": "sip", "ports": [5060]},
        5060,
        sip,
        lambda n: b"REGISTER sip:a.example SIP/2.0\r\nCSeq: %d REGISTER\r\nContent-Length: 0\r\n\r\n" % n,
    ),
    "http": Case(
        {"protocol": "http", "ports": [80]},
        80,
        http,
        lambda n: b"GET /%d HTTP/1.1\r\nHost: a.example\r\n\r\n" % n,
        silent=True,
    ),
    "payload": Case({"payload": "here\n", "ports": [7000]}, 7000, lines, lambda n: b"%d\n" % n),
}


def _sleep(case: Case, number: int, state: Mapping[str, object]) -> tuple[bytes, Mapping[str, object]]:
    """Bytes that the server gets in one sleep, and the state of the proxy afterwards. The server is never left waiting."""
    now = 1000.0 * number
    app = KeepAlive(KeepAlive.settings({"interval": INTERVAL, **case.settings}), Random(number))
    app.begin([AppSession(number, flow(case.port))], state, now=now)
    heard, last, asked = b"", now, False
    while (at := app.deadline()) is not None and at < 1000.0 * number + ASLEEP:
        effects = app.timeout(now=at)
        if not asked and (question := case.question(number)):
            asked = True
            effects += app.received(number, question, now=at)
        words = b"".join(effect.data for effect in effects if isinstance(effect, Speak))
        assert case.silent or not words or at - last <= INTERVAL
        heard, last = heard + words, at if words else last
    return heard, app.end(now=1000.0 * number + ASLEEP)


@pytest.mark.parametrize("name", CASES)
def test_server_reads_the_same_through_five_sleeps(name: str) -> None:
    case = CASES[name]
    received, control = case.opening, case.opening
    state: Mapping[str, object] = {}
    for number in range(SLEEPS):
        received += case.own(number)
        control += case.own(number) + case.answer(number)
        words, state = _sleep(case, number, state)
        received += words
        assert words or case.silent
    received += case.own(SLEEPS)
    control += case.own(SLEEPS)
    said, pings = case.read(received)
    assert said == case.read(control)[0]
    assert pings == 0 if case.silent else pings >= SLEEPS * (ASLEEP / INTERVAL - 1)
