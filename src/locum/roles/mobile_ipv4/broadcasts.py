"""Broadcasts of the home network on their way to a mobile node that has asked for them (RFC 5944 section 4.3).

It must not know who asks, nor how many copies are sent.
"""

from ipaddress import IPv4Address

from locum.roles.actions import Action, ForwardPacket, SendPacket, SendRegistration
from locum.wire.ip.headers import IPV4_IN_IP, Ipv4Header
from locum.wire.mobile_ip.extensions import InnerEncapsulation
from locum.wire.mobile_ip.tunnel_data import TunnelData

_GRE, _GRE_OVER_IPV4 = 47, b"\0\0\x08\0"


def broadcast_at_end(
    packet: bytes,
    home_agent: IPv4Address,
    care_of: IPv4Address,
    outer: tuple[IPv4Address, int] | None,
    *,
    gre: bool,
) -> Action:
    """The broadcast in the tunnel to a co-located care-of address, which is the mobile node itself.

    `outer` is the address and port to which a tunnel in UDP goes (RFC 3519). Minimal encapsulation would leave it the TTL of
    a link's packet (RFC 2004 section 3): such tunnels get IP in IP.
    """
    if outer is not None:
        message = TunnelData(InnerEncapsulation.IP, packet).encode()
        return SendRegistration(message, *outer, source=home_agent)
    if gre:
        return SendPacket(Ipv4Header(home_agent, care_of, _GRE).encode(_GRE_OVER_IPV4 + packet))
    return SendPacket(Ipv4Header(home_agent, care_of, IPV4_IN_IP).encode(packet))


def broadcast_for_visitor(packet: bytes, home_agent: IPv4Address, home_address: IPv4Address) -> Action:
    """The broadcast in a tunnel to the home address, which goes through the one to the foreign agent like any packet.

    The foreign agent could not tell from the broadcast alone whose it is.
    """
    return ForwardPacket(Ipv4Header(home_agent, home_address, IPV4_IN_IP).encode(packet))
