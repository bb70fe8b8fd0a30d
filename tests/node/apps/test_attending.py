"""Proxies and their sessions at the stand-in: they see what is stored, speak, fail, and go on (A1)."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from locum.node.apps import attending, outlets, process, saying
from locum.node.apps.catalogue import Catalogue
from locum.node.apps.process import AppProcess
from locum.node.apps.running import Running
from locum.node.apps.starts import starting
from locum.node.sessions.draining import UNBOUNDED, HeldSocket
from locum.node.tables import HostTable
from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.app_orders import APPS
from locum.roles.action_values.apps import AppOrder, AppsPaused, AppTold, EndApps, PauseApps, StartApps
from locum.roles.app_contract import MAX_STATE, checked_state
from locum.sessions.tcp.spool import Spool
from locum.wire.control import MAX_SESSIONS, Answer632, Flow, Status, decode_632, encode_632
from tests.node.apps.kinds import UNREADABLE
from tests.node.apps.world import ECHO, HANDOVER, HOME, Connection, Rows, Standing, install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


async def test_proxy_hears_and_speaks(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    await connection.says(standing, b"hello ")
    assert await connection.hears(6) == b"HELLO "
    await connection.says(standing, b"again")
    assert await connection.hears(5) == b"AGAIN"
    await standing.perform(PauseApps(HANDOVER))
    paused = standing.events[-1]
    assert isinstance(paused, AppsPaused) and paused.spoken == {0: b"HELLO AGAIN"}
    heard = [event.detail for event in standing.events if isinstance(event, AppTold)]
    assert sum(int(str(detail["bytes"])) for detail in heard) == 11
    connection.close()


async def test_killed_proxy_loses_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.01)
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    await connection.says(standing, b"a")
    assert await connection.hears(1) == b"A"
    (app,) = standing.apps.all()
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGKILL)
    await connection.says(standing, b"b")
    assert await connection.hears(1) == b"B", "in the next process, and nothing twice"
    await standing.perform(PauseApps(HANDOVER))
    assert isinstance(paused := standing.events[-1], AppsPaused) and paused.spoken == {0: b"AB"}
    connection.close()


async def test_end_of_the_correspondent_is_told(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    connection.peer.close()
    await standing.until(lambda: _drained(connection, standing))
    await standing.until(lambda: _ended(standing) == [{"session": 0, "error": 0}])
    await standing.perform(EndApps(HANDOVER))
    connection.close()


def _drained(connection: Connection, standing: Standing) -> bool:
    connection.drain(standing)
    return connection.held.spool.peer_closed


def _ended(standing: Standing) -> list[object]:
    return [dict(e.detail) for e in standing.events if isinstance(e, AppTold) and e.kind == "ended"]


async def test_dropped_session_has_ended_for_its_proxy_alone(tmp_path: Path) -> None:
    one, two = Connection(tmp_path, 0), Connection(tmp_path, 1)
    standing = Standing(one.held, two.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.begun and app.process is not None and app.process.free)
    one.close()
    standing.apps.dropped(one.held)
    await standing.until(lambda: _ended(standing) == [{"session": 0, "error": 104}])
    await two.says(standing, b"x")
    assert await two.hears(1) == b"X"
    assert list(app.sessions) == [1]
    await standing.perform(EndApps(HANDOVER))
    two.close()


async def test_busy_proxy_hears_later_of_a_dropped_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window is full at that moment."""
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.begun and app.process is not None and app.process.free)
    with monkeypatch.context() as busy:
        busy.setattr(AppProcess, "free", False)
        connection.close()
        standing.apps.dropped(connection.held)
        assert not app.sessions and not _ended(standing)
    assert app.process is not None and app.process.send("ping"), "its answer makes room"
    await standing.until(lambda: _ended(standing) == [{"session": 0, "error": 104}])
    await standing.perform(EndApps(HANDOVER))


async def test_proxies_say_so_much_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saying, "MAX_SPOKEN", 8)
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    await connection.says(standing, b"12345678")
    assert await connection.hears(8) == b"12345678"
    await connection.says(standing, b"9")
    (app,) = standing.apps.all()
    await standing.until(lambda: any("at most 8 bytes" in line for line in app.lines))
    await standing.perform(PauseApps(HANDOVER))
    assert isinstance(paused := standing.events[-1], AppsPaused) and paused.spoken == {0: b"12345678"}
    connection.close()


