"""A stand-in's node takes connections over from proxies: real sockets, a holder, and a daemon that is killed in between."""

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.node.apps.outlet import Outlet
from locum.node.tables import HostTable
from locum.roles.action_values.handed import ConnectionHanded, ConnectionOffered, OfferEnded, TakeOffered
from locum.roles.action_values.sessions import DropSessions
from locum.sessions.tcp import stand_in
from tests.sessions.handed.test_handed import Conversation
from tests.sessions.lodging import HANDOVER, Lodging, lodging
from tests.sessions.sleepworld import Network


@pytest.fixture
def talk(network: Network, tmp_path: Path) -> Iterator[Conversation]:
    made = Conversation(network, 4, tmp_path)
    yield made
    made.close()


def offer(here: Lodging, talk: Conversation) -> TakeOffered:
    """A proxy hands its connection over, with bytes that it gives back."""
    outlet = Outlet((), 1, here.directory, here.settings.app_limits, handover=HANDOVER)
    here.stand_in.apps.outlets.handed(outlet)(talk.proxy, "chat", b"read, ")
    offered = here.events.pop()
    assert isinstance(offered, ConnectionOffered)
    return TakeOffered(HANDOVER, offered.number)


async def test_handed_connection_survives_a_restart(
    network: Network, tmp_path: Path, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lodging(network, tmp_path) as here:
        disk, commit = threading.Event(), here.store._commit
        monkeypatch.setattr(here.store, "_commit", lambda batch: (disk.wait(), commit(batch)))
        taking = asyncio.create_task(here.perform(offer(here, talk)))
        await here.until(lambda: len(here.stand_in.sessions()) == 1)
        await asyncio.sleep(0.05)
        assert not taking.done() and not here.events, "the role, thus users, would think that it is held"
        disk.set()
        await taking
        (first,) = here.events
        assert isinstance(first, ConnectionHanded) and len(here.store.rows(HostTable.SESSION)) == 1
        await here.shut()
        here.events.clear()
        assert await here.open() == ()
        assert here.events == [first]
        talk.peer.sendall(b"late")
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 10)
        assert here.kept()
        await here.perform(DropSessions(HANDOVER))
        assert not here.kept()


async def test_handed_connection_is_held_on_a_full_disk(
    network: Network, tmp_path: Path, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    async with lodging(network, tmp_path) as here:
        monkeypatch.setattr(here.store, "_commit", full)
        await here.perform(offer(here, talk))
        assert isinstance(here.events[-1], ConnectionHanded)
        talk.peer.sendall(b"late")
        await here.until(lambda: here.stand_in.sessions()[0]["received"] == 10)
        monkeypatch.undo()
        await here.perform(DropSessions(HANDOVER, reset=True))


async def test_handed_connection_that_was_not_stored_is_reset(
    network: Network, tmp_path: Path, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lodging(network, tmp_path) as here:
        monkeypatch.setattr(here.store, "_commit", lambda batch: None)  # killed before
        await here.perform(offer(here, talk))
        await here.shut()
        assert await here.open() == () and not here.stand_in.sessions()
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(talk.peer.recv, 1)


async def test_connection_that_cannot_be_taken_leaves_nothing(
    network: Network, tmp_path: Path, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwilling(sock: socket.socket) -> None:
        raise OSError("no")

    async with lodging(network, tmp_path) as here:
        monkeypatch.setattr(stand_in, "_leave_repair", unwilling)
        await here.perform(offer(here, talk))
        ended = here.events[-1]
        assert isinstance(ended, OfferEnded) and "cannot be restored" in ended.reason
        assert not here.stand_in.sessions() and not here.kept()
