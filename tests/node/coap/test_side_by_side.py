"""Requests to one peer do not wait for each other's answers, up to a number; and they all end when the peer is silent."""

import asyncio
import time

import pytest
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers.constants import TransportTuning

from locum.node.coap.aiocoap_adapter import OUTSTANDING, SideBySide
from locum.node.coap.endpoint import AskFailed
from locum.node.config.settings import ControlAssociation
from tests.node.coap.test_endpoint import ALICE, BOB, Pair, association, pair

assert pair


async def test_slow_answers_do_not_hold_other_requests_up(pair: Pair) -> None:
    """An answer that takes half a second is acknowledged after a tenth: one by one, a hundred requests would take ten seconds."""
    most = running = 0

    async def slow(path: str, body: bytes, sender: ControlAssociation) -> bytes:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.5)
        running -= 1
        return body[::-1]

    pair.answer = slow  # type: ignore[method-assign]
    await pair.bob.close()
    pair.bob = pair.end("bob2", BOB, association(ALICE, b"b", b"a"))
    await pair.bob.open()
    await pair.alice.ask(BOB, "618", b"first", 20.0)
    begun = time.monotonic()
    asked = [pair.alice.ask(BOB, "618", b"%d" % number, 30.0) for number in range(100)]
    assert await asyncio.gather(*asked) == [(b"%d" % number)[::-1] for number in range(100)]
    assert time.monotonic() - begun < 6 and most > OUTSTANDING
    assert not pair.counts


async def test_requests_to_a_silent_peer_all_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransportTuning, "ACK_TIMEOUT", 0.05)
    monkeypatch.setattr(TransportTuning, "MAX_RETRANSMIT", 2)
    assert await pair.alice.ask(BOB, "618", b"x", 10.0) == b"x"
    monkeypatch.setattr(SideBySide, "_send_via_transport", lambda _self, _message: None)
    asked = [pair.alice.ask(BOB, "618", b"%d" % number, 20.0) for number in range(3 * OUTSTANDING)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, AskFailed) for result in results)
    monkeypatch.undo()
    assert await pair.alice.ask(BOB, "618", b"again", 10.0) == b"niaga"


def test_the_message_layer_is_the_one_that_was_looked_at() -> None:
    assert {"_add_exchange", "_continue_backlog", "_retransmit", "_send_initially"} <= set(
        vars(MessageManager)
    )
