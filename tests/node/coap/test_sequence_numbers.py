"""Sender sequence numbers of an association while reservations end, fail and run out, on a store that the test drives."""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from locum.node.coap.oscore import StoredContext
from locum.node.config.settings import ControlAssociation
from locum.node.store import Store
from locum.node.tables import StoreError

ASSOCIATION = ControlAssociation(
    ip_address("10.0.0.1"), b"a", b"b", bytes(range(32)), b"", (ip_address("10.9.0.1"),)
)

# A request that never lets the loop go on hangs the test; neither asyncio nor a signal would end all of them.
pytestmark = pytest.mark.timeout(30, method="thread")


@dataclass
class HeldStore:
    """Commits when the test says so, and then all that was queued."""

    rows_written: dict[str, Any] = field(default_factory=dict)
    _queued: dict[str, Any] = field(default_factory=dict)
    _commit: "asyncio.Future[None] | None" = None

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        return dict(self.rows_written)

    def texts(self, table: str) -> Iterator[tuple[str, str]]:
        return ((key, json.dumps(value)) for key, value in self.rows_written.items())

    def put(self, table: str, key: str, value: Any) -> None:
        if self._commit is None:
            self._commit = asyncio.get_running_loop().create_future()
        self._queued[key] = value

    def forget(self, table: str, key: str) -> None:
        raise AssertionError("numbers are never forgotten")

    def committed(self) -> "asyncio.Future[None] | None":
        return self._commit

    async def durable(self) -> None:
        if self._commit is not None:
            await asyncio.shield(self._commit)

    def end(self, problem: Exception | None = None) -> None:
        """End the commit; callbacks of its future run in the loop's next turn."""
        commit, self._commit = self._commit, None
        assert commit is not None
        if problem is None:
            self.rows_written |= self._queued
            commit.set_result(None)
        else:
            commit.set_exception(problem)
            commit.exception()


async def send(context: StoredContext, used: list[int]) -> None:
    await context.ready()
    used.append(context.new_sequence_number())


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("locum.node.coap.sequence_numbers._CHUNK", 8)
    monkeypatch.setattr("locum.node.coap.sequence_numbers._LOW", 3)
    yield 8


async def test_request_as_the_commit_ends_gets_a_number() -> None:
    store, used = HeldStore(), list[int]()
    context = StoredContext(ASSOCIATION, store, {})
    before = asyncio.create_task(send(context, used))
    await turns()
    store.end()
    await send(context, used)
    await before
    assert sorted(used) == [0, 1]


async def test_request_as_the_commit_fails_is_told() -> None:
    store, used = HeldStore(), list[int]()
    context = StoredContext(ASSOCIATION, store, {})
    before = asyncio.create_task(send(context, used))
    await turns()
    store.end(StoreError("full"))
    for sending in (send(context, used), before):
        with pytest.raises(StoreError, match="full"):
            await sending
    again = asyncio.create_task(send(context, used))
    await turns()
    store.end()
    await again
    assert used == [0]


async def test_cancelled_request_leaves_the_reservation_to_others() -> None:
    store, used = HeldStore(), list[int]()
    context = StoredContext(ASSOCIATION, store, {})
    cancelled, kept = (asyncio.create_task(send(context, used)) for _ in range(2))
    await turns()
    cancelled.cancel()
    await turns()
    assert cancelled.cancelled() and not kept.done()
    store.end()
    await kept
    assert used == [0]


async def test_requests_without_a_number_at_wake_up_wait_again(small_chunks: int) -> None:
    store, used = HeldStore(), list[int]()
    context = StoredContext(ASSOCIATION, store, {})
    sending = [asyncio.create_task(send(context, used)) for _ in range(2 * small_chunks + 1)]
    await turns()
    while store.committed() is not None and not all(task.done() for task in sending):
        written = store.rows_written.get(ASSOCIATION.key, {"reserved": 0})["reserved"]
        assert len(used) == min(written, len(sending))
        store.end()
        await turns()
    await asyncio.gather(*sending)
    assert used == list(range(2 * small_chunks + 1))


async def test_requests_arrive_in_every_turn_of_real_commits(tmp_path: Path, small_chunks: int) -> None:
    store, used = Store(tmp_path / "numbers.db"), list[int]()
    context = StoredContext(ASSOCIATION, store, {})
    sending = set[asyncio.Task[None]]()
    while len(used) < 40 * small_chunks:
        if len(sending) < 3 * small_chunks:
            task = asyncio.create_task(send(context, used))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.sleep(0)
    await asyncio.gather(*sending)
    assert used == list(range(len(used)))
    await store.close()


async def test_requests_while_the_store_closes_end(tmp_path: Path, small_chunks: int) -> None:
    store, used = Store(tmp_path / "numbers.db"), list[int]()
    context = StoredContext(ASSOCIATION, store, {})
    sending = [asyncio.create_task(send(context, used)) for _ in range(3 * small_chunks)]
    closing = asyncio.create_task(store.close())
    while not closing.done():
        sending.append(asyncio.create_task(send(context, used)))
        await asyncio.sleep(0)
    ends = await asyncio.gather(*sending, send(context, used), return_exceptions=True)
    refused = [end for end in ends if end is not None]
    assert refused and all(isinstance(end, StoreError) and "closed" in str(end) for end in refused)
    assert len(used) == len(set(used)) == len(ends) - len(refused)


@pytest.mark.parametrize("seed", range(20))
async def test_no_number_is_used_twice_whatever_the_disk_does(seed: int, small_chunks: int) -> None:
    """Commits end late or fail, requests are cancelled, the node starts anew from rows that are written."""
    chance, store, used = random.Random(seed), HeldStore(), list[int]()
    for _ in range(4):
        context = StoredContext(ASSOCIATION, store, store.rows("oscore"))
        sending: list[asyncio.Task[None]] = []
        for _ in range(200):
            sending.append(asyncio.create_task(send(context, used)))
            if chance.random() < 0.2:
                chance.choice(sending).cancel()
            if store.committed() is not None and chance.random() < 0.5:
                store.end(StoreError("full") if chance.random() < 0.3 else None)
            await turns(chance.randrange(3))
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        if store.committed() is not None:
            store.end(StoreError("killed"))
        await turns()
    assert len(used) > 100 and len(used) == len(set(used))
