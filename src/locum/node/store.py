"""Durable state of a node: bindings, visitors, registrations, handovers, sequence numbers, host changes.

One small interface (rows, put, forget, committed, durable) over SQLite in WAL mode. The event loop never waits for the disk: writes
are queued and committed in groups by one thread, the only one that writes and syncs. All that arrive while a commit is
running make up the next one, so the price of a sync is shared by concurrent registrations. `durable()` is awaited before
an answer leaves the host. Rows are read when a node starts; afterwards their writers have them in memory. Rows are
JSON objects; the store does not know their meaning.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from locum.node.tables import Row, StoreError

log = logging.getLogger("locum.store")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    collection TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (collection, key)
) WITHOUT ROWID
"""
_RENEW = "ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value, version = entry.version + 1"
# All that is written to a collection at once: an object of the values by key. SQLite takes it apart while the event
# loop goes on; between statements, or parameters, the interpreter goes to the other thread and back, which costs more
# than a row does. The condition tells its parser that ON is not that of a join.
_PUT_ALL = f"INSERT INTO entry SELECT ?, key, value, 1 FROM json_each(?) WHERE true {_RENEW}"
_ROWS = "SELECT key, value FROM entry WHERE collection = ? ORDER BY key"
_FORGET = "DELETE FROM entry WHERE collection = ? AND key = ?"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
# Not JSON, or text that is not Unicode: SQLite finds the latter when it takes the text.
_UNENCODABLE = (TypeError, ValueError, RecursionError)


class _Batch:
    """Writes that are committed together. Later writes to a key replace earlier ones."""

    __slots__ = ("committed", "forgets", "puts", "writes")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.writes: dict[tuple[str, str], Row | None] = {}
        self.puts: list[tuple[str, str]] = []  # what goes into each table, as JSON
        self.forgets: list[tuple[str, str]] = []
        self.committed: asyncio.Future[None] = loop.create_future()

    def encode(self) -> None:
        """Encode the batch, in the thread of the event loop.

        Two threads that want the interpreter wait for each other: the worker would do its share in many small pieces.
        """
        by_table: dict[str, dict[str, Row]] = {}
        for at, value in self.writes.items():
            table, key = at
            if value is None:
                self.forgets.append(at)
            elif (values := by_table.get(table)) is not None:
                values[key] = value
            else:
                by_table[table] = {key: value}
        self.puts = [(table, _encode(values)) for table, values in by_table.items()]

    def drop_unencodable(self) -> list[tuple[str, str]]:
        """Table and key of each write that cannot be encoded; these writes are taken out."""
        lost = [at for at, value in self.writes.items() if not _encodable(at, value)]
        for at in lost:
            del self.writes[at]
        return lost


def _encodable(at: tuple[str, str], value: Row | None) -> bool:
    try:
        _encode([at, value]).encode()
    except _UNENCODABLE:
        return False
    return True


class Store:
    """One SQLite file. All methods are called from the event loop's thread."""

    def __init__(self, path: Path) -> None:
        """Open or create the file at `path`. Raises StoreError."""
        self._path = path
        self._reading = f"{path.absolute().as_uri()}?mode=ro"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            # The worker's alone as soon as it is open.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._database.execute("PRAGMA journal_mode=WAL")
            # An answered registration survives a power cut too.
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA wal_autocheckpoint=4000")
            self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as problem:
            raise StoreError(
                f"{path}: the store cannot be opened: {problem}; see state_dir of [node]"
            ) from None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: _Batch | None = None
        # Of commits that failed: the next one has them too.
        self._unwritten: dict[tuple[str, str], Row | None] = {}
        self._running: _Batch | None = None
        self._closed = False

    # reading

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """All committed values of a table by key, in the order of the keys. Writes still queued are not seen.

        For the start of a node: it waits for the disk, though not for a commit. Raises StoreError.
        """
        return {key: json.loads(value) for key, value in self.texts(table)}

    def texts(self, table: str) -> Iterator[tuple[str, str]]:
        """The same, one after the other, as keys and texts of JSON: they take a tenth of the memory. Raises StoreError."""
        try:
            with closing(sqlite3.connect(self._reading, uri=True, timeout=5.0)) as database:
                yield from database.execute(_ROWS, (table,))
        except sqlite3.Error as problem:
            raise StoreError(f"{self._path}: cannot be read: {problem}; move it away to begin anew") from None

    # writing in groups

    def put(self, table: str, key: str, value: Row) -> None:
        """Queue a write. `value` must not be changed afterwards. Raises StoreError when the store is closed."""
        self._batch().writes[table, key] = value

    def forget(self, table: str, key: str) -> None:
        """Queue a deletion; a missing key is no error. Raises StoreError when the store is closed."""
        self._batch().writes[table, key] = None

    def committed(self) -> "asyncio.Future[None] | None":
        """The future of the commit that covers everything queued so far, shared by all (never cancel it); None: done.

        Its result is None or a StoreError.
        """
        if self._unwritten:
            self._batch()
        batch = self._waiting or self._running
        return None if batch is None else batch.committed

    async def durable(self) -> None:
        """Wait until everything queued so far is committed. Raises StoreError."""
        commit = self.committed()
        if commit is not None:
            await asyncio.shield(commit)

    def _batch(self) -> _Batch:
        if self._closed:
            raise StoreError(f"{self._path}: cannot be written: it is closed")
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = _Batch(loop)
            self._waiting.writes, self._unwritten = self._unwritten, {}
            if self._running is None:
                loop.call_soon(self._start)
        return self._waiting

    def _start(self) -> None:
        batch = self._waiting
        if batch is None or self._running is not None:
            return
        self._waiting, self._running = None, batch
        try:
            batch.encode()
        except _UNENCODABLE as problem:
            self._finished(batch, problem)
            return
        self._worker.submit(self._work, batch, asyncio.get_running_loop())

    def _work(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        """In the worker thread."""
        problem: BaseException | None = None
        try:
            self._commit(batch)
        except BaseException as caught:
            problem = caught
        loop.call_soon_threadsafe(self._finished, batch, problem)

    def _commit(self, batch: _Batch) -> None:
        """In the worker thread: one transaction for the whole batch."""
        if len(batch.puts) == 1 and not batch.forgets:
            self._database.execute(_PUT_ALL, batch.puts[0])  # a transaction by itself
            return
        with self._transaction() as database:
            database.executemany(_PUT_ALL, batch.puts)
            database.executemany(_FORGET, batch.forgets)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _finished(self, batch: _Batch, problem: BaseException | None) -> None:
        self._running = None
        if problem is None:
            batch.committed.set_result(None)
        else:
            if isinstance(problem, _UNENCODABLE):  # it would fail every later commit
                for table, key in batch.drop_unencodable():
                    log.error("%s: row %r of %s is lost: it cannot be encoded", self._path, key, table)
            if self._waiting is None:
                self._unwritten = batch.writes
            else:
                self._waiting.writes = batch.writes | self._waiting.writes
            failure = StoreError(f"{self._path}: cannot be written: {problem}")
            batch.committed.set_exception(failure)
            batch.committed.exception()  # seen: a waiting caller gets it, and there may be none
        if self._waiting is not None:
            self._start()

    async def close(self) -> None:
        """Commit queued writes, including those that failed before, and close the file. Later writes are refused."""
        if self._unwritten:
            self._batch()
        while (batch := self._waiting or self._running) is not None:
            await asyncio.wait([batch.committed])
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._worker, self._database.close)
        self._worker.shutdown()
