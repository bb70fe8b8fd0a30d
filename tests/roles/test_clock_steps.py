"""Wall clocks that are set while everything runs, and hosts that are suspended: lifetimes and timers do not notice."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.timestamps import HomeTimestamps
from locum.security.association import Replay
from locum.security.replay import DEFAULT_TOLERANCE, next_identification, ntp64, wall_of
from locum.wire.mobile_ip.registration import Code, RegistrationReply, RegistrationRequest
from tests.roles.home_agent.test_registration import tunnels
from tests.roles.homeworld import AN1 as FIRST_AGENT
from tests.roles.homeworld import Home
from tests.roles.moving_world import MovingWorld
from tests.roles.world import AN1, AN2, AN3, HA, HOA, START, Host, World, asleep, awake

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
                offered = clock.mismatch(offered, last, now=now) + (1 << 32)
            assert clock.fresh(offered, last, now=now + 1), steps
            last, now = offered, now + 100


@pytest.mark.parametrize(("low", "last_low"), [(77, 123), (123, 77)])
def test_refusal_keeps_the_low_half_of_the_request(low: int, last_low: int) -> None:
    """It tells the registrant which request is answered (RFC 5944 section 5.7.1); the high half is after the last one's."""
    clock, now = HomeTimestamps(), START + 0.5
    last = (ntp64(START + 3) >> 32 << 32) + last_low
    offered = clock.mismatch((ntp64(START) >> 32 << 32) + low, last, now=now)
    assert offered & 0xFFFFFFFF == low
    assert last < offered < last + (1 << 32) and clock.fresh(offered, last, now=now)


def test_identification_within_the_tolerance_is_not_ahead() -> None:
    clock = HomeTimestamps()
    clock.stepped(0.0)
    assert clock.beyond(ntp64(START + DEFAULT_TOLERANCE - 1), now=START) == 0
    assert clock.beyond(ntp64(START + DEFAULT_TOLERANCE + 3), now=START) == pytest.approx(3, abs=0.01)


def test_forgetting_one_address_keeps_the_clock_ahead() -> None:
    """Others may have registered while it was; only for all of them does it follow the wall clock again."""
    home = Home()
    for ahead in (HOUR, 0.0):
        home.role.happened(a.WallClockStepped(ahead), now=home.now)
    for address, held in ((HOA, HOUR), (None, 0.0)):
        assert home.role.forget_identification(address, now=home.now) == []
        assert home.role.timestamps.held_ahead == pytest.approx(held)


def test_forgotten_identification_survives_a_restart() -> None:
    home = ahead_and_back()
    home.perform(home.role.forget_identification(None, now=home.now))
    home.start()
    home.role.happened(a.WallClockStepped(0.0), now=home.now)
    assert home.role.timestamps.held_ahead == 0
    assert home.device.register(FIRST_AGENT) == Code.ACCEPTED


def test_refusal_names_a_time_after_the_last_identification() -> None:
    """A registrant whose clock was ahead within the tolerance, and is right now, need not wait until its old time is past."""
    home = Home()
    home.now += DEFAULT_TOLERANCE - 2
    ahead = home.device.request(FIRST_AGENT, 300)
    home.now -= DEFAULT_TOLERANCE - 2
    assert home.give(ahead) == Code.ACCEPTED
    home.device._last = 0
    refused = home.device.request(FIRST_AGENT, 300)
    (reply,) = [
        RegistrationReply.decode(action.message)
        for action in home.role.receive(refused, Source(FIRST_AGENT, 434, "core"), now=home.now)
        if isinstance(action, a.Reply)
    ]
    assert reply.code == Code.IDENTIFICATION_MISMATCH
    assert (
        reply.identification & 0xFFFFFFFF == RegistrationRequest.decode(refused).identification & 0xFFFFFFFF
    )
    home.device._last = reply.identification
    assert home.device.register(FIRST_AGENT) == Code.ACCEPTED


def test_identification_far_ahead_locks_nobody_out() -> None:
    """Another home agent, whose clock was ahead, has left it in the store."""
    home = Home()
    assert home.device.register(FIRST_AGENT) == Code.ACCEPTED
    binding = home.role._homes[home.mobile.home_address].binding
    home.role._homes[home.mobile.home_address].binding = replace(
        binding, identification=ntp64(home.now + HOUR)
    )
    home.advance(5)
    refused = home.device.request(FIRST_AGENT, 300)
    (reply,) = [
        RegistrationReply.decode(action.message)
        for action in home.role.receive(refused, Source(FIRST_AGENT, 434, "core"), now=home.now)
        if isinstance(action, a.Reply)
    ]
    assert reply.code == Code.IDENTIFICATION_MISMATCH
    home.advance(2)
    home.device._last = reply.identification
    assert home.device.register(FIRST_AGENT) == Code.ACCEPTED


def ahead_and_back() -> Home:
    """A home agent whose clock was an hour ahead while a device registered, and is right again."""
    home = Home()
    home.role.happened(a.WallClockStepped(HOUR), now=home.now)
    home.now += HOUR
    request = home.device.request(FIRST_AGENT, 300)
    home.now -= HOUR
    assert home.give(request) == Code.ACCEPTED
    home.role.happened(a.WallClockStepped(0.0), now=home.now)
    home.device._last = 0
    return home


@pytest.mark.parametrize("address", [HOA, None])
@pytest.mark.parametrize("restarted", [False, True])
def test_administrator_forgets_identifications_in_the_future(
    restarted: bool, address: IPv4Address | None
) -> None:
    home = ahead_and_back()
    if restarted:
        home.start()
        home.role.happened(a.WallClockStepped(0.0), now=home.now)
    home.advance(10)
    assert home.device.register(FIRST_AGENT) == Code.IDENTIFICATION_MISMATCH
    assert home.role.timestamps.held_ahead == pytest.approx(HOUR, abs=10)
    home.perform(home.role.forget_identification(IPv4Address("10.50.0.77"), now=home.now))
    assert home.role.timestamps.held_ahead > 0
    home.perform(home.role.forget_identification(address, now=home.now))
    assert home.role.timestamps.held_ahead == 0
    home.device._last = 0
    assert home.device.register(FIRST_AGENT) == Code.ACCEPTED
    (forgotten,) = [event for event in home.events if event.kind == "identification-forgotten"]
    assert forgotten.home_address == HOA and forgotten.detail["registrant"] == "mn"
    home.start()
    home.role.happened(a.WallClockStepped(0.0), now=home.now)
    home.advance(20)
    assert home.device.register(FIRST_AGENT) == Code.ACCEPTED


def test_present_identifications_are_not_forgotten() -> None:
    home = Home()
    request = home.device.request(FIRST_AGENT, 300)
    assert home.give(request) == Code.ACCEPTED
    assert home.role.forget_identification(None, now=home.now) == []
    assert home.give(request) == Code.IDENTIFICATION_MISMATCH


@pytest.mark.parametrize(("apart", "tolerance"), [(20.0, 30.0), (2.0, 1.0)])
def test_tolerance_is_the_configured_one(apart: float, tolerance: float) -> None:
    home = Home(configuration=HomeAgentConfiguration(HA, timestamp_tolerance=tolerance))
    for seconds in (apart, -apart):
        home.now += seconds
        request = home.device.request(FIRST_AGENT, 300)
        home.now -= seconds
        assert (home.give(request) == Code.ACCEPTED) is (apart <= tolerance)
        home.advance(3 * apart)
        home.device._last = 0


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
