"""Proxies of kinds.py as another package's, and `Apps` over real connections of this host."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from locum.node.apps.attending import Apps
from locum.node.apps.catalogue import Catalogue
from locum.node.apps.data import AppData
from locum.node.apps.emitting import Emitting
from locum.node.apps.outlets import Outlets
from locum.node.config.settings import AppLimits
from locum.node.sessions.draining import UNBOUNDED, HeldSocket
from locum.node.tables import HostStore, HostTable
from locum.roles import actions as do
from locum.roles.action_values.apps import AppOrder
from locum.roles.actions import Event
from locum.sessions.tcp.spool import Budget, Spool
from locum.wire.control import Flow
from tests.sessions.test_record import PLAIN

ROOT = Path(__file__).parents[3]
HANDOVER = bytes(range(16))
LIMITS = AppLimits()
HOME, PEER = IPv4Address("10.99.0.5"), IPv4Address("192.0.2.80")
ECHO = AppOrder("one", "wayward", {"way": "well"})


def install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that names the proxies of kinds.py, for this process and those that it starts."""
    information = directory / "wayward-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: wayward\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[locum.apps]\nwayward = tests.node.apps.kinds:Wayward\nbroken = tests.node.apps.kinds:Missing\n"
        "puppet = tests.node.apps.puppet:Puppet\n"
    )
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(directory), str(ROOT))))


class Rows:
    """The store's table of proxies."""

    def __init__(self) -> None:
        self.content: dict[str, Mapping[str, Any]] = {}

    def rows(self, table: HostTable) -> Mapping[str, Mapping[str, Any]]:
        assert table is HostTable.APP
        return dict(self.content)

    def put(self, _: HostTable, key: str, row: Mapping[str, Any]) -> None:
        self.content[key] = row

    def forget(self, _: HostTable, key: str) -> None:
        self.content.pop(key, None)

    def committed(self) -> "asyncio.Future[None] | None":
        return None


STANDING: list["Standing"] = []
"""Those whose fork servers have to be ended."""


class Standing:
    """`Apps` with these sessions."""

    def __init__(self, *held: HeldSocket, rows: Rows | None = None) -> None:
        STANDING.append(self)
        self.folder = Path(tempfile.mkdtemp(prefix="locum-apps-"))
        self.events: list[Event] = []
        self.told: list[do.Emit] = []
        self.rows = Rows() if rows is None else rows
        self.apps = Apps(
            Catalogue(),
            cast(HostStore, self.rows),
            lambda _: held,
            self.events.append,
            self.told.append,
            lambda _: None,
            LIMITS,
            # Peers of tests are on this host.
            Outlets(AppData(self.folder), LIMITS, emitting=Emitting(local=True)),
        )

    def close(self) -> None:
        """End its fork servers, and remove the files of its proxies."""
        self.apps.close()
        shutil.rmtree(self.folder)

    async def perform(self, action: object) -> None:
        result = self.apps.handlers()[type(action)](action)
        if isinstance(result, Awaitable):
            await result

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.sleep(0.01)


class Connection:
    """A TCP connection of this host in the place of a held one: the correspondent's end, and the stand-in's."""

    def __init__(self, directory: Path, number: int = 0) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        ours.setblocking(False)
        flow = Flow(6, HOME, 40000 + number, PEER, 7)
        record = replace(PLAIN, flow=flow, unacked=b"", unsent=b"", unread=0)
        spool = Spool(
            f"s{number}",
            record,
            memory_dir=directory / "memory",
            disk_dir=directory / "disk",
            budget=Budget(1 << 20, 1 << 20),
        )
        self.held = HeldSocket((HANDOVER, number), flow, record, ours, spool, UNBOUNDED)

    def drain(self, standing: Standing) -> None:
        """Store what the correspondent has sent, as the stand-in does."""
        assert isinstance(self.held.spool, Spool)
        while self.held.spool.drain(self.held.socket):
            pass
        standing.apps.moved(self.held)

    async def says(self, standing: Standing, data: bytes) -> None:
        """The correspondent sends, and the stand-in stores it."""
        before = self.held.spool.total
        self.peer.sendall(data)
        async with asyncio.timeout(60):
            while self.held.spool.total < before + len(data):
                self.drain(standing)
                await asyncio.sleep(0.01)

    async def hears(self, count: int) -> bytes:
        """So many bytes at the correspondent."""
        self.peer.setblocking(False)
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(60):
            while len(data) < count:
                data += await loop.sock_recv(self.peer, count - len(data))
        return data

    def close(self) -> None:
        self.peer.close()
        self.held.socket.close()
