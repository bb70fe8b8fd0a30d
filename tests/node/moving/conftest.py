"""A host with a system bus of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.moving.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """With the bus and logind; NetworkManager is for the test to start."""
    folder = tmp_path / "host"
    folder.mkdir()
    made = Host(folder)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.address)
    try:
        made.start_bus()
        made.start("logind")
        yield made
    finally:
        made.stop_all()
