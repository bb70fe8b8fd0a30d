"""Tells when the code of this process is not what is installed any more: a module or a package was changed or added."""

import os
import sys
import time

LOOK = 1.0
"""Seconds between two looks."""

Stamp = tuple[int, int, int] | None


def stamp(path: str) -> Stamp:
    """Of a file or directory; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Freshness:
    """Of all modules that are imported now, and of the directories in which packages are installed."""

    def __init__(self) -> None:
        files = [getattr(module, "__file__", None) for module in tuple(sys.modules.values())]
        paths = [path for path in (*files, *sys.path) if isinstance(path, str) and path]
        self._stamps = {path: stamp(path) for path in paths}
        self._looked = time.monotonic()

    def is_stale(self) -> bool:
        """True if something has changed since; it looks once in LOOK seconds."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return False
        self._looked = now
        return any(stamp(path) != known for path, known in self._stamps.items())
