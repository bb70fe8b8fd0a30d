"""Fixtures of the data plane's tests."""

import sys

import pytest


@pytest.fixture
def python() -> str:
    return sys.executable
