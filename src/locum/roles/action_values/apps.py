"""Actions and results about application proxies at a stand-in, for `actions.py` (A1). Nothing here decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.emission import Permit
from locum.wire.control import Flow
from locum.wire.control.order import OrderAnswer, OrderRequest
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

CONSUME = "consume"
"""The key of an order's `Consume`."""
EMISSION = "emission"
"""The key of the packets that an order's proxy may send."""
WHEN = "when"
"""The key of the times at which an order's proxy runs."""
MAX_TOLD_STATE = 1024
"""Bytes of a proxy's state, as CBOR, that goes along with its events."""
SECRETS = frozenset({"password"})
"""Keys of settings that only the proxy sees."""
HIDDEN = "(hidden)"


class Consume(StrEnum):
    """Received bytes that a proxy consumes are left for the program, replaced as the proxy says, or left out."""

    REPLAY = "replay"
    REPLACE = "replace"
    OMIT = "omit"


class When(StrEnum):
    """A proxy runs while its device sleeps, or from its order on, in a handover of its own."""

    ASLEEP = "asleep"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class AppOrder:
    """One proxy that a device orders: a name that is unique for the device, a kind, and the kind's settings.

    `consume` and `emission` are for every kind: the stand-in follows them whatever the proxy says. `emission` None: the proxy
    may send everything (R20).
    """

    name: str
    kind: str
    settings: Mapping[str, JSON] = field(default_factory=dict, repr=False)
    consume: Consume = Consume.REPLAY
    emission: tuple[Permit, ...] | None = None
    when: When = When.ASLEEP

    def to_json(self) -> list[JSON]:
        """As a 634 and a row have it (control.cddl, rule app)."""
        plain: list[JSON] = [self.name, self.kind, dict(self.settings)]
        limits: dict[str, JSON] = {} if self.consume is Consume.REPLAY else {CONSUME: str(self.consume)}
        if self.emission is not None:
            limits[EMISSION] = [str(permit) for permit in self.emission]
        if self.when is not When.ASLEEP:
            limits[WHEN] = str(self.when)
        return [*plain, limits] if limits else plain

    def shown(self) -> Mapping[str, JSON]:
        """The settings for users: secrets are left out."""
        return {key: HIDDEN if key in SECRETS else value for key, value in self.settings.items()}


@dataclass(frozen=True, slots=True)
class StartApps:
    """Stand-in: run these proxies for the device; they attend the handover's sessions. `states` are by name.

    Those that run already for this handover go on. `led`: the device may be awake, and packets of each connection and port
    have to be led here first.
    """

    handover: bytes
    device: Addr
    apps: tuple[AppOrder, ...]
    states: Mapping[str, object] = field(default_factory=dict)
    home_addresses: tuple[Addr, ...] = ()  # that they may send from; none: `device`
    led: bool = False


@dataclass(frozen=True, slots=True)
class PauseApps:
    """Stand-in: end the proxies of the handover; the sessions are held as without any. -> AppsPaused."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class EndApps:
    """Stand-in: end the proxies of the handover and remove everything that they kept."""

    handover: bytes


@dataclass(frozen=True, slots=True)
class UseAppData:
    """Stand-in: read, write or remove files of a proxy as a device asks. -> AppDataUsed."""

    exchange: int
    request: OrderRequest


Part: TypeAlias = Flow | Ipv4Selector | Ipv6Selector
"""Packets of one connection, or those to one port."""


@dataclass(frozen=True, slots=True)
class PacketsLed:
    """Stand-in: the packets of these parts reach this host now; with a reason, they do not."""

    handover: bytes
    parts: tuple[Part, ...]
    reason: str = ""


AppAction: TypeAlias = StartApps | PauseApps | EndApps | UseAppData | PacketsLed


@dataclass(frozen=True, slots=True)
class AppsPaused:
    """The proxies of the handover have ended; `states` by name are for the device, `spoken` by session for its sockets.

    `surplus` by session: bytes that they put into the received stream less those that they left out.
    """

    handover: bytes
    states: Mapping[str, object] = field(default_factory=dict)
    spoken: Mapping[int, bytes] = field(default_factory=dict)
    surplus: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AppTold:
    """A proxy has emitted an event; the paging role acts on it. `state` is what it kept last; None: more than MAX_TOLD_STATE."""

    handover: bytes
    app: str
    kind: str
    flow: Flow | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)
    state: Mapping[str, object] | None = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AppDataUsed:
    """The answer to that request."""

    exchange: int
    request: OrderRequest
    answer: OrderAnswer


@dataclass(frozen=True, slots=True)
class PacketsWanted:
    """Packets that the proxies of a `led` handover need, all of them. -> PacketsLed"""

    handover: bytes
    parts: tuple[Part, ...]


AppEvent: TypeAlias = AppsPaused | AppTold | AppDataUsed | PacketsWanted
