"""A numbered stream: how long later datagrams were ahead of earlier ones."""

import pytest

from locum.lab.programs.stream import longest_overtaken


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, 0.0),
        ({0: 1.0}, 0.0),
        ({0: 1.0, 1: 1.5, 3: 1.5}, 0.0),
        ({0: 1.0, 1: 3.0, 2: 2.0, 3: 2.5}, 1.0),
        ({0: 5.0, 1: 1.0, 2: 2.0, 3: 1.5}, 4.0),
        ({2: 1.0, 1: 1.25, 0: 1.75}, 0.75),
    ],
)
def test_longest_time_behind_any_later_datagram(times: dict[int, float], expected: float) -> None:
    assert longest_overtaken(times) == expected
