"""BTF, the kernel's description of types: the layout of a type as a value that two versions of it can be compared by.

The format is that of the kernel's Documentation/bpf/btf.rst. Names of types do not count, names of members do: a member
that is called otherwise may mean something else.
"""

import struct

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAGIC = 0xEB9F
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _PROTOTYPE, _VARIABLE, _SECTION, _DECLARATION, _ENUM64 = (
    1, 3, 4, 5, 6, 13, 14, 15, 17, 19,
)  # fmt: skip
_TRANSPARENT = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag
_POINTER = 2

Layout = tuple[object, ...]


class Types:
    """The types in the bytes of one BTF."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, length, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("no BTF of this machine's byte order")
        self._data = data
        self._strings = data[length + strings : length + strings + strings_size]
        self._at: list[int] = [0]  # offsets by type id; 0 is void
        at, end = length + types, length + types + types_size
        while at < end:
            self._at.append(at)
            _, info, _ = _TYPE.unpack_from(data, at)
            at += _TYPE.size + _trailing(info >> 24 & 0x1F, info & 0xFFFF)

    def layout(self, number: int) -> Layout:
        """The layout of a type: kinds and sizes, and of structures their members with names and offsets in bits."""
        if number == 0:
            return ("void",)
        at = self._at[number]
        _, info, size = _TYPE.unpack_from(self._data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        at += _TYPE.size
        if kind in _TRANSPARENT:
            return self.layout(size)
        if kind == _ARRAY:
            element, _, length = _TYPE.unpack_from(self._data, at)
            return ("array", length, self.layout(element))
        if kind in (_STRUCT, _UNION):
            members = (_TYPE.unpack_from(self._data, at + 12 * place) for place in range(count))
            listed = tuple((self._text(name), offset, self.layout(of)) for name, of, offset in members)
            return (kind, size, *listed)
        return (kind, 8 if kind == _POINTER else size)

    def _text(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()


def _trailing(kind: int, count: int) -> int:
    """Bytes behind the head of a type."""
    match kind:
        case int() if kind in (_INT, _VARIABLE, _DECLARATION):
            return 4
        case int() if kind == _ARRAY:
            return 12
        case int() if kind in (_STRUCT, _UNION, _SECTION, _ENUM64):
            return 12 * count
        case int() if kind in (_ENUM, _PROTOTYPE):
            return 8 * count
    return 0
