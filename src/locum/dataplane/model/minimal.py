"""Minimal encapsulation (RFC 2004) in the model: the Python half of bpf/minimal.h."""

from ipaddress import IPv4Address

from locum.dataplane.layout.maps import Reason
from locum.dataplane.model.frames import ETHERNET, Work
from locum.dataplane.model.parse import IPIP, MINIMAL, Packet
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.wire.errors import WireError
from locum.wire.ip import minimal
from locum.wire.ip.headers import IPV4_HEADER_BYTES

SMALL = 500  # bytes of a packet that fits any path
DONT_FRAGMENT = 0x40
_REASONS = {"checksum": Reason.BAD_CHECKSUM, "range": Reason.TOO_LARGE}


def widened(work: Work) -> Reason | None:
    """The reason why a packet in such a tunnel is dropped; None: it is one of a tunnel IP in IP from now on, if it was not before."""
    packet = work.packet
    if packet.protocol != MINIMAL:
        return None
    try:
        frame = minimal.widen(bytes(work.frame[ETHERNET:]))
    except WireError as error:
        return _REASONS.get(error.reason, Reason.MALFORMED_TUNNEL)
    packet.length += ETHERNET + len(frame) - len(work.frame)
    packet.payload, packet.protocol = ETHERNET + IPV4_HEADER_BYTES, IPIP
    work.frame[ETHERNET:] = frame
    return None


def narrowed(frame: bytes | bytearray, packet: Packet, tunnel: Tunnel) -> bytes | None:
    """The packet of this frame in the tunnel, from its IP header on; None: it goes IP in IP."""
    if tunnel.encapsulation is not Encapsulation.MINIMAL or packet.family != 4 or packet.fragment:
        return None
    if packet.payload - packet.offset != IPV4_HEADER_BYTES:
        return None
    if packet.length > SMALL and not frame[packet.offset + 6] & DONT_FRAGMENT:
        return None
    if not isinstance(tunnel.source, IPv4Address) or not isinstance(tunnel.destination, IPv4Address):
        return None
    return minimal.narrow(bytes(frame[packet.offset :]), tunnel.source, tunnel.destination)
