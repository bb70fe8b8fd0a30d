"""Words of proxies are said once, at whatever moment the daemon is killed."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from locum.apps.shell.channel import PIECE
from locum.node.apps import saying
from locum.node.tables import HostTable, StoreError
from locum.roles.action_values.apps import AppOrder, AppsPaused, EndApps, PauseApps, StartApps
from locum.sessions.tcp.spool import Spool
from tests.node.apps.kinds import MUCH
from tests.node.apps.world import ECHO, HANDOVER, HOME, Connection, Rows, Standing, install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


class SlowRows(Rows):
    """A store whose disk is done when its test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self._queued: dict[str, Mapping[str, Any]] = {}
        self._commit: asyncio.Future[None] | None = None

    def put(self, table: HostTable, key: str, row: Mapping[str, Any]) -> None:
        if self.slow:
            self._queued[key] = row
        else:
            super().put(table, key, row)

    def committed(self) -> "asyncio.Future[None] | None":
        if self._queued and self._commit is None:
            self._commit = asyncio.get_running_loop().create_future()
        return self._commit

    def commit(self) -> None:
        """All that is queued is on the disk; nobody has heard of it yet."""
        self.content |= self._queued
        self._queued = {}

    def tell(self) -> None:
        """Those who wait for it hear of it."""
        commit, self._commit = self._commit, None
        assert commit is not None
        commit.set_result(None)

    def fail(self) -> None:
        """The disk has not taken them."""
        commit, self._commit = self._commit, None
        assert commit is not None
        commit.set_exception(StoreError("no space left on device"))
        commit.exception()

    def after_a_crash(self) -> Rows:
        """The store of the next run."""
        kept = Rows()
        kept.content = dict(self.content)
        return kept


async def _begun(connection: Connection, rows: Rows) -> Standing:
    standing = Standing(connection.held, rows=rows)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.begun and app.process is not None and not app.process.unanswered)
    return standing


async def _answered(standing: Standing, count: int) -> None:
    (app,) = standing.apps.all()
    await standing.until(lambda: app.remembered.get(0) == count)
    await asyncio.sleep(0.05)


async def _crashed(standing: Standing, connection: Connection) -> None:
    """Nothing of its memory is left; the sockets and the files are."""
    for app in standing.apps.all():
        app.words.clear()
        if app.process is not None:
            app.process.kill()
    spool = connection.held.spool
    assert isinstance(spool, Spool)
    spool.recover(connection.held.socket)


async def test_killed_before_its_row_is_stored_it_answers_once(tmp_path: Path) -> None:
    connection, rows = Connection(tmp_path), SlowRows()
    first = await _begun(connection, rows)
    rows.slow = True
    await connection.says(first, b"word")
    await _answered(first, 4)
    await _crashed(first, connection)
    second = await _begun(connection, rows.after_a_crash())
    await connection.says(second, b"more")
    assert await connection.hears(8) == b"WORDMORE"
    await _answered(second, 8)
    await second.perform(PauseApps(HANDOVER))
    assert isinstance(paused := second.events[-1], AppsPaused) and paused.spoken == {0: b"WORDMORE"}
    connection.close()


@pytest.mark.parametrize("said", [False, True])
async def test_killed_when_its_row_is_stored_it_answers_once(tmp_path: Path, *, said: bool) -> None:
    connection, rows = Connection(tmp_path), SlowRows()
    first = await _begun(connection, rows)
    rows.slow = True
    await connection.says(first, b"word")
    await _answered(first, 4)
    rows.commit()
    if said:
        rows.tell()
        assert await connection.hears(4) == b"WORD"
    await _crashed(first, connection)
    second = await _begun(connection, rows.after_a_crash())
    await connection.says(second, b"more")
    assert await connection.hears(4 if said else 8) == (b"MORE" if said else b"WORDMORE")
    await second.perform(EndApps(HANDOVER))
    connection.close()


async def test_words_that_wait_are_said_before_the_device_is_back(tmp_path: Path) -> None:
    connection, rows = Connection(tmp_path), SlowRows()
    standing = await _begun(connection, rows)
    rows.slow = True
    for count, word in ((3, b"one"), (6, b"two")):
        await connection.says(standing, word)
        await _answered(standing, count)
    pausing = asyncio.create_task(standing.perform(PauseApps(HANDOVER)))
    await asyncio.sleep(0.2)
    assert not pausing.done()
    rows.commit()
    rows.tell()
    await pausing
    assert isinstance(paused := standing.events[-1], AppsPaused) and paused.spoken == {0: b"ONETWO"}
    assert await connection.hears(6) == b"ONETWO"
    connection.close()


