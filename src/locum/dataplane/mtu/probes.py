"""Sends probes of the paths of tunnels, reads the answers, and gives what was found to the kernel's table.

Probes leave by raw sockets and meet our programs as tunnel packets of this host, like fragments (`pieces`). Answers come
to raw ICMP sockets. `probing` decides; this has the sockets, the clock and the randomness.
"""

import socket
import struct
from collections.abc import Callable
from secrets import token_bytes
from typing import Protocol

from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.kernel.network import MtuRoutes, boot_time
from locum.dataplane.kernel.settings import PROBES, Uses
from locum.dataplane.mtu.paths import Paths
from locum.dataplane.mtu.probe_packets import REPLY, TOKEN_BYTES, message, probe_packet, token_of
from locum.dataplane.mtu.probing import Probe, Probing
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel

MOST_AT_ONCE = 64  # answers of one socket, before others have their turn
ROOM = 64 << 10  # bytes that wait in the kernel: a flood is lost there
LONGEST = 2048
ANY_PORT = 9
# linux/in.h, linux/in6.h, linux/icmp.h; the socket module has no names for them.
IP_MTU, IPV6_MTU = 14, 24
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Tables(Protocol):
    state: ForwardingState

    @property
    def own(self) -> frozenset[Addr]:
        """Addresses of the attached interfaces."""


def route_mtu(tunnel: Tunnel) -> int | None:
    """The MTU of the route to a tunnel's end, in bytes; None: there is no route."""
    v4 = tunnel.destination.version == 4
    level, option = (socket.IPPROTO_IP, IP_MTU) if v4 else (socket.IPPROTO_IPV6, IPV6_MTU)
    with socket.socket(FAMILIES[tunnel.destination.version], socket.SOCK_DGRAM) as asking:
        try:
            asking.bind((str(tunnel.source), 0))
            asking.connect((str(tunnel.destination), ANY_PORT))
            return asking.getsockopt(level, option)
        except OSError:
            return None


def _answer_socket(version: int) -> socket.socket:
    """A raw socket for echo replies. Raises PermissionError without CAP_NET_RAW."""
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    made = socket.socket(FAMILIES[version], socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    if version == 4:  # a bit that is set is a type that is not wanted
        made.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF ^ 1 << REPLY[4]))
    else:
        words = [0xFFFFFFFF] * 8
        words[REPLY[6] // 32] ^= 1 << REPLY[6] % 32
        made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *words))
    return made


class PathProbes:
    """The probes of a data plane, from `open` to `close`."""

    def __init__(self, uses: Uses, told: Map, tables: _Tables, paths: Paths, routes: MtuRoutes) -> None:
        """`told` has the ends of tunnels of whose large packets the programs have told lately."""
        self._uses, self._told, self._paths, self._routes = uses, told, paths, routes
        # Called with the end of tunnels whose path is wider than thought, and the new MTU in bytes.
        self.tell_raised: Callable[[Addr, int], None] = lambda _end, _mtu: None
        self.tell_pending: Callable[[], None] = lambda: None  # called when `serve` has something to do
        self.probing = Probing(tables, route_mtu, paths.limit, self._found, lambda: token_bytes(TOKEN_BYTES))
        self._answers: dict[int, socket.socket] = {}
        self._senders: dict[int, socket.socket] = {}
        uses.set(PROBES, False)

    def open(self) -> None:
        """Begin: the programs tell of large packets. Raises PermissionError without CAP_NET_RAW."""
        for version, family in FAMILIES.items():
            answers = _answer_socket(version)
            self._answers[answers.fileno()] = answers
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            self._senders[version] = socket.socket(family, kind, socket.IPPROTO_RAW)
        self._told.delete_many([key for key, _ in self._told.items()])
        self._uses.set(PROBES, True)

    def close(self) -> None:
        """No probe goes out any more."""
        if self._answers:
            self._uses.set(PROBES, False)
        for opened in (*self._answers.values(), *self._senders.values()):
            opened.close()
        self._answers.clear()
        self._senders.clear()

    # In

    def filenos(self) -> list[int]:
        """For the event loop: call `read` with the one that is readable."""
        return list(self._answers)

    def large(self, source: Addr, destination: Addr) -> None:
        """A packet between these addresses is large in its tunnel."""
        if self._answers:
            self.probing.large(source, destination, boot_time())
            self.tell_pending()

    def told(self, end: Addr, mtu: int) -> None:
        """A router told of a narrower path, and is believed."""
        self.probing.told(end, mtu, boot_time())
        self.tell_pending()

    def read(self, fileno: int) -> None:
        """Read waiting answers."""
        answers = self._answers[fileno]
        version = 4 if answers.family == socket.AF_INET else 6
        for _ in range(MOST_AT_ONCE):
            try:
                data = answers.recv(LONGEST)
            except OSError:  # nothing waits
                break
            token = token_of(version, data[(data[0] & 15) * 4 :] if version == 4 else data)
            if token is not None:
                self.probing.answered(token, boot_time())
        self.tell_pending()

    # Out

    def serve(self) -> float | None:
        """Send the probes that are due; seconds until there is more to do, None: nothing is under way."""
        now = boot_time()
        for probe in self.probing.take_due(now):
            self._send(probe)
        deadline = self.probing.deadline()
        return None if deadline is None else max(deadline - now, 0.0)

    def _send(self, probe: Probe) -> None:
        inner = message(probe.source, probe.destination, probe.token, asks=probe.asks)
        packet = probe_packet(probe.tunnel, inner, probe.size)
        end = probe.tunnel.destination
        try:
            self._senders[end.version].sendto(packet, (str(end), 0))
        except OSError:  # no route any more, or the link is narrower than it was: like a lost one
            self.probing.counts["path-probes-not-sent"] += 1

    def _found(self, end: Addr, mtu: int, *, of_route: bool) -> None:
        before = self._paths.limit(end)
        if of_route:
            self._paths.forget(end)
        elif before is None or mtu < before:
            self._paths.learn(end, mtu)
            self._routes.expect(end, mtu)
        else:
            self._paths.keep(end, mtu)
        if before is not None and mtu > before:
            self._routes.widen(end)
            self.tell_raised(end, mtu)
