"""The table [server], which no configuration file may have yet."""

import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from locum.node.config.load import load
from locum.node.config.server.enrolling import ServerSettings, server
from locum.node.config.toml_table import ConfigError, Table

LEAST = {
    "addresses": '["192.0.2.1"]',
    "home_prefix": '"10.20.0.0/24"',
    "transport_prefix": '"10.20.1.0/24"',
}


def read(**values: str) -> ServerSettings:
    text = "\n".join(f"{key} = {value}" for key, value in (LEAST | values).items() if value)
    return server(Table(Path("server.toml"), "server", tomllib.loads(text)))


def test_defaults() -> None:
    assert read() == ServerSettings(
        port=51820,
        addresses=("192.0.2.1",),
        home_prefix=IPv4Network("10.20.0.0/24"),
        home_prefix_v6=None,
        transport_prefix=IPv4Network("10.20.1.0/24"),
        code_seconds=900.0,
        most_devices=253,
        roll_over_seconds=30 * 86400.0,
    )


def test_every_key() -> None:
    found = read(
        port="443",
        addresses='["server.example", "2001:db8::1"]',
        home_prefix_v6='"fd12:3456:789a::/64"',
        transport_prefix='"10.30.0.0/28"',
        code_seconds="60",
        most_devices="13",
        roll_over_days="0",
    )
    assert (found.port, found.addresses) == (443, ("server.example", "2001:db8::1"))
    assert found.home_prefix_v6 == IPv6Network("fd12:3456:789a::/64")
    assert (found.code_seconds, found.most_devices, found.roll_over_seconds) == (60.0, 13, 0.0)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("port", "0", "port"),
        ("port", '"x"', "port"),
        ("addresses", "", "addresses"),
        ("addresses", "[]", "addresses: is empty"),
        ("addresses", '["Server"]', "addresses: 'Server' is no address"),
        ("addresses", '["a", "a"]', "addresses: names one address twice"),
        ("home_prefix", "", "home_prefix"),
        ("home_prefix", '"10.20.0.1/24"', "home_prefix"),
        ("home_prefix", '"10.20.0.0/30"', "home_prefix: 10.20.0.0/30 is too small"),
        ("home_prefix", '"224.0.0.0/24"', "home_prefix: 224.0.0.0/24 is not for hosts"),
        ("home_prefix", '"10.20.0.0/23"', "transport_prefix: 10.20.1.0/24 overlaps home_prefix"),
        ("transport_prefix", '"127.0.0.0/24"', "transport_prefix: 127.0.0.0/24 is not for hosts"),
        ("home_prefix_v6", "1", "home_prefix_v6"),
        ("home_prefix_v6", '"fd12::/120"', "home_prefix_v6: fd12::/120 is too small"),
        ("home_prefix_v6", '"ff02::/64"', "home_prefix_v6: ff02::/64 is not for hosts"),
        ("code_seconds", "59", "code_seconds"),
        ("code_seconds", "86401", "code_seconds"),
        ("most_devices", "0", "most_devices"),
        ("most_devices", "254", "most_devices: 254 devices need a larger prefix: there is room for 253"),
        ("roll_over_days", "3651", "roll_over_days"),
        ("address", '"192.0.2.1"', "address"),
    ],
)
def test_problem_names_its_key(key: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{key: value})
    assert str(caught.value).startswith(f"server.toml: [server] {problem}")
    assert "\n" not in str(caught.value)


def test_files_with_the_table_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[node]\nname = "server"\ninterfaces = ["eth0"]\n[server]\naddresses = ["192.0.2.1"]\n')
    with pytest.raises(ConfigError, match="server"):
        load(file)
