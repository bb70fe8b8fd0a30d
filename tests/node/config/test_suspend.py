"""The key `suspend` of [mobile_node]."""

from collections.abc import Callable
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from tests.node.test_real_nodes import MN


@pytest.mark.parametrize(("key", "followed"), [("", True), ("logind", True), ("none", False)])
def test_suspend_is_read(write: Callable[[str], Path], key: str, followed: bool) -> None:
    mobile = load(write(MN.format(common="") + (f'suspend = "{key}"\n' if key else ""))).mobile_node
    assert mobile is not None and mobile.suspend is followed


def test_wrong_suspend_is_one_line(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"suspend.*logind.*none"):
        load(write(MN.format(common="") + 'suspend = "hook"\n'))
