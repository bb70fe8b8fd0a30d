"""Registrants side by side: the mobile node and its stand-ins, each with its own lifetime and replay state (R4, R5, R7)."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles import actions as a
from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import Translation, Tunnel
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.security.association import Association, Replay
from locum.wire.mobile_ip.extensions import VendorNormal
from locum.wire.mobile_ip.registration import Code, Flag
from locum.wire.mobile_ip.vendor import ENTERPRISE, DefaultCareOfAddress, MnpsRole, Weight, encode_vendor
from locum.wire.takes import Takes
from tests.roles.homeworld import (
    ACCEPTED,
    AN1,
    AN2,
    AN3,
    AN4,
    HA,
    HOA,
    HOA6,
    MOBILE,
    ONE,
    ONE6,
    STAND_INS,
    TWO,
    Home,
    Registrant,
    rule,
)

NO_DEFAULT = replace(MOBILE, default_care_of=None)


@pytest.mark.parametrize("replay", Replay)
def test_stand_in_goes_ahead_and_leaves_the_device_as_it_was(replay: Replay) -> None:
    home = Home(NO_DEFAULT, replay=replay)
    for registrant in home.registrants:
        registrant.register(AN1, 0)  # under nonces: the answer says the first one
    assert home.device.register(AN1) == ACCEPTED
    before = home.rows["binding", str(HOA)]
    assert home.one.register(AN3) == ACCEPTED
    assert home.care_of() == [AN3] and home.care_of(HOA6) == [AN3]
    assert home.entry().peer == ONE and home.entry().peer_tunnel == Tunnel(HA, AN1)
    assert home.sources() == {AN1, AN3}
    assert home.rows["binding", str(HOA)] == before, "its registration is untouched"
    assert home.device.register(AN1) == ACCEPTED, "and can be renewed"
    assert home.care_of() == [AN3]
    assert home.one.cancel() == ACCEPTED
    assert home.care_of() == [AN1] and home.sources() == {AN1}
    assert [event.message for event in home.events if event.kind == "sent"][-3:] == ["603''", "603", "603''"]


def test_registrants_expire_independently() -> None:
    home = Home(NO_DEFAULT)
    home.device.register(AN1, 100)
    home.one.register(AN3, 50)
    home.advance(60)
    assert home.care_of() == [AN1]
    assert home.events[-1].kind == "expired" and home.events[-1].detail["registrant"] == "one"
    home.one.register(AN3, 100)
    home.advance(50)
    assert home.care_of() == [AN3] and home.entry().peer is None, "there is no device to mean"
    home.device.register(AN1)
    assert home.care_of() == [AN3] and home.entry().peer_tunnel == Tunnel(HA, AN1)


def test_very_short_lifetimes_are_for_mobile_nodes() -> None:
    """A stand-in that registers for a few seconds wants the packets for a few seconds."""
    home = Home()
    home.device.register(AN1)
    home.one.register(AN4, 5)
    assert home.care_of() == [AN4]


def test_order_of_choice() -> None:
    """Default, dynamic, stand-in; the next takes over when one ends (R5)."""
    home = Home()
    assert home.care_of() == [AN3]
    home.device.register(AN1)
    assert home.care_of() == [AN1]
    home.two.register(AN4)
    assert home.care_of() == [AN4]
    home.device.cancel()
    assert home.care_of() == [AN4]
    home.two.cancel()
    assert home.care_of() == [AN3]


def test_two_stand_ins_share_by_weight() -> None:
    home = Home()
    home.device.register(AN1)
    home.one.register(AN3, more=(encode_vendor(Weight(3)),))
    home.two.register(AN4)
    assert home.care_of() == [AN3, AN4] and home.entry().weights == (3, 1)
    home.one.cancel()
    assert home.care_of() == [AN4] and home.entry().weights == ()


def test_ruled_stand_in_gets_no_packets_without_a_rule() -> None:
    home = Home()
    home.device.register(AN1)
    assert home.one.register(AN3, bid=7, takes=Takes.RULED) == ACCEPTED
    assert home.care_of() == [AN1] and AN3 in home.sources()
    home.device.register(AN1, 5)
    assert home.care_of() == [AN3], "the default, which happens to be there too"


def test_packets_of_every_stand_in_reach_the_device() -> None:
    """The first by the entry's peer, the others by rules of the home agent's own."""
    home = Home()
    home.device.register(AN1)
    home.two.register(AN4)
    entry = home.entry()
    assert entry.peer == ONE and entry.peer_tunnel == Tunnel(HA, AN1)
    assert [rule.candidates[0].tunnel for rule in entry.rules] == [Tunnel(HA, AN1)]
    assert entry.rules[0].selector.source == (TWO, TWO)
    home.two.cancel()
    assert home.entry().rules == () and home.entry().peer is None


def test_ipv6_follows_only_those_that_asked() -> None:
    home = Home(NO_DEFAULT)
    home.device.register(AN1)
    home.one.register(AN3, ipv6=False)
    assert home.care_of() == [AN3] and home.care_of(HOA6) == [AN1]
    home.device.cancel()
    assert home.care_of(HOA6) == []


def test_one_care_of_address_for_two_registrants() -> None:
    """Device and stand-in behind one access node: the permission stays until both are gone."""
    home = Home(NO_DEFAULT)
    home.device.register(AN1)
    home.one.register(AN1)
    home.device.cancel()
    assert home.sources() == {AN1} and home.care_of() == [AN1]
    home.one.cancel()
    assert home.sources() == set() and home.care_of() == []


def test_binding_identifiers_stand_side_by_side() -> None:
    home = Home()
    home.device.register(AN1, bid=1, more=(encode_vendor(Weight(2)),))
    home.device.register(AN2, bid=2)
    assert home.care_of() == [AN1, AN2] and home.entry().weights == (2, 1)
    home.device.register(AN4, bid=2)
    assert home.care_of() == [AN1, AN4], "the same binding has moved"
    home.device.register(AN4, 0, bid=2)
    assert home.care_of() == [AN1]
    home.device.register(AN2, 100, bid=2)
    home.device.register(AN1, 200, bid=1, multipath={"bulk": True})
    home.advance(150)
    assert sorted(home.care_of()) == [AN1, AN2], "all were renewed"
    home.device.register(AN4, bid=3, multipath={"overwrite": True})
    assert home.care_of() == [AN4]
    home.device.register(AN1, bid=1)
    home.device.register(AN1, 0, bid=1, multipath={"bulk": True})
    assert home.care_of() == [AN3], "all are gone"


def test_simultaneous_bindings_without_identifiers_are_copies() -> None:
    home = Home()
    home.device.register(AN1, flags=Flag.T | Flag.S)
    home.device.register(AN2, flags=Flag.T | Flag.S)
    assert home.care_of() == [AN1, AN2] and home.entry().weights == ()


def test_default_care_of_address_by_registration() -> None:
    """It outlives the registration and a restart; the unspecified address takes it back (R2, R3)."""
    home = Home()
    say = encode_vendor(DefaultCareOfAddress(AN4))
    assert home.device.register(AN1, more=(say,)) == ACCEPTED
    assert home.care_of() == [AN1] and home.sources() == {AN1, AN4}
    home.device.cancel()
    assert home.care_of() == [AN4]
    home.start()
    assert home.care_of() == [AN4]
    home.device.register(AN1)
    home.advance(400)
    assert home.care_of() == [AN4], "a registration that says nothing of it changes nothing"
    home.device.register(AN1, more=(encode_vendor(DefaultCareOfAddress(IPv4Address("0.0.0.0"))),))
    home.device.cancel()
    assert home.care_of() == [AN3], "the configured one again"
    home = Home(replace(MOBILE, default_by_registration=False))
    assert home.device.register(AN1, more=(say,)) == ACCEPTED
    home.device.cancel()
    assert home.care_of() == [AN3], "it may not say"


def test_default_care_of_address_of_a_selector() -> None:
    """A default CoA with a rule's packets only leaves the rest to the home network (R6)."""
    home = Home(replace(MOBILE, default_ruled=True))
    assert home.care_of() == [] and HOA not in home.bindings
    home.device.register(AN1, 5)
    assert home.care_of() == [AN1], "however short, there is no other way"


