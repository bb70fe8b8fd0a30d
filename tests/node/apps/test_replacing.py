"""Received bytes that a proxy replaces or leaves out, as far as its order allows."""

import os
import signal
from pathlib import Path

import pytest

from locum.node.apps import attending
from locum.roles.action_values.apps import AppOrder, AppsPaused, Consume, EndApps, PauseApps, StartApps
from locum.sessions.tcp.spool import Spool
from tests.node.apps.world import HANDOVER, HOME, Connection, Rows, Standing, install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


def _order(consume: Consume, way: str = "replaces") -> AppOrder:
    return AppOrder("one", "wayward", {"way": way}, consume)


def _given(connection: Connection) -> bytes:
    return connection.held.spool.give(0, 1 << 20)


async def _shown(standing: Standing, count: int) -> None:
    """The proxy has answered so many bytes."""
    (app,) = standing.apps.all()
    await standing.until(lambda: app.remembered.get(0) == count)


@pytest.mark.parametrize(
    ("consume", "given", "surplus"),
    [
        (Consume.REPLAY, b"wordmore", {}),
        (Consume.REPLACE, b"<WORD><MORE>", {0: 4}),
        (Consume.OMIT, b"", {0: -8}),
    ],
)
async def test_order_decides_what_the_program_gets(
    tmp_path: Path, consume: Consume, given: bytes, surplus: dict[int, int]
) -> None:
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (_order(consume),)))
    for word, count in ((b"word", 4), (b"more", 8)):
        await connection.says(standing, word)
        await _shown(standing, count)
    (app,) = standing.apps.all()
    assert app.replaced(0) == (0 if consume is Consume.REPLAY else 8)
    await standing.perform(PauseApps(HANDOVER))
    assert _given(connection) == given
    paused = standing.events[-1]
    assert isinstance(paused, AppsPaused) and paused.surplus == surplus
    assert connection.held.spool.for_program == len(given)
    connection.close()


async def test_bytes_that_it_was_not_shown_stay(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (_order(Consume.REPLACE, "replaces_beyond"),)))
    await connection.says(standing, b"word")
    await _shown(standing, 4)
    assert _given(connection) == b"word"
    (app,) = standing.apps.all()
    assert app.lines[-1].endswith("session 0: 4 bytes were not replaced: it was shown 4 bytes only")
    assert app.process is not None, "it goes on"
    await standing.perform(EndApps(HANDOVER))
    connection.close()


async def test_killed_proxy_replaces_the_rest_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process knows the position of the next byte."""
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.01)
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (_order(Consume.REPLACE),)))
    await connection.says(standing, b"first")
    await _shown(standing, 5)
    (app,) = standing.apps.all()
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGKILL)
    await connection.says(standing, b"second")
    await _shown(standing, 11)
    assert _given(connection) == b"<FIRST><SECOND>"
    await standing.perform(EndApps(HANDOVER))
    connection.close()


async def test_killed_daemon_replaces_nothing_twice(tmp_path: Path) -> None:
    """It was killed between the replacement and the row about it: the next run shows the bytes again."""
    connection = Connection(tmp_path)
    first = Standing(connection.held)
    await first.perform(StartApps(HANDOVER, HOME, (_order(Consume.REPLACE),)))
    await connection.says(first, b"once")
    await _shown(first, 4)
    kept = Rows()
    kept.content = {key: dict(row) | {"shown": {"0": 0}} for key, row in first.rows.content.items()}
    await first.perform(EndApps(HANDOVER))
    spool = connection.held.spool
    assert isinstance(spool, Spool)
    spool.recover(connection.held.socket)
    second = Standing(connection.held, rows=kept)
    await second.perform(StartApps(HANDOVER, HOME, (_order(Consume.REPLACE),)))
    await _shown(second, 4)
    assert _given(connection) == b"<ONCE>"
    await second.perform(EndApps(HANDOVER))
    connection.close()


async def test_killed_daemon_replaces_other_pieces_of_the_same_bytes(tmp_path: Path) -> None:
    """The next run shows the bytes again, and more, in pieces that begin and end elsewhere."""
    connection = Connection(tmp_path)
    first = Standing(connection.held)
    await first.perform(StartApps(HANDOVER, HOME, (_order(Consume.REPLACE),)))
    for times in (1, 2):
        await connection.says(first, b"a" * 20_000)
        await _shown(first, times * 20_000)
    kept = Rows()
    kept.content = {key: dict(row) | {"shown": {"0": 0}} for key, row in first.rows.content.items()}
    await first.perform(EndApps(HANDOVER))
    spool = connection.held.spool
    assert isinstance(spool, Spool)
    spool.recover(connection.held.socket)
    second = Standing(connection.held, rows=kept)
    await connection.says(second, b"b" * 20_000)
    await second.perform(StartApps(HANDOVER, HOME, (_order(Consume.REPLACE),)))
    await _shown(second, 60_000)
    given = spool.give(0, 1 << 20)
    assert given.translate(None, b"<>") == b"A" * 40_000 + b"B" * 20_000
    await second.perform(EndApps(HANDOVER))
    spool.recover(connection.held.socket)
    assert spool.give(0, 1 << 20) == given
    connection.close()