@pytest.mark.parametrize("stored", [False, True])
async def test_killed_while_the_device_takes_back_it_answers_once(tmp_path: Path, *, stored: bool) -> None:
    """The last words of a sleep are on their way, and the row of the reclaim is not stored."""
    connection, rows = Connection(tmp_path), SlowRows()
    first = await _begun(connection, rows)
    rows.slow = True
    await connection.says(first, b"word")
    await _answered(first, 4)
    pausing = asyncio.create_task(first.perform(PauseApps(HANDOVER)))
    await asyncio.sleep(0.2)
    kept = rows.after_a_crash()
    if stored:
        rows.commit()
        kept = rows.after_a_crash()  # without that of the reclaim, which follows
        rows.tell()
        await pausing
        assert await connection.hears(4) == b"WORD"
    else:
        pausing.cancel()
        with pytest.raises(BlockingIOError):
            await _nothing(connection)
    await _crashed(first, connection)
    second = await _begun(connection, kept)
    await connection.says(second, b"more")
    rest = b"MORE" if stored else b"WORDMORE"
    assert await connection.hears(len(rest)) == rest
    await second.perform(PauseApps(HANDOVER))
    assert isinstance(paused := second.events[-1], AppsPaused) and paused.spoken == {0: b"WORDMORE"}
    connection.close()


async def test_killed_before_the_reclaim_is_stored_it_answers_once(tmp_path: Path) -> None:
    """The proxies are paused; the role has other work first, and has stored nothing of it."""
    connection, rows = Connection(tmp_path), SlowRows()
    first = await _begun(connection, rows)
    await connection.says(first, b"word")
    assert await connection.hears(4) == b"WORD"
    await _answered(first, 4)
    await first.perform(PauseApps(HANDOVER))
    second = await _begun(connection, rows.after_a_crash())
    await connection.says(second, b"more")
    assert await connection.hears(4) == b"MORE"
    await first.perform(EndApps(HANDOVER))
    assert not rows.content
    await second.perform(EndApps(HANDOVER))
    connection.close()


async def test_a_disk_that_takes_no_row_keeps_no_device_waiting(tmp_path: Path) -> None:
    connection, rows = Connection(tmp_path), SlowRows()
    standing = await _begun(connection, rows)
    rows.slow = True
    await connection.says(standing, b"word")
    await _answered(standing, 4)
    pausing = asyncio.create_task(standing.perform(PauseApps(HANDOVER)))
    await asyncio.sleep(0.1)
    rows.fail()
    await pausing
    assert isinstance(paused := standing.events[-1], AppsPaused) and paused.spoken == {0: b"WORD"}
    connection.close()


async def _nothing(connection: Connection) -> None:
    connection.peer.setblocking(False)
    connection.peer.recv(1)


async def test_words_of_a_left_session_are_said_to_the_end(tmp_path: Path) -> None:
    """The peer has no room for all of them when the proxy leaves."""
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    order = AppOrder("one", "wayward", {"way": "says_much"})
    await standing.perform(StartApps(HANDOVER, HOME, (order,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.begun)
    connection.held.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await connection.says(standing, b"word")
    await standing.until(lambda: bool(app.left))
    spool = connection.held.spool
    assert isinstance(spool, Spool) and spool.said.waiting > 0 and not app.sessions
    assert await connection.hears(MUCH) == b"w" * MUCH
    await standing.perform(EndApps(HANDOVER))
    connection.close()


async def test_a_left_session_is_left_by_the_next_run(tmp_path: Path) -> None:
    connection, rows = Connection(tmp_path), SlowRows()
    order = AppOrder("one", "wayward", {"way": "says_much"})
    first = Standing(connection.held, rows=rows)
    await first.perform(StartApps(HANDOVER, HOME, (order,)))
    (app,) = first.apps.all()
    await first.until(lambda: app.begun)
    await connection.says(first, b"word")
    assert await connection.hears(MUCH) == b"w" * MUCH
    await _crashed(first, connection)
    second = Standing(connection.held, rows=rows.after_a_crash())
    await second.perform(StartApps(HANDOVER, HOME, (order,)))
    (again,) = second.apps.all()
    await second.until(lambda: again.begun)
    assert not again.sessions and again.left == {0}
    assert isinstance(spool := connection.held.spool, Spool) and len(spool.said.data) == MUCH
    await second.perform(EndApps(HANDOVER))
    connection.close()


async def test_words_of_a_later_row_wait_for_it(tmp_path: Path) -> None:
    connection, rows = Connection(tmp_path), SlowRows()
    standing = await _begun(connection, rows)
    rows.slow = True
    await connection.says(standing, b"one")
    await _answered(standing, 3)
    rows.commit()
    commit, rows._commit = rows.committed(), None
    await connection.says(standing, b"two")
    await _answered(standing, 6)
    assert commit is not None
    commit.set_result(None)
    assert await connection.hears(3) == b"ONE"
    await asyncio.sleep(0.1)
    with pytest.raises(BlockingIOError):
        connection.peer.recv(1)
    rows.commit()
    rows.tell()
    assert await connection.hears(3) == b"TWO"
    await standing.perform(EndApps(HANDOVER))
    connection.close()


async def test_a_long_text_is_said_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in pieces, of which the last one alone has room."""
    monkeypatch.setattr(saying, "MAX_SPOKEN", PIECE)
    connection = Connection(tmp_path)
    standing = await _begun(connection, Rows())
    (app,) = standing.apps.all()
    standing.apps._told(app, [["speak", 0, b"ab"]])
    standing.apps._told(app, [["speak", 0, b"c" * PIECE], ["speak", 0, b"d"]])
    standing.apps._told(app, [["speak", 0, b"e"]])
    assert await connection.hears(3) == b"abe"
    assert f"session 0: {PIECE + 1} bytes were not sent" in app.lines[-1]
    await standing.perform(EndApps(HANDOVER))
    connection.close()
