"""Checksums of a tunnel packet's own header: the Python half of bpf/checksums.h. No device has verified any here."""

from locum.dataplane.model.frames import Shape
from locum.dataplane.model.parse import UDP, Packet, partial_checksum
from locum.wire.ip.checksum import ones_sum


def wrong_checksum(frame: bytes, outer: Packet, inner: Packet, shape: Shape) -> bool:
    """True if the checksum of a UDP or GRE header is wrong (RFC 3519 section 4.5, RFC 2784 section 2.3).

    That cannot be said where the inner packet's own checksum was left to a device.
    """
    if not shape.covered:
        return False
    at, end, total = outer.payload, outer.offset + outer.length, 0
    if outer.protocol == UDP:
        length = int.from_bytes(frame[at + 4 : at + 6], "big")
        if not length or at + length > end:
            return True
        end = at + length
        total = pseudo_sum(outer.source + outer.destination, length, UDP)
        if int.from_bytes(frame[at + 6 : at + 8], "big") == total:
            return False
    covered = frame[at:end]
    total += ones_sum(covered)
    return (total & 0xFFFF) + (total >> 16) != 0xFFFF and partial_checksum(frame, inner) is None


def pseudo_sum(addresses: bytes, length: int, protocol: int) -> int:
    """Sum of a pseudo header with these addresses (mapped ones count as IPv4's), as `ones_sum`."""
    return ones_sum(addresses + length.to_bytes(4, "big") + protocol.to_bytes(4, "big"))
