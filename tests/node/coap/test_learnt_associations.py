"""Associations that a stand-in learns from a policy server for unknown identifiers (C9)."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from locum.node.coap import learnt_associations
from locum.node.coap.endpoint import AskFailed, CoapEndPoint
from locum.node.coap.learnt_associations import (
    AssociationRefused,
    AssociationUnavailable,
    Grant,
    LearntAssociations,
)
from locum.node.config.settings import ControlAssociation, ControlSettings
from locum.node.events import EventStream
from locum.node.store import Store

DEVICE, OTHER, STAND_IN = (IPv4Address(f"127.0.7.{number}") for number in (4, 5, 2))
SECRET = bytes(range(16))


def association(
    peer: IPv4Address, own: bytes, others: bytes, secret: bytes = SECRET, *homes: IPv4Address
) -> ControlAssociation:
    return ControlAssociation(peer, own, others, secret, b"", homes)


class Stream:
    """Messages for users."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[tuple[str, str]] = []

    def count(self, reason: str) -> None:
        self.counts[reason] += 1

    def emit(self, kind: str, *, home_address: object, detail: dict[str, Any]) -> None:
        self.told.append((kind, str(home_address)))


class World:
    """A stand-in without any association, a policy server that answers by `grants`, and devices."""

    def __init__(self, path: Path, port: int, *configured: ControlAssociation) -> None:
        self.path, self.port, self.configured = path, port, configured
        self.stream = Stream()
        self.grants: dict[IPv4Address, Grant | Exception] = {
            DEVICE: Grant(association(DEVICE, b"s", b"d", SECRET, DEVICE), None)
        }
        self.questions: list[IPv4Address] = []
        self.heard: list[tuple[str, tuple[Any, ...]]] = []
        self._ends: list[tuple[CoapEndPoint, Store]] = []
        self.slowly = 0.0

    async def ask(self, home_address: IPv4Address) -> Grant:
        self.questions.append(home_address)
        await asyncio.sleep(self.slowly)
        found = self.grants.get(home_address, AssociationRefused("no such mobile node"))
        if isinstance(found, Exception):
            raise found
        return found

    async def answer(self, path: str, body: bytes, sender: ControlAssociation) -> bytes:
        self.heard.append((str(sender.peer), sender.home_addresses))
        return body[::-1]

    async def begin(self) -> None:
        store = Store(self.path / "standin.db")
        stream = cast("EventStream", self.stream)
        prefixes = (ip_network("127.0.7.0/24"),)
        self.learnt = LearntAssociations(self.ask, self.configured, prefixes, store, stream, time.time)
        self.learnt.restore()
        settings = ControlSettings(STAND_IN, self.port, self.configured)
        self.stand_in = CoapEndPoint(settings, store, self.answer, self.stream.count, self.learnt)
        await self.stand_in.open()
        self._store = store

    async def end(self) -> None:
        await self.stand_in.close()
        await self.learnt.close()
        await self._store.close()

    async def device(
        self,
        address: IPv4Address = DEVICE,
        own: bytes = b"d",
        secret: bytes = SECRET,
        name: str = "device",
    ) -> CoapEndPoint:
        store = Store(self.path / f"{name}.db")
        known = association(STAND_IN, own, b"s", secret)
        end = CoapEndPoint(
            ControlSettings(address, self.port, (known,)), store, self.answer, self.stream.count
        )
        await end.open()
        self._ends.append((end, store))
        return end

    async def part(self) -> None:
        """Devices go."""
        for end, store in self._ends:
            await end.close()
            await store.close()
        self._ends.clear()


@asynccontextmanager
async def world(path: Path, port: int, *configured: ControlAssociation) -> AsyncIterator[World]:
    made = World(path, port, *configured)
    await made.begin()
    try:
        yield made
    finally:
        await made.part()
        await made.end()


async def say(device: CoapEndPoint, *, bulk: bool = False) -> bytes | None:
    """The answer to a 634, None for a refusal."""
    try:
        return await device.ask(STAND_IN, "634", b"take over", 3.0, bulk=bulk)
    except AskFailed:
        return None


@pytest.mark.parametrize("bulk", [False, True])
async def test_the_first_634_of_a_device_makes_the_stand_in_learn(
    tmp_path: Path, unused_tcp_port: int, bulk: bool
) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        device = await made.device()
        assert await say(device, bulk=bulk) == await say(device) == b"revo ekat"
        assert made.questions == [DEVICE]
        assert made.heard == [(str(DEVICE), (DEVICE,))] * 2
        assert made.stream.told == [("association-learnt", str(DEVICE))]
        assert await made.stand_in.ask(DEVICE, "618", b"abc", 3.0) == b"cba", "and the other way round"


async def test_concurrent_messages_make_one_query(tmp_path: Path, unused_tcp_port: int) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        made.slowly = 0.3
        device = await made.device()
        answers = await asyncio.gather(*(say(device, bulk=number % 2 == 0) for number in range(6)))
        assert answers == [b"revo ekat"] * 6 and made.questions == [DEVICE]


