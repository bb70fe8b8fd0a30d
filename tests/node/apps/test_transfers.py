"""Requests about files of orders: pieces in both directions, quotas, a disk that fails, old directories."""

import asyncio
import errno
import hashlib
import os
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.apps import transfers as module
from locum.node.apps.data import AppData
from locum.node.apps.transfers import AppTransfers
from locum.node.config.settings import AppLimits
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppDataUsed, UseAppData
from locum.roles.actions import Event
from locum.wire import cbor
from locum.wire.control.answer import Status
from locum.wire.control.order import Operation, OrderAnswer, OrderRequest

HOME = IPv4Address("10.10.100.4")
CONTENT = bytes(range(256)) * 10


class Transfers:
    """`AppTransfers` whose answers are collected."""

    def __init__(self, directory: Path, limits: AppLimits | None = None) -> None:
        self.data = AppData(directory / "apps")
        self.events: list[Event] = []
        self.running: list[tuple[IPv4Address, str]] = []
        self.states: dict[str, Mapping[str, object]] = {}
        self.uploads: list[tuple[Addr, str]] = []
        self.apps = AppTransfers(
            self.data,
            limits or AppLimits(),
            self.events.append,
            lambda: self.running,
            lambda _device, name: self.states.get(name),
            lambda device, name: self.uploads.append((device, name)),
        )

    def perform(self, operation: Operation, file: str = "", **more: object) -> OrderAnswer:
        return self.apps.perform(OrderRequest(operation, HOME, "fox", file=file, **more))  # type: ignore[arg-type]

    def put(self) -> None:
        for offset in range(0, len(CONTENT), 1000):
            piece = CONTENT[offset : offset + 1000]
            answer = self.perform(Operation.WRITE, "a", offset=offset, data=piece)
            assert answer == OrderAnswer(Status.OK, size=offset + len(piece))
        digest = hashlib.sha256(CONTENT).digest()
        done = self.perform(Operation.COMMIT, "a", size=len(CONTENT), digest=digest)
        assert done == OrderAnswer(Status.OK)


def test_file_goes_up_and_comes_back(tmp_path: Path) -> None:
    transfers = Transfers(tmp_path)
    transfers.put()
    assert transfers.perform(Operation.LIST).files == (("a", len(CONTENT)),)
    read = transfers.perform(Operation.READ, "a", offset=2000, size=1000)
    assert (read.data, read.size) == (CONTENT[2000:], len(CONTENT))
    assert transfers.perform(Operation.DIGEST, "a").digest == hashlib.sha256(CONTENT).digest()
    assert transfers.perform(Operation.REMOVE) == OrderAnswer(Status.OK)
    assert transfers.perform(Operation.LIST) == OrderAnswer(Status.OK)
    assert transfers.perform(Operation.READ, "a").status is Status.REFUSED


def test_state_of_a_running_proxy_is_told_without_its_own_part(tmp_path: Path) -> None:
    transfers = Transfers(tmp_path)
    assert transfers.perform(Operation.STATE).status is Status.WRONG_STATE
    transfers.states["fox"] = {"at": 3, "result": {"done": True}}
    answer = transfers.perform(Operation.STATE)
    assert cbor.decode(answer.data, limit=99, field="state") == {"result": {"done": True}}
    transfers.states["fox"] = {"at": 3}
    assert cbor.decode(transfers.perform(Operation.STATE).data, limit=99, field="state") == {"result": None}


async def test_running_proxy_is_told_of_whole_files_alone(tmp_path: Path) -> None:
    transfers = Transfers(tmp_path)
    digest = hashlib.sha256(b"x").digest()
    requests = [
        OrderRequest(Operation.COMMIT, HOME, "fox", file="a", size=1, digest=digest),
        OrderRequest(Operation.WRITE, HOME, "fox", file="a", data=b"x"),
        OrderRequest(Operation.COMMIT, HOME, "fox", file="a", size=1, digest=digest),
    ]
    (use,) = transfers.apps.handlers().values()
    for number, request in enumerate(requests, 1):
        use(UseAppData(number, request))
        async with asyncio.timeout(60):
            while len(transfers.events) < number:
                await asyncio.sleep(0.01)
    assert transfers.uploads == [(HOME, "fox")]
    transfers.apps.close()


def test_device_gets_no_more_than_its_quota(tmp_path: Path) -> None:
    transfers = Transfers(tmp_path, AppLimits(disk=len(CONTENT) + 100))
    transfers.put()
    refused = transfers.perform(Operation.WRITE, "b", data=bytes(101))
    assert refused.status is Status.LIMIT and "app_disk" in refused.reason
    assert transfers.perform(Operation.WRITE, "b", data=bytes(100)).status is Status.OK


def test_full_disk_is_told_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transfers = Transfers(tmp_path)
    transfers.put()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    refused = transfers.perform(Operation.WRITE, "a", data=b"1")
    assert refused.status is Status.LIMIT and "No space left" in refused.reason
    assert transfers.perform(Operation.READ, "a", size=9).data == CONTENT[:9]


def test_wrong_name_is_refused(tmp_path: Path) -> None:
    refused = Transfers(tmp_path).perform(Operation.READ, "../a")
    assert refused.status is Status.REFUSED and "no name of a file" in refused.reason


async def test_requests_are_answered_in_order_beside_the_loop(tmp_path: Path) -> None:
    transfers = Transfers(tmp_path)
    use = transfers.apps.handlers()[UseAppData]
    pieces = [
        OrderRequest(Operation.WRITE, HOME, "fox", file="a", offset=number, data=b"x") for number in range(8)
    ]
    for number, request in enumerate(pieces):
        use(UseAppData(number, request))
    async with asyncio.timeout(20):
        while len(transfers.events) < len(pieces):
            await asyncio.sleep(0.01)
    answers = [event.answer for event in transfers.events if isinstance(event, AppDataUsed)]
    assert answers == [OrderAnswer(Status.OK, size=number + 1) for number in range(8)]
    transfers.apps.close()


async def test_too_many_requests_at_once_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 1)
    transfers = Transfers(tmp_path)
    use = transfers.apps.handlers()[UseAppData]
    for number in range(2):
        use(UseAppData(number, OrderRequest(Operation.LIST, HOME, "fox")))
    async with asyncio.timeout(20):
        while len(transfers.events) < 2:
            await asyncio.sleep(0.01)
    states = {
        event.exchange: event.answer.status for event in transfers.events if isinstance(event, AppDataUsed)
    }
    assert states == {0: Status.OK, 1: Status.BUSY}
    transfers.apps.close()


async def test_old_files_go_unless_their_proxy_runs(tmp_path: Path) -> None:
    transfers = Transfers(tmp_path, AppLimits(days=1))
    for name in ("old", "runs"):
        directory = transfers.data.directory(HOME, name, make=True)
        long_ago = directory.stat().st_mtime - 2 * module.DAY
        os.utime(directory, (long_ago, long_ago))
    transfers.running.append((HOME, "runs"))
    transfers.apps.begin()
    async with asyncio.timeout(20):
        while transfers.data.directory(HOME, "old").exists():
            await asyncio.sleep(0.01)
    assert transfers.apps.sweep(frozenset()) == [], "the look has touched the other one"
    assert transfers.data.directory(HOME, "runs").exists()
    transfers.apps.close()
