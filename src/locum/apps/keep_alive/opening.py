"""The first words of a connection that takes the place of one that has ended: what is said, and how the correspondent answers.

A handshake of the program is not there to be repeated, since it came before the capture: names, paths and passwords are settings.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from locum.apps.keep_alive.websocket import CLOSE, frame
from locum.roles.action_values.addresses import JSON, Randomness

MAX_HEAD = 8 << 10
"""Bytes of an answer to a handshake."""
SESSION_PRESENT = "session_present"
_CONNECT, _CONNACK, _SUBSCRIBE, _SUBACK, _DISCONNECT = 0x10, 0x20, 0x82, 0x90, b"\xe0\x00"
_USER, _PASSWORD = 0x80, 0x40  # flags of CONNECT; the clean session flag is 0
_REFUSALS = {
    1: "another version of MQTT",
    2: "the client's name is not taken",
    3: "the server is not available",
    4: "wrong user or password",
    5: "not authorised",
}
_LATER = 3  # the only refusal that time may heal
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_GOING_AWAY = (1001).to_bytes(2, "big")  # section 7.4.1


@dataclass(frozen=True, slots=True)
class Step:
    """An answer of the correspondent was read. `say`: further words. `refused`: why it is of no use; `later`: it may be, later.

    `opened`: the handshake is over, and `rest` are bytes behind it; `detail` is for the event.
    """

    say: bytes = b""
    opened: bool = False
    rest: bytes = b""
    refused: str = ""
    later: bool = False
    detail: Mapping[str, JSON] = field(default_factory=dict)


class Opening(Protocol):
    """A handshake from the client's side."""

    def first(self, random: Randomness) -> bytes:
        """The first words of the client."""

    def received(self, data: bytes) -> Step:
        """Bytes of the correspondent, in order."""

    def farewell(self, random: Randomness) -> bytes:
        """The last words of a client that goes in order."""


# MQTT 3.1.1 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MqttClient:
    """A client; `topics` are subscribed if the broker has no session of the client. `keep_alive` in seconds."""

    name: str
    keep_alive: int
    user: str = ""
    password: str = ""
    topics: tuple[str, ...] = ()


class MqttOpening:
    """CONNECT without the clean session flag: the broker goes on with the client's session (section 3.1.2.4)."""

    def __init__(self, client: MqttClient) -> None:
        self._client = client
        self._data = b""
        self._subscribes = False

    def first(self, random: Randomness) -> bytes:
        client = self._client
        flags = (_USER if client.user else 0) | (_PASSWORD if client.password else 0)
        texts = [client.name, *filter(None, (client.user, client.password))]
        head = _text("MQTT") + bytes((4, flags)) + client.keep_alive.to_bytes(2, "big")
        return _packet(_CONNECT, head + b"".join(map(_text, texts)))

    def received(self, data: bytes) -> Step:
        self._data += data
        if self._subscribes:
            return self._subscribed()
        if len(self._data) < 4:
            return Step()
        kind, length, present, code = self._data[:4]
        if kind != _CONNACK or length != 2 or present > 1:
            return Step(refused="its answer is not MQTT's")
        if code:
            reason = _REFUSALS.get(code, f"code {code}")
            return Step(refused=f"the broker refuses: {reason}", later=code == _LATER)
        self._data = self._data[4:]
        detail = {SESSION_PRESENT: bool(present)}
        if present or not self._client.topics:
            return Step(opened=True, rest=self._data, detail=detail)
        self._subscribes = True
        filters = b"".join(_text(topic) + b"\x01" for topic in self._client.topics)
        return Step(say=_packet(_SUBSCRIBE, b"\0\1" + filters), detail=detail)

    def _subscribed(self) -> Step:
        """SUBACK, or a message that came before it (section 3.8.4)."""
        if not self._data or (self._data[0] == _SUBACK and len(self._data) < self._size()):
            return Step()
        rest = self._data[self._size() :] if self._data[0] == _SUBACK else self._data
        return Step(opened=True, rest=rest, detail={SESSION_PRESENT: False})

    def _size(self) -> int:
        """Bytes of a SUBACK: packet identifier, and a byte for each topic."""
        return len(_packet(_SUBACK, bytes(2 + len(self._client.topics))))

    def farewell(self, random: Randomness) -> bytes:
        return _DISCONNECT


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(kind: int, content: bytes) -> bytes:
    """With its remaining length (section 2.2.3)."""
    length, size = len(content), b""
    while True:
        length, digit = divmod(length, 128)
        size += bytes((digit | (0x80 if length else 0),))
        if not length:
            return bytes((kind,)) + size + content


# WebSocket ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WebSocketPlace:
    """`host` as in the header field Host."""

    host: str
    path: str
    subprotocol: str = ""


class WebSocketOpening:
    """A handshake without extensions (RFC 6455 section 4.1)."""

    def __init__(self, place: WebSocketPlace) -> None:
        self._place = place
        self._data = self._key = b""

    def first(self, random: Randomness) -> bytes:
        self._key = base64.b64encode(random.getrandbits(128).to_bytes(16, "big"))
        lines = [
            f"GET {self._place.path} HTTP/1.1",
            f"Host: {self._place.host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self._key.decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if self._place.subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {self._place.subprotocol}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def received(self, data: bytes) -> Step:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return Step(refused="its answer has no end") if len(self._data) > MAX_HEAD else Step()
        if len(head) > MAX_HEAD:
            return Step(refused=f"its answer has more than {MAX_HEAD} bytes")
        status, *lines = head.decode("latin-1").split("\r\n")
        if status.split(" ")[:2] != ["HTTP/1.1", "101"]:
            return Step(refused=f"the server answers {status[:60]!a}", later=" 5" in status[:10])
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        wanted = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest()).decode()
        if fields.get("sec-websocket-accept") != wanted or fields.get("upgrade", "").lower() != "websocket":
            return Step(refused="the server's answer belongs to no handshake of this one")
        if "sec-websocket-extensions" in fields:
            return Step(refused="the server uses extensions that nobody has offered")
        if fields.get("sec-websocket-protocol", "") != self._place.subprotocol:
            return Step(refused="the server speaks another subprotocol")
        return Step(opened=True, rest=rest)

    def farewell(self, random: Randomness) -> bytes:
        return frame(CLOSE, _GOING_AWAY, random)


# Anything else --------------------------------------------------------------------------------------------------------


class PlainOpening:
    """Words of the configuration, perhaps none; no answer is waited for."""

    def __init__(self, words: bytes) -> None:
        self._words = words

    def first(self, random: Randomness) -> bytes:
        return self._words

    def received(self, data: bytes) -> Step:
        return Step(opened=True, rest=data)

    def farewell(self, random: Randomness) -> bytes:
        return b""