async def test_slow_correspondent_gets_everything_in_the_end(tmp_path: Path) -> None:
    """More than its kernel and ours take at once."""
    connection = Connection(tmp_path)
    connection.held.socket.setsockopt(1, 7, 4096)  # SO_SNDBUF
    connection.peer.setsockopt(1, 8, 4096)  # SO_RCVBUF
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    data = b"x" * 300_000
    await connection.says(standing, data)
    await standing.until(lambda: connection.held.spool.total == len(data))
    assert await connection.hears(len(data)) == data.upper()
    await standing.perform(EndApps(HANDOVER))
    connection.close()


async def test_failed_proxy_goes_on_and_others_are_unharmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.01)
    standing = Standing()
    orders = (AppOrder("one", "wayward", {"way": "well"}), AppOrder("two", "wayward", {"way": "well"}))
    await standing.perform(StartApps(HANDOVER, HOME, orders))
    one, two = standing.apps.all()
    await standing.until(lambda: one.state == {"times": 1} and two.state == {"times": 1})
    assert one.process is not None and two.process is not None
    other = two.process.pid
    os.kill(one.process.pid, signal.SIGKILL)
    await standing.until(lambda: one.state == {"times": 2})
    assert two.process.pid == other and one.restarts == 1
    assert any(event.kind == "app-failed" for event in standing.told)
    await standing.perform(PauseApps(HANDOVER))
    assert standing.events[-1] == AppsPaused(
        HANDOVER, {"one": {"result": "True 65534"}, "two": {"result": "True 65534"}}, {}
    )
    assert not standing.apps.all()
    await standing.perform(EndApps(HANDOVER))
    assert not standing.rows.content


async def test_proxy_that_always_fails_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.001)
    monkeypatch.setattr(attending, "RESTARTS", 2)
    standing = Standing()
    await standing.perform(StartApps(HANDOVER, HOME, (AppOrder("bad", "wayward", {"way": "exits"}),)))
    (bad,) = standing.apps.all()
    await standing.until(lambda: bad.condition == "failed")
    failures = [event.detail for event in standing.told if event.kind == "app-failed"]
    assert [detail["restarts"] for detail in failures] == [True, True, False]
    assert "status 3" in bad.failure
    await standing.perform(PauseApps(HANDOVER))
    assert isinstance(paused := standing.events[-1], AppsPaused)
    assert paused.states == {"bad": {"result": {"problem": bad.failure}}}, "the device learns it"
    assert not standing.apps.all()


async def test_next_run_of_the_daemon_has_the_state() -> None:
    standing = Standing()
    order = AppOrder("one", "wayward", {"way": "well"})
    await standing.perform(StartApps(HANDOVER, HOME, (order,)))
    (one,) = standing.apps.all()
    await standing.until(lambda: one.state == {"times": 1})
    standing.apps.close()
    again = Standing()
    again.rows.content = standing.rows.content
    await again.perform(StartApps(HANDOVER, HOME, (order,)))
    (one,) = again.apps.all()
    await again.until(lambda: one.state == {"times": 2})
    again.apps.close()


def test_orders_are_checked_with_table_and_key() -> None:
    catalogue = Catalogue()
    assert catalogue.check(AppOrder("a", "wayward", {"way": "well"})) is None
    assert catalogue.check(AppOrder("a", "wayward")) == "[[mobile_node.app]] a: settings.way: is missing"
    unknown = catalogue.check(AppOrder("a", "mial"))
    assert unknown is not None and "kind: 'mial' is not known" in unknown and "keepalive" in unknown
    broken = catalogue.check(AppOrder("a", "broken"))
    assert broken is not None and "cannot be loaded" in broken
    assert {kind.name for kind in catalogue.kinds()} >= {"keepalive", "wayward", "broken"}


@pytest.mark.parametrize(
    "kind, settings, wanted",
    [
        ("mail", {}, True),
        ("keepalive", {}, False),
        ("keepalive", {"payload": "x", "ports": [9], "on_end": "reconnect"}, True),
        ("keepalive", {"interval": 0}, False),
        ("wayward", {}, False),
        ("mial", {}, False),
    ],
)
def test_processes_have_a_network_where_settings_need_one(
    kind: str, settings: Mapping[str, JSON], wanted: bool
) -> None:
    assert Catalogue().has_network(AppOrder("a", kind, settings)) is wanted