def test_stand_in_on_the_home_agents_own_host() -> None:
    home = Home()
    home.device.register(AN1)
    assert home.one.register(HA, flags=Flag.T | Flag.D) == ACCEPTED
    assert home.care_of() == [HA] and HA in home.sources()
    assert home.device.register(HA) == Code.POORLY_FORMED_REQUEST
    local = Home(replace(MOBILE, default_care_of=HA))
    assert local.care_of() == [HA]


def test_translation_while_it_is_registered() -> None:
    stand_ins = (replace(STAND_INS[0], translate=True), STAND_INS[1])
    home = Home(replace(MOBILE, default_care_of=None, stand_ins=stand_ins))
    home.two.register(AN4)
    assert home.translations == set()
    home.one.register(AN3)
    assert Translation(HOA, ONE, AN3) in home.translations
    home.one.register(AN2)
    assert {translation.tunnel for translation in home.translations} == {AN2}
    home.start()
    assert {translation.tunnel for translation in home.translations} == {AN2}
    home.advance(400)
    assert home.translations == set()


def test_translation_at_the_default_care_of_address() -> None:
    """R12 without a registration of the stand-in (Fig. 6): flows of its own go on when the device is back."""
    home = Home(replace(MOBILE, stand_ins=(replace(STAND_INS[0], translate=True), STAND_INS[1])))
    expected = {Translation(HOA, ONE, AN3), Translation(HOA6, ONE6, AN3)}
    assert home.translations == expected
    home.device.register(AN1)
    assert home.translations == expected


