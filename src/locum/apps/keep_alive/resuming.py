"""Connections in the place of ended ones, from the home address to the same correspondent (A3, A11).

The protocol goes on where it can: an MQTT broker keeps a client's session over connections, a WebSocket begins anew. The program's own
connection has ended all the same. When the device wakes, the new one is handed to a program that waits for it under a label,
or says goodbye, so that the program's own reconnection is the only one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from locum.apps.keep_alive.conversation import Conversation
from locum.apps.keep_alive.opening import (
    MqttClient,
    MqttOpening,
    Opening,
    PlainOpening,
    WebSocketOpening,
    WebSocketPlace,
)
from locum.apps.values import text
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import Effect, Note, SettingError, Tell
from locum.roles.app_network import Abort, Connect, Finish, HandOver, Pause, Send
from locum.wire.control.handed import MAX_LABEL

FIRST_RETRY, LAST_RETRY = 1.0, 300.0
"""Seconds; each wait is twice as long as the one before."""
PATIENCE = 30.0
"""Seconds for the answers to the first words."""
STEADY = 60.0
"""A connection that was open for so many seconds is tried again at once."""
MAX_UNREAD = 64 << 10
"""Bytes that a program gets with a connection that it takes over."""
ENOUGH_UNREAD = 16 << 10
"""Bytes from which on the connection is not read any more: the correspondent's window fills."""
MAX_TOPICS = 16
MAX_PATH = 1024
RESUMABLE = ("mqtt", "websocket")
"""Protocols that can be resumed, besides a payload."""
_OF = {
    "client_id": "mqtt",
    "user": "mqtt",
    "password": "mqtt",
    "topics": "mqtt",
    "path": "websocket",
    "host": "websocket",
    "subprotocol": "websocket",
    "opening": "payload",
}
_WORDS = ("user", "password", "host", "subprotocol")
KEYS = (*_OF, "label")


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a new connection begins, and the label under which a program waits for it; empty: none does."""

    first: MqttClient | WebSocketPlace | bytes
    label: str

    def opening(self, peer: str) -> Opening:
        """For a correspondent at this address and port."""
        match self.first:
            case MqttClient() as client:
                return MqttOpening(client)
            case WebSocketPlace(host, path, subprotocol):
                return WebSocketOpening(WebSocketPlace(host or peer, path, subprotocol))
            case words:
                return PlainOpening(words)


def resumption(table: Mapping[str, JSON], protocol: str, interval: float) -> Resumption:
    """Read the keys of KEYS; `protocol` is one of RESUMABLE, or "payload". Raises SettingError."""
    for key in table:
        if key in _OF and _OF[key] != protocol:
            raise SettingError(key, f"belongs to {_OF[key]}")
    words = {key: text(table[key], key, MAX_PATH) for key in _WORDS if key in table}
    label = text(table["label"], "label", MAX_LABEL) if "label" in table else ""
    if protocol == "mqtt":
        if "password" in words and "user" not in words:
            raise SettingError("user", "is missing beside password")
        client = MqttClient(
            text(table.get("client_id"), "client_id"),
            min(max(60, int(2 * interval) + 1), 65535),
            words.get("user", ""),
            words.get("password", ""),
            _topics(table.get("topics", [])),
        )
        return Resumption(client, label)
    if protocol == "websocket":
        place = WebSocketPlace(
            words.get("host", ""), text(table.get("path"), "path", MAX_PATH), words.get("subprotocol", "")
        )
        for key, word in (("path", place.path), ("host", place.host), ("subprotocol", place.subprotocol)):
            if not word.isascii() or " " in word or (key == "path" and not word.startswith("/")):
                raise SettingError(key, "a word in ASCII is expected, as path one that begins with /")
        return Resumption(place, label)
    opening = table.get("opening", "")
    if not isinstance(opening, str) or len(opening.encode()) > MAX_PATH:
        raise SettingError("opening", f"a text of at most {MAX_PATH} bytes is expected")
    return Resumption(opening.encode(), label)


def _topics(value: JSON) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_TOPICS:
        raise SettingError("topics", f"a list of at most {MAX_TOPICS} topics is expected")
    return tuple(text(topic, "topics") for topic in value)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The connection is tried at `at`."""

    at: float


@dataclass(frozen=True, slots=True)
class Connecting:
    """TCP's handshake."""


@dataclass(frozen=True, slots=True)
class Opens:
    """The first words are said; the answers have to come until `until`."""

    opening: Opening
    until: float


@dataclass(frozen=True, slots=True)
class Open:
    """It is kept alive."""

    opening: Opening
    since: float


