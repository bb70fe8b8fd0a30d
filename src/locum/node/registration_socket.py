"""UDP port 434 of a host (RFC 5944 section 3.1) for everything that does not come from an access link.

Reads many datagrams per wake-up: at a home agent the cost of a registration is what counts. An answer leaves from the
address that was asked. Messages are bytes here.
"""

import errno
import logging
import socket
from collections.abc import Callable, Sequence

from locum.node.datagrams import ANY, IP_PKTINFO, Datagram, Inbox, Outbox

log = logging.getLogger("locum.registration")
UDP_PORT = 434
_SO_RCVBUFFORCE = 33
_LONGEST = (
    65_535  # bytes of a datagram: packets of UDP tunnels come here as well, when they came in fragments
)
# Half of what a busy crowd has under way: while their rows are committed, the other half is taken.
_MOST_AT_ONCE = 64
_BUFFER = 4 << 20  # bytes; a burst of registrations waits here

# (message, source address, source port, destination address, interface index)
Receiver = Callable[[bytes, str, int, bytes, int], None]


class RegistrationSocket:
    """The wildcard socket on port 434."""

    def __init__(self, receive: Receiver, oversized: Callable[[], None], port: int = UDP_PORT) -> None:
        """Raises OSError: the port is taken (EADDRINUSE) or needs a privilege (EACCES)."""
        self._receive, self._oversized = receive, oversized
        self._inbox, self._outbox = Inbox(_MOST_AT_ONCE, _LONGEST), Outbox(_MOST_AT_ONCE)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind(("", port))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        """Hand out what has arrived."""
        try:
            arrived, oversized = self._inbox.receive(self._socket.fileno())
        except OSError as problem:
            if problem.errno in (errno.EBADF, errno.ENOTSOCK):
                raise
            return  # nothing, or an ICMP error about an earlier answer; it says nothing about this socket
        receive = self._receive
        for each in arrived:
            try:
                receive(*each)
            except Exception:  # ours, and no reason to lose the others
                log.exception("a datagram from %s", each[1])
        for _ in range(oversized):
            self._oversized()

    def send(self, message: bytes, to: str, port: int, source: bytes = ANY, index: int = 0) -> None:
        """A datagram from local address `source` (packed; ANY: any), by interface `index` (0: routing decides).

        Raises OSError; a full send buffer loses the datagram as a full link would.
        """
        for _, problem in self.send_all([(message, to, port, source, index)]):
            raise problem

    def send_all(self, datagrams: Sequence[Datagram]) -> list[tuple[int, OSError]]:
        """The same for many, in their order. The result names those that were not sent by their place, and says why."""
        failed = self._outbox.send(self._socket.fileno(), datagrams)
        return [each for each in failed if not isinstance(each[1], BlockingIOError)]

    def close(self) -> None:
        self._socket.close()
