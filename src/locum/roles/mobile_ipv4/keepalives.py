"""Keepalives of UDP tunnels (RFC 3519 section 4.9), and the port that they share with registrations (section 4.2)."""

from ipaddress import IPv4Address
from typing import Final

from locum.wire.mobile_ip.extensions import DEFAULT_KEEPALIVE
from locum.wire.mobile_ip.registration import UDP_PORT
from locum.wire.mobile_ip.tunnel_data import keepalive

REGISTRATION_PORT: Final = UDP_PORT
DEFAULT_INTERVAL: Final = DEFAULT_KEEPALIVE  # seconds, where the home agent leaves it to the other end


def write_keepalive(
    home_address: IPv4Address, home_agent: IPv4Address, identifier: int, sequence: int
) -> bytes:
    """An echo request in tunnel data, from the home address to the home agent."""
    return keepalive(home_address, home_agent, identifier, sequence).encode()
