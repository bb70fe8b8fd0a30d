"""Vendor extensions, critical 38 and normal 134 (RFC 3115 section 2). The values inside are in wire/mobile_ip/vendor.py."""

from dataclasses import dataclass

from locum.wire.mobile_ip.extensions.framing import Extension, Frame, long, simple

VENDOR_CRITICAL = 38
VENDOR_NORMAL = 134


@dataclass(frozen=True, slots=True)
class VendorCritical(Extension):
    """Receivers that do not understand it answer with codes 100, 101, 140 or 141 (section 2.1)."""

    vendor: int  # enterprise number, 32 bits
    vendor_type: int  # 16 bits
    value: bytes  # at most 65,529 bytes

    def encode(self) -> bytes:
        """The whole extension; the byte after the type is reserved."""
        data = self.vendor.to_bytes(4, "big") + self.vendor_type.to_bytes(2, "big") + self.value
        return long(VENDOR_CRITICAL, 0, data)


@dataclass(frozen=True, slots=True)
class VendorNormal(Extension):
    """Receivers that do not understand it skip it (section 2.2)."""

    vendor: int
    vendor_type: int
    value: bytes  # at most 247 bytes

    def encode(self) -> bytes:
        """The whole extension; two reserved bytes follow the length."""
        data = bytes(2) + self.vendor.to_bytes(4, "big") + self.vendor_type.to_bytes(2, "big") + self.value
        return simple(VENDOR_NORMAL, data)


def decode_vendor_critical(frame: Frame) -> VendorCritical:
    """Type 38."""
    cursor = frame.cursor()
    return VendorCritical(cursor.u32("vendor"), cursor.u16("vendor-type"), cursor.rest())


def decode_vendor_normal(frame: Frame) -> VendorNormal:
    """Type 134; the reserved bytes are ignored."""
    cursor = frame.cursor()
    cursor.take(2, "reserved")
    return VendorNormal(cursor.u32("vendor"), cursor.u16("vendor-type"), cursor.rest())
