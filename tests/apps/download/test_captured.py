"""Captured HTTP/1.1 connections on a virtual clock (A4)."""

import base64
import hashlib
from dataclasses import replace
from ipaddress import ip_address

import pytest

from locum.apps.download.proxy import Download
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, Keep, Leave, Tell
from locum.wire.control import Flow
from tests.apps.download.servers import head
from tests.apps.download.world import World

FLOW = Flow(6, ip_address("10.9.0.5"), 40000, ip_address("192.0.2.1"), 80)


def following(**table: JSON) -> World:
    return World({"ports": [80], **table}, sessions=(AppSession(7, FLOW),))


def told(effects: list[Effect]) -> list[Tell]:
    return [effect for effect in effects if isinstance(effect, Tell)]


def left(effects: list[Effect]) -> str:
    (reason,) = [effect.reason for effect in effects if isinstance(effect, Leave)]
    return reason


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_end_of_a_body_with_a_length_is_told(step: int) -> None:
    world = following()
    answer = head("200 OK", "Content-Length: 300") + b"a" * 300
    effects: list[Effect] = []
    for at in range(0, len(answer), step):
        assert not told(effects)
        effects += world.app.received(7, answer[at : at + step], now=1.0)
    assert told(effects) == [Tell("delivered", 7, {"status": 200, "size": 300, "framing": "length"})]
    assert world.app.end(now=2.0)["result"] == {
        "delivered": [{"status": 200, "size": 300, "framing": "length"}]
    }


def test_chunks_and_two_answers_in_one_piece() -> None:
    world = following()
    chunked = head("200 OK", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    effects = world.app.received(7, chunked + head("404 Not Found", "Content-Length: 1") + b"x", now=1.0)
    assert [dict(event.detail) for event in told(effects)] == [
        {"status": 200, "size": 3, "framing": "chunked"},
        {"status": 404, "size": 1, "framing": "length"},
    ]


def test_body_until_the_end_of_the_connection() -> None:
    world = following()
    assert not told(world.app.received(7, head("200 OK") + b"abc", now=1.0))
    (event,) = told(world.app.closed(7, 0, now=2.0))
    assert event.kind == "delivered" and event.detail["framing"] == "close"


def test_connection_that_ends_too_early_is_told_as_such() -> None:
    world = following()
    world.app.received(7, head("200 OK", "Content-Length: 9") + b"abc", now=1.0)
    (event,) = told(world.app.closed(7, 0, now=2.0))
    assert event.kind == "session_ended" and "in the body" in str(event.detail["reason"])
    other = following()
    other.app.received(7, head("200 OK") + b"abc", now=1.0)
    (event,) = told(other.app.closed(7, 104, now=2.0))
    assert event.kind == "session_ended" and event.detail["error"] == 104


def test_answer_in_whose_middle_the_device_slept_is_left() -> None:
    world = following()
    assert "in the middle" in left(world.app.received(7, b"HTTX", now=1.0))
    assert world.app.received(7, b"more", now=2.0) == [] and world.app.deadline() is None


def test_silence_after_the_middle_of_an_answer_is_told_if_wished() -> None:
    world = following(quiet=5)
    world.app.received(7, b"abc", now=1.0)
    world.app.received(7, b"defg", now=3.0)
    assert world.app.deadline() == 8.0 and not world.app.timeout(now=7.9)
    effects = world.app.timeout(now=8.0)
    assert told(effects) == [Tell("quiet", 7, {"size": 7, "seconds": 5})] and "5 seconds" in left(effects)


def test_damage_is_told() -> None:
    world = following()
    digest = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    answer = head("200 OK", "Content-Length: 3", f"Repr-Digest: sha-256=:{digest}:")
    (event,) = told(world.app.received(7, answer + b"abx", now=1.0))
    assert "should be ba7816bf" in str(event.detail["damaged"])


def test_no_http_is_left_with_a_reason() -> None:
    world = following()
    assert "no HTTP" in left(world.app.received(7, b"HTTP/1.1 2 OK\r\n\r\n", now=1.0))


def test_sessions_are_wanted_by_port() -> None:
    settings = Download.settings({"ports": [80]})
    assert Download.wants(settings, FLOW)
    assert not Download.wants(settings, replace(FLOW, peer_port=81))
    assert not Download.wants(settings, replace(FLOW, protocol=17))
    assert not Download.wants(Download.settings({"url": "http://a/"}), FLOW)


@pytest.mark.parametrize("begun", [100, 250])
def test_new_process_counts_on_to_the_end_of_the_body(begun: int) -> None:
    world = following()
    answer = head("200 OK", "Content-Length: 300") + b"a" * 300
    effects = world.app.received(7, answer[:begun], now=1.0)
    (state,) = [effect.state for effect in effects if isinstance(effect, Keep)][-1:]
    later = World({"ports": [80]}, sessions=(AppSession(7, FLOW, shown=begun),), state=state)
    assert not told(later.app.received(7, answer[begun:-1], now=2.0))
    effects = later.app.received(7, answer[-1:] + head("204 No Content"), now=3.0)
    assert [event.detail["status"] for event in told(effects)] == [200, 204]


def test_new_process_without_the_length_leaves_the_session() -> None:
    later = World({"ports": [80]}, sessions=(AppSession(7, FLOW, shown=5),))
    assert "in the middle" in left(later.app.received(7, head("200 OK"), now=2.0))
