"""Answers held packets of returning connections, in place of the kernel that will have them (C3).

`zero_window.py` builds the answers. Here are the sockets: the timestamp clock is that of the program's own socket, and
answers leave by a raw socket whose mark lets them through a suspended flow.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.node.events import flow_text
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.zero_window import Silence, answer
from locum.wire.control import Flow

log = logging.getLogger("locum.sessions")
_IPV6_HDRINCL = 36  # linux/in6.h

Take = Callable[[bytes], None]
Divert = Callable[[Flow, Take | None], None]


@dataclass(frozen=True, slots=True)
class _Answering:
    live: LiveSocket
    expected: int  # the peer's next sequence number


class PeerAnswers:
    """`divert` gives held packets of a flow to a function instead of the queue, None: to the queue again."""

    def __init__(self, divert: Divert, mark: int) -> None:
        self._divert, self._mark = divert, mark
        self._answering: dict[Flow, _Answering] = {}
        self.ended: set[Flow] = set()  # their peers have reset them

    def begin(self, live: LiveSocket, expected: int) -> None:
        """Answer from now on, until `end`: `expected` is the peer's next unreceived sequence number."""
        flow = live.flow
        self._answering[flow] = _Answering(live, expected)
        self._divert(flow, lambda packet: self._take(flow, packet))

    def end(self, flow: Flow) -> None:
        """Packets of this flow wait again."""
        if self._answering.pop(flow, None) is not None:
            self._divert(flow, None)
        self.ended.discard(flow)

    def _take(self, flow: Flow, packet: bytes) -> None:
        known = self._answering.get(flow)
        if known is None:
            return
        try:
            said = answer(flow, packet, known.expected, known.live.timestamp_now())
            if isinstance(said, Silence):
                if said.ended:
                    self.ended.add(flow)
                return
            send(flow, said, self._mark)
        except OSError as problem:  # the peer asks again
            log.info("the peer of %s was not answered: %s", flow_text(flow), problem)


def send(flow: Flow, packet: bytes, mark: int) -> None:
    """Send an IP packet from the home address, by this host's routes. Raises OSError."""
    family = socket.AF_INET if isinstance(flow.local, IPv4Address) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        raw.bind((str(flow.local), 0))  # for routes by source
        raw.sendto(packet, (str(flow.peer), 0))
