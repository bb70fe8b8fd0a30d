"""The configuration of a role comes whole from the reader of its table: a new key is named there and in the role.

A key that `assembly.py` names again, or a field of a configuration that no reader sets, fails here.
"""

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

import pytest

from locum.node.assembly import limits, roles, visitors_room
from locum.node.config.load import load
from locum.roles.foreign_agent.configuration import (
    ForeignAgentConfiguration,
    ProbingConfiguration,
    ReportingConfiguration,
    StaticVisitor,
)
from locum.roles.foreign_agent.filter_room import filter_places
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import (
    HomeAgentConfiguration,
    ProfileHomesConfiguration,
    TraversalPolicy,
)
from locum.roles.location.configuration import LocationConfiguration, NamedDevice
from locum.roles.mnps.configuration import (
    Quota,
    StandInConfiguration,
    StandInRegistrationConfiguration,
    StoodInFor,
)
from locum.roles.registrant.configuration import MobileNodeConfiguration
from tests.node.config.test_load import ALL
from tests.test_imports import SOURCE

CONFIG, ASSEMBLY = SOURCE / "node" / "config", SOURCE / "node" / "assembly.py"

# Reader of a table, and the values of a role that it makes.
READERS: dict[str, tuple[type, ...]] = {
    "home_agent.py": (HomeAgentConfiguration, TraversalPolicy, ProfileHomesConfiguration, Mobile),
    "foreign_agent.py": (
        ForeignAgentConfiguration,
        ProbingConfiguration,
        ReportingConfiguration,
        StaticVisitor,
    ),
    "location.py": (LocationConfiguration, NamedDevice),
    "mnps.py": (StandInConfiguration, StandInRegistrationConfiguration, Quota, StoodInFor),
    "mobile_node.py": (MobileNodeConfiguration,),
}
# Facts of the host or of this boot, which `assembly.py` puts into a configuration.
OF_THE_HOST = {"links", "listening", "boot", "located", "own", "room", "filter_room"}
# Keys of associations and servers from other tables of the file, which `assembly.py` joins with a role's own.
OF_OTHER_TABLES = {"policy_server", "sealing", "directed"}
# Set by the role itself or in tests; no key changes them.
WITHOUT_KEY = {"colocated_home_agent", "on_behalf", "unread_beyond", "unread_beyond_total"}


def names(configuration: type) -> list[str]:
    assert is_dataclass(configuration)
    return [field.name for field in fields(configuration)]


def calls(tree: ast.AST) -> Iterator[tuple[str, list[str], int]]:
    """Name, keywords and number of positional arguments of every call of a plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, [keyword.arg for keyword in node.keywords if keyword.arg], len(node.args)


def set_by_reader(file: str, configuration: type) -> set[str]:
    """The fields of a configuration that its reader sets, by keyword or position, or later by `replace`."""
    given: set[str] = set()
    for name, keywords, positional in calls(ast.parse((CONFIG / file).read_text())):
        if name == configuration.__name__:
            given |= {*keywords, *names(configuration)[:positional]}
        elif name == "replace":
            given |= {*keywords}
    return given


@pytest.mark.parametrize(
    ("file", "configuration"), [(file, reader) for file, made in READERS.items() for reader in made]
)
def test_every_field_is_set_by_the_reader_of_its_table(file: str, configuration: type) -> None:
    missing = set(names(configuration)) - set_by_reader(file, configuration)
    assert missing <= WITHOUT_KEY | OF_THE_HOST | OF_OTHER_TABLES, f"{configuration.__name__} of {file}"


def named_fields(source: str) -> set[str]:
    """Fields of a configuration that a piece of source reads, or sets by keyword."""
    named = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Attribute(attr="configuration") | ast.Name(id="configuration")):
                named.add(node.attr)
            case ast.Call(func=ast.Name(id=name)) if name != "Limits":  # of [node], for the data plane
                named |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return named


def test_assembly_names_no_field_that_comes_from_a_key() -> None:
    fields_of_roles = {name for made in READERS.values() for reader in made for name in names(reader)}
    of_links = {"address", "prefix_length"}  # of an access link, as the host has them
    found = named_fields(ASSEMBLY.read_text()) & fields_of_roles - OF_THE_HOST - OF_OTHER_TABLES - of_links
    assert not found, "read the key into the role's configuration, in node/config"


@pytest.mark.parametrize(
    "line",
    [
        "HomeAgentConfiguration(max_lifetime=own.configuration.max_lifetime)",
        "configuration.lifetime",
        "replace(own.configuration, challenge=True)",
    ],
)
def test_the_check_finds_a_field_that_is_named_again(line: str) -> None:
    assert named_fields(line) & {"max_lifetime", "lifetime", "challenge"}


def test_roles_get_the_configuration_that_was_read(write: Any) -> None:
    settings = load(write(ALL))
    made: dict[str, Any] = roles(settings, lambda _link: None)
    assert settings.home_agent is not None and settings.mnps is not None
    assert settings.foreign_agent is not None
    home, foreign = made["home_agent"].configuration, made["foreign_agent"].configuration
    stand_in = made["mnps"].configuration
    assert home == replace(
        settings.home_agent.configuration, room=home.room, policy_server=home.policy_server
    )
    assert stand_in == replace(settings.mnps.configuration, sealing=stand_in.sealing)
    assert foreign == replace(
        settings.foreign_agent.configuration, room=foreign.room, filter_room=foreign.filter_room
    )


def test_roles_have_no_more_room_than_the_tables(write: Any) -> None:
    """All that they may promise fits into the data plane together, whatever other roles the host plays."""
    settings = load(write(ALL))
    sizes = limits(settings).sizes()
    made: dict[str, Any] = roles(settings, lambda _link: None)
    home, visitors = made["home_agent"].configuration.room, made["foreign_agent"].configuration.room
    taken = settings.visited_addresses
    assert home.bindings + taken <= sizes["bindings"]
    assert home.acceptances + 2 * taken <= sizes["acceptances"]
    assert home.extended <= sizes["binding_more"] and home.large_rules < sizes["rules_many"]
    assert home.small_rules < sizes["rules_few"] and home.rule_counters < sizes["rule_count"]
    assert home.ruled <= sizes["rules"], "small and large sets of rules are in one table"
    assert 2 * visitors + settings.static_addresses <= sizes["outbound"]
    filters_of_visitors = made["foreign_agent"].configuration.filter_room
    emitted = filter_places(settings.mnps.configuration.emission)  # type: ignore[union-attr]
    assert 0 < filters_of_visitors.large + emitted.large < sizes["filters_many"]
    counters = home.rule_counters + filters_of_visitors.counters + emitted.counters
    assert counters < sizes["rule_count"] and filters_of_visitors.counters > 0
    policed = replace(settings, policy=cast(Any, object()))  # profiles bring filters
    filters = 3  # of a home address: to it, from it, and of what a stand-in emits for it
    assert 0 < filters * (2 * visitors_room(policed) + settings.static_addresses) <= sizes["filters"]
