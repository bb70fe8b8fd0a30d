"""An association that changes and changes back, as a policy server may have it: no number twice, no replay taken."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from locum.node.coap.oscore import StoredContext, remote_address
from locum.node.config.settings import ControlAssociation
from tests.node.coap.test_endpoint import ALICE, BOB, Pair, Wire, association

WIDER = (ip_address("10.9.0.1"), ip_address("10.9.0.2"))


class ChangingPair(Pair):
    """Records the numbers that are used, the requests on the wire, and the rights under which requests are answered."""

    def __init__(self, path: Path, port: int) -> None:
        super().__init__(path, port)
        self.used: list[tuple[bytes, bytes, int]] = []  # sender, secret, number
        self.sent: list[bytes] = []
        self.rights: list[tuple[Any, ...]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def answer(self, path: str, body: bytes, sender: ControlAssociation) -> bytes:
        self.rights.append(sender.home_addresses)
        if body == b"wait":
            await self.go_on.wait()
        return await super().answer(path, body, sender)

    def change(self, **fields: Any) -> None:
        """Change the association at both ends."""
        for end in (self.alice, self.bob):
            (before,) = end._settings.associations
            end._settings = replace(end._settings, associations=(replace(before, **fields),))

    async def exchange(self, count: int) -> None:
        """Send that many requests from each end."""
        for _ in range(count):
            assert await self.alice.ask(BOB, "634", b"ab", 5.0) == b"ba"
            assert await self.bob.ask(ALICE, "634", b"cd", 5.0) == b"dc"

    async def replay(self) -> int:
        """Send all requests that Bob got to it once more; gives how many it refused as replays."""
        wire, before = Wire(self.port), self.counts["control-replayed"]
        for data in tuple(self.sent):
            assert len(await wire.send(data)) <= len(data)
        wire.socket.close()
        return self.counts["control-replayed"] - before


@pytest.fixture
async def pair(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ChangingPair]:
    from aiocoap.transports.udp6 import MessageInterfaceUDP6

    monkeypatch.setattr("locum.node.coap.sequence_numbers._CHUNK", 8)
    monkeypatch.setattr("locum.node.coap.sequence_numbers._LOW", 3)
    made = ChangingPair(tmp_path, unused_tcp_port)
    send, take = MessageInterfaceUDP6.send, StoredContext.new_sequence_number

    def recorded_send(self: Any, message: Any) -> Any:
        if message.code == 2 and remote_address(message.remote) == BOB:
            made.sent.append(message.encode())
        return send(self, message)

    def recorded_take(self: Any) -> int:
        number: int = take(self)
        made.used.append((self.sender_id, self.association.secret, number))
        return number

    monkeypatch.setattr(MessageInterfaceUDP6, "send", recorded_send)
    monkeypatch.setattr(StoredContext, "new_sequence_number", recorded_take)
    await made.open()
    yield made
    await made.close()


CHANGES = (
    pytest.param({"home_addresses": WIDER}, {"home_addresses": WIDER[:1]}, id="home addresses"),
    pytest.param({"may_trigger": True}, {"may_trigger": False}, id="right to trigger"),
    pytest.param({"secret": bytes(32)}, {"secret": bytes(range(32))}, id="secret"),
    pytest.param({"salt": b"salt"}, {"salt": b""}, id="salt"),
)


@pytest.mark.parametrize(("there", "back"), CHANGES)
async def test_change_and_change_back_use_no_number_twice(
    pair: ChangingPair, there: dict[str, Any], back: dict[str, Any]
) -> None:
    await pair.exchange(3)
    for _ in range(2):
        pair.change(**there)
        await pair.exchange(7)
        pair.change(**back)
        await pair.exchange(15)
    assert len(pair.used) == 2 * 47 and len(set(pair.used)) == len(pair.used)
    assert not pair.counts


@pytest.mark.parametrize(("there", "back"), CHANGES)
async def test_request_taken_under_a_change_is_a_replay_after_it(
    pair: ChangingPair, there: dict[str, Any], back: dict[str, Any]
) -> None:
    await pair.exchange(3)
    pair.change(**there)
    await pair.exchange(7)
    pair.change(**back)
    asked = len(pair.asked)
    assert await pair.replay() == len(pair.sent) == 10
    pair.change(**there)
    assert await pair.replay() == 10
    assert len(pair.asked) == asked


@pytest.mark.parametrize(("there", "back"), CHANGES)
async def test_exchange_under_way_shares_the_numbers(
    pair: ChangingPair, there: dict[str, Any], back: dict[str, Any]
) -> None:
    """It began before the change, and ends well after the change back; the row covers all numbers of both."""
    pair.go_on.clear()
    waiting = [
        asyncio.create_task(pair.alice.ask(BOB, "634", b"wait", 10.0)),
        asyncio.create_task(pair.bob.ask(ALICE, "634", b"wait", 10.0)),
    ]
    async with asyncio.timeout(30):
        while len(pair.rights) < 2:
            await asyncio.sleep(0.01)
    pair.change(**there)
    await pair.exchange(7)
    pair.change(**back)
    await pair.exchange(7)
    pair.go_on.set()
    assert await asyncio.gather(*waiting) == [b"tiaw", b"tiaw"]
    await pair.exchange(7)
    assert len(set(pair.used)) == len(pair.used) == 2 * 22
    for end in (pair.alice, pair.bob):
        store = end.store  # type: ignore[attr-defined]
        await store.durable()
        (row,) = store.rows("oscore").values()
        (context,) = end._contexts.values()
        assert row["reserved"] > max(number for sender, _, number in pair.used if sender == context.sender_id)
        assert int(row["index"]) + int(row["seen"], 16).bit_length() == 22


async def test_old_and_new_secret_share_numbers_and_window(pair: ChangingPair) -> None:
    (old,) = pair.bob._contexts.values()
    changed = pair.bob._context_of(replace(old.association, secret=bytes(32)))
    assert changed is not None and changed is not old and changed.association.secret == bytes(32)
    for context in (old, changed) * 20:
        await context.ready()
        context.new_sequence_number()
    old.recipient_replay_window.strike_out(3)
    changed.recipient_replay_window.strike_out(5)
    old.recipient_replay_window.strike_out(4)
    assert [number for _, _, number in pair.used] == list(range(40))
    await pair.bob.store.durable()  # type: ignore[attr-defined]
    (row,) = pair.bob.store.rows("oscore").values()  # type: ignore[attr-defined]
    again = StoredContext(old.association, pair.bob.store, {old.association.key: row})  # type: ignore[attr-defined]
    assert again.sender_sequence_number >= 40
    assert [number for number in range(8) if not again.recipient_replay_window.is_valid(number)] == [3, 4, 5]


async def test_changed_rights_hold_at_once(pair: ChangingPair) -> None:
    await pair.exchange(1)
    pair.change(home_addresses=WIDER)
    await pair.exchange(1)
    pair.change(home_addresses=())
    await pair.exchange(1)
    assert pair.rights == [WIDER[:1]] * 2 + [WIDER] * 2 + [()] * 2


async def test_associations_with_one_key_have_one_context(pair: ChangingPair) -> None:
    (context,) = pair.bob._contexts.values()
    for home_addresses in (WIDER, (), WIDER[:1]):
        changed = replace(association(ALICE, b"b", b"a"), home_addresses=home_addresses)
        assert pair.bob._context_of(changed) is context
        assert context.association is changed
