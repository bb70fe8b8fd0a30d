"""The receive window comes from TCP_REPAIR_WINDOW: before Linux 6.2 tcp_info does not have it."""

import socket
import time

import pytest

from locum.sessions.record import TcpState, Window
from locum.sessions.tcp import repair
from tests.sessions.ends import connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import World

INFO_OF_6_1 = 232  # bytes of struct tcp_info in Linux 6.1
MEG = 1 << 20


class Linux61(socket.socket):
    """A socket whose tcp_info is as short as that of Linux 6.1."""

    def getsockopt(self, level: int, name: int, size: int = 0) -> bytes:  # type: ignore[override]
        if (level, name) == (socket.IPPROTO_TCP, socket.TCP_INFO):
            size = min(size, INFO_OF_6_1)
        return super().getsockopt(level, name, size) if size else super().getsockopt(level, name)  # type: ignore[return-value]


def test_window_is_the_unused_part_at_the_peer() -> None:
    window = Window(snd_wl1=0, snd_wnd=1, max_window=1, rcv_wnd=1000, rcv_wup=0xFFFFFFF0)
    assert window.offered(0xFFFFFFF0) == 1000
    assert window.offered(0x10) == 1000 - 0x20
    assert window.offered((0xFFFFFFF0 + 1000) & 0xFFFFFFFF) == 0
    assert window.offered((0xFFFFFFF0 + 1001) & 0xFFFFFFFF) == 0


def test_half_closed_session_takes_data_with_short_tcp_info(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    duplicate = repair.duplicate
    monkeypatch.setattr(repair, "duplicate", lambda pid, fd: Linux61(fileno=duplicate(pid, fd).detach()))
    program, peer = connect(world, 4)
    program.ask("shutdown")
    world.until(lambda: peer.receive() == 0 and peer.eof)
    time.sleep(0.1)  # the FIN is acknowledged
    program.begin("receive", 2 * MEG)
    (record,) = world.sleep()
    assert record.state is TcpState.FIN_WAIT2
    assert world.away[0].live.parked.window > 0
    world.until(lambda: peer.send(payload(2, 2 * MEG)))
    world.until(lambda: world.away[0].spool.total == 2 * MEG)
    world.wake()
    assert program.answer() == f"{2 * MEG} {digest((2, 2 * MEG))} more"
