"""TCP timestamps never go back for the peer, whichever units the kernels of device and stand-in count in."""

import socket
from dataclasses import replace

import pytest

from locum.sessions.record import SessionRecord, TimestampUnit
from locum.sessions.tcp import LiveSocket, repair, restore
from tests.sessions import sleepworld
from tests.sessions.ends import Peer, Program, connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import World


def count(world: World, unit: TimestampUnit) -> TimestampUnit:
    """Let the device's connection count in `unit`, as by a route with the feature; the unit that the kernel took."""
    (candidate,) = world.candidates()
    live = LiveSocket.open(candidate)
    live.hold()
    repair.set_timestamp(live.socket, repair.timestamp(live.socket), unit)
    repair.set_repair(live.socket, repair.REPAIR_OFF_NO_PROBE)
    taken = repair.info(live.socket).timestamp_unit
    live.close()
    return taken


def not_behind(later: int | None, earlier: int | None) -> bool:
    assert later is not None and earlier is not None
    return (later - earlier) & 0xFFFFFFFF < 1 << 31


def talk(world: World, program: Program, peer: Peer, seed: int) -> None:
    """Exchange data in both directions, so that each end has checked the other's timestamps."""
    program.ask("send", seed, 500)
    world.until(lambda: peer.receive() == 500 * seed)
    assert peer.send(payload(seed, 300))
    assert program.ask("receive", 300) == f"300 {digest((seed, 300))} more"


def sleep_with_an_answer_pending(world: World, program: Program) -> SessionRecord:
    """The program's last data is the stand-in's to deliver."""
    world.network.block("device", "out")
    program.ask("send", 2, 500)
    (record,) = world.sleep()
    return record


@pytest.mark.parametrize("unit", TimestampUnit)
def test_a_session_keeps_its_unit_where_both_kernels_have_it(world: World, unit: TimestampUnit) -> None:
    program, peer = connect(world, 4)
    taken = count(world, unit)
    talk(world, program, peer, 1)
    record = sleep_with_an_answer_pending(world, program)
    assert record.timestamp_unit is taken
    sock = world.away[0].socket
    assert repair.info(sock).timestamp_unit is taken
    assert not_behind(repair.timestamp(sock), record.timestamp)
    world.until(lambda: peer.receive() == 1000 and not repair.unacknowledged(world.away[0].socket))
    original = world.away[0].live.socket.dup()
    (last,) = world.wake()
    assert repair.info(original).timestamp_unit is taken
    assert not_behind(repair.timestamp(original), last.timestamp)
    original.close()
    talk(world, program, peer, 3)


@pytest.mark.parametrize("known", [TimestampUnit.MILLISECONDS, None])
def test_millisecond_stand_in_takes_a_microsecond_session(
    world: World, monkeypatch: pytest.MonkeyPatch, known: TimestampUnit | None
) -> None:
    """Its clock is the slower one and begins where the device's stopped; the device's goes on from there in its own unit."""

    def in_milliseconds(record: SessionRecord, **options: object) -> socket.socket:
        return restore(replace(record, timestamp_unit=known), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sleepworld, "restore", in_milliseconds)
    program, peer = connect(world, 4)
    taken = count(world, TimestampUnit.MICROSECONDS)
    talk(world, program, peer, 1)
    record = sleep_with_an_answer_pending(world, program)
    assert record.timestamp_unit is taken
    sock = world.away[0].socket
    assert repair.info(sock).timestamp_unit is TimestampUnit.MILLISECONDS
    assert not_behind(repair.timestamp(sock), record.timestamp)
    world.until(lambda: peer.receive() == 1000 and not repair.unacknowledged(world.away[0].socket))
    original = world.away[0].live.socket.dup()
    (last,) = world.wake()
    assert repair.info(original).timestamp_unit is taken
    assert not_behind(repair.timestamp(original), last.timestamp)
    original.close()
    talk(world, program, peer, 3)


def test_odd_millisecond_value_stays_in_milliseconds(world: World) -> None:
    """Before Linux 6.7 the low bit is the clock's own; since then it switches to microseconds."""
    program, _ = connect(world, 4)
    (record,) = world.sleep()
    assert record.timestamp_unit is TimestampUnit.MILLISECONDS
    sock = world.away[0].socket
    repair.set_repair(sock, repair.REPAIR_ON)
    for value in (0xFFFFFFFF, 0x7FFFFFFF, 1001, 1000):
        repair.set_timestamp(sock, value, TimestampUnit.MILLISECONDS)
        assert repair.info(sock).timestamp_unit is TimestampUnit.MILLISECONDS
        assert not_behind(repair.timestamp(sock), value)
    repair.set_timestamp(sock, record.timestamp or 0, TimestampUnit.MILLISECONDS)
    repair.set_repair(sock, repair.REPAIR_OFF)
    world.wake()
    program.close()
