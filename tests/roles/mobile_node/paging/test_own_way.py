"""The way that a device tells, and its card: armed while it sleeps, restored when it wakes (P13)."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from locum.roles.action_values.paging import ArmCard, CardArmed, RestoreCard
from locum.roles.actions import Emit
from locum.roles.mobile_node.paging.own_way import OwnWay, spread
from locum.roles.mobile_node.states import Down, Up
from locum.roles.registrant.configuration import MobileNodeConfiguration, OwnWayConfiguration
from locum.security.association import Association
from locum.wire.control.paging.way import Way

HOA, CARD = IPv4Address("10.50.0.9"), bytes.fromhex("020000000009")
PLAIN = MobileNodeConfiguration(HOA, IPv4Address("10.5.0.1"), ("radio0",), Association(300, b"k" * 16))
DOWN = Down(cast(Any, None))


def device(**own: Any) -> OwnWay:
    configuration = replace(PLAIN, own_way=OwnWayConfiguration(**own))
    return OwnWay(lambda: configuration)


def test_device_that_always_listens_says_nothing() -> None:
    assert device().way() is None


def test_slots_follow_from_the_home_address() -> None:
    way = device(cycle=320, length=20).way()
    assert way == Way("link", b"", 320, spread(HOA, 320), 20)
    assert way == Way.from_cbor(way.to_cbor(), "way"), "it can be sent"
    assert device(name="push").way() == Way("push")


@pytest.mark.parametrize("cycle", [20, 320, 1280])
def test_offsets_of_neighbours_spread(cycle: int) -> None:
    tenths = Counter(spread(HOA + number, cycle) * 10 // cycle for number in range(4000))
    assert set(tenths) == set(range(10)) and max(tenths.values()) < 1.3 * 400
    assert spread(HOA, 0) == 0 and all(0 <= spread(HOA + n, cycle) < cycle for n in range(100))


def test_card_is_armed_while_the_device_sleeps() -> None:
    own = device(wake_link="eth0", password=b"secret")
    assert own.deadline() is None
    own.entered(DOWN)
    assert own.deadline() == 0.0 and own.timeout(now=1.0) == [ArmCard("eth0", b"secret")]
    own.entered(DOWN)
    assert own.deadline() is None, "once"
    armed = own.happened(CardArmed("eth0", CARD), now=1.0)
    assert armed is not None and isinstance(armed[0], Emit)
    assert (armed[0].kind, armed[0].detail) == (
        "card-armed", {"link": "eth0", "armed": True, "card": "02:00:00:00:00:09"},
    )  # fmt: skip
    assert own.way() == Way("wake-on-lan", CARD)
    own.entered(Up())
    assert own.timeout(now=2.0) == [RestoreCard("eth0")] and own.deadline() is None


def test_card_that_cannot_be_armed_is_no_way() -> None:
    own = device(wake_link="eth0", cycle=320, length=20)
    own.entered(DOWN)
    failed = (own.happened(CardArmed("eth0", b"", "ethtool is not installed"), now=1.0) or [])[0]
    assert isinstance(failed, Emit) and failed.detail["reason"] == "ethtool is not installed"
    assert own.way() == Way("link", b"", 320, spread(HOA, 320), 20)


def test_device_without_a_card_arms_nothing() -> None:
    own = device(cycle=320, length=20)
    own.entered(DOWN)
    assert own.deadline() is None and own.timeout(now=1.0) == []
