"""Ends the fork servers that a test has had started, while its event loop runs."""

from collections.abc import AsyncIterator

import pytest

from tests.node.apps.world import STANDING


@pytest.fixture(autouse=True)
async def ended() -> AsyncIterator[None]:
    yield
    for standing in STANDING:
        standing.close()
    STANDING.clear()