# Refusals ---------------------------------------------------------------------------------------------------------------

STRANGER = Association(666, b"s" * 16)


def test_unauthorised_registrants_are_refused() -> None:
    home = Home()
    home.device.register(AN1)
    home.one.register(AN3)
    home.advance(1)
    before = home.tables()
    stranger = Registrant(home, "stranger", STRANGER, ONE)
    assert stranger.register(AN4) == Code.MOBILE_NODE_FAILED_AUTHENTICATION
    forger = Registrant(home, "forger", replace(STRANGER, spi=1100), ONE)
    assert forger.register(AN4) == Code.MOBILE_NODE_FAILED_AUTHENTICATION
    pretender = Registrant(home, "pretender", home.device.association, ONE)
    assert pretender.register(AN4) == Code.ADMINISTRATIVELY_PROHIBITED
    assert home.tables() == before


def test_stand_in_of_another_home_address() -> None:
    home = Home(replace(MOBILE, stand_ins=STAND_INS[:1]))
    before = home.tables()
    assert home.two.register(AN4) == Code.MOBILE_NODE_FAILED_AUTHENTICATION
    assert home.tables() == before


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"care_of_address": IPv4Address("224.0.0.5")}, Code.POORLY_FORMED_REQUEST),
        ({"care_of_address": HOA, "lifetime": 300, "home_agent": AN1}, Code.UNKNOWN_HOME_AGENT),
        ({"flags": Flag(0)}, Code.REVERSE_TUNNEL_MANDATORY),
        ({"flags": Flag.T | Flag.M}, Code.REQUESTED_ENCAPSULATION_UNAVAILABLE),
        ({"more": (encode_vendor(Weight(0)),)}, Code.POORLY_FORMED_REQUEST),
        ({"more": (VendorNormal(ENTERPRISE, 3, b"\1"),)}, Code.POORLY_FORMED_REQUEST),
        ({"more": (encode_vendor(DefaultCareOfAddress(AN4)),)}, Code.ADMINISTRATIVELY_PROHIBITED),
        ({"more": (encode_vendor(MnpsRole(TWO)),)}, Code.ADMINISTRATIVELY_PROHIBITED),
        ({"bid": 1}, Code.MULTIPATH_NOT_ALLOWED),
    ],
)
def test_unacceptable_stand_in_requests_are_refused(options: dict[str, Any], code: Code) -> None:
    home = Home(configuration=HomeAgentConfiguration(HA, minimal_encapsulation=False))
    home.device.register(AN1, bid=1)
    home.one.register(AN3, bid=2)
    home.advance(1)
    before = home.tables()
    assert home.one.register(AN4, **options) == code
    assert home.tables() == before
    assert home.counts[f"refused-{int(code)}"] == 1


