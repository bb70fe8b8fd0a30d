"""The table [location], and the keys of those who report to a location server."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from locum.node.config.settings import Settings
from locum.roles.location.configuration import MAX_ENTRIES, MAX_LIFETIME, LocationConfiguration, NamedDevice

NODE = '[node]\nname = "ls"\ninterfaces = ["eth0"]\n'
CONTROL = '[control]\naddress = "198.51.100.3"\n'
ASSOCIATION = '[[control.association]]\npeer = "192.0.2.1"\nsender_id = "01"\nrecipient_id = "02"\nsecret_file = "key"\n'
WHOLE = """[location]
access_nodes = ["192.0.2.1"]
clients = ["198.51.100.2"]
max_lifetime = 100
max_entries = 5
[[location.device]]
home_address = "203.0.113.4"
node_id = "mn@example.org"
sip_uris = ["sip:me@example.org"]
"""
HOME = '[home_agent]\naddress = "198.51.100.3"\nhome_prefixes = ["203.0.113.0/24"]\n'
STAND_IN = '[mnps]\naddress = "192.0.2.9"\naccess_node = "192.0.2.8"\nhome_prefixes = ["203.0.113.0/24"]\nlinks = ["eth0"]\n'
FOREIGN = '[foreign_agent]\ncare_of_address = "192.0.2.9"\nlinks = ["eth0"]\n'


@pytest.fixture
def read(tmp_path: Path) -> "Reader":
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("00112233445566778899aabbccddeeff\n")
    return Reader(tmp_path / "ls.toml")


class Reader:
    """Reads a text as a configuration file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, *parts: str) -> Settings:
        self.file.write_text("".join(parts))
        return load(self.file)


def test_whole_table(read: Reader) -> None:
    settings = read(NODE, CONTROL, ASSOCIATION, WHOLE)
    assert settings.roles == ("location",)
    assert settings.location is not None
    assert settings.location.configuration == LocationConfiguration(
        frozenset((ip_address("192.0.2.1"),)),
        frozenset((ip_address("198.51.100.2"),)),
        (NamedDevice(ip_address("203.0.113.4"), "mn@example.org", ("sip:me@example.org",)),),
        100,
        5,
    )


def test_empty_table_has_defaults(read: Reader) -> None:
    settings = read(NODE, CONTROL, "[location]\n")
    assert settings.location is not None
    configuration = settings.location.configuration
    assert (configuration.max_lifetime, configuration.max_entries) == (MAX_LIFETIME, MAX_ENTRIES)


def test_reporters_need_an_association_or_the_own_address(read: Reader) -> None:
    told = 'location_server = "198.51.100.3"\n'
    settings = read(NODE, CONTROL, FOREIGN, told, "[location]\n")
    assert settings.foreign_agent is not None
    reporting = settings.foreign_agent.configuration.reporting
    assert reporting.server == reporting.own == ip_address("198.51.100.3")
    settings = read(NODE, CONTROL, ASSOCIATION, FOREIGN, 'location_server = "192.0.2.1"\n')
    with pytest.raises(
        ConfigError, match=r"\[foreign_agent\] location_server: no association with 198.51.100.3"
    ):
        read(NODE, CONTROL, FOREIGN, told)


def test_askers_need_an_association_or_the_own_address(read: Reader) -> None:
    server = 'location_server = "198.51.100.3"\n'
    settings = read(NODE, CONTROL, HOME, server, STAND_IN, server, "[location]\n")
    assert settings.home_agent is not None and settings.mnps is not None
    used = [role.configuration.location_server for role in (settings.home_agent, settings.mnps)]
    assert used == [ip_address("198.51.100.3")] * 2
    read(NODE, CONTROL, ASSOCIATION, HOME, server.replace("198.51.100.3", "192.0.2.1"))
    for name, table in (("home_agent", HOME), ("mnps", STAND_IN)):
        with pytest.raises(
            ConfigError, match=rf"\[{name}\] location_server: no association with 198.51.100.3"
        ):
            read(NODE, CONTROL, table, server)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("max_lifetime = 100", "max_lifetime = 0"), r"\[location\] max_lifetime: 0 is not"),
        (("max_entries = 5", "max_entries = 0"), r"\[location\] max_entries: 0 is not"),
        (('["192.0.2.1"]', '["x"]'), r"\[location\] access_nodes"),
        (("clients", "client"), r"\[location\] client: is not known; did you mean clients"),
        (('"mn@example.org"', f'"{"x" * 254}"'), r"\[location.device #1\] node_id: has more than 253"),
        (
            ('"sip:me@example.org"', '"mailto:me@example.org"'),
            r"\[location.device #1\] sip_uris: .* is no SIP URI",
        ),
        (
            ('"sip:me@example.org"', '"sip:a@b", "sip:a@b"'),
            r"\[location.device #1\] sip_uris: names one URI twice",
        ),
        (
            ('"sip:me@example.org"', ", ".join(f'"sip:{number}@b"' for number in range(9))),
            r"\[location.device #1\] sip_uris: names more than 8",
        ),
        (("home_address = ", "home_adress = "), r"\[location.device #1\] home_address: is missing"),
        (
            ("sip_uris", '[[location.device]]\nhome_address = "203.0.113.4"\nsip_uris'),
            r"\[location\] device: two tables have one home_address",
        ),
        (
            ('node_id = "mn@example.org"\nsip_uris = ["sip:me@example.org"]', ""),
            r"\[location.device #1\] node_id: is missing, and sip_uris too",
        ),
    ],
)
def test_errors_name_the_place(read: Reader, changed: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(NODE, CONTROL, ASSOCIATION, WHOLE.replace(*changed))


def test_location_server_alone_needs_control(read: Reader) -> None:
    with pytest.raises(ConfigError, match=r"\[control\]: is missing; \[location\] is asked over CoAP"):
        read(NODE, "[location]\n")
