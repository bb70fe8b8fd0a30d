"""A home agent promises no more than the data plane has room for (RFC 5944 section 3.4, code 130)."""

from dataclasses import fields, replace
from typing import Any

import pytest

from locum.dataplane.layout.rules import FEW, FEW_TUNNELS
from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.forwarding import AcceptTunnel, InstallBinding
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.room import SMALL_RULES, SMALL_TUNNELS, Places
from locum.roles.rules import KeptRule, RuleRefused
from locum.wire.mobile_ip.registration import Code, Flag
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.homeworld import AN1, AN2, HA, HOA, MOBILE, ONE, STAND_INS, Home, rule

AMPLE = Places(*(1 << 20 for _ in fields(Places)))
UNBOUND = replace(MOBILE, default_care_of=None, stand_in=None, stand_ins=())
TRANSLATING = replace(
    UNBOUND, stand_in=ONE, stand_ins=(replace(STAND_INS[0], translate=True), *STAND_INS[1:])
)
NO_ROOM = int(Code.INSUFFICIENT_RESOURCES)


def several(number: int) -> Any:
    return [extension for n in range(1, number + 1) for extension in rule(n, n)]


# The places of one kind that are there, and the requests of the mobile node (or "one"): all but the last are accepted.
CASES: dict[str, tuple[int, list[tuple[str, Any, dict[str, Any]]]]] = {
    "bindings": (1, [("device", AN1, {})]),  # both families need one
    "extended": (
        0,
        [("device", AN1, {"ipv6": False}), ("device", AN2, {"ipv6": False, "flags": Flag.T | Flag.S})],
    ),
    "ruled": (0, [("device", AN1, {"ipv6": False, "rules": rule(1, 1)})]),
    "small_rules": (0, [("device", AN1, {"ipv6": False, "rules": rule(1, 1)})]),
    "large_rules": (
        0,
        [
            ("device", AN1, {"ipv6": False, "rules": several(8)}),
            ("device", AN1, {"ipv6": False, "rules": rule(9, 9)}),
        ],
    ),
    "rule_counters": (  # a rule without addresses is one of both families
        4,
        [
            ("device", AN1, {"ipv6": False, "rules": rule(1, 1)}),
            ("device", AN1, {"ipv6": False, "rules": rule(2, 2)}),
        ],
    ),
    "acceptances": (
        1,
        [("device", AN1, {"ipv6": False}), ("device", AN2, {"ipv6": False, "flags": Flag.T | Flag.S})],
    ),
    "translations": (0, [("one", AN2, {"ipv6": False})]),
}


def test_every_kind_of_place_is_tested() -> None:
    assert CASES.keys() == {field.name for field in fields(Places)}


def test_small_entries_are_those_of_the_data_plane() -> None:
    assert (SMALL_RULES, SMALL_TUNNELS) == (FEW, FEW_TUNNELS)


@pytest.mark.parametrize("kind", CASES)
def test_registration_without_room_changes_nothing(kind: str) -> None:
    most, requests = CASES[kind]
    configuration = HomeAgentConfiguration(HA, room=replace(AMPLE, **{kind: most}))
    home = Home(TRANSLATING if kind == "translations" else UNBOUND, configuration)
    for who, care_of, options in requests[:-1]:
        assert getattr(home, who).register(care_of, **options) == Code.ACCEPTED
    before = home.tables()
    who, care_of, options = requests[-1]
    assert getattr(home, who).register(care_of, **options) == NO_ROOM
    assert home.tables() == before
    assert home.counts[f"refused-{NO_ROOM}"] == 1
    roomy = Home(home.mobile, HomeAgentConfiguration(HA, room=AMPLE))
    for who, care_of, options in requests:
        assert getattr(roomy, who).register(care_of, **options) == Code.ACCEPTED


def test_places_of_a_deregistration_are_free_again() -> None:
    home = Home(UNBOUND, HomeAgentConfiguration(HA, room=replace(AMPLE, bindings=1)))
    for _ in range(3):
        assert home.device.register(AN1, ipv6=False) == Code.ACCEPTED
        assert home.device.register(AN2, ipv6=False) == Code.ACCEPTED  # a move takes no more
        assert home.device.register(AN2) == NO_ROOM
        assert home.device.cancel() == Code.ACCEPTED


def test_places_of_what_expires_and_of_restored_rows_are_counted() -> None:
    home = Home(UNBOUND, HomeAgentConfiguration(HA, room=replace(AMPLE, bindings=1)))
    assert home.device.register(AN1, ipv6=False) == Code.ACCEPTED
    home.start()
    assert home.device.register(AN1) == NO_ROOM
    home.advance(400)
    assert home.device.register(AN1, ipv6=False) == Code.ACCEPTED


def test_rule_of_an_administrator_needs_room_too() -> None:
    home = Home(UNBOUND, HomeAgentConfiguration(HA, room=replace(AMPLE, small_rules=0)))
    assert home.device.register(AN1, ipv6=False) == Code.ACCEPTED
    before = home.tables()
    made = KeptRule(5, 5, RuleVerdict.DROP, (Ipv4Selector(protocol=(6, 6)),))
    with pytest.raises(RuleRefused, match="no room"):
        home.role.add_rule(HOA, made, now=home.now)
    assert home.tables() == before


def test_renewal_after_a_refused_change_brings_all_entries_again() -> None:
    """The data plane had not made the change; an answer to the renewal must not stand for less than it says."""
    home = Home(UNBOUND)
    assert home.device.register(AN1) == Code.ACCEPTED
    request = home.device.request(AN1, 300)
    assert not any(isinstance(action, InstallBinding) for action in _said(home, request))
    assert home.role.happened(a.ForwardingRefused((HOA,)), now=home.now) == []
    said = _said(home, home.device.request(AN1, 300))
    assert {type(action) for action in said} >= {InstallBinding, AcceptTunnel}
    assert not any(
        isinstance(action, InstallBinding) for action in _said(home, home.device.request(AN1, 300))
    )


def _said(home: Home, request: bytes) -> list[a.Action]:
    return home.role.receive(request, Source(AN1, 434, "core"), now=home.now)
