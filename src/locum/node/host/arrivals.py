"""Packets that sockets of a node expect behind a host's packet filter, and the interfaces on which they come.

Registrations on access links, and those of a device with an access node, come from packet sockets, which no filter stands
before. Whole tunnel packets are taken at the interface; fragments of them are put together by the kernel, behind the filter.
"""

from dataclasses import dataclass

from locum.node.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Arrival:
    """A kind of IPv4 packets: its name for users, and its condition in rules of nft and of iptables."""

    name: str
    protocol: int
    port: int | None  # of the destination
    nft: str
    iptables: str


ARRIVALS = (
    Arrival("registrations (UDP port 434)", 17, 434, "udp dport 434", "-p udp --dport 434"),
    Arrival("fragments of IP-in-IP tunnels (protocol 4)", 4, None, "meta l4proto 4", "-p 4"),
    Arrival("fragments of GRE tunnels (protocol 47)", 47, None, "meta l4proto 47", "-p 47"),
)


def expecting(settings: Settings) -> tuple[str, ...]:
    """The interfaces on which they come, in the order of the configuration."""
    found: set[str] = set()
    interfaces = settings.node.interfaces
    if settings.home_agent is not None:
        found.update(interfaces)
    if settings.foreign_agent is not None:
        found.update(set(interfaces) - set(settings.foreign_agent.links))
    if settings.mobile_node is not None and settings.mobile_node.configuration.colocated:
        found.update(settings.mobile_node.configuration.links)
    own = None if settings.mnps is None else settings.mnps.configuration.registration
    if own is not None and own.colocated:
        found.update(own.links)
    return tuple(interface for interface in interfaces if interface in found)
