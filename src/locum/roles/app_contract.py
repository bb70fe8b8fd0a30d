"""The contract between a stand-in and the application proxies that it runs (A1).

A proxy is a class of this shape, found through the entry-point group `locum.apps` by its kind. It decides and does nothing:
payloads, time and chance are arguments, effects are return values. A process of its own runs it (`locum.apps.host`);
the stand-in carries its effects out, and goes on without it when it fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_network import Happening, NetworkEffect
from locum.wire import cbor
from locum.wire.control import Flow

GROUP = "locum.apps"
"""The entry-point group of proxies; the name of an entry point is the kind."""
MAX_DETAIL = 4096
"""Bytes of an event's detail as JSON."""
MAX_STATE = 64 << 10
"""Bytes of the state and the results of one proxy, as CBOR."""
MAX_STATE_ITEMS = 16 << 10
"""Numbers, texts, lists and so on in it: those of all proxies of a device fit into one 632."""


MAX_STATE_DEPTH = cbor.MAX_DEPTH - 3
"""Lists and maps in each other: a 632 has three around it."""
MAX_REPLACEMENT = 64 << 10
"""Bytes that one `Replace` puts into the stream; a mebibyte in one session."""


class SettingError(ValueError):
    """A setting of a proxy that is wrong: `key` is its name in the proxy's table, the message says what is expected."""

    def __init__(self, key: str, expected: str) -> None:
        super().__init__(f"{key}: {expected}")
        self.key, self.expected = key, expected


@dataclass(frozen=True, slots=True)
class AppSession:
    """A session of the device that the proxy attends: its number in the handover, and its flow.

    `whole` is True where no byte of the device was in the middle of being written when it was captured, so that the
    proxy may speak at once. `shown` is the position in the received stream of the next byte that the proxy is shown: not 0 in a
    process after the first.
    """

    number: int
    flow: Flow
    whole: bool = True
    shown: int = 0


def checked_state(value: object) -> Mapping[str, object]:
    """The state of a proxy, if the device will be able to read it in a 632 (1079). Raises ValueError.

    A date, a long number or a deep nest would make the whole answer to a reclaim unreadable there, and the wake endless.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("a state is a map with texts as keys")
    if _items(value, 1) > MAX_STATE_ITEMS:
        raise ValueError(f"a state has at most {MAX_STATE_ITEMS} numbers, texts, lists and maps")
    if len(cbor.encode(value)) > MAX_STATE:
        raise ValueError(f"a state has at most {MAX_STATE} bytes")
    return value


def _items(value: object, depth: int) -> int:
    """The number of items; `depth` lists and maps are open, this one among them. Raises ValueError for what `wire.cbor` does not read."""
    if not isinstance(value, dict | list | tuple):
        if isinstance(value, int) and not -(1 << 64) <= value < 1 << 64:
            raise ValueError("a number in a state has at most 64 bits")
        if value is not None and not isinstance(value, int | str | bytes | float):
            raise ValueError(f"a state has no {type(value).__name__}")
        return 1
    if value and depth > MAX_STATE_DEPTH:
        raise ValueError(f"at most {MAX_STATE_DEPTH} lists and maps of a state are in each other")
    if not isinstance(value, dict):
        return 1 + sum(_items(item, depth + 1) for item in value)
    for key in value:
        if isinstance(key, bool) or not isinstance(key, int | str) or not _fits(key):
            raise ValueError("a key in a state is a text or a number")
    return 1 + len(value) + sum(_items(item, depth + 1) for item in value.values())


def _fits(key: int | str) -> bool:
    return isinstance(key, str) or -(1 << 64) <= key < 1 << 64


# Effects ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speak:
    """Send these bytes to the correspondent, after everything that was sent before; in a UDP flow, as one datagram."""

    session: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Replace:
    """The device's program gets `data`, perhaps nothing, instead of `length` received bytes from position `start` on.

    Positions count received bytes from the capture on (`AppSession.shown`); the proxy has been shown the whole range. It replaces whole messages of
    its protocol. A range that covers earlier ones takes their place. Nothing happens unless the order says `consume`:
    with "replace" the program gets `data`, with "omit" nothing, and otherwise all bytes as they came.
    """

    session: int
    start: int
    length: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Tell:
    """An event of the proxy ("message_available"), with small results (MAX_DETAIL)."""

    kind: str
    session: int | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """A line for `locum app log`."""

    text: str


@dataclass(frozen=True, slots=True)
class Keep:
    """State that outlives this process: the next `begin` gets it. It replaces the one before (MAX_STATE).

    Its result (`app_results.RESULT`) is the only one of an order that runs while the device is awake, until it is done or has failed."""

    state: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Leave:
    """The proxy has no more use for this session: it is held as without a proxy. The reason is for users."""

    session: int
    reason: str


Effect: TypeAlias = Speak | Replace | Tell | Note | Keep | Leave | NetworkEffect


class App(Protocol):
    """One running proxy. Times are steady seconds of this process; every call returns what is to be done, in order.

    Only `settings` and the class itself are used before the proxy runs. An exception ends the process.

    A class with a true `reads_all` reads its sessions to their ends: the stand-in holds up to `session_most` bytes of each, however
    much the device's program had read.

    A class whose protocol has words for it may have the method `tell(session, text, *, now)`: effects that say the text in
    that session, for the device (an entry of its event table). What cannot be said is an event `not_told` with the reason.
    """

    def __init__(self, settings: object, randomness: Randomness) -> None:
        """`settings` is what the class's `settings` returned."""

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> object:
        """Read the settings of an order. Raises SettingError naming the key."""

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """True if the proxy attends this session."""

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        """Start with these sessions, and with the state that an earlier process kept, or the device sent (634)."""

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        """Bytes of the correspondent, in order, from the capture on; of a UDP flow, one datagram. The device's program gets them as well."""

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        """The correspondent has closed its side (error 0), or the connection has ended with this errno."""

    def timeout(self, *, now: float) -> list[Effect]:
        """The deadline has come."""

    def deadline(self) -> float | None:
        """Steady seconds of the next `timeout`, or None."""

    def end(self, *, now: float) -> Mapping[str, object]:
        """The device takes over: return the state and results that go to it (1079)."""


Port: TypeAlias = tuple[int, int]
"""Protocol and number of a port of the home address."""


class NetworkApp(App, Protocol):
    """A proxy with connections or files of its own (`locum.roles.app_network`).

    A class that listens may have the static method `ports(settings) -> Mapping[str, Port]`: the ports by the keys of the
    settings that say them. Two orders of a device with one port are then refused at once, and not when the second proxy begins.

    It may have two further methods. `ending(*, now)` returns effects on its connections when the device takes over, before `end`: last
    words, or a `HandOver`. The static `needs_network(settings)` returns False where proxies of these settings have no
    connections and no files: their processes are smaller.
    The static `only_asleep(settings)` returns True where proxies of these settings work only while the device sleeps, as those that attend
    sessions do: their orders are refused with `when = "always"`, since a proxy that goes on over wakes has no sessions.
    One with a true `takes_uploads` gets `Files` again when the device has sent a file while it runs.
    """

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        """Something has happened to its connections, listeners or files."""
