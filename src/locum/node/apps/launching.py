"""Launches proxies one after the other, each in a turn of its own of the event loop.

A launch makes the outlet of a proxy, which takes a while on a busy host; a device may have sixteen proxies, and many devices
fall asleep at once. This module must not know sessions.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from locum.node.apps.running import Running
from locum.node.apps.starts.starting import Starts


class Launches:
    """Those that wait for their start; `launch` is called for each. `starts` makes their processes."""

    def __init__(self, launch: Callable[[Running], None]) -> None:
        self._launch = launch
        self.starts = Starts()
        self._waiting: deque[Running] = deque()

    def add(self, app: Running) -> None:
        """Start it soon."""
        self._waiting.append(app)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        app = self._waiting[0]
        try:
            if app.wanted:
                self._launch(app)
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)
