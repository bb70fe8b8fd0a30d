"""A broker's PUBLISH from a client's side: its topic, and the text in it (MQTT 3.1.1 section 3.3, MQTT 5 section 3.3)."""

from dataclasses import dataclass

from locum.roles.action_values.addresses import JSON
from locum.roles.app_results import TOPIC_LEVELS

MAX_TOPIC = 200
"""Bytes of a topic that is told; with the text, an event stays within its bound."""
MAX_TEXT = 200
"""Bytes of a message that are told, from its beginning."""
MAX_PROPERTIES = 512
"""Bytes of the properties of MQTT 5 that are read."""
MAX_HEAD = 2 + MAX_TOPIC + 2 + 4 + MAX_PROPERTIES + MAX_TEXT
"""Bytes of a PUBLISH that are read, behind its fixed header."""
MAX_ALIASES = 256
"""Topic aliases of one connection that are remembered."""
TOPIC_ALIAS = 0x23
_FIXED = {0x01: 1, 0x02: 4, TOPIC_ALIAS: 2}
_STRINGS = {0x03: 1, 0x08: 1, 0x09: 1, 0x26: 2}
_VARIABLE = 0x0B


@dataclass(frozen=True, slots=True)
class Published:
    """One message. `text` is None where it is no UTF-8; `size` is that of the whole message in bytes."""

    topic: str
    text: str | None
    size: int
    quality: int
    retained: bool

    def detail(self) -> dict[str, JSON]:
        """The fields of the event `published`."""
        levels = self.topic.split("/")
        told: dict[str, JSON] = {
            "topic": self.topic,
            "levels": len(levels),
            "level": {str(number): level for number, level in enumerate(levels[:TOPIC_LEVELS], 1)},
            "system": self.topic.startswith("$"),
            "bytes": self.size,
            "qos": self.quality,
            "retained": self.retained,
        }
        return told if self.text is None else told | {"text": self.text}


class Publications:
    """Reads the messages of one connection. `version` is 5 or below, as the client has asked the broker for."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._aliases: dict[int, str] = {}

    def read(self, flags: int, head: bytes, length: int) -> Published | None:
        """The message whose body of `length` bytes begins with `head` (all of it, or MAX_HEAD); None if it cannot be told.

        Such a message may have given any alias another topic, so none is known from then on.
        """
        message = self._read(flags, head, length)
        if message is None:
            self._aliases.clear()
        return message

    def _read(self, flags: int, head: bytes, length: int) -> Published | None:
        quality = flags >> 1 & 3
        if quality == 3 or len(head) < 2:
            return None
        size = int.from_bytes(head[:2], "big")
        at = 2 + size + (2 if quality else 0)
        if size > MAX_TOPIC or len(head) < at:
            return None
        try:
            topic = head[2 : 2 + size].decode()
        except UnicodeDecodeError:
            return None
        if self._version >= 5:
            found = _properties(head, at)
            if found is None:
                return None
            at, alias = found
            topic = self._aliased(topic, alias)
        if not topic:
            return None
        return Published(topic, _text(head[at:], length - at), length - at, quality, bool(flags & 1))

    def _aliased(self, topic: str, alias: int) -> str:
        if topic and alias and (alias in self._aliases or len(self._aliases) < MAX_ALIASES):
            self._aliases[alias] = topic
        return topic or self._aliases.get(alias, "")


def _text(head: bytes, size: int) -> str | None:
    """The beginning of a message, whole characters only."""
    told = head[:MAX_TEXT]
    for cut in range(4 if size > len(told) else 1):
        try:
            return told[: len(told) - cut].decode()
        except UnicodeDecodeError:
            continue
    return None


def _properties(head: bytes, at: int) -> tuple[int, int] | None:
    """The place of the message, behind the properties, and the topic alias (0: none); None if they cannot be read."""
    counted = _variable(head, at)
    if counted is None:
        return None
    at, size = counted
    end, alias = at + size, 0
    if end > len(head):
        return None
    while at < end:
        kind = head[at]
        at += 1
        if kind in _FIXED:
            if kind == TOPIC_ALIAS:
                alias = int.from_bytes(head[at : at + 2], "big")
            at += _FIXED[kind]
        elif kind in _STRINGS:
            for _ in range(_STRINGS[kind]):
                at += 2 + int.from_bytes(head[at : at + 2], "big")
        elif kind == _VARIABLE and (counted := _variable(head, at)) is not None:
            at = counted[0]
        else:
            return None
    return (end, alias) if at == end else None


def _variable(head: bytes, at: int) -> tuple[int, int] | None:
    """The place behind a variable byte integer, and its value."""
    value = 0
    for place in range(4):
        if at + place >= len(head):
            return None
        value |= (head[at + place] & 0x7F) << 7 * place
        if not head[at + place] & 0x80:
            return at + place + 1, value
    return None
