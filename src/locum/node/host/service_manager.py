"""Messages of a daemon to its service manager (sd_notify(3), Type=notify): ready, alive, stopping.

Without NOTIFY_SOCKET nothing is sent.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping


class ServiceManager:
    """Keeps the watchdog fed as long as the event loop turns."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        microseconds = environment.get("WATCHDOG_USEC", "0")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(microseconds) / 2e6 if ours and microseconds.isdigit() else 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """Everything works; the watchdog begins."""
        self._send(f"READY=1\nSTATUS={status}")
        if self._address and self._interval:
            self._beat()

    def stopping(self) -> None:
        """The end has begun."""
        if self._timer is not None:
            self._timer.cancel()
        self._send("STOPPING=1")

    def _beat(self) -> None:
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
            channel.sendto(text.encode(), self._address)