async def test_proxy_that_fails_at_its_end_does_not_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would speak in sessions whose device goes on with other sequence numbers."""
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.001)
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (AppOrder("one", "wayward", {"way": "ends_badly"}),)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.state == {"times": 1})
    await standing.perform(PauseApps(HANDOVER))
    assert standing.events[-1] == AppsPaused(HANDOVER, {"one": {"times": 1}}, {})
    await asyncio.sleep(0.2)
    assert (app.process, app.restarting, app.restarts) == (None, None, 0)
    connection.close()


async def test_last_state_of_a_process_that_has_gone_is_read() -> None:
    """The loop was busy until then."""
    standing = Standing()
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.state == {"times": 1})
    process = app.process
    assert process is not None
    ending = asyncio.ensure_future(process.end())
    await asyncio.sleep(0)
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(0.01)
    process._reap()
    assert await ending == {"result": "True 65534"}
    assert app.process is process and app.restarts == 0


@pytest.mark.parametrize("way", UNREADABLE)
async def test_state_that_a_device_cannot_read_is_left_out(way: str) -> None:
    """The last one that it can read takes its place: the answer to the reclaim stays readable."""
    standing = Standing()
    await standing.perform(StartApps(HANDOVER, HOME, (AppOrder("one", "wayward", {"way": way}),)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.state == {"times": 1})
    await standing.perform(PauseApps(HANDOVER))
    paused = standing.events[-1]
    assert isinstance(paused, AppsPaused)
    answer = Answer632(Status.OK, HANDOVER, None, application={APPS: paused.states})
    assert decode_632(encode_632(answer)).application == {APPS: {"one": {"times": 1}}}


async def test_deepest_state_that_is_taken_can_be_read() -> None:
    state = checked_state({"result": json.loads("[" * 9 + "]" * 9)})
    answer = Answer632(Status.OK, HANDOVER, None, application={APPS: {"one": state}})
    assert decode_632(encode_632(answer)).application == {APPS: {"one": state}}


async def test_killed_daemon_says_nothing_twice(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    first = Standing(connection.held)
    await first.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = first.apps.all()
    await first.until(lambda: app.state == {"times": 1})
    await connection.says(first, b"before")
    assert await connection.hears(6) == b"BEFORE"
    kept = Rows()
    kept.content = dict(first.rows.content)
    await first.perform(EndApps(HANDOVER))
    second = Standing(connection.held, rows=kept)
    await second.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    await connection.says(second, b"after")
    assert await connection.hears(5) == b"AFTER"
    await second.perform(PauseApps(HANDOVER))
    assert isinstance(paused := second.events[-1], AppsPaused) and paused.spoken == {0: b"BEFOREAFTER"}
    connection.close()


async def test_ended_daemon_shows_again_what_was_not_answered(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    first = Standing(connection.held)
    await first.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = first.apps.all()
    await first.until(lambda: app.begun and app.process is not None and not app.process.unanswered)
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGSTOP)
    await connection.says(first, b"hello")
    first.apps.close()
    second = Standing(connection.held, rows=first.rows)
    await second.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    assert await connection.hears(5) == b"HELLO"
    await second.perform(EndApps(HANDOVER))
    connection.close()


async def test_words_for_a_closed_window_wait_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attempt at a time for all of them, also where every byte was a word."""
    connection = Connection(tmp_path)
    connection.held.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    spool = connection.held.spool
    assert isinstance(spool, Spool)
    await connection.says(standing, b"x" * 200_000)
    await standing.until(lambda: len(spool.said.data) == 200_000)
    for _ in range(30):
        await connection.says(standing, b"y")
    await standing.until(lambda: len(spool.said.data) == 200_030)
    attempts = 0
    push = spool.said.push

    def counted(sock: socket.socket) -> bool:
        nonlocal attempts
        attempts += 1
        return push(sock)

    monkeypatch.setattr(spool.said, "push", counted)
    begun = time.monotonic()
    await asyncio.sleep(1)
    assert attempts <= (time.monotonic() - begun) / saying.PUSH_AGAIN + 2
    assert await connection.hears(200_030) == b"X" * 200_000 + b"Y" * 30
    await standing.perform(EndApps(HANDOVER))
    connection.close()


async def test_proxy_gets_as_many_sessions_as_a_device_may_have(tmp_path: Path) -> None:
    """More than one packet takes; its state is as large as it may be."""
    one = Connection(tmp_path)
    flow = Flow(6, IPv6Address("2001:db8:10::5"), 40000, IPv6Address("2001:db8:99::80"), 7)
    sessions = [
        HeldSocket((HANDOVER, n), flow, one.held.record, one.held.socket, one.held.spool, UNBOUNDED)
        for n in range(MAX_SESSIONS)
    ]
    standing = Standing(*sessions)
    state = {"one": {"times": 7, "kept": bytes(MAX_STATE - 20)}}
    order = AppOrder("one", "wayward", {"way": "counts"})
    await standing.perform(StartApps(HANDOVER, HOME, (order,), state))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.state == {"times": 8} or app.restarts > 0)
    await standing.perform(PauseApps(HANDOVER))
    assert standing.events[-1] == AppsPaused(HANDOVER, {"one": {"result": "4096 sessions"}}, {})
    one.close()