async def test_other_key_at_a_known_address_is_refused(tmp_path: Path, unused_tcp_port: int) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        assert await say(await made.device(secret=bytes(16))) is None
        assert made.stream.counts["control-forged"] == 1 and not made.heard


async def test_strangers_are_queried_rarely_and_not_stored(tmp_path: Path, unused_tcp_port: int) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        stranger = await made.device(OTHER, b"x", name="stranger")
        assert await say(stranger) is None and await say(stranger) is None
        assert made.questions == [OTHER] and made.stream.counts["association-refused"] == 1
        wrong = await made.device(DEVICE, b"y", name="wrong")
        assert await say(wrong) is None, "an identifier that the policy server does not say"
        assert made.questions == [OTHER, DEVICE] and not made.learnt.all() and not made.heard
        assert made.stream.counts["control-no-association"] == 3


async def test_addresses_outside_the_home_network_are_not_queried(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        assert await say(await made.device(IPv4Address("127.0.8.4"), b"x")) is None
        assert made.questions == []


async def test_configured_peers_are_not_queried(tmp_path: Path, unused_tcp_port: int) -> None:
    configured = association(DEVICE, b"s", b"c", SECRET, DEVICE)
    async with world(tmp_path, unused_tcp_port, configured) as made:
        assert await say(await made.device(own=b"x", name="wrong")) is None and made.questions == []
        await made.part()
        assert await say(await made.device(own=b"c")) is not None


async def test_identifier_of_another_association_is_not_used(tmp_path: Path, unused_tcp_port: int) -> None:
    configured = association(OTHER, b"s", b"d", SECRET, OTHER)
    async with world(tmp_path, unused_tcp_port, configured) as made:
        assert await made.learnt.learn(DEVICE, b"z") is None
        assert made.stream.told == [("association-unusable", str(DEVICE))] and not made.learnt.all()


async def test_concurrent_queries_are_bounded(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnt_associations, "MAX_ASKED", 3)
    async with world(tmp_path, unused_tcp_port) as made:
        made.slowly = 0.2
        await asyncio.gather(
            *(made.learnt.learn(IPv4Address(f"127.0.7.{number}"), b"q") for number in range(10, 20))
        )
        assert len(made.questions) == 3 and made.stream.counts["association-too-many-asked"] == 7


async def test_a_restarted_stand_in_knows_what_it_has_learnt(tmp_path: Path, unused_tcp_port: int) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        device = await made.device()
        assert await say(device) is not None
        await made.end()
        made.grants[DEVICE] = AssociationUnavailable("silence")
        await made.begin()
        assert await say(device) is not None and made.questions == [DEVICE]


async def test_association_survives_silence_and_ends_on_refusal(tmp_path: Path, unused_tcp_port: int) -> None:
    async with world(tmp_path, unused_tcp_port) as made:
        device = await made.device()
        assert await say(device) is not None
        made.grants[DEVICE] = AssociationUnavailable("silence")
        await again(made)
        assert await say(device) is not None
        assert [kind for kind, _ in made.stream.told] == ["association-learnt", "association-stale"]
        made.grants[DEVICE] = AssociationRefused("no such mobile node")
        await again(made)
        assert await say(device) is None and not made.learnt.all()
        assert made.stream.told[-1] == ("association-withdrawn", str(DEVICE))
        await made.end()
        await made.begin()
        assert not made.learnt.all(), "it is not in the store either"
        with pytest.raises(KeyError):
            made.learnt.refresh(DEVICE)


async def test_expired_lifetime_queries_again(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnt_associations, "SHORTEST_LIFETIME", 0.2)
    async with world(tmp_path, unused_tcp_port) as made:
        made.grants[DEVICE] = Grant(association(DEVICE, b"s", b"d", SECRET, DEVICE), 0)
        assert await say(await made.device()) is not None
        async with asyncio.timeout(30):
            while len(made.questions) < 3:
                await asyncio.sleep(0.05)
        assert [kind for kind, _ in made.stream.told] == ["association-learnt"]


async def test_a_new_key_under_a_new_identifier_is_learnt_from_its_use(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnt_associations, "ASKED_AGAIN", 0.0)
    async with world(tmp_path, unused_tcp_port) as made:
        old = await made.device()
        assert await say(old) is not None
        await made.part()
        made.grants[DEVICE] = Grant(association(DEVICE, b"s", b"e", bytes(16), DEVICE), None)
        assert await say(await made.device(own=b"e", secret=bytes(16), name="new")) is not None
        assert made.stream.told[-1] == ("association-changed", str(DEVICE))
        await made.part()
        assert await say(await made.device(name="old")) is None


async def again(made: World) -> None:
    """A person has the policy server asked again; over when it has answered."""
    asked = len(made.questions)
    made.learnt.refresh(DEVICE)
    while len(made.questions) == asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
