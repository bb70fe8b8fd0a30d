"""A listener of a proxy, for TCP connections or UDP datagrams: one number, and a socket for each address family."""

import contextlib
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from locum.roles.app_network import UDP, Datagram

_ACCEPTED_AT_ONCE = 64
_DATAGRAMS_AT_ONCE = 64
_DATAGRAM = 65535  # bytes
_WAITING = 64  # datagrams that are sent as soon as there are sockets


@dataclass(slots=True, eq=False)
class Listener:
    """`number` is the proxy's name for it."""

    number: int
    port: int
    protocol: int
    sockets: list[socket.socket] = field(default_factory=list)
    paused: bool = False
    waiting: deque[tuple[str, int, bytes]] = field(default_factory=deque)

    def accept(self, at: int, most: int) -> Iterator[tuple[socket.socket, str, int]]:
        """Connections that wait at one of its sockets, at most so many, with the peers' addresses and ports."""
        waiting = self.sockets[at]
        for _ in range(min(most, _ACCEPTED_AT_ONCE)):
            try:
                sock, peer = waiting.accept()
            except ConnectionAbortedError:
                continue
            except BlockingIOError:
                return
            sock.setblocking(False)
            yield sock, peer[0], peer[1]

    def datagrams(self, at: int) -> Iterator[Datagram]:
        """Datagrams that wait at one of its sockets. An error of an earlier one is passed over."""
        waiting = self.sockets[at]
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data, peer = waiting.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue
            yield Datagram(self.number, peer[0], peer[1], data)

    def send(self, host: str, port: int, data: bytes) -> None:
        """To an address, as soon as there are sockets. It is lost if there is no way, or no room."""
        if not self.sockets:
            if len(self.waiting) < _WAITING:
                self.waiting.append((host, port, data))
            return
        family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
        for sock in self.sockets:
            if sock.family == family and self.protocol == UDP:
                with contextlib.suppress(OSError, OverflowError):
                    sock.sendto(data, (host, port))

    def opened(self) -> None:
        """There are sockets: send the datagrams that wait for them."""
        while self.waiting:
            self.send(*self.waiting.popleft())
