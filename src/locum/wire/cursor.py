"""A reader over bytes that must be consumed exactly. It knows numbers and addresses, no message."""

from ipaddress import IPv4Address, IPv6Address

from locum.wire.errors import WireError


class Cursor:
    """Reads `data` from front to back; every read that does not fit raises WireError naming the field.

    `base` is added to the offsets in errors, for a cursor over a part of a message.
    """

    __slots__ = ("base", "data", "position")

    def __init__(self, data: bytes, base: int = 0) -> None:
        self.data = data
        self.base = base
        self.position = 0

    @property
    def offset(self) -> int:
        """Offset of the next read from the start of the message, in bytes."""
        return self.base + self.position

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.position

    def take(self, count: int, field: str) -> bytes:
        """The next `count` bytes."""
        start = self.position
        end = start + count
        if end > len(self.data):
            raise WireError(field, self.offset, "truncated")
        self.position = end
        return self.data[start:end]

    def u8(self, field: str) -> int:
        """One byte, unsigned."""
        return self.take(1, field)[0]

    def u16(self, field: str) -> int:
        """Two bytes in network order, unsigned."""
        return int.from_bytes(self.take(2, field), "big")

    def u32(self, field: str) -> int:
        """Four bytes in network order, unsigned."""
        return int.from_bytes(self.take(4, field), "big")

    def address4(self, field: str) -> IPv4Address:
        """An IPv4 address."""
        return IPv4Address(self.take(4, field))

    def address6(self, field: str) -> IPv6Address:
        """An IPv6 address."""
        return IPv6Address(self.take(16, field))

    def rest(self) -> bytes:
        """Everything that is left; may be empty."""
        return self.take(self.remaining, "rest")

    def done(self, field: str) -> None:
        """Raises WireError unless everything was read."""
        if self.remaining:
            raise WireError(field, self.offset, "trailing")
