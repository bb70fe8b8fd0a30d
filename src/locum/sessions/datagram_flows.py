"""UDP flows that can be held for a sleeping device. It must not know records or sockets."""

from ipaddress import IPv4Address, IPv6Address

from locum.wire.control import Flow

UDP = 17


def unfit(flow: Flow) -> str | None:
    """The part of a flow because of which it cannot be held; None when it can be."""
    if flow.protocol != UDP:
        return "protocol"
    if not flow.local_port or not flow.peer_port:
        return "port"
    for name, address in (("local", flow.local), ("peer", flow.peer)):
        if (
            address.is_multicast
            or address.is_unspecified
            or address.is_loopback
            or address.is_link_local
            or (isinstance(address, IPv4Address) and (address.is_reserved or address.packed[0] == 0))
            or (isinstance(address, IPv6Address) and address.ipv4_mapped is not None)
        ):
            return name
    return "peer" if flow.local == flow.peer else None


def why_not_held(flow: Flow) -> str | None:
    """The reason for users; None for a flow that can be held."""
    if not flow.peer_port:
        return "it is a UDP socket without a fixed peer (not connected), and datagrams of any peer cannot be held"
    if unfit(flow) is not None:
        return "its peer is no single host that is the same from everywhere"
    return None
