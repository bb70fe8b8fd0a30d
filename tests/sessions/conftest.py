"""One set of namespaces for the whole area; a fresh world on it would cost half a second each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sessions.sleepworld import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
