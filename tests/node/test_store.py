"""The store keeps acknowledged writes through kill -9 and concurrent writers."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from locum.node.store import Store, _Batch
from locum.node.tables import StoreError

WRITER = """
import asyncio, sys
from collections.abc import AsyncIterator
from pathlib import Path
from locum.node.store import Store

async def main():
    store = Store(Path(sys.argv[1]))
    number = 0
    while True:
        for _ in range(50):
            number += 1
            store.put("binding", f"{number:08}", {"number": number})
        await store.durable()
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "state" / "node.db")
    yield opened
    await opened.close()


async def test_durable_values_are_read_back(store: Store) -> None:
    store.put("binding", "a", {"lifetime": 3})
    store.put("binding", "b", {"lifetime": 4})
    store.put("visitor", "a", {"link": "radio0"})
    await store.durable()
    assert store.rows("binding") == {"a": {"lifetime": 3}, "b": {"lifetime": 4}}
    store.forget("binding", "a")
    await store.durable()
    assert store.rows("binding") == {"b": {"lifetime": 4}}
    assert store.rows("visitor") == {"a": {"link": "radio0"}}


async def test_values_of_one_commit_are_read_back(store: Store) -> None:
    values: dict[str, dict[str, object]] = {
        'a "quoted" key\\ with.dots[0]$': {"number": (1 << 64) - 1, "less": -(1 << 63)},
        "größe, 鍵": {"text": 'ü "\\\n\t\u0007', "none": None, "yes": True, "no": False},
        "": {"seconds": 1795881448.0934339, "list": [1, [2, {"three": []}], {}], "small": 5e-324},
        "10.64.0.1": {},
    }
    for collection in ("first", "second"):
        for key, value in values.items():
            store.put(collection, key, value)
    await store.durable()
    assert store.rows("first") == store.rows("second") == values
    for number in range(300):  # one commit takes any number
        store.put("third", f"{number:03}", {"number": number})
    store.forget("first", "")
    await store.durable()
    assert [row["number"] for row in store.rows("third").values()] == list(range(300))
    assert store.rows("first").keys() == values.keys() - {""}


async def test_unserialisable_value_loses_no_committed_data(store: Store) -> None:
    store.put("t", "before", {"n": 1})
    await store.durable()
    store.put("t", "wrong", {"n": float("nan")})
    with pytest.raises(StoreError, match="not JSON compliant"):
        await store.durable()
    store.put("t", "wrong", {"n": 2})
    await store.durable()
    assert store.rows("t") == {"before": {"n": 1}, "wrong": {"n": 2}}


@pytest.mark.parametrize("value", [float("nan"), {1}, "\udcff"], ids=["number", "type", "text"])
async def test_unserialisable_value_fails_no_later_commit(
    store: Store, caplog: pytest.LogCaptureFixture, value: object
) -> None:
    store.put("t", "before", {"n": 1})
    store.put("t", "wrong", {"n": value})
    with pytest.raises(StoreError, match="cannot be written"):
        await store.durable()
    assert "row 'wrong' of t is lost" in caplog.text
    store.put("t", "after", {"n": 2})
    await store.durable()
    assert store.rows("t") == {"before": {"n": 1}, "after": {"n": 2}}


async def test_last_write_to_a_key_wins_and_order_is_kept(store: Store) -> None:
    store.put("t", "k", {"n": 1})
    store.forget("t", "k")
    store.put("t", "k", {"n": 2})
    await store.durable()
    assert store.rows("t") == {"k": {"n": 2}}
    store.put("t", "k", {"n": 3})
    store.forget("t", "k")
    await store.durable()
    assert store.rows("t") == {}


async def test_concurrent_writers_share_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, batches = store._commit, list[_Batch]()

    def counted(batch: _Batch) -> None:
        batches.append(batch)
        commit(batch)

    monkeypatch.setattr(store, "_commit", counted)

    async def register(number: int) -> None:
        store.put("binding", str(number), {"number": number})
        await store.durable()

    await asyncio.gather(*(register(number) for number in range(5000)))
    assert len(store.rows("binding")) == 5000
    assert len(batches) < 50, "a sync for many of them"


