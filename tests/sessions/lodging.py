"""A node's stand-in side alone, in the namespace `standin`: real sockets, a real holder, a store; the test plays the role.

The device's programs are sockets of this process, so nothing has to be frozen.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from locum.node.apps.attended import AttendedStandIn
from locum.node.config.settings import MnpsSettings
from locum.node.host.link_watch import LinkWatch
from locum.node.host.local_peers import LocalPeers
from locum.node.host.network import HostNetwork
from locum.node.store import Store
from locum.roles import actions as do
from locum.roles.action_values.sessions import Restored, RestoreSessions, SessionEvent, SessionRecordItem
from locum.roles.mnps.configuration import ORDINARY, Quota, StandInConfiguration
from locum.sessions.holder import FdStore
from locum.sessions.tcp.live import LiveSocket
from locum.wire.control import Flow
from tests.sessions.sleepworld import HOME4, HOME6, Network

ROOT = Path(__file__).parents[2]
HANDOVER = bytes(range(16))
HERE = {4: "10.77.3.2", 6: "fd77:3::2"}  # addresses of the stand-in's own host
PEER = {4: "10.77.1.2", 6: "fd77:1::2"}
E = TypeVar("E", bound=SessionEvent)


@dataclass
class Connection:
    """One connection: both ends, and the record once it is captured."""

    device: socket.socket
    peer: socket.socket
    flow: Flow
    live: LiveSocket | None = None

    def close(self) -> None:
        self.device.close()
        self.peer.close()


@dataclass
class Lodging:
    """Stand-in, its messages to its role and others, and the connections of a device."""

    network: Network
    directory: Path
    settings: MnpsSettings
    events: list[do.Event] = field(default_factory=list)
    told: list[do.Emit] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    stand_in: AttendedStandIn = field(init=False)
    store: Store = field(init=False)

    def connect(self, number: int = 1, *, version: int = 4, here: bool = False) -> list[Connection]:
        """Connections from the home address to the peer, or to the stand-in's own host."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        address, home = (HERE if here else PEER)[version], HOME4 if version == 4 else HOME6
        with self.network.inside("standin" if here else "peer"):
            listener = socket.create_server((address, 7000), family=family, backlog=number)
        made = []
        with listener:
            for _ in range(number):
                with self.network.inside("device"):
                    device = socket.socket(family)
                device.bind((str(home), 0))
                device.settimeout(10)
                device.connect((address, 7000))
                device.settimeout(None)
                peer, _ = listener.accept()
                peer.setblocking(False)
                flow = Flow(6, home, device.getsockname()[1], ip_address(address), 7000)
                made.append(Connection(device, peer, flow))
        self.connections += made
        return made

    async def take_over(self, connections: list[Connection], handover: bytes = HANDOVER) -> Restored:
        """Capture, and restore here."""
        items = []
        for number, connection in enumerate(connections):
            connection.live = LiveSocket(connection.device, connection.flow)
            items.append(SessionRecordItem(number, connection.flow, connection.live.capture().to_cbor()))
        for chain in ("in", "out"):
            self.network.block("device", chain)
        self.network.block("standin", "in")
        self.network.route("standin")
        restored = await self.ask(RestoreSessions(handover, tuple(items), HOME4), Restored)
        self.network.unblock("standin", "in")
        return restored

    async def ask(self, action: do.Action, kind: type[E]) -> E:
        """Perform an action; the result that it gives."""
        await self.perform(action)
        found = self.events.pop()
        assert isinstance(found, kind), found
        return found

    async def perform(self, action: do.Action) -> None:
        pending = self.stand_in.handlers()[type(action)](action)
        if pending is not None:
            await pending

    async def until(self, done: Callable[[], bool], seconds: float = 20) -> None:
        """The loop runs until it is so."""
        async with asyncio.timeout(seconds):
            while not done():
                await asyncio.sleep(0.002)

    async def fill(self, peer: socket.socket, most: int) -> int:
        """The peer sends until nothing more goes out for a while; how much it was."""
        sent, since = 0, 0
        while sent < most and since < 200:
            try:
                sent += peer.send(bytes(min(most - sent, 1 << 18)))
                since = 0
            except BlockingIOError:
                since += 1
            await asyncio.sleep(0.002)
        return sent

    async def open(self) -> tuple[Flow, ...]:
        """Start, or start again after `kill`; the flows that were lost."""
        self.store = Store(self.directory / "node.db")
        self.host = HostNetwork(self.store)
        await self.host.open()
        self.watch = LinkWatch(lambda name, state: None)
        await self.watch.open()
        self.stand_in = AttendedStandIn(
            "lodging", self.settings, self.store, self.events.append, self.told.append, LocalPeers(self.host, self.watch),
            lambda packet: None, lambda reason: None,
        )  # fmt: skip
        lost = self.stand_in.adopt()
        await self.stand_in.begin()
        await self.host.undo_stale()
        return lost

    def kept(self) -> list[str]:
        """Names of the descriptors with the holder."""
        store = FdStore.holder(self.directory / "holder")
        taken = store.take()
        store.close()
        for fd in taken.values():
            os.close(fd)
        return list(taken)

    async def shut(self) -> None:
        """The daemon ends; holder, store and network stay."""
        await self.stand_in.close()
        await self.watch.close()
        await self.host.close()
        await self.store.close()


@asynccontextmanager
async def lodging(
    network: Network, directory: Path, *, device_bytes: int = ORDINARY.stored, **settings: int
) -> AsyncIterator[Lodging]:
    """A stand-in in `standin`; everything is gone afterwards."""
    path = directory / "holder"
    holder = subprocess.Popen(
        [sys.executable, "-m", "locum.sessions.holder", str(path)],
        stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"},
    )  # fmt: skip
    assert holder.stdout
    assert holder.stdout.readline() == b"ready\n"
    chosen = MnpsSettings(
        StandInConfiguration(
            address=IPv4Address("10.77.3.2"),
            access_node=IPv4Address("10.77.3.1"),
            home_prefixes=(ip_network("10.99.0.0/24"),),
            quota=Quota(stored=device_bytes),
        ),
        links=("e0",),
        memory_bound=32 << 20,
        disk_bound=1 << 30,
        spool_dir=directory / "spool",
        app_dir=directory / "apps",
        holder=path,
        **settings,  # type: ignore[arg-type]
    )
    made = Lodging(network, directory, chosen)
    try:
        with network.inside("standin"):
            await made.open()
            try:
                yield made
            finally:
                await made.host.undo_all()
                await made.shut()
    finally:
        holder.terminate()
        holder.wait(5)
        for connection in made.connections:
            connection.close()
        for name in ("device", "standin"):
            network.unblock(name, "in")
            network.unblock(name, "out")
        network.route("device")
