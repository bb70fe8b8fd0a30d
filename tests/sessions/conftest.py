"""One set of namespaces for the whole area, since one takes half a second to build; a world on it for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sessions.sleepworld import Network, World


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture
def world(network: Network, tmp_path: Path) -> Iterator[World]:
    made = World(network, tmp_path)
    yield made
    made.close()
