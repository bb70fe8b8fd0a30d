"""Waits for the disk in the place of a proxy's process, which must not be silent for so long."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from locum.node import words

_AT_ONCE = 2  # files of all proxies


class Descriptor:
    """A duplicate of a descriptor, which is closed when nobody refers to it any more."""

    def __init__(self, descriptor: int) -> None:
        """Raises OSError."""
        self.fd = os.dup(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


async def durable(files: Sequence[object]) -> list[object]:
    """Make these files durable: an empty text, or a reason and an errno. Raises ValueError for what is no file."""
    try:
        for file in files:
            if not isinstance(file, Descriptor):
                raise ValueError("only open files are made durable")
            await asyncio.get_running_loop().run_in_executor(_threads(), os.fsync, file.fd)
    except OSError as problem:
        return [words.reason(problem), problem.errno]
    return [""]


@cache
def _threads() -> ThreadPoolExecutor:
    """A disk that is slow for proxies holds up nobody else."""
    return ThreadPoolExecutor(_AT_ONCE, "sync")
