"""A session that ends at its device during a wake ends at the stand-in too, before that may forget: its peer is reset.

A request may be lost and sent again seconds later, so a later one can overtake it.
"""

import pytest

from locum.roles.mobile_node.states import Up
from locum.wire.control import Abandon
from tests.roles.mobile_node.test_handover import asleep, kind_of
from tests.roles.mobile_node.wake.test_coming import SLOW, coming
from tests.roles.world import World, flow


def lose(world: World, number: int) -> None:
    """The network loses so many datagrams that carry an abandon; each is sent again, or the request fails."""
    left = [number]

    def drop(body: bytes) -> bool:
        lost = kind_of(body, Abandon) and left[0] > 0
        left[0] -= lost
        return lost

    world.drop_634 = drop


def over(world: World, ended: object) -> bool:
    resets = {session.flow for session in world.sessions.values() if session.reset}
    held = any(session.held_by_stand_in for session in world.sessions.values())
    return resets == {ended} and not held and not world.mnps.rows and isinstance(world.device.state, Up)


@pytest.mark.parametrize("lost", [0, 1, 3, 5, 9])
def test_program_ends_while_the_wake_goes_on(lost: int) -> None:
    world = asleep()
    world.peer_sends(0, 50_000)
    world.stand_in_silent = True
    world.wake()
    world.advance(10)
    world.sessions[flow(0)].closed = True
    lose(world, lost)
    world.stand_in_silent = False
    world.advance(120)
    assert over(world, flow(0))


@pytest.mark.parametrize("lost", [0, 1, 3, 5])
def test_socket_accepts_no_data(lost: int) -> None:
    world = asleep()
    for number in range(2):
        world.peer_sends(number, 50_000)
    world.refuse_inject.add(flow(0))
    lose(world, lost)
    world.wake()
    world.advance(120)
    assert over(world, flow(0))


@pytest.mark.parametrize("lost", [0, 1, 3, 5])
def test_program_ends_after_the_wake_while_data_comes(lost: int) -> None:
    world = coming()
    lose(world, lost)
    world.sessions[SLOW].closed = True
    world.advance(120)
    assert over(world, SLOW)


@pytest.mark.parametrize("after", [0.005, 0.03, 0.5, 2.5])
def test_daemon_is_killed_before_the_stand_in_is_told(after: float) -> None:
    world = asleep()
    for number in range(2):
        world.peer_sends(number, 50_000)
    world.refuse_inject.add(flow(0))
    lose(world, 1 << 30)
    world.wake()
    for _ in range(200):
        world.advance(0.05)
        if world.sessions[flow(0)].lost:
            break
    assert world.sessions[flow(0)].lost
    world.advance(after)
    world.kill(world.mn)
    world.start(world.mn)
    world.drop_634 = lambda body: False
    world.advance(60)
    assert over(world, flow(0))
