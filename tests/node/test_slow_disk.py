"""A real home agent whose disk is slow or full: it goes on, and answers only written registrations.

A preloaded library keeps the daemon's syncs waiting while a file exists.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from locum.node.control.client import NodeRefused
from tests.node.conftest import Namespace
from tests.node.test_home_agent_flows import FLAGS, Site
from tests.roles.homeworld import ACCEPTED, AN1, AN2, HA, HOA

AT_ONCE = 4.0  # seconds, on a busy machine; what waits for the disk waits for the end of the block


class DiskSite(Site):
    """The home agent of test_home_agent_flows on a disk of its own, of one megabyte."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace], stack: ExitStack) -> None:
        self.disk, self.held, self.shim = folder / "state", folder / "held", folder / "shim.so"
        source = Path(__file__).with_name("disk_shim.c")
        subprocess.run(["clang", "-shared", "-fPIC", "-O2", "-o", self.shim, source], check=True)
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(self.disk)], check=True)
        stack.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
        super().__init__(folder, make, stack)

    def start(self) -> None:
        command = [sys.executable, "-m", "locum", "node", "run", str(self.folder / "ha.toml")]
        self.daemon = subprocess.Popen(
            ["nsenter", f"--net={self.ha.path}", *command],
            stderr=(self.folder / "ha.err").open("ab"),
            env={**os.environ, "LD_PRELOAD": str(self.shim), "LOCUM_TEST_DISK": str(self.held)},
        )
        self.until_ready()

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """No sync ends within the block."""
        self.held.touch()
        try:
            yield
        finally:
            self.held.unlink()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """The disk has no byte left within the block."""
        with (self.disk / "junk").open("wb", buffering=0) as junk, pytest.raises(OSError, match="No space"):
            while True:
                junk.write(bytes(4096))
        try:
            yield
        finally:
            (self.disk / "junk").unlink()

    def ask_for(self, message: bytes) -> None:
        """Send a registration request; its answer is awaited by `answered`."""
        self.signalling.sendto(message, (str(HA), 434))

    def answered(self, patience: float) -> bool:
        self.signalling.settimeout(patience)
        try:
            self.signalling.recv(2048)
        except TimeoutError:
            return False
        finally:
            self.signalling.settimeout(20)
        return True

    def goes_on(self) -> bool:
        """True if the control socket answers at once."""
        began = time.monotonic()
        self.ask("status")
        return time.monotonic() - began < AT_ONCE

    def bound(self) -> list[str]:
        """Care-of addresses that are registered."""
        return [
            care_of["address"]
            for row in self.ask("binding list")
            for care_of in row["care_of"]
            if care_of["registrant"] is not None
        ]

    def rows(self) -> int:
        """Rows of bindings that are written."""
        with closing(sqlite3.connect(self.disk / "ha.db")) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM entry WHERE collection IN ('home_agent.binding', 'home_agent.stand_in')"
            ).fetchone()
        return int(count)

    def complaints(self) -> str:
        return (self.folder / "ha.err").read_text()


@pytest.fixture
def site(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[DiskSite]:
    with ExitStack() as stack:
        yield DiskSite(tmp_path, namespace, stack)


def test_slow_sync_delays_answers_and_nothing_else(site: DiskSite) -> None:
    with site.slow():
        site.ask_for(site.device.request(AN1, 300, **FLAGS))
        assert not site.answered(0.5)
        assert all(site.goes_on() for _ in range(5))
        site.ask_for(site.one.request(AN2, 300, **FLAGS))
        assert not site.answered(0.5)
        assert site.goes_on()
    assert site.answered(20) and site.answered(20)
    assert site.bound() == [str(AN1), str(AN2)]
    assert "Traceback" not in site.complaints(), site.complaints()


def test_answer_survives_kill_and_unwritten_one_never_leaves(site: DiskSite) -> None:
    assert site.device.register(AN1, **FLAGS) == ACCEPTED
    site.daemon.kill()
    site.daemon.wait()
    site.start()
    assert site.bound() == [str(AN1)]
    with site.slow():
        site.ask_for(site.one.request(AN2, 300, **FLAGS))
        assert not site.answered(0.5)
        site.daemon.kill()
        site.daemon.wait()
    assert not site.answered(0.3)
    site.start()
    assert str(AN1) in site.bound()
    assert site.one.register(AN2, **FLAGS) == ACCEPTED
    assert "Traceback" not in site.complaints(), site.complaints()


def test_commands_are_answered_when_they_are_stored(site: DiskSite) -> None:
    """A crash takes back nothing that a person was told."""
    assert site.device.register(AN1, **FLAGS) == ACCEPTED
    rule = {"priority": 5, "action": "drop", "protocol": "tcp", "destination_port": 80}
    with ThreadPoolExecutor(1) as person:
        with site.slow():
            adding = person.submit(site.ask, "flow add", home_address=str(HOA), rule=rule)
            assert not wait([adding], 0.5).done
            assert site.goes_on()
        made = adding.result(60)["id"]
        with site.slow():
            removing = person.submit(site.ask, "flow remove", home_address=str(HOA), id=made)
            assert not wait([removing], 0.5).done
        assert removing.result(60)["id"] == made
    with site.full(), pytest.raises(NodeRefused, match="it is done, but lost when this daemon ends"):
        for number in range(200):  # the log takes some, in the room that it has
            site.ask("flow add", home_address=str(HOA), rule={**rule, "destination_port": 81 + number})
    site.ask("binding revoke", home_address=str(HOA))
    site.daemon.kill()
    site.daemon.wait()
    site.start()
    assert not site.bound()


def test_rows_queued_at_the_end_are_written(site: DiskSite) -> None:
    with site.slow():
        site.ask_for(site.device.request(AN1, 300, **FLAGS))
        site.ask_for(site.one.request(AN2, 300, **FLAGS))
        assert not site.answered(0.5)
        site.daemon.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            site.daemon.wait(1)
    assert site.daemon.wait(20) == 0, site.complaints()
    assert site.rows() == 2
    site.start()
    assert site.bound() == [str(AN1), str(AN2)]
    assert "Traceback" not in site.complaints(), site.complaints()


def test_full_disk_keeps_answers_back_until_it_has_room(site: DiskSite) -> None:
    with site.full():
        for _ in range(200):  # the log takes some, in the room that it has
            site.ask_for(site.device.request(AN1, 300, **FLAGS))
            if not site.answered(0.3):
                break
        else:
            pytest.fail("the disk is never full")
        assert site.goes_on()
        failed = [
            event["detail"]["reason"]
            for event in map(json.loads, (site.folder / "ha.jsonl").read_text().splitlines())
            if event["kind"] == "action-failed"
        ]
        assert failed and "cannot be written" in failed[0], failed
    assert site.one.register(AN2, **FLAGS) == ACCEPTED
    site.daemon.kill()
    site.daemon.wait()
    site.start()
    assert site.bound() == [str(AN1), str(AN2)]
    assert "Traceback" not in site.complaints(), site.complaints()
