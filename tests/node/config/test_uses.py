"""Keys of [mobile_node] about programs that use the home address."""

from collections.abc import Callable
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from locum.node.config.uses.traffic import Traffic, UsesSettings
from tests.node.test_real_nodes import MN


def loaded(write: Callable[[str], Path], keys: str) -> UsesSettings:
    """The settings of a device with these keys."""
    mobile = load(write(MN.format(common="") + keys)).mobile_node
    assert mobile is not None
    return mobile.uses


def test_a_device_without_keys_is_as_before(write: Callable[[str], Path]) -> None:
    assert loaded(write, "") == UsesSettings(Traffic.BOUND, ipv6_around=False)
    assert not loaded(write, "").led


@pytest.mark.parametrize("value", ["all", "run"])
def test_traffic_is_read(write: Callable[[str], Path], value: str) -> None:
    found = loaded(write, f'traffic = "{value}"\nipv6_around = true\n')
    assert found.led and found.ipv6_around and found.traffic is Traffic(value)


def test_wrong_traffic_is_one_line(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"traffic.*all.*run.*bound"):
        loaded(write, 'traffic = "some"\n')
    with pytest.raises(ConfigError, match="ipv6_around: is for traffic"):
        loaded(write, "ipv6_around = true\n")
