"""The stand-in's side of a node with real sockets: how much it takes in, peers on its own host, restarts, many sessions."""

import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from locum.node.sessions import removing
from locum.node.tables import HostTable
from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.apps import AppOrder, StartApps
from locum.roles.action_values.sessions import (
    DropSessions,
    FetchData,
    Fetched,
    Measured,
    MeasureSessions,
    ResumeSessions,
    Stopped,
    StopSessions,
    Surveyed,
    SurveySessions,
)
from tests.sessions.lodging import HANDOVER, lodging
from tests.sessions.sleepworld import HOME4, Network

MEG = 1 << 20


async def test_a_program_that_does_not_read_keeps_its_peer_waiting(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path, session_least=2 * MEG) as here:
        (one,) = here.connect()
        await here.take_over([one])
        sent = await here.fill(one.peer, 64 * MEG)
        measured = await here.ask(MeasureSessions(HANDOVER), Measured)
        assert measured.sessions[0].total == 2 * MEG
        assert sent < 20 * MEG  # kernel buffers of both ends
        fetched = await here.ask(FetchData(1, HANDOVER, 0, 0, MEG), Fetched)
        assert fetched.data == bytes(MEG) and fetched.more
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 3 * MEG)


async def test_a_program_that_read_all_goes_on_at_full_speed(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path, session_least=MEG) as here:
        (one,) = here.connect()
        one.peer.setblocking(True)
        for _ in range(4):
            one.peer.sendall(bytes(MEG // 2))
            assert len(one.device.recv(MEG // 2, socket.MSG_WAITALL)) == MEG // 2
        one.peer.setblocking(False)
        await here.take_over([one])
        assert await here.fill(one.peer, 24 * MEG) == 24 * MEG
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 24 * MEG)


@pytest.mark.parametrize("attended", [True, False])
async def test_proxy_that_reads_all_goes_on_for_a_program(
    network: Network, tmp_path: Path, attended: bool
) -> None:
    async with lodging(network, tmp_path, session_least=2 * MEG) as here:
        (one,) = here.connect()
        await here.take_over([one])
        sent = await here.fill(one.peer, 32 * MEG)
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 2 * MEG)
        ports: list[JSON] = [one.flow.peer_port if attended else 1]
        order = AppOrder("own", "download", {"ports": ports})
        await here.perform(StartApps(HANDOVER, HOME4, (order,), {}))
        sent += await here.fill(one.peer, 4 * MEG)
        expected = sent if attended else 2 * MEG
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == expected)


async def test_all_sessions_of_a_device_share_a_bound(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path, session_least=8 * MEG, device_bytes=3 * MEG) as here:
        two = here.connect(2)
        await here.take_over(two)
        for session in two:
            assert await here.fill(session.peer, 64 * MEG) < 30 * MEG
        assert sum(session["received"] for session in here.stand_in.sessions()) == 3 * MEG
        await here.perform(DropSessions(HANDOVER, (0,), reset=True))
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 3 * MEG)
        with pytest.raises(ConnectionResetError):
            two[0].peer.recv(1)


@pytest.mark.parametrize("version", [4, 6])
async def test_a_peer_on_the_stand_ins_own_host(network: Network, tmp_path: Path, version: int) -> None:
    """Packets of the host to a home address leave it, except those of a session that lives here."""
    async with lodging(network, tmp_path) as here:
        (one,) = here.connect(version=version, here=True)
        one.peer.send(b"before")
        assert one.device.recv(10) == b"before"
        await here.take_over([one])
        one.peer.send(b"meanwhile")
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 9)
        await here.shut()
        assert await here.open() == ()
        one.peer.send(b", also after a restart")
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 31)
        (final,) = (await here.ask(StopSessions(HANDOVER, (), MEG), Stopped)).finals
        assert final.tail == b"meanwhile, also after a restart"
        family = "-4" if version == 4 else "-6"
        assert "iif lo ipproto tcp" not in network.ip("standin", family, "rule")
        await here.perform(ResumeSessions(HANDOVER))
        one.peer.send(b"!")
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 32)
        await here.perform(DropSessions(HANDOVER, reset=True))
        with pytest.raises(ConnectionResetError):
            one.peer.recv(1)
        assert "iif lo ipproto tcp" not in network.ip("standin", family, "rule")


async def test_idle_times_survive_a_restart(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path) as here:
        two = here.connect(2)
        await here.take_over(two)
        time.sleep(0.5)
        two[1].peer.send(b"x")
        await here.until(lambda: here.stand_in.sessions()[1]["received"] == 1)
        await here.shut()
        await here.open()
        uses = {session.session: session for session in (await here.ask(SurveySessions(), Surveyed)).sessions}
        assert uses[0].idle >= uses[1].idle + 0.4
        assert (uses[0].stored, uses[1].stored) == (0, 1)


async def test_session_that_was_not_stored_stays_with_its_device(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is killed between the socket and its row: the peer hears nothing, for the device's socket goes on."""
    async with lodging(network, tmp_path) as here:
        (one,) = here.connect()
        monkeypatch.setattr(here.store, "_commit", lambda batch: None)
        assert (await here.take_over([one])).restored == (0,)
        await here.shut()
        assert await here.open() == () and not here.stand_in.sessions()
        with pytest.raises(BlockingIOError):
            one.peer.recv(1)


@pytest.mark.parametrize("reset", [False, True])
async def test_dropped_sessions_are_removed_when_the_disk_has_room(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reset: bool
) -> None:
    monkeypatch.setattr(removing, "STORE_AGAIN", 0.05)
    async with lodging(network, tmp_path) as here:
        (one,) = here.connect()
        await here.take_over([one])
        one.peer.send(b"stored")
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 6)
        await here.store.durable()
        commit, full = here.store._commit, True

        def fails(batch: Any) -> None:
            if full:
                raise sqlite3.OperationalError("database or disk is full")
            commit(batch)

        monkeypatch.setattr(here.store, "_commit", fails)
        await here.perform(DropSessions(HANDOVER, reset=reset))
        assert not here.stand_in.sessions()
        assert len(here.kept()) == 1 and here.store.rows(HostTable.SESSION)  # as it was, should it be killed
        full = False
        await here.until(lambda: not here.kept())
        assert not here.store.rows(HostTable.SESSION)
        assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


async def test_failed_session_does_not_affect_the_others(network: Network, tmp_path: Path) -> None:
    async with lodging(network, tmp_path) as here:
        three = here.connect(3)
        await here.take_over([three[1]], b"\x01" * 16)
        restored = await here.take_over(three)
        assert restored.restored == (0, 2)
        ((number, reason),) = restored.failures
        assert number == 1 and "cannot be restored" in reason
        assert len(here.store.rows(HostTable.SESSION)) == 3


async def test_the_cost_of_a_session_does_not_grow_with_their_number(
    network: Network, tmp_path: Path
) -> None:
    async with lodging(network, tmp_path) as here:
        costs = []
        all_of_them = here.connect(450)
        for size, handover in ((50, b"\x01" * 16), (400, b"\x02" * 16)):
            several = [all_of_them.pop() for _ in range(size)]
            began = time.process_time()
            assert len((await here.take_over(several, handover)).restored) == size
            await here.ask(StopSessions(handover, (), MEG), Stopped)
            await here.perform(DropSessions(handover))
            costs.append((time.process_time() - began) / size)
        assert costs[1] < 4 * costs[0]
