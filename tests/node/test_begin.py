"""A home agent that starts slowly: messages wait, and stored bindings are known when they are read."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.test_home_agent_flows import FLAGS, Site
from tests.roles.homeworld import ACCEPTED, AN1, AN2, AN3

# The sockets of registrations are bound, roles are not there yet; as on a busy machine, only longer.
SLOW = """
import asyncio, sys
from pathlib import Path
from locum.node import daemon
from locum.node.coap.exchanges import Exchanges
opened = Exchanges.open
async def slowly(self):
    await opened(self)
    print("bound", flush=True)
    await asyncio.sleep(1)
Exchanges.open = slowly
sys.exit(daemon.run(Path(sys.argv[1])))
"""


@pytest.fixture
def site(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, namespace, stack)


def begin_slowly(site: Site) -> None:
    """The daemon is killed and starts again; returns when its sockets are bound, before it reads them."""
    site.daemon.kill()
    site.daemon.wait()
    command = [sys.executable, "-c", SLOW, str(site.folder / "ha.toml")]
    site.daemon = subprocess.Popen(["nsenter", f"--net={site.ha.path}", *command], stdout=subprocess.PIPE)
    assert site.daemon.stdout is not None
    assert site.daemon.stdout.readline() == b"bound\n"


def test_registration_before_the_roles_exist(site: Site) -> None:
    begin_slowly(site)
    assert site.device.register(AN1, **FLAGS) == ACCEPTED
    site.until_ready()
    assert site.where(5000) == {5000: str(AN1)}
    assert site.comes_back(AN1)


def test_a_registration_while_another_is_still_to_be_restored(site: Site) -> None:
    """A stand-in's, which stays; and the device's, which the request replaces."""
    assert site.device.register(AN1, **FLAGS) == ACCEPTED
    assert site.one.register(AN3, **FLAGS) == ACCEPTED
    begin_slowly(site)
    assert site.device.register(AN2, **FLAGS) == ACCEPTED
    site.until_ready()
    assert site.where(5000) == {5000: str(AN3)}
    (row,) = site.ask("binding list")
    assert [(care_of["address"], care_of["registrant"]) for care_of in row["care_of"]] == [
        (str(AN2), "mn"),
        (str(AN3), "one"),
    ]
    assert site.one.cancel(**FLAGS) == ACCEPTED
    assert site.where(5000) == {5000: str(AN2)} and not site.comes_back(AN1, 0.3)
