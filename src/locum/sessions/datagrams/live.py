"""The device's end of a connected UDP socket: held datagrams come back as packets from its peer (A12, C3).

The socket itself is not touched: its program is frozen, and no packet of the flow reaches this host meanwhile. This
module must not know who freezes, how flows are held or how a record travels; it never waits.
"""

import errno
import select
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address

from locum.sessions.datagram_flows import why_not_held
from locum.sessions.datagrams.frames import frames
from locum.sessions.datagrams.record import DatagramRecord, Repeated
from locum.sessions.search.find import Candidate
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.live import duplicate_of
from locum.sessions.tcp.receiving import Injected
from locum.wire.control import Flow
from locum.wire.ip import build_udp, build_unreachable

UDP_ENCAP = 100
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")  # SK_MEMINFO_RMEM_ALLOC first, then SK_MEMINFO_RCVBUF
_OVERHEAD = 1280  # bytes that the kernel counts for a datagram beyond twice its payload, at most
# ICMP codes that make the kernel report an error: of IPv4 and of IPv6
_CODES = {
    errno.ECONNREFUSED: (3, 4),
    errno.EHOSTUNREACH: (1, 3),
    errno.ENETUNREACH: (0, 0),
    errno.EACCES: (13, 1),
}


@dataclass(frozen=True, slots=True)
class ParkedDatagrams:
    """Data that the device's node stores (JSON) until the session is done. `injected`: bytes given so far."""

    flow: Flow
    injected: int = 0

    def to_json(self) -> dict[str, object]:
        """Only JSON types; `from_json` takes it back."""
        flow = self.flow
        ends = [flow.protocol, str(flow.local), flow.local_port, str(flow.peer), flow.peer_port]
        return {"flow": ends, "injected": self.injected}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "ParkedDatagrams":
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        ends, injected = value["flow"], value["injected"]
        if not isinstance(ends, (list, tuple)) or len(ends) != 5 or not isinstance(injected, int):
            raise ValueError("the row of a parked datagram session is malformed")
        protocol, local, local_port, peer, peer_port = ends
        return cls(Flow(int(protocol), ip_address(local), int(local_port), ip_address(peer), int(peer_port)), injected)  # fmt: skip


class LiveDatagrams:
    """A second descriptor of a program's UDP socket; in the shape of LiveSocket.

    Repair mode does not exist here, so `hold`, `let_go` and `resume` have nothing to do.
    """

    def __init__(self, sock: socket.socket, flow: Flow, parked: ParkedDatagrams | None = None) -> None:
        self.socket = sock
        self.flow = flow
        self.parked = parked or ParkedDatagrams(flow)
        self._partial = b""

    @classmethod
    def open(cls, candidate: Candidate, parked: ParkedDatagrams | None = None) -> "LiveDatagrams":
        """Duplicates the socket from whichever holder still has it; raises SessionError when none has."""
        return cls(duplicate_of(candidate), candidate.flow, parked)

    def capture(self, repeated: Repeated | None = None) -> DatagramRecord:
        """The record; `repeated` is a rule's keep-alive. Raises SessionError for unsuitable sockets."""
        if (reason := why_not_held(self.flow)) is not None:
            raise SessionError(reason)
        with suppress(OSError):
            if self.socket.getsockopt(socket.IPPROTO_UDP, UDP_ENCAP):
                raise SessionError(f"{self.flow} carries the kernel's own tunnel (UDP_ENCAP)")
        if self.socket.family == socket.AF_INET or isinstance(self.flow.local, IPv4Address):
            ttl = self.socket.getsockopt(socket.SOL_IP, socket.IP_TTL)
            kind = self.socket.getsockopt(socket.SOL_IP, socket.IP_TOS)
        else:
            ttl = self.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
            kind = self.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        return DatagramRecord(self.flow, ttl, max(kind, 0), repeated)

    def unread(self) -> int:
        """Bytes that the kernel counts for datagrams the program has still to read; 0 when it has read all."""
        readable = select.poll()
        readable.register(self.socket.fileno(), select.POLLIN)
        if not any(events & select.POLLIN for _, events in readable.poll(0)):
            return 0
        return max(self._memory()[0], 1)

    def position(self) -> int:
        """Bytes of the stream taken since the capture; `parked` counts whole frames alone."""
        return self.parked.injected + len(self._partial)

    def inject(self, data: bytes | memoryview) -> Injected:
        """The packets of as many frames as the receive buffer has room for: deliver them to this host.

        The beginning of a frame at the end of `data` is kept here until the rest comes.
        """
        used, most = self._memory()
        whole = self._partial + bytes(data)
        at, packets = 0, list[bytes]()
        for frame in frames(whole):
            cost = 2 * len(frame.payload) + _OVERHEAD
            if used and used + cost > most:
                accepted = max(at - len(self._partial), 0)
                break
            used += cost
            at += frame.size
            packets.append(build_udp(self.flow, frame.payload))
        else:
            accepted = len(data)
        if at or accepted:
            self._partial = whole[at:] if accepted == len(data) else b""
        self.parked = replace(self.parked, injected=self.parked.injected + at)
        return Injected(accepted, tuple(packets))

    def finish(self, final: FinalTcp, *, closed: bool = False) -> tuple[bytes, ...]:
        """The packets that end the session's absence: an ICMP error that the stand-in's socket has met, or none.

        `closed`: the program has closed its socket, so that nothing is left to tell.
        """
        codes = None if closed else _CODES.get(final.error)
        return () if codes is None else (build_unreachable(self.flow, *codes),)

    def hold(self) -> None:
        """No action: the program is frozen, and the flow is held."""

    def let_go(self) -> None:
        """No action."""

    def resume(self) -> None:
        """No action: the socket is unchanged."""

    def refuses(self) -> bool:
        """False: a program cannot refuse datagrams without closing its socket."""
        return False

    def nudge(self) -> tuple[bytes, ...]:
        """None: the peer waits for no window."""
        return ()

    def reassurance(self) -> tuple[bytes, ...]:
        """None: a datagram socket waits for nothing from its peer."""
        return ()

    def close(self) -> None:
        """Drops our descriptor; the socket stays the program's."""
        self.socket.close()

    def _memory(self) -> tuple[int, int]:
        raw = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size).ljust(
            _MEMINFO.size, b"\0"
        )
        values = _MEMINFO.unpack(raw)
        return values[0], values[1]
