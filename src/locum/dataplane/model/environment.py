"""Inputs of a decision of the model besides the tables, and its results. Values only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from locum.dataplane.hold import HeldPacket
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.parse import Packet
from locum.roles.action_values.flows import Tunnel


class Socket(Enum):
    """State of the host's sockets for a packet; None: no socket matches."""

    CONNECTED = "connected"  # TCP in any state but LISTEN
    LISTENING = "listening"  # TCP in LISTEN, or UDP
    PROXY = "proxy"  # the same of an application proxy


@dataclass(frozen=True, slots=True)
class Environment:
    """State of the kernel besides our maps. `route_mtu` is the MTU to a tunnel's far end, None: no route.

    `inner_mtus` are those of the routes that answer for packets that are too big, with the places of their tables.
    """

    tap: int
    links: Mapping[str, int]
    own: frozenset[bytes] = frozenset()
    route_mtu: Callable[[Tunnel], int | None] = lambda _tunnel: 1500
    link_mtu: Callable[[int], int] = lambda _ifindex: 1500
    socket: Callable[[Packet], Socket | None] = lambda _packet: None
    now: Callable[[], float] = lambda: 0.0  # seconds, for the age of fragments
    hardware: Mapping[int, bytes] = field(default_factory=dict)  # link-layer addresses by index
    number: int = 0  # of the node in its namespace
    inner_mtus: Callable[[], Mapping[int, int]] = lambda: {1480: 0}
    access: frozenset[int] = frozenset()  # indices of the links on which visitors are served
    # The sources of packets on these links are checked, and their hardware addresses too.
    checked: bool = False
    by_hardware: bool = False
    # Whether an address is of a network of the link.
    networks: Callable[[int, bytes], bool] = lambda _ifindex, _address: True


@dataclass(slots=True)
class Result:
    """Result for a packet. `frame` is set unless it was dropped or held; `ifindex` if it was delivered."""

    outcome: Outcome
    frame: bytes = b""
    reason: Reason = Reason.NONE
    mark: int = 0
    ifindex: int = 0
    held: HeldPacket | None = None
