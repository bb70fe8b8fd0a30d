"""Decompression in bounded steps: gzip (RFC 1952), xz, zstd (RFC 8878), bzip2, and the raw deflate (RFC 1951) of zip."""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MEMORY = 80 << 20
"""Bytes that a decompressor may take: `xz -9` needs 65 MiB."""
WINDOW_LOG = 26
"""Of zstd: 64 MiB; `zstd -19` needs 8, `zstd --ultra -22` 128."""
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}


class UnpackError(Exception):
    """The file cannot be unpacked; the message is for users."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflate:
    """zlib's, with the shape of the others."""

    def __init__(self, wbits: int) -> None:
        self._object = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


def _zstd() -> _Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


_MAKE: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: _Inflate(31),
    "deflate": lambda: _Inflate(-15),
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY),
    "bzip2": bz2.BZ2Decompressor,
    "zstd": _zstd,
}


def compression(beginning: bytes) -> str | None:
    """The compression of a file that begins so."""
    return next((name for magic, name in MAGIC.items() if beginning.startswith(magic)), None)


class Stream:
    """Packed bytes in, unpacked bytes out, as many as asked for. Several frames or members in a row are one stream."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._one = _MAKE[name]()
        self._input = b""
        self._begun = False

    def feed(self, data: bytes) -> None:
        """The next packed bytes, once `read` returns nothing."""
        self._input += data

    def read(self, most: int) -> bytes:
        """Unpacked bytes; none: more input is needed, or it is over. Raises UnpackError."""
        while True:
            if self._one.eof:
                rest = self._one.unused_data + self._input
                if self._name == "deflate" or not rest.strip(b"\0"):
                    return b""
                self._one, self._input, self._begun = _MAKE[self._name](), rest, False
            data, self._input = self._input, b""
            try:
                found = self._one.decompress(data, most)
            except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError) as problem:
                raise UnpackError(f"it is no {self._name}, or a damaged one: {problem}") from problem
            except MemoryError as problem:
                raise UnpackError(f"unpacking it needs more than {MEMORY >> 20} MiB of memory") from problem
            self._begun = self._begun or bool(data)
            if found:
                return found
            if not self._one.eof:
                return b""

    @property
    def complete(self) -> bool:
        """True if nothing is missing."""
        return self._one.eof
