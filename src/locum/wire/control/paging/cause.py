"""Cause of a page: a packet, an application event or a command, as CBOR by paging.cddl."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from locum.wire import cbor
from locum.wire.errors import WireError
from locum.wire.flow import Flow

MAX_HEAD = 128
"""Bytes of a packet in a page."""
MAX_APP = 64
"""Characters of the name of a proxy or an order."""
MAX_KIND = 64
"""Characters of the kind of an event."""
MAX_DETAIL = 10 << 10
"""Bytes of an event's detail as CBOR: 4 KiB of JSON never need more (a number of 3 characters and a comma takes 9 bytes)."""
MAX_RULE = 0xFFFF

_PACKET, _EVENT, _COMMAND = 1, 2, 3


@dataclass(frozen=True, slots=True)
class PacketCause:
    """Packet that matched a rule of the first paging information (P1)."""

    rule: int  # its identifier
    flow: Flow
    head: bytes = b""  # the packet's first bytes, from the IP header on


@dataclass(frozen=True, slots=True)
class EventCause:
    """Application event at a stand-in (P4)."""

    app: str
    kind: str


@dataclass(frozen=True, slots=True)
class CommandCause:
    """Command of a person or a program."""


Cause: TypeAlias = PacketCause | EventCause | CommandCause


def cause_to_cbor(cause: Cause) -> list[object]:
    """The CDDL rule `cause`."""
    match cause:
        case PacketCause():
            return [_PACKET, cause.rule, cause.flow.to_cbor(), cause.head]
        case EventCause():
            return [_EVENT, cause.app, cause.kind]
        case CommandCause():
            return [_COMMAND]


def cause_from_cbor(value: object, field: str) -> Cause:
    """The cause that an array stands for; raises WireError."""
    match cbor.array(value, field, 4):
        case [int(kind), rule, flow, bytes(head)] if kind == _PACKET and len(head) <= MAX_HEAD:
            number = cbor.integer(rule, f"{field}.rule", 1, MAX_RULE)
            return PacketCause(number, Flow.from_cbor(flow, f"{field}.flow"), head)
        case [int(kind), app, event] if kind == _EVENT:
            return EventCause(
                cbor.text(app, f"{field}.app", MAX_APP), cbor.text(event, f"{field}.kind", MAX_KIND)
            )
        case [int(kind)] if kind == _COMMAND:
            return CommandCause()
    raise WireError(field, 0, "not-a-cause")


@dataclass(frozen=True, slots=True)
class ApplicationEvent:
    """Event of a proxy with its detail: texts, numbers, lists and maps."""

    app: str
    kind: str
    detail: Mapping[str, object] = field(default_factory=dict)

    def to_cbor(self) -> list[object]:
        """The CDDL rule `event`."""
        return [self.app, self.kind, dict(self.detail)]

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "ApplicationEvent":
        """Raises WireError for anything that does not fit."""
        items = cbor.array(value, field, 3)
        if len(items) != 3:
            raise WireError(field, 0, "truncated")
        return cls(
            cbor.text(items[0], f"{field}.app", MAX_APP),
            cbor.text(items[1], f"{field}.kind", MAX_KIND),
            text_map(items[2], f"{field}.detail", MAX_DETAIL),
        )


def carried(event: ApplicationEvent) -> ApplicationEvent:
    """The event, without its detail if no message can carry that (a long number, a deep nest, too many bytes)."""
    try:
        body = cbor.encode({0: {0: [event.to_cbor()]}})  # as deep as in any message
        cbor.decode(body, limit=MAX_DETAIL, field="event")
    except (WireError, RecursionError):
        return ApplicationEvent(event.app, event.kind)
    return event


def text_map(value: object, field: str, most: int) -> dict[str, object]:
    """A map with text keys, of at most so many bytes as CBOR. Raises WireError."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise WireError(field, 0, "not-a-text-map")
    if len(cbor.encode(value)) > most:
        raise WireError(field, 0, "too-large")
    return value
