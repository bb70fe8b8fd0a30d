"""The archive that a kernel unpacks into its first file system (initramfs), in the format "newc" of cpio.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from collections.abc import Mapping

_DIRECTORY = 0o040755
_PROGRAM = 0o100755
_ALIGNMENT = 4


def archive(files: Mapping[str, bytes], directories: tuple[str, ...] = ()) -> bytes:
    """An archive of `files` (path without a leading slash to content, all executable) and empty `directories`.

    Parents are not made: name each one before its content.
    """
    parts = [_entry(number, path, _DIRECTORY, b"") for number, path in enumerate(directories, 1)]
    parts += [_entry(number, path, _PROGRAM, data) for number, (path, data) in enumerate(files.items(), 1000)]
    return b"".join([*parts, _entry(0, "TRAILER!!!", 0, b"")])


def _entry(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (2), device of a node (2), size of the name, checksum
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
