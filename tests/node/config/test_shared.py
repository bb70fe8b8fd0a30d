"""Configuration of an access node and a stand-in on one host (R17): ambiguous ones are refused."""

from typing import Any, cast

import pytest

from locum.node.assembly import roles
from locum.node.config.load import ConfigError, load
from locum.roles.foreign_agent.role import ForeignAgent

SHARED = """
[node]
name = "an"
interfaces = ["core0", "wire0"]
[control]
address = "10.0.3.2"
[foreign_agent]
care_of_address = "10.0.3.1"
links = ["wire0"]
[[foreign_agent.static]]
home_address = "10.36.0.4"
home_address_v6 = "fd36::4"
home_agent = "10.0.0.1"
link = "wire0"
next_hop = "10.0.3.2"
next_hop_v6 = "fd03::2"
[mnps]
address = "10.0.3.2"
address_v6 = "fd03::2"
access_node = "10.0.3.1"
home_prefixes = ["10.36.0.0/24", "fd36::/64"]
links = ["core0", "wire0"]
"""
REGISTERS = """mode = "register"
register_via = "colocated"
home_agent = "10.0.0.1"
[[mnps.mobile]]
home_address = "10.36.0.5"
spi = 1100
key_file = "key"
bid = 3
"""


@pytest.mark.parametrize(("next_hop", "here"), [("10.0.3.2", True), ("10.0.3.9", False)])
def test_the_agent_knows_the_stand_in_of_its_host(write: Any, next_hop: str, here: bool) -> None:
    text = SHARED.replace('next_hop = "10.0.3.2"\n', f'next_hop = "{next_hop}"\n')
    made = cast(ForeignAgent, roles(load(write(text)), lambda _: None)["foreign_agent"])
    assert [visitor.here for visitor in made.static_visitors()] == [here]


def test_stand_in_preconfigured_and_registering_for_two_devices(write: Any) -> None:
    settings = load(write(SHARED + REGISTERS))
    assert settings.mnps is not None and len(settings.mnps.devices) == 1
    load(write((SHARED + REGISTERS).replace('"colocated"', '"fa"')))  # another agent may be heard on core0
    load(write(SHARED.replace('address = "10.0.3.2"\naddress_v6', 'address = "10.0.3.1"\naddress_v6')))


@pytest.mark.parametrize(
    ("old", "new", "table", "key", "words"),
    [
        ('address = "10.0.3.2"\naddress_v6', 'address = "10.0.3.1"\naddress_v6', "mnps", "address",
         "care_of_address"),
        ('"colocated"', '"fa"', "mnps", "register_via", '"colocated"'),
        ('next_hop_v6 = "fd03::2"', 'next_hop_v6 = "fd03::3"', "foreign_agent.static #1", "next_hop_v6",
         "address_v6"),
        ('home_address = "10.36.0.5"', 'home_address = "10.36.0.4"', "foreign_agent.static #1", "home_address",
         "registers"),
    ],
)  # fmt: skip
def test_ambiguous_shared_hosts_are_refused(
    write: Any, old: str, new: str, table: str, key: str, words: str
) -> None:
    text = (SHARED + REGISTERS).replace('links = ["core0", "wire0"]', 'links = ["wire0"]')
    load(write(text))
    assert old in text
    with pytest.raises(ConfigError) as caught:
        load(write(text.replace(old, new)))
    assert (caught.value.table, caught.value.key) == (table, key), caught.value
    assert words in str(caught.value)
