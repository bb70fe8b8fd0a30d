"""Space of a file system that the spools leave free for the node's store.

Space that a spool takes comes free when its device wakes, and a wake writes to the store: spools that fill the file system
to its last byte would keep every device asleep.
"""

import errno
import os

# Bytes: the store's rows of a wake are far below; a large disk need not give a share of its size
MOST = 64 << 20
SHARE = 8  # of a small file system an eighth, so that most of it can be used


def reserve(size: int) -> int:
    """Bytes that spools leave free on a file system of `size` bytes."""
    return min(MOST, size // SHARE)


def leave_reserve(fd: int, size: int) -> None:
    """Raises OSError (ENOSPC) when `size` bytes more in this open file would not leave the reserve of its file system."""
    there = os.fstatvfs(fd)
    if there.f_bavail * there.f_frsize - size < reserve(there.f_blocks * there.f_frsize):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
