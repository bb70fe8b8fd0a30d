"""Sockets that get ICMP errors to this host, and send the messages that are made of them to the senders of packets."""

import socket
import struct
from collections.abc import Callable

from locum.dataplane.icmp_message import Told

MOST_AT_ONCE = 64  # messages, before others have their turn
ROOM = 64 << 10  # bytes that wait in the kernel: a flood is lost there
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1  # Linux; the socket module has no names for them
# Types: unreachable, time exceeded, parameter problem
WANTED = {socket.AF_INET: (3, 11, 12), socket.AF_INET6: (1, 3, 4)}


class ErrorSockets:
    """Raw sockets for ICMP and ICMPv6. `tell` makes a message of an error, given its IP version, or None."""

    def __init__(self, tell: Callable[[int, bytes], Told | None]) -> None:
        """Raises PermissionError without CAP_NET_RAW."""
        self._tell = tell
        self._sockets: dict[int, socket.socket] = {}
        for family, protocol in (
            (socket.AF_INET, socket.IPPROTO_ICMP),
            (socket.AF_INET6, socket.IPPROTO_ICMPV6),
        ):
            sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            wanted = sum(1 << kind for kind in WANTED[family])
            if family == socket.AF_INET:
                sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF ^ wanted))
            else:
                blocked = struct.pack("=8I", 0xFFFFFFFF ^ wanted, *(0xFFFFFFFF,) * 7)
                sock.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, blocked)
            self._sockets[sock.fileno()] = sock

    def filenos(self) -> list[int]:
        """For the event loop: call `read` with the one that is readable."""
        return list(self._sockets)

    def read(self, fileno: int) -> int:
        """Read waiting errors of this socket, MOST_AT_ONCE at most; returns the number of messages sent."""
        sock, sent = self._sockets[fileno], 0
        version = 4 if sock.family == socket.AF_INET else 6
        for _ in range(MOST_AT_ONCE):
            try:
                data = sock.recv(2048)
            except OSError:  # nothing waits, or an error about a message of ours
                break
            told = self._tell(version, data[(data[0] & 15) * 4 :] if version == 4 else data)
            sent += told is not None and self._send(told)
        return sent

    def _send(self, told: Told) -> bool:
        family = socket.AF_INET if told.destination.version == 4 else socket.AF_INET6
        sender = next(sock for sock in self._sockets.values() if sock.family == family)
        try:
            sender.sendto(told.message, (str(told.destination), 0))
        except OSError:  # no route: its sender has to do without
            return False
        return True

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
