"""Proxies that attend captured UDP flows: one packet for each datagram, also over deaths of proxy and daemon (A1, A12)."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from locum.node.apps import attending
from locum.node.sessions.draining import UNBOUNDED, HeldSocket
from locum.roles.action_values.apps import AppsPaused, AppTold, EndApps, PauseApps, StartApps
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.datagrams.spool import DatagramBounds, DatagramSpool
from locum.sessions.tcp.spool import Budget
from locum.wire.control import Flow
from tests.node.apps.test_saying import SlowRows
from tests.node.apps.world import ECHO, HANDOVER, HOME, PEER, Rows, Standing, install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setattr(attending, "FIRST_RESTART", 0.01)


class Datagrams:
    """A UDP socket of this host in the place of a held one: the correspondent's end, and the stand-in's."""

    def __init__(self, directory: Path, number: int = 10) -> None:
        self.peer, self.ours = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        for sock in (self.peer, self.ours):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        self.ours.connect(self.peer.getsockname())
        self.peer.connect(self.ours.getsockname())
        self.now, self._directory, self._number = 1000, directory, number
        self.flow = Flow(17, HOME, 4001, PEER, 7)
        self.record = DatagramRecord(self.flow, 64, 0)
        self.begin()

    def begin(self) -> None:
        """As the daemon does when it starts."""
        spool = DatagramSpool(
            "one",
            self.record,
            directory=self._directory,
            bounds=DatagramBounds(number=self._number),
            clock=lambda: self.now,
            budget=Budget(0, 1 << 20),
        )
        spool.recover(self.ours)
        self.spool = spool
        self.held = HeldSocket((HANDOVER, 0), self.flow, self.record, self.ours, spool, UNBOUNDED)

    def says(self, standing: Standing | None, *data: bytes) -> None:
        for one in data:
            self.peer.send(one)
            while not self.spool.drain(self.ours, 1):
                pass
        if standing is not None:
            standing.apps.moved(self.held)

    async def hears(self) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.peer, 1 << 16), 60)

    def close(self) -> None:
        self.peer.close()
        self.ours.close()
        self.spool.close()


def heard(standing: Standing) -> list[object]:
    return [e.detail["bytes"] for e in standing.events if isinstance(e, AppTold) and e.kind == "heard"]


async def test_each_datagram_is_shown_and_answered(tmp_path: Path) -> None:
    flow = Datagrams(tmp_path / "spool")
    standing = Standing(flow.held)
    flow.says(None, b"early")
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    assert await flow.hears() == b"EARLY"
    flow.says(standing, b"one", b"", b"x" * 60_000)
    assert [await flow.hears() for _ in range(3)] == [b"ONE", b"", b"X" * 60_000]
    assert heard(standing) == [5, 3, 0, 60_000]
    await standing.perform(PauseApps(HANDOVER))
    paused = standing.events[-1]
    assert isinstance(paused, AppsPaused) and paused.spoken == {}, "a program of UDP gets no words of others"
    assert flow.spool.number == 4, "and every datagram"
    flow.close()


async def test_killed_proxy_gets_no_datagram_twice(tmp_path: Path) -> None:
    flow = Datagrams(tmp_path / "spool")
    standing = Standing(flow.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    flow.says(standing, b"one")
    assert await flow.hears() == b"ONE"
    (app,) = standing.apps.all()
    await standing.until(lambda: app.process is not None and not app.process.unanswered)
    assert app.process is not None
    os.kill(app.process.pid, signal.SIGSTOP)
    flow.says(standing, b"two", b"three")
    os.kill(app.process.pid, signal.SIGKILL)
    assert [await flow.hears() for _ in range(2)] == [b"TWO", b"THREE"]
    assert heard(standing) == [3, 3, 5]
    await standing.perform(EndApps(HANDOVER))
    flow.close()


async def test_killed_daemon_shows_no_datagram_twice(tmp_path: Path) -> None:
    flow = Datagrams(tmp_path / "spool")
    first = Standing(flow.held)
    await first.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    flow.says(first, b"one", b"two")
    assert [await flow.hears() for _ in range(2)] == [b"ONE", b"TWO"]
    await first.until(lambda: len(heard(first)) == 2)
    kept = Rows()
    kept.content = dict(first.rows.content)
    await first.perform(EndApps(HANDOVER))
    flow.spool.close()
    flow.begin()
    second = Standing(flow.held, rows=kept)
    flow.says(None, b"three")
    await second.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    assert await flow.hears() == b"THREE"
    await second.until(lambda: heard(second) == [5])
    await second.perform(EndApps(HANDOVER))
    flow.close()


async def test_datagrams_that_a_bound_costs_are_passed_over(tmp_path: Path) -> None:
    """The oldest go first, whether shown or not; none of the others is shown twice or left out."""
    flow = Datagrams(tmp_path / "spool", number=3)
    standing = Standing(flow.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    for number in range(10):
        flow.says(standing, b"a%d" % number)
        assert await flow.hears() == b"A%d" % number
    (app,) = standing.apps.all()
    await standing.until(lambda: app.process is not None and not app.process.unanswered)
    flow.says(None, *(b"b%d" % number for number in range(6)))
    standing.apps.moved(flow.held)
    assert [await flow.hears() for _ in range(3)] == [b"B3", b"B4", b"B5"]
    flow.now += 500_000  # all are too old
    flow.says(standing, b"last")
    assert await flow.hears() == b"LAST"
    assert flow.spool.number == 1
    await standing.perform(EndApps(HANDOVER))
    flow.close()


async def test_word_after_the_device_is_back_is_dropped(tmp_path: Path) -> None:
    flow = Datagrams(tmp_path / "spool")
    standing = Standing(flow.held)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    flow.held.stopped = flow.spool.stop(flow.ours)
    flow.says(standing, b"late")
    await standing.until(lambda: heard(standing) == [4])
    with pytest.raises(BlockingIOError):
        flow.peer.recv(99)
    await standing.perform(EndApps(HANDOVER))
    flow.close()


async def test_an_answer_leaves_when_its_row_is_stored(tmp_path: Path) -> None:
    """A daemon that is killed before that has said nothing, and one that is killed after it shows the datagram no more."""
    flow, rows = Datagrams(tmp_path / "spool"), SlowRows()
    standing = Standing(flow.held, rows=rows)
    await standing.perform(StartApps(HANDOVER, HOME, (ECHO,)))
    (app,) = standing.apps.all()
    await standing.until(lambda: app.begun and app.process is not None and not app.process.unanswered)
    rows.slow = True
    flow.says(standing, b"word")
    await standing.until(lambda: bool(app.words))
    with pytest.raises(BlockingIOError):
        flow.peer.recv(100)
    rows.commit()
    rows.tell()
    assert await flow.hears() == b"WORD"
    await standing.perform(EndApps(HANDOVER))
    flow.close()
