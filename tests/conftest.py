"""For all tests: no deadline for properties, since the machine may be busy; which tests share a worker, and their order.

A run draws the same examples every time, so that its result depends on the change and not on luck. New examples are
looked for with HYPOTHESIS_PROFILE=explore, as `make test-all` does.

`make test` runs three workers. The tests of a file stay on one worker, since they may share a fixture that takes seconds
to build. Each scenario of the lab is a group of its own. The longest groups start first, so that all workers end at
about the same time.
"""

import os

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile(
    "locum", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "explore", parent=settings.get_profile("locum"), derandomize=False, max_examples=400
)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a third of the time that a daemon takes to start
os.environ.setdefault("LOCUM_LAB_PATIENCE", "6")  # before the lab is imported; it is a factor on waits

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "locum"))

ONE_BY_ONE = frozenset({"lab/test_scenarios.py"})
"""Files whose tests share nothing: each test may run on either worker."""

LONGEST = (
    "lab/daemons/test_mobile_restart.py",
    "kernels/test_debian_kernel.py",
    "lab/",
    "test_packaging.py",
    "node/",
    "sessions/",
    "dataplane/",
)
"""Beginnings of the names of groups, in the order of their start; the others follow."""

LONGEST_WORD = 16
"""Bytes of a parameter that a test's name may contain."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-all` reads whole captures; `make test` saves the time."""
    parser.addoption(
        "--whole-captures",
        action="store_true",
        help="look for malformed packets among all packets of a scenario, not only among control packets",
    )


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """The name of a parameter for bytes that are no word: they may have the time of day in them, and workers compare names."""
    return argname if isinstance(val, bytes) and len(val) > LONGEST_WORD else None


def group_of(nodeid: str) -> str:
    """The group of a test; tests of one group run on one worker, one after the other."""
    file = nodeid.partition("::")[0].removeprefix("tests/")
    return nodeid if file in ONE_BY_ONE else file


def rank(nodeid: str) -> int:
    """The place of a test's file in LONGEST."""
    file = nodeid.removeprefix("tests/")
    return next((at for at, start in enumerate(LONGEST) if file.startswith(start)), len(LONGEST))


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives each worker whole groups.

    Marks of `--dist loadgroup` would not do: pytest-xdist 3.8 writes them into names of tests, pytest 9 ignores that.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """The scheduler of every run with workers. It keeps the order of the tests."""
    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long groups first. Does nothing in a run without workers."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: rank(item.nodeid))