def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        acknowledged = 0
        assert process.stdout is not None
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged

        async def check(promised: int = acknowledged) -> None:
            store = Store(path)
            rows = store.rows("binding")
            assert all(rows[f"{number:08}"] == {"number": number} for number in range(1, promised + 1))
            await store.close()

        asyncio.run(check())


def test_unopenable_store_names_its_path(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="state_dir"):
        Store(blocked / "node.db")


async def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"this is not a database" * 500)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(path)


async def test_writes_refused_by_a_full_disk_are_retried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = store._commit

    def full(batch: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_commit", full)
    store.put("t", "old", {"n": 1})
    store.put("t", "new", {"n": 1})
    with pytest.raises(StoreError, match="disk is full"):
        await store.durable()
    monkeypatch.setattr(store, "_commit", commit)
    store.put("t", "new", {"n": 2})
    await store.durable()
    assert store.rows("t") == {"new": {"n": 2}, "old": {"n": 1}}


async def test_a_write_during_a_failed_commit_is_the_newer_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, running, go_on = store._commit, threading.Event(), threading.Event()

    def full(batch: _Batch) -> None:
        running.set()
        go_on.wait(10)
        monkeypatch.setattr(store, "_commit", commit)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_commit", full)
    store.put("t", "key", {"n": 1})
    store.put("t", "other", {"n": 1})
    first = store.committed()
    assert first is not None
    await asyncio.to_thread(running.wait, 10)
    store.put("t", "key", {"n": 2})
    go_on.set()
    with pytest.raises(StoreError, match="disk is full"):
        await first
    await store.durable()
    assert store.rows("t") == {"key": {"n": 2}, "other": {"n": 1}}


async def test_close_commits_writes_that_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "node.db")
    commit = store._commit

    def full(batch: _Batch) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_commit", full)
    store.put("t", "key", {"n": 1})
    with pytest.raises(StoreError, match="disk is full"):
        await store.durable()
    monkeypatch.setattr(store, "_commit", commit)
    await store.close()
    again = Store(tmp_path / "node.db")
    assert again.rows("t") == {"key": {"n": 1}}
    await again.close()


async def test_close_commits_all_batches_and_refuses_later_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "node.db")
    commit, running, go_on = store._commit, threading.Event(), threading.Event()

    def slow(batch: _Batch) -> None:
        running.set()
        go_on.wait(10)
        commit(batch)

    monkeypatch.setattr(store, "_commit", slow)
    store.put("t", "first", {"n": 1})
    await asyncio.to_thread(running.wait, 10)
    store.put("t", "first", {"n": 2})
    store.put("t", "second", {"n": 1})
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.05)
    store.put("t", "third", {"n": 1})  # of a task that is not over yet
    assert not closing.done()
    assert store.rows("t") == {}, "a reader waits for no commit"
    go_on.set()
    await closing
    with pytest.raises(StoreError, match="it is closed"):
        store.put("t", "late", {})
    with pytest.raises(StoreError, match="it is closed"):
        store.forget("t", "first")
    assert store.committed() is None
    again = Store(tmp_path / "node.db")
    assert again.rows("t") == {"first": {"n": 2}, "second": {"n": 1}, "third": {"n": 1}}
    await again.close()


async def test_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    store = Store(path)
    for number in range(1000):
        store.put("t", f"{number:04}", {"text": "x" * 100})
    await store.close()
    whole = bytearray(path.read_bytes())
    whole[4096:] = b"\xa5" * (len(whole) - 4096)  # the first page has the schema
    path.write_bytes(whole)
    damaged = Store(path)
    with pytest.raises(StoreError, match=f"{path}: cannot be read"):
        damaged.rows("t")
    await damaged.close()
