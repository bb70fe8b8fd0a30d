"""Peers that connect to a sleeping device: held at its stand-in, and in its program's queue when it is awake."""

import pytest

from locum.roles import actions as a
from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.listeners import ReplayAccepted
from locum.roles.flow_rows import TABLE
from locum.roles.mobile_node.handover import Stage
from locum.roles.registrant.configuration import ListeningPort
from locum.roles.session_report import Fate
from locum.wire.control import Done, Finish, Policy, Reclaim, Request634, decode_634
from tests.roles.world import Session, World, asleep, awake, flow

SSH, WEB = 22, 80
PORTS = (
    ListeningPort(SSH, Policy.ACCEPT, 10, 0x8000),
    ListeningPort(WEB, Policy.REFUSE, 10, 0x8000),
)
ways = pytest.mark.parametrize("registers", [False, True], ids=["default", "registers"])


def sleeping(**options: object) -> World:
    if options.get("registers"):
        options["default"] = False
    world = World(listening=PORTS, **options)  # type: ignore[arg-type]
    world.advance(3)
    world.sleep()
    world.advance(3)
    assert asleep(world)
    return world


def connected(world: World, size: int = 0) -> Session:
    made = world.peer_connects(SSH, size)
    assert made is not None
    return made


def at_rest(world: World, *accepted: Session) -> None:
    """All is with its program, and no state of the hand-over is left."""
    assert awake(world)
    for session in accepted:
        assert session.captured_at is None and session.at_device == session.sent
        assert not session.lost and not session.reset
    assert not world.mn.flows and not world.mnps.flows and not world.mnps.watched and not world.ports
    assert not [key for key in (*world.mn.rows, *world.mnps.rows) if key[0] == "handover"]


@ways
def test_connections_come_with_the_devices_own_sessions(registers: bool) -> None:
    world = sleeping(registers=registers)
    first, second = connected(world, 100), connected(world)
    world.peer_sends(0, 5000)
    world.wake()
    world.advance(5)
    at_rest(world, first, second)
    assert world.mn.kinds().count("session-arrived") == 2
    fates = world.device.woken.all(Fate.ARRIVED)
    assert {fate.flow for fate in fates} == {first.flow, second.flow}
    assert not {first.flow, second.flow} & {fate.flow for fate in world.device.woken.all(Fate.RETURNED)}


@ways
def test_a_device_without_sessions_of_its_own(registers: bool) -> None:
    world = sleeping(registers=registers, sessions=0)
    only = connected(world, 7)
    world.wake()
    world.advance(5)
    at_rest(world, only)


def test_no_connection_is_accepted_during_a_wake() -> None:
    world = sleeping()
    finished: list[a.Action] = []

    def watch(action: a.Action) -> None:
        """Ports are closed before the device asks for the last state."""
        if isinstance(action, a.Ask) and action.path == "634" and isinstance(decode_634(action.body), Finish):
            assert not world.ports
            assert world.peer_connects(SSH) is None
            finished.append(action)

    world.watch = watch
    world.wake()
    world.advance(5)
    assert finished
    at_rest(world)


def test_cancelled_wake_reopens_the_ports() -> None:
    world = sleeping()
    before = connected(world, 3)
    world.wake()
    world.advance(0.05)
    world.sleep()
    world.advance(5)
    assert asleep(world)
    assert not [flow for flow in world.mn.flows if flow.local_port == SSH]
    after = connected(world, 4)
    world.wake()
    world.advance(5)
    at_rest(world, before, after)


def test_ended_program_resets_its_peer() -> None:
    world = sleeping()
    world.nobody_listens = True
    one = connected(world, 10)
    world.wake()
    world.advance(5)
    assert one.reset
    assert world.device.woken.all(Fate.LOST)[0].reason == "no program listens"
    at_rest(world)


@ways
def test_more_than_an_answer_takes_is_fetched(registers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.roles.mnps.giving_back.TAIL_LIMIT", 0)
    world = sleeping(registers=registers)
    one = connected(world, 30_000)
    world.wake()
    world.advance(5)
    at_rest(world, one)


@pytest.mark.parametrize("moment", [Reclaim, Finish, ReplayAccepted, Done])
@pytest.mark.parametrize("who", ["mn", "mnps"])
def test_either_daemon_is_killed_during_the_wake(moment: type, who: str) -> None:
    world = sleeping()
    one = connected(world, 100)
    host = world.mn if who == "mn" else world.mnps
    killed: list[bool] = []

    def watch(action: a.Action) -> None:
        if killed or not _is(action, moment):
            return
        killed.append(True)
        world.at(0.0, lambda: world.kill(host))
        world.at(1.0, lambda: world.start(host))

    world.watch = watch
    world.wake()
    world.advance(90)
    assert killed
    assert one.at_device == one.sent or one.reset
    assert awake(world) and not world.mn.flows and not world.mnps.flows


def _is(action: a.Action, moment: type) -> bool:
    if isinstance(action, a.Ask) and action.path == "634" and issubclass(moment, Request634):
        return isinstance(decode_634(action.body), moment)
    return isinstance(action, moment)


@pytest.mark.parametrize("seed", range(6))
def test_lossy_links(seed: int) -> None:
    world = sleeping(seed=seed)
    world.loss, world.duplicate = 0.15, 0.1
    one, two = connected(world, 100), connected(world, 5)
    world.wake()
    world.advance(120)
    at_rest(world, one, two)


@ways
@pytest.mark.parametrize("restarted", [False, True])
def test_new_sleep_leaves_a_delivered_connection_to_its_program(registers: bool, restarted: bool) -> None:
    world = sleeping(registers=registers, unread_beyond=0)
    slow = world.sessions[flow(0)]
    slow.room, slow.reads = 500, False
    world.peer_sends(0, 1000)
    one = connected(world, 10)
    replays: list[a.Action] = []
    world.watch = lambda action: replays.append(action) if isinstance(action, ReplayAccepted) else None
    world.wake()
    while one.captured_at is not None:
        world.advance(0.002)
    world.advance(0.02 if restarted else 20)
    if restarted:
        world.kill(world.mn)
        world.start(world.mn)
        world.advance(20)
    world.sleep()
    world.advance(20)
    assert asleep(world) and len(replays) == 1
    slow.room, slow.reads = 1 << 40, True
    world.wake()
    world.advance(60)
    at_rest(world)
    assert not one.lost and not one.reset and one.at_device == one.sent


def test_permanently_lost_stand_in_leaves_no_flow_suspended() -> None:
    world = sleeping(sessions=0)
    one = connected(world, 10)
    world.wake()
    while world.mn.rows[TABLE, one.handover.hex()].value["stage"] != Stage.RETURNED.value:
        world.advance(0.0005)
    world.kill(world.mn)
    world.kill(world.mnps)
    world.start(world.mn)
    assert world.mn.flows == {one.flow: FlowVerdict.SUSPEND}
    world.advance(900)
    assert awake(world) and not world.mn.flows
    lost = [event for event in world.mn.events if event.kind == "session-lost"]
    assert [event.flow for event in lost] == [one.flow]
    assert not [key for key in world.mn.rows if key[0] == TABLE]
