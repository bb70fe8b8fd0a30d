"""A stand-in's node with open ports, real sockets and a holder: sockets it keeps, and those it closes."""

import asyncio
import errno
import select
import socket
import struct
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from locum.node.sessions import openings
from locum.node.tables import HostTable
from locum.roles.action_values.listeners import AcceptedEnded, ClosePorts, ConnectionAccepted, OpenPorts
from locum.roles.action_values.sessions import DropSessions, Stopped, StopSessions
from locum.wire.control import Listener, Policy
from tests.sessions.lodging import HANDOVER, Lodging, lodging
from tests.sessions.sleepworld import HOME4, HOME6, Network

PORT = 7100
HOMES: dict[int, IPv4Address | IPv6Address] = {4: HOME4, 6: HOME6}


def ports(version: int, most: int = 8) -> OpenPorts:
    return OpenPorts(HANDOVER, (Listener(HOMES[version], PORT, Policy.ACCEPT, most, 0x8000),))


class Callers:
    """Peers that connect to the sleeping device. There is no data plane: SYNs meet the listener unchanged."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.open: list[socket.socket] = []

    def __enter__(self) -> "Callers":
        # The data plane would take these options out.
        self.network.sysctl("standin", "net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_window_scaling=0")
        self.network.route("standin")
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.open:
            sock.close()
        self.network.sysctl("standin", "net.ipv4.tcp_timestamps=1", "net.ipv4.tcp_window_scaling=1")
        self.network.route("device")

    def call(self, version: int = 4) -> socket.socket:
        with self.network.inside("peer"):
            made = socket.create_connection((str(HOMES[version]), PORT), timeout=10)
        self.open.append(made)
        return made


def accepted(here: Lodging) -> list[ConnectionAccepted]:
    return [event for event in here.events if isinstance(event, ConnectionAccepted)]


@pytest.mark.parametrize("version", [4, 6])
async def test_accepted_connections_survive_a_restart(network: Network, tmp_path: Path, version: int) -> None:
    async with lodging(network, tmp_path) as here:
        with Callers(network) as callers:
            await here.perform(ports(version))
            caller = callers.call(version)
            caller.sendall(b"request")
            await here.until(lambda: len(accepted(here)) == 1)
            first = accepted(here)[0]
            await here.perform(ClosePorts(HANDOVER))
            await here.store.durable()
            await here.shut()
            here.events.clear()
            assert await here.open() == ()
            await here.perform(ports(version))
            assert accepted(here) == [first]
            await here.until(lambda: here.stand_in.sessions()[0]["received"] == 7)
            (row,) = here.stand_in.sessions()
            assert (row["accepted"], row["session"]) == (True, first.session)
            await here.perform(ClosePorts(HANDOVER))
            stopped = await here.ask(StopSessions(HANDOVER, (), 1 << 20), Stopped)
            assert (stopped.finals[0].total, stopped.finals[0].tail) == (7, b"request")
            await here.perform(DropSessions(HANDOVER))


async def test_accepted_connection_is_told_of_once_it_is_stored(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lodging(network, tmp_path) as here:
        with Callers(network) as callers:
            await here.perform(ports(4))
            disk, commit = threading.Event(), here.store._commit
            monkeypatch.setattr(here.store, "_commit", lambda batch: (disk.wait(), commit(batch)))
            callers.call()
            await here.until(lambda: len(here.stand_in.sessions()) == 1)
            closing = asyncio.create_task(here.perform(ClosePorts(HANDOVER)))
            await asyncio.sleep(0.05)
            assert not accepted(here) and not closing.done()
            disk.set()
            await closing
            assert len(accepted(here)) == len(here.store.rows(HostTable.SESSION)) == 1
            await here.perform(DropSessions(HANDOVER, reset=True))


async def test_accepted_connection_is_told_of_on_a_full_disk(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    async with lodging(network, tmp_path) as here:
        with Callers(network) as callers, monkeypatch.context() as disk:
            await here.perform(ports(4))
            disk.setattr(here.store, "_commit", full)
            caller = callers.call()
            await here.until(lambda: len(accepted(here)) == 1)
            await here.perform(ClosePorts(HANDOVER))
            disk.undo()
            await here.store.durable()
            await here.shut()
            assert await here.open() == ()
            caller.sendall(b"request")
            await here.until(lambda: here.stand_in.sessions()[0]["received"] == 7)
            await here.perform(DropSessions(HANDOVER, reset=True))


async def test_accepted_connection_that_was_not_stored_is_reset(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lodging(network, tmp_path) as here:
        with Callers(network) as callers:
            await here.perform(ports(4))
            monkeypatch.setattr(here.store, "_commit", lambda batch: None)  # killed before
            caller = callers.call()
            await here.until(lambda: len(here.stand_in.sessions()) == 1)
            await here.shut()
            assert await here.open() == () and not here.stand_in.sessions()
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(caller.recv, 1)


async def test_the_bound_of_a_port_counts_only_those_that_wait(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path) as here:
        with Callers(network) as callers:
            await here.perform(ports(4, most=2))
            first, _second = callers.call(), callers.call()
            await here.until(lambda: len(accepted(here)) == 2)
            third = callers.call()
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(third.recv, 1)
            assert len(here.stand_in.sessions()) == 2
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
            await here.until(lambda: ended(here, callers))
            (gone,) = {event.sessions for event in here.events if isinstance(event, AcceptedEnded)}
            assert gone == (accepted(here)[0].session,)
            await here.perform(DropSessions(HANDOVER, gone, reset=True))
            assert len(here.stand_in.sessions()) == 2  # the fourth came in its place
            await here.perform(DropSessions(HANDOVER, reset=True))
            await here.perform(ClosePorts(HANDOVER))


def ended(here: Lodging, callers: Callers) -> bool:
    """The next caller makes the node look; it takes the place of the one that has gone."""
    if len(accepted(here)) == 2:
        callers.call()
    return len(accepted(here)) == 3


def test_refused_opening_leaves_the_home_address_local(network: Network) -> None:
    """The peer's kernel takes it for the answer to its SYN."""
    refused: list[str] = []
    with Callers(network), network.inside("standin"):
        desk = openings.Openings(
            lambda _: None, lambda *_: None, lambda *_: 0, refused.append, lambda _: None
        )
        listener = Listener(HOME4, PORT, Policy.REFUSE, 1, 0x8000)
        desk.open(HANDOVER, (listener,))
        watcher = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        watcher.bind(("e0", 0x0800))
        watcher.settimeout(10)
        with watcher, network.inside("peer"), socket.socket() as caller:
            caller.setblocking(False)
            with pytest.raises(BlockingIOError):
                caller.connect((str(HOME4), PORT))
            opening = next_opening(watcher)
            assert not select.select([], [caller], [], 0.1)[1], "the kernel has answered for the device"
            with network.inside("standin"):
                desk.came(opening)
            assert select.select([], [caller], [], 10)[1]
            assert caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert refused == ["opening-refused"]


def next_opening(watcher: socket.socket) -> bytes:
    while True:
        packet = watcher.recv(2000)
        if packet[9] == 6 and packet[16:20] == HOME4.packed and packet[33] == 2:
            return packet