async def test_states_of_one_packet_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks get a turn between pieces of its effects, and the last state alone is stored."""
    turns, taken, puts = [0], list[int](), list[str]()
    take, put = process.AppProcess._take, Rows.put

    def counted(one: process.AppProcess, *packet: Any) -> None:
        taken.append(turns[0])
        take(one, *packet)

    def stored(rows: Rows, table: HostTable, key: str, row: Mapping[str, Any]) -> None:
        puts.append(key)
        put(rows, table, key, row)

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            turns[0] += 1

    monkeypatch.setattr(process, "TURN", 0.0)
    monkeypatch.setattr(process.AppProcess, "_take", counted)
    monkeypatch.setattr(Rows, "put", stored)
    task = asyncio.create_task(others())
    standing = Standing()
    await standing.perform(StartApps(HANDOVER, HOME, (AppOrder("one", "wayward", {"way": "keeps"}),)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.state.get("times") == 99)
    assert len(puts) == 1 and len(taken) > 30 and len(set(taken)) == len(taken)
    task.cancel()
    await standing.perform(EndApps(HANDOVER))


async def test_store_is_read_once_and_the_kernel_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each of a device's proxies: both take long, and the daemon has other work."""
    reads, asked = list[HostTable](), list[frozenset[int]]()
    rows = Rows.rows

    def read(one: Rows, table: HostTable) -> Mapping[str, Mapping[str, Any]]:
        reads.append(table)
        return rows(one, table)

    def silenced(numbers: frozenset[int]) -> int:
        assert threading.current_thread() is not threading.main_thread()
        asked.append(numbers)
        return 0

    monkeypatch.setattr(Rows, "rows", read)
    monkeypatch.setattr(outlets, "silence", silenced)
    standing = Standing()
    orders = tuple(AppOrder(f"p{number}", "puppet") for number in range(4))
    for end in (PauseApps, EndApps):
        await standing.perform(StartApps(HANDOVER, HOME, orders, {}, (HOME,)))
        await standing.until(lambda: all(app.begun for app in standing.apps.all()))
        await standing.perform(end(HANDOVER))
    assert reads == [HostTable.APP]
    assert [len(numbers) for numbers in asked] == [4, 4]


async def test_rows_without_a_proxy_go_with_their_handover() -> None:
    """The proxies of an earlier run of the daemon had them."""
    stored = Rows()
    for handover in (HANDOVER, bytes(16)):
        stored.put(HostTable.APP, f"{handover.hex()}-gone", {"state": "a0", "shown": {}})
    await Standing(rows=stored).perform(EndApps(HANDOVER))
    assert [*stored.content] == [f"{bytes(16).hex()}-gone"]


async def test_unreadable_state_of_a_process_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """A process that goes round its program may send any bytes as a state."""
    app = Running(HANDOVER, HOME, ECHO, {}, {"first": 1})
    assert app.state == {"first": 1}
    app.keep(b"\xa1\x61x\x01")
    assert app.state == {"x": 1}
    for wrong in (b"", b"\xff", b"\xa1\x61x\xc1\x00", b"\x80"):
        app.keep(wrong)
        assert app.state == {} and "cannot be read" in caplog.text
        caplog.clear()
    with pytest.raises(ValueError, match="at most"):
        app.keep(bytes(2 * MAX_STATE + 1))


async def test_proxies_of_a_device_start_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work goes on between two starts."""
    turns, started = [0], list[int]()
    begin = starting._Queue._begin

    def begun(*arguments: Any) -> None:
        started.append(turns[0])
        begin(*arguments)

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            turns[0] += 1

    monkeypatch.setattr(starting._Queue, "_begin", begun)
    task = asyncio.create_task(others())
    standing = Standing()
    orders = tuple(AppOrder(name, "wayward", {"way": "well"}) for name in ("one", "two", "three"))
    await standing.perform(StartApps(HANDOVER, HOME, orders))
    assert [app.condition for app in standing.apps.all()] == ["starting"] * 3
    await standing.until(lambda: all(app.begun for app in standing.apps.all()))
    assert len(set(started)) == 3
    task.cancel()
    await standing.perform(EndApps(HANDOVER))