def test_stand_in_without_its_extension_is_refused() -> None:
    home = Home()
    plain = Registrant(home, "one", home.one.association, None)
    assert plain.register(AN4) == Code.POORLY_FORMED_REQUEST


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (IPv4Address("127.0.0.1"), Code.POORLY_FORMED_REQUEST),
        (HOA6, Code.POORLY_FORMED_REQUEST),
        (HOA, Code.ADMINISTRATIVELY_PROHIBITED),
        (HA, Code.ADMINISTRATIVELY_PROHIBITED),
    ],
)
def test_default_care_of_addresses_that_are_refused(address: Addr, code: Code) -> None:
    home = Home()
    before = home.tables()
    assert home.device.register(AN1, more=(encode_vendor(DefaultCareOfAddress(address)),)) == code
    assert home.tables() == before


def test_multipath_requests_are_refused() -> None:
    home = Home(configuration=HomeAgentConfiguration(HA, multipath=False))
    assert home.device.register(AN1, bid=1) == Code.MULTIPATH_NOT_ALLOWED
    assert home.device.register(AN1) == ACCEPTED


def test_more_care_of_addresses_than_there_is_room_for() -> None:
    home = Home()
    for bid in range(1, 5):
        assert home.one.register(IPv4Address(f"10.7.0.{bid}"), bid=bid) == ACCEPTED
    before = home.tables()
    assert home.one.register(AN4, bid=5) == Code.TOO_MANY_SIMULTANEOUS_BINDINGS
    assert home.tables() == before
    assert home.device.register(AN1, bid=6) == ACCEPTED, "each has its own room"


@pytest.mark.parametrize("replay", Replay)
def test_replays_count_for_each_registrant_alone(replay: Replay) -> None:
    home = Home(replay=replay)
    for registrant in home.registrants:
        registrant.register(AN1, 0)
    messages = {registrant.name: registrant.request(AN1, 300) for registrant in home.registrants}
    home.give(messages["one"], home.one)
    home.give(messages["mn"], home.device)
    before = home.tables()
    for name in ("one", "mn"):
        assert home.give(messages[name]) == Code.IDENTIFICATION_MISMATCH
    assert home.tables() == before
    assert home.give(messages["two"], home.two) == ACCEPTED, "a later identification of others is no replay"


def test_unsigned_extensions_are_ignored() -> None:
    """Extensions after the authentication were added on the path (RFC 5944 section 3.5)."""
    home = Home()
    message = home.device.request(AN1, 300) + encode_vendor(DefaultCareOfAddress(AN4)).encode()
    assert home.give(message) == ACCEPTED
    home.device.cancel()
    assert home.care_of() == [AN3]


# Restart -----------------------------------------------------------------------------------------------------------------


def test_restart_with_everything_registered() -> None:
    home = Home()
    home.device.register(AN1, bid=1)
    home.device.register(AN2, bid=2, more=(encode_vendor(Weight(5)),))
    home.one.register(AN3, 100, bid=3, takes=Takes.RULED, rules=rule(5, 10, 3, 1))
    home.two.register(AN4)
    before = home.forwarding()
    home.start()
    assert home.forwarding() == before
    home.now += 150
    home.start()
    assert 5 not in home.rules() and ("rule", f"{HOA} 5") not in home.rows, "rules go with their stand-in"
    assert home.care_of() == [AN4]


