"""Receives the home agent's answers to keepalives of a UDP tunnel (RFC 3519 section 4.9): ICMP echo replies to the home
address. The echo requests go out as tunnel data from the registration port; this only receives. It decides nothing.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from locum.node.registration.echo_socket import echo_socket
from locum.roles.actions import EchoAnswered

_ECHO_REPLY = 0
_LONGEST = 256
_MOST_AT_ONCE = 64  # replies a wake-up; a ping of the user's comes by here as well
_ECHO = struct.Struct("!BxHHH")  # type, checksum, identifier, sequence


class EchoWatch:
    """A raw socket on the home address, for replies of the home agent. Raises OSError without CAP_NET_RAW."""

    def __init__(
        self, home_address: IPv4Address, home_agent: IPv4Address, answered: Callable[[EchoAnswered], None]
    ) -> None:
        self._answered = answered
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
            if len(packet) >= header + _ECHO.size:
                _, _, identifier, sequence = _ECHO.unpack_from(packet, header)
                self._answered(EchoAnswered(identifier, sequence))

    def close(self) -> None:
        self._socket.close()
