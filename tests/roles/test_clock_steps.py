"""Wall clocks that are set while everything runs, and hosts that are suspended: lifetimes and timers do not notice."""

import pytest

from locum.roles import actions as a
from locum.roles.home_agent.timestamps import HomeTimestamps
from locum.security.association import Replay
from locum.security.replay import DEFAULT_TOLERANCE, next_identification, ntp64, wall_of
from locum.wire.mobile_ip.registration import Code, RegistrationRequest
from tests.roles.home_agent.test_registration import tunnels
from tests.roles.homeworld import AN1 as FIRST_AGENT
from tests.roles.homeworld import Home
from tests.roles.moving_world import MovingWorld
from tests.roles.world import AN1, AN2, AN3, HOA, START, Host, World, asleep, awake

HOUR = 3600.0
LIFETIME = 300


def settled(**options: object) -> World:
    world = World(lifetime=LIFETIME, **options)  # type: ignore[arg-type]
    world.advance(5)
    assert tunnels(world) in ([AN1], [AN2])
    return world


def goes_on(world: World, seconds: float) -> None:
    """Let time pass; the device is bound in every moment, and renewed as often as its lifetime asks for."""
    before = world.mn.kinds().count("registered")
    for _ in range(int(seconds / 20)):
        world.advance(20)
        assert tunnels(world) != [AN3], f"not bound {world.now - START:g} s after the start"
    assert "expired" not in world.ha.kinds()
    assert "registration-expired" not in world.mn.kinds()
    assert "visitor-expired" not in world.an1.kinds() + world.an2.kinds()
    assert world.mn.kinds().count("registered") - before == pytest.approx(seconds / (LIFETIME * 2 / 3), abs=1)


def timestamps(host: Host) -> list[int]:
    """The identifications of requests that this host received, oldest first."""
    return [
        RegistrationRequest.decode(message).identification for message in host.sent if message[:1] == b"\x01"
    ]


# Steps


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
@pytest.mark.parametrize("name", ["ha", "mn"])
def test_renewals_survive_a_step_of_any_clock(name: str, seconds: float) -> None:
    world = settled()
    world.step_wall_clock(getattr(world, name), seconds)
    goes_on(world, 420)
    assert world.mn.counts.get("denied-133", 0) <= 1
    world.step_wall_clock(getattr(world, name), -seconds)
    goes_on(world, 420)
    assert world.mn.counts.get("denied-133", 0) <= 2


@pytest.mark.parametrize("replay", list(Replay))
@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_renewals_go_on_after_steps_and_restarts(seconds: float, replay: Replay) -> None:
    world = settled(replay=replay)
    for host in (world.ha, world.mn):
        world.step_wall_clock(host, seconds)
        goes_on(world, 220)
        world.kill(host)
        world.start(host)
        goes_on(world, 420)
        world.step_wall_clock(host, -seconds)
        goes_on(world, 220)


@pytest.mark.parametrize(("seconds", "refused"), [(HOUR, 0), (-HOUR, 1)])
def test_all_clocks_are_set_at_once(seconds: float, refused: int) -> None:
    """Back, the home agent's clock does not follow, and the device learns that once."""
    world = settled()
    for host in world.hosts:
        world.step_wall_clock(host, seconds)
    goes_on(world, 420)
    assert world.mn.counts.get("denied-133", 0) == refused


def test_device_that_starts_in_1970_registers_and_renews() -> None:
    world = World(lifetime=LIFETIME)
    world.kill(world.mn)
    world.mn.rows.clear()
    world.mn.wall_ahead = -START
    world.start(world.mn)
    world.advance(10)
    assert tunnels(world) in ([AN1], [AN2])
    assert wall_of(timestamps(world.ha)[-1], near=world.now) == pytest.approx(world.now, abs=10)
    goes_on(world, 420)
    world.step_wall_clock(world.mn, START)
    goes_on(world, 420)
    assert world.mn.counts["denied-133"] == 1


def test_clock_offset_survives_restart_and_step_of_the_device() -> None:
    world = settled()
    world.step_wall_clock(world.ha, HOUR)
    goes_on(world, 300)
    assert world.mn.counts["denied-133"] == 1
    world.kill(world.mn)
    world.start(world.mn)
    world.step_wall_clock(world.mn, 10 * HOUR)
    goes_on(world, 600)
    assert world.mn.counts["denied-133"] == 1


def test_identifications_follow_the_wall_clock_until_corrected() -> None:
    world = settled()
    for host in world.hosts:
        world.step_wall_clock(host, HOUR)
    goes_on(world, 300)
    assert wall_of(timestamps(world.ha)[-1], near=world.now) == pytest.approx(world.now + HOUR, abs=200)


# The home agent's clock


