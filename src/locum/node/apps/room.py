"""Looks now and then at the room that the files of running proxies take, against a process that does not count for itself.

Its files may grow to the limit one by one; it may also make more of them, links, directories, and files without a name.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from locum.roles.app_network import MAX_FILES

LOOK = 10.0
"""Seconds between two looks."""
MOST_ENTRIES = 2 * MAX_FILES
"""Files with a name, those of uploads under way among them."""
SLACK = 1 << 20
"""Bytes over the limit that are passed over: blocks are larger than what is written in them."""


class Watch:
    """Of one process and its directory; `pid` is 0 before it begins. `over` is called once, with a reason, if it takes more than `limit` bytes."""

    def __init__(
        self, directory: Path, pid: Callable[[], int], limit: int, over: Callable[[str], None]
    ) -> None:
        self._directory, self._pid, self._limit, self._over = directory, pid, limit, over
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            reason = await asyncio.to_thread(problem, self._directory, self._pid(), self._limit)
            if reason:
                self._over(reason)
                return


def problem(directory: Path, pid: int, limit: int) -> str:
    """Why this process has to end; empty if it keeps to its limit. It waits for the disk."""
    taken = entries = 0
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        for entry in found:
            entries += 1
            if entries > MOST_ENTRIES:
                return f"it has more than {MAX_FILES} files"
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return f"it has made something else than a file: {entry.name[:40]!r}"
            taken += status.st_blocks * 512
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as found:
        for entry in found:
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                    taken += status.st_blocks * 512
    return f"its files take {taken} bytes, and may take {limit}" if taken > limit + SLACK else ""
