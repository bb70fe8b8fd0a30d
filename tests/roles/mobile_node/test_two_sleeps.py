"""A damaged store has two sleeps of one device: the device starts with one, and the other's sessions are lost."""

from dataclasses import replace

import pytest

from locum.roles.mobile_node.states import Down, Up
from tests.roles.world import World


@pytest.mark.parametrize("rebooted", [False, True])
def test_second_sleep_in_the_store_is_given_up(rebooted: bool) -> None:
    world = World(0)
    world.advance(3)
    world.sleep()
    world.advance(10)
    (table, key), row = next(item for item in world.mn.rows.items() if item[0][0] == "handover")
    world.mn.rows[table, "ff" * (len(key) // 2)] = replace(row, key="ff" * (len(key) // 2))
    world.kill(world.mn)
    if rebooted:
        world.boot_again()
    else:
        world.start(world.mn)
    assert isinstance(world.device.state, Up if rebooted else Down)
    world.advance(60)
    rest = [row.value["stage"] for (table, _), row in world.mn.rows.items() if table == "handover"]
    assert rest == ([] if rebooted else ["asleep"]), "the stand-in was told to reset those that are given up"
