"""Receives the home agent's answers to keepalives of a UDP tunnel (RFC 3519 section 4.9): ICMP echo replies to the home
address. The echo requests go out as tunnel data from the registration port; this only receives. It decides nothing.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from locum.node.registration.echo_socket import echo_socket
from locum.roles.actions import EchoAnswered
from locum.wire.ip.checksum import checksum

_ECHO_REPLY = 0
_LONGEST = 256
_MOST_AT_ONCE = 64  # replies a wake-up; a ping of the user's comes by here as well
_ECHO = struct.Struct("!BxHHH")  # type, checksum, identifier, sequence


class EchoWatch:
    """A raw socket on the home address, for replies of the home agent, or of whichever it is (None). Raises OSError without CAP_NET_RAW.

    It gets packets before the kernel has looked at their checksums. `refused(reason)` is called for wrong ones.
    """

    def __init__(
        self,
        home_address: IPv4Address,
        home_agent: IPv4Address | None,
        answered: Callable[[EchoAnswered], None],
        refused: Callable[[str], object],
    ) -> None:
        self._answered, self._refused = answered, refused
        self._socket = echo_socket(home_address, _ECHO_REPLY, home_agent)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        """Handle waiting replies."""
        for _ in range(_MOST_AT_ONCE):
            try:
                packet = self._socket.recv(_LONGEST)
            except OSError:  # no more packets, or an ICMP error about an earlier one
                return
            header = (packet[0] & 15) * 4 if packet else 0
            if len(packet) < header + _ECHO.size or len(packet) == _LONGEST:
                continue
            if checksum(packet[header:]):
                self._refused("keepalive-bad-checksum")
                continue
            _, _, identifier, sequence = _ECHO.unpack_from(packet, header)
            self._answered(EchoAnswered(identifier, sequence))

    def close(self) -> None:
        self._socket.close()
