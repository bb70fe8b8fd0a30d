"""Configuration of triggers, probes and services: its values, and errors."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.assembly import foreign_agent, home_agent, stand_in
from locum.node.config.load import ConfigError, load
from locum.roles.foreign_agent.configuration import ProbingConfiguration

PEER = """
[control]
address = "10.0.0.1"
[[control.association]]
peer = "10.0.3.2"
sender_id = "01"
recipient_id = "02"
secret_file = "key"
"""
AGENT = """
[foreign_agent]
care_of_address = "10.0.2.1"
links = ["eth0"]
probe_interval = 0.5
probe_misses = 4
mnps = ["10.0.3.2"]
"""
STAND_IN = """
[mnps]
address = "10.0.3.2"
access_node = "10.0.3.1"
home_prefixes = ["10.36.0.0/24"]
links = ["eth0"]
[[mnps.service]]
protocol = "tcp"
port = 80
[[mnps.service]]
protocol = "udp"
port = "5060-5061"
"""
HOME = """
[home_agent]
address = "10.0.0.1"
home_prefixes = ["10.36.0.0/24"]
trigger_on_expiry = true
"""


def written(folder: Path, text: str) -> Path:
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text("00112233445566778899aabbccddeeff\n")
    file = folder / "node.toml"
    file.write_text('[node]\nname = "n"\ninterfaces = ["eth0"]\n' + text)
    return file


def test_probes_and_stand_ins_reach_the_role(tmp_path: Path) -> None:
    made = foreign_agent(load(written(tmp_path, PEER + AGENT)), lambda link: None)
    wanted = ProbingConfiguration(0.5, 4, (IPv4Address("10.0.3.2"),), 10)
    assert made.configuration.probing == wanted


def test_services_and_expiry_reach_their_roles(tmp_path: Path) -> None:
    made = stand_in(load(written(tmp_path, PEER + STAND_IN)))
    assert made.configuration.services == ((6, 80), (17, 5060), (17, 5061))
    assert home_agent(load(written(tmp_path, HOME))).configuration.trigger_on_expiry


def test_a_node_may_have_an_association_and_no_role(tmp_path: Path) -> None:
    settings = load(written(tmp_path, PEER + "may_trigger = true\n"))
    assert settings.control is not None
    assert (settings.roles, settings.control.associations[0].may_trigger) == ((), True)


@pytest.mark.parametrize(
    ("text", "table", "key", "words"),
    [
        (AGENT, "control.association", "peer", "no association with the mnps 10.0.3.2"),
        (PEER + AGENT.replace("0.5", "0.01"), "foreign_agent", "probe_interval", "0.05"),
        (PEER + AGENT.replace("= 4", "= 0"), "foreign_agent", "probe_misses", "1"),
        (PEER + STAND_IN.replace('"udp"', '"icmp"'), "mnps.service", "protocol", "tcp"),
        (PEER + STAND_IN.replace("= 80", "= 0"), "mnps.service", "port", "a port"),
        (PEER + STAND_IN.replace("5060-5061", "9-8"), "mnps.service", "port", "range"),
        (PEER + STAND_IN.replace("5060-5061", "1-65535"), "mnps.service", "port", "more than"),
        (PEER + STAND_IN.replace("port = 80", "ports = 80"), "mnps.service", "port", "missing"),
        (HOME.replace("true", "1"), "home_agent", "trigger_on_expiry", "true"),
        ("", "", None, "names no role"),
    ],
)
def test_errors_name_file_table_and_key(
    tmp_path: Path, text: str, table: str, key: str | None, words: str
) -> None:
    with pytest.raises(ConfigError) as wrong:
        load(written(tmp_path, text))
    assert wrong.value.table.startswith(table) and wrong.value.key == key
    assert words in wrong.value.problem
