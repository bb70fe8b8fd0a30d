"""IP packets, gathered: headers of either family, TCP, UDP and ICMP, checksums, building and fragmenting."""

from locum.wire.ip.checksum import checksum, ones_sum, pseudo_header, transport_checksum
from locum.wire.ip.headers import (
    GRE,
    ICMP,
    ICMPV6,
    IPV4_HEADER_BYTES,
    IPV4_IN_IP,
    IPV6_HEADER_BYTES,
    IPV6_IN_IP,
    MINIMAL_IN_IP,
    TCP,
    UDP,
    Ipv4Header,
    Ipv6Header,
    UpperLayer,
    decode_ip,
    upper_layer,
)
from locum.wire.ip.minimal import MinimalHeader, narrow, widen
from locum.wire.ip.packet import (
    build_ip,
    build_tcp,
    build_udp,
    build_unreachable,
    fragment,
)
from locum.wire.ip.transport import IcmpMessage, TcpFlag, TcpSegment, UdpDatagram, timestamp_option

__all__ = [
    "GRE",
    "ICMP",
    "ICMPV6",
    "IPV4_HEADER_BYTES",
    "IPV4_IN_IP",
    "IPV6_HEADER_BYTES",
    "IPV6_IN_IP",
    "MINIMAL_IN_IP",
    "TCP",
    "UDP",
    "IcmpMessage",
    "Ipv4Header",
    "Ipv6Header",
    "MinimalHeader",
    "TcpFlag",
    "TcpSegment",
    "UdpDatagram",
    "UpperLayer",
    "build_ip",
    "build_tcp",
    "build_udp",
    "build_unreachable",
    "checksum",
    "decode_ip",
    "fragment",
    "narrow",
    "ones_sum",
    "pseudo_header",
    "timestamp_option",
    "transport_checksum",
    "upper_layer",
    "widen",
]
