"""What a decision of the model depends on besides the tables, and what comes of it. Values only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from locum.dataplane.hold import HeldPacket
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.parse import Packet
from locum.roles.action_values.flows import Tunnel


class Socket(Enum):
    """What the host's sockets say of a packet; None: nobody has one for it."""

    CONNECTED = "connected"  # TCP in any state but LISTEN
    LISTENING = "listening"  # TCP in LISTEN, or UDP


@dataclass(frozen=True, slots=True)
class Environment:
    """What the kernel knows besides our maps. `route_mtu` is the MTU towards a tunnel's far end, None: no route."""

    tap: int
    links: Mapping[str, int]
    own: frozenset[bytes] = frozenset()
    route_mtu: Callable[[Tunnel], int | None] = lambda _tunnel: 1500
    link_mtu: Callable[[int], int] = lambda _ifindex: 1500
    socket: Callable[[Packet], Socket | None] = lambda _packet: None
    now: Callable[[], float] = lambda: 0.0  # seconds, for the age of fragments
    access: frozenset[int] = frozenset()  # indices of the links on which visitors are served


@dataclass(slots=True)
class Result:
    """What became of a packet. `frame` is meaningful unless it was dropped or held; `ifindex` where it was delivered."""

    outcome: Outcome
    frame: bytes = b""
    reason: Reason = Reason.NONE
    mark: int = 0
    ifindex: int = 0
    held: HeldPacket | None = None
