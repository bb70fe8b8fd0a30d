"""Filters, translation and multicast in the configuration: results for the data plane, and refusals."""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.node.assembly import roles
from locum.node.config.load import ConfigError, load
from locum.roles.action_values.flows import (
    FilterPlace,
    FilterVerdict,
    InstallFilter,
    InstallTranslation,
    Translation,
)
from locum.roles.action_values.forwarding import AcceptTunnel, InstallOutbound
from locum.roles.actions import Action
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

FOREIGN_AGENT = """
[node]
name = "an"
interfaces = ["eth0", "wire0"]
[foreign_agent]
care_of_address = "10.0.2.1"
links = ["wire0"]
"""
STATIC = """
[[foreign_agent.static]]
home_address = "10.36.0.4"
home_address_v6 = "fd36::4"
home_agent = "10.0.0.1"
link = "wire0"
next_hop = "10.0.3.2"
next_hop_v6 = "fd03::2"
"""
FILTER = """
[[foreign_agent.filter]]
home_address = "10.36.0.4"
place = "to-visitor"
otherwise = "drop"
rules = [{ id = 1, action = "allow", protocol = "udp", destination_port = "5000-5009" }]
"""
MNPS = """
[node]
name = "standin"
interfaces = ["eth0"]
[control]
address = "10.0.3.2"
[mnps]
address = "10.0.3.2"
address_v6 = "fd03::2"
access_node = "10.0.2.1"
home_prefixes = ["10.36.0.0/24", "fd36::/64"]
links = ["eth0"]
"""
EMISSION = """
[[mnps.emission]]
home_address = "fd36::4"
rules = [{ id = 7, action = "drop", source_port = 25, protocol = "tcp" }]
"""
HOME4, HOME6 = ip_address("10.36.0.4"), ip_address("fd36::4")
LOCAL4, LOCAL6 = ip_address("10.0.3.2"), ip_address("fd03::2")
AGENT = ip_address("10.0.0.1")


@pytest.fixture
def restored(tmp_path: Path) -> Callable[[str], list[Action]]:
    """Actions of the only role of a configuration when it starts."""

    def restore(text: str) -> list[Action]:
        file = tmp_path / "node.toml"
        file.write_text(text)
        [role] = roles(load(file), lambda _link: None).values()
        return role.restore([], now=0.0)

    return restore


def translations(actions: list[Action]) -> set[Translation]:
    return {action.translation for action in actions if isinstance(action, InstallTranslation)}


def test_translation_at_the_access_node(restored: Callable[[str], list[Action]]) -> None:
    actions = restored(FOREIGN_AGENT + STATIC + "translate = true\n")
    assert translations(actions) == {Translation(HOME4, LOCAL4), Translation(HOME6, LOCAL6)}
    assert not translations(restored(FOREIGN_AGENT + STATIC))


def test_behind_a_home_agent_that_translates(restored: Callable[[str], list[Action]]) -> None:
    """Packets come for the stand-in's own address, and its answers take the reverse tunnel."""
    actions = restored(FOREIGN_AGENT + STATIC + "translated = true\n")
    assert translations(actions) == {Translation(LOCAL4, LOCAL4), Translation(LOCAL6, LOCAL6)}
    accepted = {action.acceptance.home_address for action in actions if isinstance(action, AcceptTunnel)}
    assert accepted == {HOME4, HOME6, LOCAL4, LOCAL6}
    outbound = {
        action.entry.home_address: action.entry for action in actions if isinstance(action, InstallOutbound)
    }
    assert set(outbound) == accepted
    assert (outbound[LOCAL6].link, outbound[LOCAL6].tunnel.destination) == ("wire0", AGENT)


def test_translation_at_the_stand_in(restored: Callable[[str], list[Action]]) -> None:
    actions = restored(MNPS + 'translate = ["10.36.0.4", "fd36::4"]\n')
    assert translations(actions) == {Translation(HOME4, LOCAL4), Translation(HOME6, LOCAL6)}


def test_filters(restored: Callable[[str], list[Action]]) -> None:
    [action] = [e for e in restored(FOREIGN_AGENT + STATIC + FILTER) if isinstance(e, InstallFilter)]
    found = action.filter
    assert (found.home_address, found.place) == (HOME4, FilterPlace.TO_VISITOR)
    assert found.otherwise is FilterVerdict.DROP
    [rule] = found.rules
    assert (rule.identifier, rule.verdict) == (1, FilterVerdict.ALLOW)
    assert rule.selector == Ipv4Selector(protocol=(17, 17), destination_port=(5000, 5009))
    # there is no visitor yet to police
    assert not [e for e in restored(FOREIGN_AGENT + FILTER) if isinstance(e, InstallFilter)]
    # behind a home agent that translates it has the stand-in's own address
    named = FILTER.replace("10.36.0.4", "10.0.3.2")
    actions = restored(FOREIGN_AGENT + STATIC + "translated = true\n" + named)
    assert [e.filter.home_address for e in actions if isinstance(e, InstallFilter)] == [LOCAL4]
    [action] = [e for e in restored(MNPS + EMISSION) if isinstance(e, InstallFilter)]
    assert (action.filter.home_address, action.filter.place) == (HOME6, FilterPlace.EMISSION)
    assert action.filter.rules[0].selector == Ipv6Selector(next_header=(6, 6), source_port=(25, 25))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FOREIGN_AGENT + STATIC + "translate = true\ntranslated = true\n", "translated"),
        (FOREIGN_AGENT + 'multicast_link = "wire0"\n', "is one of links"),
        (FOREIGN_AGENT + 'multicast_link = "eth7"\n', "not among interfaces"),
        (FOREIGN_AGENT + FILTER + FILTER, "two filters"),
        (FOREIGN_AGENT + FILTER.replace("to-visitor", "emission"), "place"),
        (FOREIGN_AGENT + FILTER.replace("id = 1", "id = 0"), "id"),
        (FOREIGN_AGENT + FILTER.replace('protocol = "udp"', "family = 6"), "other family"),
        (
            FOREIGN_AGENT + FILTER.replace("}]", '}, { id = 1, action = "drop" }]'),
            "two rules have one id",
        ),
        (
            FOREIGN_AGENT
            + FILTER.replace(
                "}]", "}" + "".join(f', {{ id = {n}, action = "drop" }}' for n in range(2, 66)) + "]"
            ),
            "more than 64",
        ),
        (MNPS + 'translate = ["10.77.0.4"]\n', "home_prefixes"),
        (MNPS.replace('address_v6 = "fd03::2"\n', "") + 'translate = ["fd36::4"]\n', "address_v6"),
    ],
)
def test_senseless_delivery_tables_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load(file)
