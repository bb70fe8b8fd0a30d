"""The last datagram that a program sent on a flow, for flows that a keep-alive rule names (A12).

A packet socket with a filter in the kernel for the rules' ports alone: without a rule nothing is observed, and no other
packet passes through here. Tunnels of this host's own (IP in IP, UDP port 434) are looked into, because the data plane has
wrapped a packet before a packet socket sees it. It decides nothing.
"""

import contextlib
import ctypes
import socket
import struct
from collections import OrderedDict
from collections.abc import Sequence

from locum.node.registration.packet_filter import outgoing_udp
from locum.sessions.datagrams.keep_alive import KeepAliveRule
from locum.sessions.datagrams.record import MAX_REPEATED, Repeated
from locum.wire.control import Flow
from locum.wire.errors import WireError
from locum.wire.ip.headers import IPV4_IN_IP, IPV6_IN_IP, UDP, upper_layer
from locum.wire.ip.transport import UdpDatagram
from locum.wire.mobile_ip.registration import UDP_PORT
from locum.wire.mobile_ip.tunnel_data import TUNNEL_DATA_HEADER_BYTES

MOST_FLOWS = 1024  # whose last datagram is remembered; the one that was silent longest goes first
_MOST_AT_ONCE = 64
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 0x0003
_OUTGOING = 4  # PACKET_OUTGOING


class LastSent:
    """Remembers the last datagrams that the rules ask for. Raises OSError without CAP_NET_RAW."""

    def __init__(self, rules: Sequence[KeepAliveRule]) -> None:
        self._rules = tuple(rules)
        self._sent: OrderedDict[Flow, bytes] = OrderedDict()
        program = outgoing_udp({rule.port for rule in rules})
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL)
        )
        try:
            self._socket.setblocking(False)
            code = ctypes.create_string_buffer(program, len(program))
            attached = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
            with contextlib.suppress(BlockingIOError):  # seen before the filter was there
                while self._socket.recv(1):
                    pass
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when a program has sent."""
        return self._socket.fileno()

    def read(self) -> None:
        """Note datagrams that programs have sent since the last call."""
        for _ in range(_MOST_AT_ONCE):
            try:
                packet, address = self._socket.recvfrom(1 << 16)
            except OSError:
                return
            if address[2] == _OUTGOING:
                self._note(packet)

    def repeated(self, flow: Flow) -> Repeated | None:
        """Datagram for the stand-in to repeat on this flow; None without a rule or without a datagram."""
        self.read()
        rule = next((rule for rule in self._rules if rule.takes(flow)), None)
        payload = self._sent.get(flow)
        if rule is None or payload is None:
            return None
        return Repeated(payload, rule.seconds, rule.discard_answers)

    def close(self) -> None:
        """Ends the observation."""
        self._socket.close()

    def _note(self, packet: bytes) -> None:
        try:
            found = _datagram(packet)
        except WireError:
            return
        if found is None:
            return
        flow, payload = found
        if not any(rule.takes(flow) for rule in self._rules):
            return
        if len(payload) > MAX_REPEATED:  # too large to be a keep-alive: then there is none
            self._sent.pop(flow, None)
            return
        self._sent[flow] = payload
        self._sent.move_to_end(flow)
        if len(self._sent) > MOST_FLOWS:
            self._sent.popitem(last=False)


def _datagram(packet: bytes) -> tuple[Flow, bytes] | None:
    """The flow and payload of a UDP packet, bare or in one tunnel; None for anything else, fragments included."""
    for _ in range(2):
        upper = upper_layer(packet)
        if upper.fragmented:
            return None
        if upper.protocol in (IPV4_IN_IP, IPV6_IN_IP):
            packet = upper.payload
            continue
        if upper.protocol != UDP:
            return None
        datagram = UdpDatagram.decode(upper.payload)
        if datagram.destination_port == UDP_PORT:
            packet = datagram.payload[TUNNEL_DATA_HEADER_BYTES:]
            continue
        header = upper.header
        flow = Flow(UDP, header.source, datagram.source_port, header.destination, datagram.destination_port)
        return flow, datagram.payload
    return None
