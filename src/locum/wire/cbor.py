"""CBOR (RFC 8949) bounded for input that is not trusted. It must not know any message.

Only types of the control messages are accepted: integers of 64 bits, byte and text strings, arrays, maps with integer
or text keys, booleans, null and floats, in definite lengths and shortest heads (section 4.2.1), without tags: a tag can
ask a decoder for a regular expression, a bignum or a number with a billion digits. The structure is walked before
anything is built, so that the cost is bounded by the number of items, not by their claimed sizes.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

import cbor2

from locum.wire.errors import WireError

MAX_DEPTH = 12  # a session record inside a transfer is four deep; configuration may nest a little
MAX_ITEMS = 1 << 19  # 4,096 session records of 100 items fit; walking that many costs about a second

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_FLOAT_BYTES = {25: 2, 26: 4, 27: 8}
_SIMPLE = (20, 21, 22)  # false, true, null


def encode(value: object) -> bytes:
    """Deterministic encoding of a value made of the types named above."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, *, limit: int, field: str) -> object:
    """The one value that `data` encodes.

    Raises WireError for more than `limit` bytes, trailing bytes, nesting past MAX_DEPTH, more than MAX_ITEMS items, and
    everything the module's docstring excludes.
    """
    if len(data) > limit:
        raise WireError(field, 0, "too-large")
    _walk(data, field)
    try:
        return cbor2.loads(data, max_depth=MAX_DEPTH + 2, allow_indefinite=False)
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise WireError(field, 0, "cbor") from error


def _head(data: bytes, position: int, field: str) -> tuple[int, int, int, int]:
    """Major type, additional information, argument, and where the content starts."""
    if position >= len(data):
        raise WireError(field, position, "truncated")
    major, info = data[position] >> 5, data[position] & 31
    if info < 24:
        return major, info, info, position + 1
    if info > 27:
        raise WireError(field, position, "indefinite-length" if info == 31 else "cbor")
    size = 1 << (info - 24)
    content = position + 1 + size
    if content > len(data):
        raise WireError(field, position, "truncated")
    argument = int.from_bytes(data[position + 1 : content], "big")
    shortest = 24 if size == 1 else 1 << (size * 4)
    if major != 7 and argument < shortest:
        raise WireError(field, position, "not-deterministic")
    return major, info, argument, content


def _walk(data: bytes, field: str) -> None:
    position = 0
    items = 0
    # For each open container: items still to come, keys seen (None in an array), whether a key comes next.
    open_containers: list[tuple[int, set[bytes] | None, bool]] = []
    while True:
        items += 1
        if items > MAX_ITEMS:
            raise WireError(field, position, "too-many-items")
        start = position
        major, info, argument, position = _head(data, position, field)
        if open_containers and open_containers[-1][2] and major not in (_UNSIGNED, _NEGATIVE, _TEXT):
            raise WireError(field, start, "key-type")
        entered = 0
        if major in (_BYTES, _TEXT):
            if argument > len(data) - position:
                raise WireError(field, start, "truncated")
            position += argument
        elif major in (_ARRAY, _MAP):
            entered = argument * (2 if major == _MAP else 1)
            if entered > len(data) - position:  # an item takes at least a byte
                raise WireError(field, start, "truncated")
        elif major == _TAG:
            raise WireError(field, start, "tag")
        elif major == 7 and info not in _FLOAT_BYTES and info not in _SIMPLE:
            raise WireError(field, start, "simple-value")
        if open_containers:
            left, keys, is_key = open_containers[-1]
            if is_key and keys is not None:
                key = data[start:position]
                if key in keys:
                    raise WireError(field, start, "duplicate-key")
                keys.add(key)
            open_containers[-1] = (left - 1, keys, keys is not None and not is_key)
        if entered:
            if len(open_containers) >= MAX_DEPTH:
                raise WireError(field, start, "too-deep")
            open_containers.append((entered, set() if major == _MAP else None, major == _MAP))
        while open_containers and open_containers[-1][0] == 0:
            open_containers.pop()
        if not open_containers:
            break
    if position != len(data):
        raise WireError(field, position, "trailing")


