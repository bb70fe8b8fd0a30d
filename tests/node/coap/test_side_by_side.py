"""Requests to one peer do not wait for each other's answers, up to a number; and they all end when the peer is silent."""

import asyncio
import time

import pytest
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers.constants import TransportTuning

from locum.node.coap import aiocoap_adapter
from locum.node.coap.aiocoap_adapter import ACK_SECONDS, OUTSTANDING, Exchanges, SideBySide
from locum.node.coap.endpoint import AskFailed
from locum.node.coap.sequence_numbers import _WINDOW
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


async def test_late_answers_are_acknowledged_soon(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to one peer wait for acknowledgements alone: these bound the pages a second of one access node."""
    running, all_run, answers = 0, asyncio.Event(), asyncio.Event()

    async def late(path: str, body: bytes, sender: ControlAssociation) -> bytes:
        nonlocal running
        running += 1
        if running % (3 * OUTSTANDING) == 0:
            all_run.set()
        await answers.wait()
        return body

    async def seconds() -> float:
        all_run.clear()
        answers.clear()
        begun = time.monotonic()
        asked = [pair.alice.ask(BOB, "1170", b"page", 30.0) for _ in range(3 * OUTSTANDING)]
        all_asked = asyncio.gather(*asked)
        await all_run.wait()
        taken = time.monotonic() - begun
        answers.set()
        await all_asked
        return taken

    await pair.alice.ask(BOB, "618", b"first", 20.0)
    pair.answer = late  # type: ignore[method-assign]
    await pair.bob.close()
    pair.bob = pair.end("bob2", BOB, association(ALICE, b"b", b"a"))
    await pair.bob.open()
    soon = await seconds()
    monkeypatch.setattr(aiocoap_adapter, "ACK_SECONDS", 50 * ACK_SECONDS)
    assert soon < await seconds() / 2
    assert not pair.counts


def test_outstanding_requests_stay_in_the_replay_window() -> None:
    assert 2 * OUTSTANDING <= _WINDOW


def test_exchanges_are_counted_by_peer() -> None:
    exchanges = Exchanges()
    for number in range(5):
        exchanges["one", number] = exchanges["two", 0] = None
    exchanges["one", 3] = None
    exchanges.pop(("one", 1))
    assert exchanges.of["one"] == 4 and exchanges.of["two"] == 1
    exchanges.pop(("two", 0))
    with pytest.raises(KeyError):
        exchanges.pop(("two", 0))
    assert "two" not in exchanges.of and exchanges.of["two"] == 0


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
    assert {
        "_add_exchange",
        "_continue_backlog",
        "_process_request",
        "_retransmit",
        "_send_initially",
    } <= set(vars(MessageManager))