def test_requests_of_before_a_step_back_stay_replays() -> None:
    home = Home()
    home.role.happened(a.WallClockStepped(HOUR), now=home.now)
    home.now += HOUR
    first, withheld = (home.device.request(FIRST_AGENT, 300) for _ in range(2))
    home.now -= HOUR
    assert home.give(first) == Code.ACCEPTED
    home.role.happened(a.WallClockStepped(-HOUR), now=home.now)
    home.advance(2 * DEFAULT_TOLERANCE)
    for _ in range(int(4 * HOUR / 10)):
        home.advance(10)
        for recorded in (first, withheld):
            assert home.give(recorded) == Code.IDENTIFICATION_MISMATCH


def test_home_agent_clock_is_monotonic_and_follows_corrections() -> None:
    clock = HomeTimestamps()
    assert clock.time(100.0) == 100.0
    for ahead in (3.0, -2.0):
        clock.stepped(ahead)
        assert clock.time(100.0) == 100.0 + ahead
    clock.stepped(HOUR)
    clock.stepped(-HOUR)
    assert clock.time(200.0) == 200.0 + HOUR
    clock.stepped(2 * HOUR)
    assert clock.time(200.0) == 200.0 + 2 * HOUR


def test_home_agent_starts_no_earlier_than_what_it_accepted() -> None:
    clock = HomeTimestamps()
    clock.restore([ntp64(START), ntp64(START + HOUR)], now=START)
    clock.stepped(0.0)
    assert clock.time(START) == pytest.approx(START + HOUR - DEFAULT_TOLERANCE, abs=0.001)
    clock = HomeTimestamps()
    clock.stepped(-HOUR)
    assert clock.time(START) == START - HOUR
    clock.stepped(0.0)
    clock.restore([ntp64(START - 10)], now=START)
    assert clock.time(START) == START
    clock.restore([], now=START)
    assert clock.time(START) == START


def test_refusal_names_a_time_that_is_then_accepted() -> None:
    for steps in ([HOUR], [-HOUR], [HOUR, -HOUR], [-HOUR, HOUR]):
        clock, last = HomeTimestamps(), None
        now = START
        for step in steps:
            clock.stepped(step)
            offered = next_identification(now, last)
            if not clock.fresh(offered, last, now=now):
                offered = clock.mismatch(offered, now=now) + (1 << 32)
            assert clock.fresh(offered, last, now=now + 1), steps
            last, now = offered, now + 100


# Sleep


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_sleep_lasts_as_long_as_was_asked_for(seconds: float) -> None:
    world = settled()
    world.sleep(wake_after=200.0)
    world.advance(5)
    assert asleep(world)
    world.step_wall_clock(world.mn, seconds)
    world.advance(150)
    assert asleep(world)
    world.advance(60)
    assert awake(world)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
@pytest.mark.parametrize("name", ["ha", "mn"])
def test_held_sessions_survive_steps_on_both_ends_of_a_sleep(name: str, seconds: float) -> None:
    world = settled()
    host = getattr(world, name)
    world.sleep()
    world.advance(5)
    world.step_wall_clock(host, seconds)
    world.advance(HOUR / 4)
    assert asleep(world) and all(session.held_by_stand_in for session in world.sessions.values())
    world.step_wall_clock(host, -seconds)
    world.wake()
    world.step_wall_clock(host, seconds)
    world.advance(30)
    assert awake(world) and not any(session.lost for session in world.sessions.values())


# Suspension


def test_device_that_was_suspended_while_awake_registers_again() -> None:
    world = settled()
    world.suspend(world.mn, HOUR)
    assert "expired" in world.ha.kinds() and tunnels(world) == [AN3]
    world.advance(10)
    assert tunnels(world) in ([AN1], [AN2])


def test_device_suspended_during_sleep_wakes_when_due() -> None:
    world = settled()
    world.sleep(wake_after=HOUR / 2)
    world.advance(5)
    world.suspend(world.mn, HOUR)
    assert all(session.held_by_stand_in for session in world.sessions.values())
    world.advance(30)
    assert awake(world) and not any(session.lost for session in world.sessions.values())


@pytest.mark.parametrize("name", ["ha", "mnps"])
def test_hosts_that_were_suspended_serve_again(name: str) -> None:
    world = settled()
    world.sleep()
    world.advance(5)
    world.suspend(getattr(world, name), HOUR)
    world.advance(60)
    world.wake()
    world.advance(60)
    assert awake(world) and not any(session.lost for session in world.sessions.values())


# 622 and 624


def test_access_nodes_compare_wall_clock_times() -> None:
    world = MovingWorld()
    world.an1.wall_ahead = -HOUR
    world.tell(world.an1, a.WallClockStepped(-HOUR))
    world.links("radio0")
    world.advance(5)
    rows = [row for (table, _), row in world.an1.rows.items() if table == "context"]
    assert len(rows) == 1 and rows[0].key == str(HOA)
    registered = rows[0].value["registered"]
    assert isinstance(registered, int)
    assert registered / 1000 == pytest.approx(world.now - HOUR, abs=10)
