"""Asks visitors on access links whether they are still there: unicast ARP (RFC 826; RFC 5944 section 4.6). Decides nothing.

A packet socket for each link, opened when the first probe goes there: the kernel's own neighbour entries for visitors are
permanent and are never asked about. A link that cannot be sent on is a probe without an answer.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from locum.roles import actions as do

log = logging.getLogger("locum.prober")

_ETH_P_ARP = 0x0806
_ETHERNET, _IPV4 = 1, 0x0800  # RFC 826: hardware and protocol type
_REQUEST, _REPLY = 1, 2
_HEAD = struct.Struct("!HHBBH")
_LENGTH = _HEAD.size + 2 * (6 + 4)
_MOST_AT_ONCE = 64  # packets a wake-up, so that a flood does not starve timers
_OTHERHOST = 3  # packet types of a packet socket (linux/if_packet.h)
_OUTGOING = 4


class Prober:
    """Probes of one host. `answered` is called with answers; `own_address` gives our address on a link."""

    def __init__(
        self,
        answered: Callable[[do.ProbeAnswered], None],
        own_address: Callable[[str], IPv4Address],
    ) -> None:
        self._answered, self._own_address = answered, own_address
        self._sockets: dict[str, socket.socket] = {}
        self._asked: dict[tuple[str, IPv4Address], None] = {}  # an answer is taken once

    def probe(self, action: do.Probe) -> None:
        """Send one; the answer comes by `answered`, or not at all."""
        try:
            channel = self._sockets.get(action.link) or self._open(action.link)
            own = bytes(channel.getsockname()[4])
            packet = arp_request(own, self._own_address(action.link), action.address)
            channel.sendto(packet, (action.link, _ETH_P_ARP, 0, 0, action.link_layer))
        except OSError as problem:  # the link is down, gone, or another one of that name
            log.debug("%s: %s", action.link, problem)
            self._close(action.link)
            return
        self._asked[(action.link, action.address)] = None

    def _open(self, link: str) -> socket.socket:
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            channel.bind((link, _ETH_P_ARP))
        except OSError:
            channel.close()
            raise
        self._sockets[link] = channel
        asyncio.get_running_loop().add_reader(channel, self._read, link, channel)
        return channel

    def _read(self, link: str, channel: socket.socket) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                packet, address = channel.recvfrom(_LENGTH + 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                log.debug("%s: %s", link, problem)
                self._close(link)
                return
            if address[2] not in (_OTHERHOST, _OUTGOING):
                self._take(link, packet)

    def _take(self, link: str, packet: bytes) -> None:
        found = arp_answer(packet)
        if found is None or (link, found[0]) not in self._asked:
            return
        del self._asked[(link, found[0])]
        self._answered(do.ProbeAnswered(link, *found))

    def _close(self, link: str) -> None:
        channel = self._sockets.pop(link, None)
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()

    def close(self) -> None:
        """No more probes."""
        for link in tuple(self._sockets):
            self._close(link)


def arp_request(own: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """ARP request for `target` by `source`, at the link-layer address `own`."""
    head = _HEAD.pack(_ETHERNET, _IPV4, 6, 4, _REQUEST)
    return head + own + source.packed + bytes(6) + target.packed


def arp_answer(packet: bytes) -> tuple[IPv4Address, bytes] | None:
    """Address and link-layer address of an ARP reply's sender; None for other packets."""
    if len(packet) < _LENGTH or _HEAD.unpack_from(packet) != (_ETHERNET, _IPV4, 6, 4, _REPLY):
        return None
    return IPv4Address(packet[14:18]), packet[8:14]
