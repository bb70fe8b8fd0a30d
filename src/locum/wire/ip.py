"""IP packets, gathered: headers of either family, TCP, UDP and ICMP, checksums, building and fragmenting."""

from locum.wire.checksum import checksum, ones_sum, pseudo_header, transport_checksum
from locum.wire.headers import (
    GRE,
    ICMP,
    ICMPV6,
    IPV4_HEADER_BYTES,
    IPV4_IN_IP,
    IPV6_HEADER_BYTES,
    IPV6_IN_IP,
    TCP,
    UDP,
    Ipv4Header,
    Ipv6Header,
    UpperLayer,
    decode_ip,
    upper_layer,
)
from locum.wire.packet import build_ip, build_tcp, fragment, repair_partial_checksum
from locum.wire.transport import IcmpMessage, TcpFlag, TcpSegment, UdpDatagram, timestamp_option

__all__ = [
    "GRE",
    "ICMP",
    "ICMPV6",
    "IPV4_HEADER_BYTES",
    "IPV4_IN_IP",
    "IPV6_HEADER_BYTES",
    "IPV6_IN_IP",
    "TCP",
    "UDP",
    "IcmpMessage",
    "Ipv4Header",
    "Ipv6Header",
    "TcpFlag",
    "TcpSegment",
    "UdpDatagram",
    "UpperLayer",
    "build_ip",
    "build_tcp",
    "checksum",
    "decode_ip",
    "fragment",
    "ones_sum",
    "pseudo_header",
    "repair_partial_checksum",
    "timestamp_option",
    "transport_checksum",
    "upper_layer",
]