def test_rows_of_an_earlier_version() -> None:
    """Without binding identifiers, weights and a default of its own."""
    home = Home()
    care_of: dict[str, JSON] = {
        "address": str(AN1), "lifetime": 300, "expires_at": home.now + 300, "flags": 2, "agent": str(AN1),
        "brief": False, "gre": False,
    }  # fmt: skip
    row: dict[str, JSON] = {"identification": 5, "nonce": None, "ipv6": True, "care_of": [care_of]}
    home.rows = {("binding", str(HOA)): a.Persist("binding", str(HOA), row)}
    home.start()
    assert home.care_of() == [AN1] and home.care_of(HOA6) == [AN1]


def test_unreadable_or_obsolete_rows_are_removed() -> None:
    home = Home()
    home.one.register(AN3)
    home.rows["stand_in", f"{HOA} gone"] = a.Persist(
        "stand_in", f"{HOA} gone", home.rows["stand_in", f"{HOA} one"].value
    )
    home.rows["stand_in", "rubbish"] = a.Persist("stand_in", "rubbish", {})
    home.rows["rule", f"{HOA} x"] = a.Persist("rule", f"{HOA} x", {})
    home.start()
    assert home.care_of() == [AN3] and home.counts["unreadable-row"] == 2
    assert ("stand_in", f"{HOA} gone") not in home.rows


# Home addresses that come and go -------------------------------------------------------------------------------------------


def test_withdrawn_home_address_loses_everything() -> None:
    home = Home()
    home.device.register(AN1, bid=1, rules=rule(5, 10, 1))
    home.one.register(AN3)
    home.perform(home.role.withdraw(HOA, now=home.now))
    assert home.rows == {} and home.forwarding() == ({}, set(), set())
    assert home.device.register(AN1) == Code.MOBILE_NODE_FAILED_AUTHENTICATION
    assert home.role.deadline() is None and home.role.withdraw(HOA, now=home.now) == []


def test_home_address_that_is_served_from_now_on_and_changes() -> None:
    home = Home()
    home.perform(home.role.withdraw(HOA, now=home.now))
    home.perform(home.role.serve(MOBILE, now=home.now))
    assert home.care_of() == [AN3]
    home.one.register(AN3)
    home.two.register(AN4, bid=4, rules=rule(5, 10, 4))
    home.device.register(AN1)
    changed: Mobile = replace(MOBILE, default_care_of=AN2, stand_ins=STAND_INS[:1])
    home.perform(home.role.serve(changed, now=home.now))
    assert home.care_of() == [AN3] and home.sources() == {AN1, AN2, AN3}
    assert [key for key in home.rows if key[0] != "binding"] == [("stand_in", f"{HOA} one")]
    home.advance(301)
    assert home.care_of() == [AN2]


# Any order -----------------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # registrant
        st.sampled_from(("register", "brief", "cancel", "wait", "ruled", "restart")),
        st.integers(0, 3),  # where
    ),
    max_size=14,
)


@settings(max_examples=150)
@given(steps)
def test_registrants_do_not_erase_each_other(timeline: list[tuple[int, str, int]]) -> None:
    """Forwarding always matches the order of choice among the live registrants."""
    home = Home()
    until: dict[str, tuple[float, IPv4Address, bool, bool]] = {}
    for who, what, place in timeline:
        registrant, care_of = home.registrants[who], (AN1, AN2, AN3, AN4)[place]
        ruled = what == "ruled" and who > 0
        if what == "wait":
            home.advance(40)
        elif what == "restart":
            home.start()
        elif what == "cancel":
            assert registrant.cancel() == ACCEPTED
            until.pop(registrant.name, None)
        else:
            lifetime = 8 if what == "brief" else 100
            takes = Takes.RULED if ruled else Takes.ALL
            assert registrant.register(care_of, lifetime, takes=takes) == ACCEPTED
            until[registrant.name] = (home.now + lifetime, care_of, what == "brief" and who == 0, ruled)
        until = {name: end for name, end in until.items() if end[0] > home.now}
        whole = [until[name][1] for name in ("one", "two") if name in until and not until[name][3]]
        device = [until["mn"][1]] if "mn" in until and not until["mn"][2] else []
        assert home.care_of() == (list(dict.fromkeys(whole)) or device or [AN3])
        assert home.sources() == {end[1] for end in until.values()} | {AN3}
