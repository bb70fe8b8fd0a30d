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
_IP_RECVERR = 11  # the same
_SO_EE_ORIGIN_ICMP = 2
_SO_RCVBUFFORCE = 33
_LONGEST = (
    65_535  # bytes of a datagram: packets of UDP tunnels come here as well, when they came in fragments
)
# Half of what a busy crowd has under way: while their rows are committed, the other half is taken.
_MOST_AT_ONCE = 64
_BUFFER = 4 << 20  # bytes; a burst of registrations waits here
_PKTINFO = struct.Struct("@I4s4s")
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO.size)
_EXTENDED_ERROR = struct.Struct("@IBBBBII")  # sock_extended_err: errno, origin, type, code
_ERROR_ANCILLARY = _ANCILLARY + socket.CMSG_SPACE(_EXTENDED_ERROR.size + 16)  # and the address of who says so
_QUOTED = 576  # bytes; RFC 1812 section 4.3.2.3: an ICMP error is no longer

# (message, source address, source port, destination address, interface index)
Receiver = Callable[[bytes, str, int, bytes, int], None]
# (what is quoted of the message, where it went to, port, ICMP type, ICMP code)
Unreachable = Callable[[bytes, str, int, int, int], None]


class RegistrationSocket:
    """The wildcard socket on port 434."""

    def __init__(
        self,
        receive: Receiver,
        oversized: Callable[[], None],
        port: int = UDP_PORT,
        unreachable: Unreachable | None = None,
    ) -> None:
        """`unreachable` hears of ICMP errors about what was sent, as far as the kernel believes them: it checks that a
        message could have gone from here to there, and nothing more.

        Raises OSError: the port is taken (EADDRINUSE) or needs a privilege (EACCES).
        """
        self._receive, self._oversized, self._unreachable = receive, oversized, unreachable
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            if unreachable is not None:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            self._socket.bind(("", port))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        """Hand out what has arrived, messages first."""
        self._read_messages()
        if self._unreachable is not None:
            self._read_errors(self._unreachable)

    def _read_errors(self, unreachable: Unreachable) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                quoted, ancillary, _, address = self._socket.recvmsg(
                    _QUOTED, _ERROR_ANCILLARY, socket.MSG_ERRQUEUE
                )
            except OSError:
                return
            for level, kind, data in ancillary:
                if (level, kind) != (socket.IPPROTO_IP, _IP_RECVERR) or len(data) < _EXTENDED_ERROR.size:
                    continue
                _, origin, icmp_type, icmp_code, *_ = _EXTENDED_ERROR.unpack_from(data)
                if origin == _SO_EE_ORIGIN_ICMP:
                    unreachable(quoted, address[0], address[1], icmp_type, icmp_code)

    def _read_messages(self) -> None:
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
            try:
                self._socket.sendmsg([message], ancillary, 0, (to, port))
            except BlockingIOError:
                return
            except OSError:
                if self._unreachable is None:
                    raise
                # That may have been the error of an earlier message: the kernel tells it to whoever comes next.
                self._socket.sendmsg([message], ancillary, 0, (to, port))
        except BlockingIOError:
            return

    def close(self) -> None:
        self._socket.close()