@dataclass(frozen=True, slots=True)
class GivenUp:
    """No further one is tried."""


class Successor:
    """Of the connection of session `number`; the new one has the same number. `conversation` is there while it is open."""

    def __init__(self, number: int, peer: tuple[str, int], settings: Resumption, now: float) -> None:
        self.number, self.peer, self._settings = number, peer, settings
        self.state: Waiting | Connecting | Opens | Open | GivenUp = Waiting(now)
        self.conversation: Conversation | None = None
        self.resumed = 0  # times
        self._delay = FIRST_RETRY
        self._unread: bytes | None = b""  # for the program; None: there was too much
        self._paused = False

    @property
    def is_open(self) -> bool:
        """True while it is kept alive."""
        return isinstance(self.state, Open)

    def deadline(self) -> float | None:
        match self.state:
            case Waiting(at):
                return at
            case Opens(_, until):
                return until
        return None

    def timeout(self, now: float) -> list[Effect]:
        """Connect, or give up an answer that does not come."""
        match self.state:
            case Waiting(at) if at <= now:
                self.state = Connecting()
                return [Connect(self.number, *self.peer)]
            case Opens(_, until) if until <= now:
                return [Abort(self.number), *self._again(f"no answer in {PATIENCE:.0f} seconds", now)]
        return []

    def opened(self, random: Randomness, now: float) -> list[Effect]:
        """TCP's handshake is over."""
        if not isinstance(self.state, Connecting):
            return []
        host, port = self.peer
        opening = self._settings.opening(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self.state = Opens(opening, now + PATIENCE)
        first = opening.first(random)
        said: list[Effect] = [Send(self.number, first)] if first else []
        if isinstance(opening, PlainOpening):
            self.state = Open(opening, now)
            self._unread, self._paused = b"", False
            said.append(self._resumed({}))
        return said

    def shook(self, data: bytes, now: float) -> tuple[list[Effect], bytes]:
        """Bytes of the correspondent: effects of the handshake, and the bytes behind it."""
        if isinstance(self.state, Open):
            return self._keep(data), data
        if not isinstance(self.state, Opens):
            return [], b""
        step = self.state.opening.received(data)
        if step.refused:
            if step.later:
                return [Abort(self.number), *self._again(step.refused, now)], b""
            self.state = GivenUp()
            detail: dict[str, JSON] = {"reason": step.refused}
            failed = Tell("resume_failed", self.number, detail)
            return [Abort(self.number), failed, Note(f"session {self.number}: {step.refused}")], b""
        effects: list[Effect] = [Send(self.number, step.say)] if step.say else []
        if not step.opened:
            return effects, b""
        self.state = Open(self.state.opening, now)
        self._unread, self._paused = b"", False
        effects += [self._resumed(step.detail), *self._keep(step.rest)]
        return effects, step.rest

    def _resumed(self, detail: Mapping[str, JSON]) -> Tell:
        self.resumed += 1
        return Tell("session_resumed", self.number, dict(detail))

    def _keep(self, data: bytes) -> list[Effect]:
        """Bytes for a program that will take the connection over."""
        if not self._settings.label or self._unread is None:
            return []
        if len(self._unread) + len(data) > MAX_UNREAD:
            self._unread = None
            return [Note(f"session {self.number}: more than {MAX_UNREAD} bytes came: it is not handed over")]
        self._unread += data
        if len(self._unread) < ENOUGH_UNREAD or self._paused:
            return []
        self._paused = True
        return [Pause(self.number)]

    def ended(self, reason: str, now: float) -> list[Effect]:
        """The connection has ended, or none came about."""
        match self.state:
            case GivenUp() | Waiting():
                return []
            case Open(_, since):
                if now - since >= STEADY:
                    self._delay = FIRST_RETRY
        return self._again(reason or "the correspondent has ended it", now)

    def _again(self, reason: str, now: float) -> list[Effect]:
        self.conversation = None
        self.state = Waiting(now + self._delay)
        note = Note(f"session {self.number}: no new connection: {reason}; again in {self._delay:.0f} seconds")
        self._delay = min(2 * self._delay, LAST_RETRY)
        return [note]

    def ending(self, random: Randomness) -> list[Effect]:
        """The device takes over: the connection is for its program, or ends in order."""
        match self.state:
            case Open(opening, _) if self._settings.label and self._unread is not None:
                return [HandOver(self.number, self._settings.label, self._unread)]
            case Open(opening, _):
                farewell = opening.farewell(random)
                said: list[Effect] = [Send(self.number, farewell)] if farewell else []
                return [*said, Finish(self.number)]
            case Connecting() | Opens():
                return [Abort(self.number)]
        return []
