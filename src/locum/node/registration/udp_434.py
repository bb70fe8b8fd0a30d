"""UDP port 434 of a host (RFC 5944 section 3.1) for everything that does not come from an access link.

Reads many datagrams per wake-up: at a home agent the cost of a registration is what counts. An answer leaves from the
address that was asked. Messages are bytes here.
"""

import errno
import logging
import socket
import struct
from collections.abc import Callable, Sequence

from locum.node.host.unlearnt_paths import learn_no_path_mtu
from locum.node.registration.datagrams import ANY, IP_PKTINFO, Datagram, Inbox, Outbox

log = logging.getLogger("locum.registration")
UDP_PORT = 434
_IP_RECVERR = 11  # not in the socket module of Python 3.11
_SO_EE_ORIGIN_ICMP = 2
_SO_RCVBUFFORCE = 33
# Bytes of a datagram: packets of UDP tunnels come here as well, when they came in fragments.
_LONGEST = 65_535
# Half of a busy crowd's pending messages: while their rows are committed, the other half is taken.
_MOST_AT_ONCE = 64
_BUFFER = 4 << 20  # bytes; a burst of registrations waits here
_EXTENDED_ERROR = struct.Struct("@IBBBBII")  # sock_extended_err: errno, origin, type, code
# in_pktinfo, the type of service, the error, and the address of its sender
_ERROR_ANCILLARY = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(1) + socket.CMSG_SPACE(_EXTENDED_ERROR.size + 16)
_QUOTED = 576  # bytes; RFC 1812 section 4.3.2.3: an ICMP error is no longer

# (message, source address, source port, destination address, interface index)
Receiver = Callable[[bytes, str, int, bytes, int, int], None]
# (quoted part of the message, its destination, port, ICMP type, ICMP code)
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
        """`unreachable` gets ICMP errors about sent messages that the kernel accepts: it checks that a
        message could have gone from here to there, and nothing more.

        Raises OSError: the port is taken (EADDRINUSE) or needs a privilege (EACCES).
        """
        self._receive, self._oversized, self._unreachable = receive, oversized, unreachable
        self._inbox, self._outbox = Inbox(_MOST_AT_ONCE, _LONGEST), Outbox(_MOST_AT_ONCE)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            learn_no_path_mtu(self._socket)
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
        """Hand on the messages that have arrived, then the ICMP errors."""
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
        try:
            arrived, oversized = self._inbox.receive(self._socket.fileno())
        except OSError as problem:
            if problem.errno in (errno.EBADF, errno.ENOTSOCK):
                raise
            return  # nothing, or an ICMP error about an earlier answer; it says nothing about this socket
        receive = self._receive
        for datagram in arrived:
            try:
                receive(*datagram)
            except Exception:  # ours, and no reason to lose the others
                log.exception("a datagram from %s", datagram[1])
        for _ in range(oversized):
            self._oversized()

    def send(self, message: bytes, to: str, port: int, source: bytes = ANY, index: int = 0) -> None:
        """A datagram from local address `source` (packed; ANY: any), by interface `index` (0: routing decides).

        Raises OSError; a full send buffer loses the datagram as a full link would.
        """
        for _, problem in self.send_all([(message, to, port, source, index)]):
            raise problem

    def send_all(self, datagrams: Sequence[Datagram]) -> list[tuple[int, OSError]]:
        """Send many, in their order. The result has the places of those that were not sent, with reasons."""
        fileno = self._socket.fileno()
        failed = self._outbox.send(fileno, datagrams)
        if failed and self._unreachable is not None:
            # That may have been the error of an earlier message: the kernel reports it to the next caller.
            again = self._outbox.send(fileno, [datagrams[place] for place, _ in failed])
            failed = [(failed[number][0], problem) for number, problem in again]
        return [failure for failure in failed if not isinstance(failure[1], BlockingIOError)]

    def close(self) -> None:
        self._socket.close()
