"""Messages to systemd."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from locum.node.host.service_manager import ServiceManager


async def test_ready_watchdog_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000"})
        manager.ready("home agent")
        said: list[str] = []

        def read() -> int:
            with suppress(BlockingIOError):
                while True:
                    said.append(channel.recv(200).decode())
            return len(said)

        async with asyncio.timeout(30):
            while read() < 4:
                await asyncio.sleep(0.01)
        manager.stopping()
        read()
        await asyncio.sleep(0.05)
        assert said[0] == "READY=1\nSTATUS=home agent"
        assert said[1:-1].count("WATCHDOG=1") == len(said) - 2
        assert said[-1] == "STOPPING=1"


async def test_missing_notify_socket_is_ignored() -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": "/nonexistent/notify"})
    manager.ready("x")
    manager.stopping()
    ServiceManager({}).ready("x")
