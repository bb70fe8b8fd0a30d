"""Throughput of an ordered download beside curl on the same link.

nginx serves in one namespace. In another one are the proxy's confined process, whose sockets this process makes there as a
stand-in does, and curl, in turns. Both write a file in the same directory; the proxy's is durable and its digest is known at the end.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, Namespace, join, namespaces, run, stop
from locum.node.apps.process import Answer, AppProcess
from locum.node.config.settings import AppLimits

NAMES = ("ordered_download",)
_CLIENT, _SERVER = "10.99.8.1", "10.99.8.2"
_SIZE = 256 << 20
_LIMITS = AppLimits()
_PATIENCE = 120.0
_NGINX = """user root; worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; default_type application/octet-stream;
  {temporary}
  server {{ listen {address}:80; root {folder}/root; }} }}
"""


@dataclass(slots=True)
class _Outside:
    """The outside of the proxy's process: sockets in a namespace."""

    space: Namespace
    directory: Path

    @property
    def arguments(self) -> Sequence[str]:
        return (str(self.directory), str(8 * _SIZE), "")

    async def ask(self, *question: object) -> Answer:
        match question:
            case ["connect", str(host), int(port), int()]:
                with self.space.entered():
                    made = socket.socket()
                made.setblocking(False)
                made.connect_ex((host, port))
                return Answer(("", host, False), (made,))
        raise CommandFailed(f"the proxy asks {question}")

    def hand(self, descriptor: int, label: str, unread: bytes) -> None:
        raise CommandFailed("the proxy hands a connection over")


class _Ordered:
    """One run of the proxy's process."""

    def __init__(self, outside: _Outside) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = 0.0
        self._over: asyncio.Future[float] = self._loop.create_future()
        self._process = AppProcess("download", _LIMITS, self._tell, self._room, self._gone, outside)

    def _room(self) -> None:
        if not self._begun:
            self._begun = time.perf_counter()
            settings = {"url": f"http://{_SERVER}/file", "max_size": 4 * _SIZE, "deliver": "at-once"}
            self._process.send("begin", settings, {})

    def _tell(self, effects: list[Any]) -> None:
        for effect in effects:
            if effect[:2] == ["tell", "delivered"] and not self._over.done():
                self._over.set_result(time.perf_counter() - self._begun)
            elif effect[:2] == ["tell", "download_failed"]:
                self._gone(str(effect[3]))

    def _gone(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_exception(CommandFailed(f"the proxy: {reason}"))

    async def seconds(self) -> float:
        """From the order to the event."""
        try:
            return await asyncio.wait_for(self._over, _PATIENCE)
        finally:
            self._process.kill()


@dataclass(slots=True)
class _Link:
    """Both ways to fetch the file of `size` bytes."""

    client: Namespace
    folder: Path
    size: int

    def _fresh(self) -> Path:
        directory = self.folder / "received"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    def _rate(self, seconds: float) -> float:
        return self.size * 8 / seconds / 1e9

    def ordered(self) -> float:
        """Gbit/s."""

        async def fetch() -> float:
            return await _Ordered(_Outside(self.client, directory)).seconds()

        directory = self._fresh()
        seconds = asyncio.run(fetch())
        if (directory / "file").stat().st_size != self.size:
            raise CommandFailed("the proxy's file is not whole")
        return self._rate(seconds)

    def curl(self) -> float:
        """Gbit/s."""
        target = self._fresh() / "file"
        begin = time.perf_counter()
        self.client.run("curl", "-sS", "-f", "-o", str(target), f"http://{_SERVER}/file", timeout=_PATIENCE)
        return self._rate(time.perf_counter() - begin)


@contextmanager
def _serving(server: Namespace, folder: Path, size: int) -> Iterator[None]:
    (folder / "root").mkdir()
    with (folder / "root" / "file").open("wb") as file:
        block = os.urandom(1 << 20)
        for _ in range(size >> 20):
            file.write(block)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, temporary=temporary, address=_SERVER))
    nginx = server.start(
        "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), output=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while not (folder / "pid").exists():
            if nginx.poll() is not None or time.monotonic() > end:
                raise CommandFailed("nginx did not start")
            time.sleep(0.02)
        yield
    finally:
        stop(nginx)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row among NAMES that is wanted."""
    if not set(NAMES) & set(wanted):
        return []
    size = max(int(_SIZE * settings.scale), 64 << 20) >> 20 << 20
    with (
        namespaces("client", "server") as (client, server),
        tempfile.TemporaryDirectory(prefix="locum-bench-") as name,
    ):
        folder = Path(name)
        folder.chmod(0o755)  # the proxy's process has a user of its own
        join(client, "eth0", server, "eth0")
        client.ip(f"address add {_CLIENT}/24 dev eth0")
        server.ip(f"address add {_SERVER}/24 dev eth0")
        with _serving(server, folder, size):
            link = _Link(client, folder, size)
            fast = in_turns(min(settings.rounds, 3), link.ordered, link.curl)
            for space in (client, server):
                run(
                    "tc",
                    "-n",
                    space.name,
                    *[
                        "qdisc",
                        "add",
                        "dev",
                        "eth0",
                        "root",
                        "tbf",
                        "rate",
                        "1gbit",
                        "burst",
                        "256k",
                        "latency",
                        "20ms",
                    ],
                )
            ordered, curl = in_turns(min(settings.rounds, 3), link.ordered, link.curl)
    notes = (
        f"{size >> 20} MiB from nginx over a link of 1 Gbit/s, into a file; the proxy's is durable, and its SHA-256 known",
        "without a bound of the link: "
        + " against ".join(f"{sorted(rates)[len(rates) // 2]:.2f}" for rates in fast)
        + " Gbit/s",
    )
    return [Measurement("ordered_download", "Gbit/s", ordered, curl, notes)]
