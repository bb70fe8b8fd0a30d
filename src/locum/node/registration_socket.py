"""UDP port 434 of a host (RFC 5944 section 3.1) for everything that does not come from an access link.

Reads many datagrams per wake-up: at a home agent the cost of a registration is what counts. An answer leaves from the
address that was asked. Messages are bytes here.
"""

import errno
import socket
import struct
from collections.abc import Callable

UDP_PORT = 434
_IP_PKTINFO = 8  # not in the socket module of Python 3.11
_SO_RCVBUFFORCE = 33
_LONGEST = (
    65_535  # bytes of a datagram: packets of UDP tunnels come here as well, when they came in fragments
)
# Half of what a busy crowd has under way: while their rows are committed, the other half is taken.
_MOST_AT_ONCE = 64
_BUFFER = 4 << 20  # bytes; a burst of registrations waits here
_PKTINFO = struct.Struct("@I4s4s")
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO.size)

# (message, source address, source port, destination address, interface index)
Receiver = Callable[[bytes, str, int, bytes, int], None]


class RegistrationSocket:
    """The wildcard socket on port 434."""

    def __init__(self, receive: Receiver, oversized: Callable[[], None], port: int = UDP_PORT) -> None:
        """Raises OSError: the port is taken (EADDRINUSE) or needs a privilege (EACCES)."""
        self._receive, self._oversized = receive, oversized
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
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
        receive, recvmsg = self._receive, self._socket.recvmsg
        for _ in range(_MOST_AT_ONCE):
            try:
                message, ancillary, flags, address = recvmsg(_LONGEST, _ANCILLARY)
            except (BlockingIOError, InterruptedError):
                return
            except (
                OSError
            ) as problem:  # an ICMP error about an earlier answer; it says nothing about this socket
                if problem.errno in (errno.EBADF, errno.ENOTSOCK):
                    raise
                continue
            if flags & socket.MSG_TRUNC:
                self._oversized()
                continue
            index, _, destination = _PKTINFO.unpack_from(ancillary[0][2])
            receive(message, address[0], address[1], destination, index)

    def send(self, message: bytes, to: str, port: int, source: bytes = b"\0\0\0\0", index: int = 0) -> None:
        """A datagram from local address `source` (packed; zeros: any), by interface `index` (0: routing decides).

        Raises OSError; a full send buffer loses the datagram as a full link would.
        """
        ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(index, source, b"\0\0\0\0"))]
        try:
            self._socket.sendmsg([message], ancillary, 0, (to, port))
        except BlockingIOError:
            return

    def close(self) -> None:
        self._socket.close()
