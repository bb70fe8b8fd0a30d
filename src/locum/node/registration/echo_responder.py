"""Answers keepalives of UDP tunnels (RFC 3519 section 4.9) where the home agent's own kernel cannot.

The kernel answers an echo request to the home agent's address, unless it has no route to home addresses of its own: those
are often unreachable for the host itself, so that nothing circles between it and its router. Then this does, and the
answer goes into the tunnel through the data plane like any packet to the home address. It decides nothing else.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address

from locum.node.registration.echo_socket import echo_socket
from locum.wire.errors import WireError
from locum.wire.ip.checksum import checksum
from locum.wire.ip.headers import ICMP
from locum.wire.ip.packet import build_ip
from locum.wire.ip.transport import IcmpMessage

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_LONGEST = 2048
_MOST_AT_ONCE = 64  # requests a wake-up, so that a flood does not starve timers
_ANY_PORT = 9


class EchoResponder:
    """A raw socket on the home agent's address. `serves` is true for a home address with a UDP tunnel.

    Raises OSError without CAP_NET_RAW.
    """

    def __init__(
        self,
        home_agent: IPv4Address,
        serves: Callable[[IPv4Address], bool],
        inject: Callable[[bytes], None],
        refused: Callable[[str], object],
    ) -> None:
        """`refused(reason)` is called for requests with a wrong checksum: a raw socket gets them unchecked."""
        self._home_agent, self._serves, self._inject, self._refused = home_agent, serves, inject, refused
        self._socket = echo_socket(home_agent, _ECHO_REQUEST)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        """Answer waiting requests."""
        for _ in range(_MOST_AT_ONCE):
            try:
                packet, (sender, _) = self._socket.recvfrom(_LONGEST)
            except OSError:  # nothing more
                return
            home_address = IPv4Address(sender)
            if self._serves(home_address) and not routed(home_address):
                self._answer(home_address, packet[(packet[0] & 15) * 4 :])

    def _answer(self, home_address: IPv4Address, message: bytes) -> None:
        try:
            asked = IcmpMessage.decode(message)
        except WireError:
            return
        if checksum(message):
            self._refused("keepalive-bad-checksum")
            return
        reply = IcmpMessage(_ECHO_REPLY, 0, asked.rest, asked.body).encode()
        self._inject(build_ip(self._home_agent, home_address, ICMP, reply))

    def close(self) -> None:
        self._socket.close()


def routed(address: IPv4Address) -> bool:
    """True if the kernel has a route to that address for packets of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((str(address), _ANY_PORT))
        except OSError:
            return False
    return True
