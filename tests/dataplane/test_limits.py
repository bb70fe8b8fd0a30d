"""Room of the tables: what it costs before anything is in it."""

from locum.dataplane import Limits

BUCKET = 16  # bytes of a place of a hash table; their number is a power of two
BUFFERS = {"held", "scratches"}  # whose size is not in entries


def empty(bindings: int) -> int:
    """Bytes of the empty tables."""
    sizes = Limits(bindings=bindings).sizes()
    return sum(BUCKET << (size - 1).bit_length() for name, size in sizes.items() if name not in BUFFERS)


def test_room_for_many_bindings_costs_little() -> None:
    """With the 216 bytes of a binding and its permission, 400 bytes a binding at most, as `ha_memory_100k` counts."""
    assert 216 + (empty(1 << 17) - empty(1 << 15)) / 100_000 <= 400