class Reader:
    """Reads the fields of one decoded map with integer keys; `done` refuses fields that were not read."""

    __slots__ = ("field", "left")

    def __init__(self, value: object, field: str) -> None:
        if not isinstance(value, dict):
            raise WireError(field, 0, "not-a-map")
        self.field = field
        self.left: dict[object, object] = dict(value)

    def value(self, key: int, name: str) -> object:
        """The raw value of `key`."""
        if key not in self.left:
            raise WireError(f"{self.field}.{name}", 0, "missing")
        return self.left.pop(key)

    def absent(self, key: int) -> bool:
        """True if an optional field is absent."""
        return key not in self.left

    def integer(self, key: int, name: str, low: int, high: int) -> int:
        """An integer between `low` and `high`, both included."""
        return integer(self.value(key, name), f"{self.field}.{name}", low, high)

    def boolean(self, key: int, name: str) -> bool:
        """true or false."""
        value = self.value(key, name)
        if not isinstance(value, bool):
            raise WireError(f"{self.field}.{name}", 0, "not-a-boolean")
        return value

    def octets(self, key: int, name: str, low: int, high: int) -> bytes:
        """A byte string of `low` to `high` bytes."""
        value = self.value(key, name)
        if not isinstance(value, bytes) or not low <= len(value) <= high:
            raise WireError(
                f"{self.field}.{name}", 0, "not-octets" if not isinstance(value, bytes) else "range"
            )
        return value

    def text(self, key: int, name: str, most: int) -> str:
        """A text of 1 to `most` characters."""
        return text(self.value(key, name), f"{self.field}.{name}", most)

    def address(self, key: int, name: str) -> IPv4Address | IPv6Address:
        """An address as 4 or 16 bytes."""
        return address(self.value(key, name), f"{self.field}.{name}")

    def array(self, key: int, name: str, most: int) -> list[object]:
        """An array of at most `most` items."""
        return array(self.value(key, name), f"{self.field}.{name}", most)

    def optional_array(self, key: int, name: str, most: int) -> list[object]:
        """An array of 1 to `most` items; an empty one where the field is absent."""
        if self.absent(key):
            return []
        items = self.array(key, name, most)
        if not items:
            raise WireError(f"{self.field}.{name}", 0, "range")
        return items

    def mapping(self, key: int, name: str) -> Mapping[str, object]:
        """A map with text keys."""
        value = self.value(key, name)
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value):
            raise WireError(f"{self.field}.{name}", 0, "not-a-text-map")
        return value

    def done(self) -> None:
        """Raises WireError when a key was not taken."""
        if self.left:
            raise WireError(f"{self.field}.{next(iter(self.left))}", 0, "unknown-key")


def integer(value: object, field: str, low: int, high: int) -> int:
    """`value` if it is an integer between `low` and `high`; WireError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise WireError(field, 0, "not-an-integer")
    if not low <= value <= high:
        raise WireError(field, 0, "range")
    return value


def text(value: object, field: str, most: int) -> str:
    """`value` if it is a text of 1 to `most` characters; WireError otherwise."""
    if not isinstance(value, str):
        raise WireError(field, 0, "not-text")
    if not 1 <= len(value) <= most:
        raise WireError(field, 0, "range")
    return value


def address(value: object, field: str) -> IPv4Address | IPv6Address:
    """The address that 4 or 16 bytes stand for; WireError otherwise."""
    if isinstance(value, bytes):
        if len(value) == 4:
            return IPv4Address(value)
        if len(value) == 16:
            return IPv6Address(value)
    raise WireError(field, 0, "not-an-address")


def array(value: object, field: str, most: int) -> list[object]:
    """`value` if it is an array of at most `most` items; WireError otherwise."""
    if not isinstance(value, list):
        raise WireError(field, 0, "not-an-array")
    if len(value) > most:
        raise WireError(field, 0, "too-many-items")
    return value


def pair(value: object, field: str) -> tuple[object, object]:
    """Both items of an array of two; WireError otherwise."""
    items = array(value, field, 2)
    if len(items) != 2:
        raise WireError(field, 0, "truncated")
    return items[0], items[1]
