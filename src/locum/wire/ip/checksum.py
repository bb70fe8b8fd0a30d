"""The Internet checksum (RFC 1071) and pseudo-headers (RFC 9293 section 3.1, RFC 8200 section 8.1). It knows no header."""

from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


def ones_sum(data: bytes) -> int:
    """The 16-bit ones' complement sum of `data`, padded with a zero byte to an even length."""
    value = int.from_bytes(data, "big")
    if len(data) % 2:
        value <<= 8
    if not value:
        return 0
    return value % 0xFFFF or 0xFFFF  # 2**16 is 1 modulo 0xFFFF: the remainder is the folded sum


def checksum(data: bytes) -> int:
    """The Internet checksum of `data`; 0 over data that holds its own valid checksum."""
    return ones_sum(data) ^ 0xFFFF


def pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    """Pseudo-header of TCP, UDP and ICMPv6 checksums; `length` is that of header and payload in bytes."""
    if source.version == 4:
        return source.packed + destination.packed + bytes((0, protocol)) + length.to_bytes(2, "big")
    return source.packed + destination.packed + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))


def transport_checksum(source: Address, destination: Address, protocol: int, segment: bytes) -> int:
    """Checksum over pseudo-header and segment; 0 when the segment holds its own valid checksum."""
    return checksum(pseudo_header(source, destination, protocol, len(segment)) + segment)
