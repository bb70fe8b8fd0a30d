"""Selectors of single flows (RFC 6088), and the priorities of rules that are made of them."""

from ipaddress import IPv4Address, IPv6Address

from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

PRIORITY = 100  # of the rules for single flows: the flows differ, so the rules never overlap


# Plus the identifier: selectors may overlap, so each has a priority of its own
PRIORITY_SELECTED = 1000


_PORTS_OF = (6, 17)  # protocols that have ports


def flow_selector(flow: Flow) -> Ipv4Selector | Ipv6Selector:
    """Packets of the flow to its home address."""
    ports = flow.protocol in _PORTS_OF
    source_port = (flow.peer_port, flow.peer_port) if ports else None
    destination_port = (flow.local_port, flow.local_port) if ports else None
    protocol = (flow.protocol, flow.protocol)
    if isinstance(flow.local, IPv4Address) and isinstance(flow.peer, IPv4Address):
        return Ipv4Selector(
            source=(flow.peer, flow.peer),
            destination=(flow.local, flow.local),
            source_port=source_port,
            destination_port=destination_port,
            protocol=protocol,
        )
    assert isinstance(flow.local, IPv6Address) and isinstance(flow.peer, IPv6Address)
    return Ipv6Selector(
        source=(flow.peer, flow.peer),
        destination=(flow.local, flow.local),
        source_port=source_port,
        destination_port=destination_port,
        next_header=protocol,
    )
