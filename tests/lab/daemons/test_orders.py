"""Orders with real daemons: a job runs in a sleep, its file comes back, and everything is gone at both ends afterwards (A4, C2)."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.world import Lab, locum
from locum.node.exits import Exit

CONTENT = os.urandom(5_000_000)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("orders", tmp_path_factory.mktemp("orders"), Plan(), captures=False) as lab:
        lab.wait_registered()
        yield lab


def directory(lab: Lab, name: str) -> Path:
    """Of an order's files at the stand-in."""
    return lab.place.path / "state" / "mnps" / "mnps.apps" / str(HOME_ADDRESS4) / name


def states(lab: Lab) -> dict[str, str]:
    return {row["order"]: row["state"] for row in lab.ask("mn", "order list")}


def test_wrong_order_fails_at_once(lab: Lab) -> None:
    with pytest.raises(LabError, match="order fox: kind: 'teleport' is not known to the stand-in"):
        lab.command("mn", "order", "add", "teleport", "fox", "speed=9")
    with pytest.raises(LabError, match=r"order fox: settings\.interval: a number of seconds"):
        lab.command("mn", "order", "add", "keepalive", "fox", "interval=0.1")
    assert states(lab) == {}
    with pytest.raises(LabError, match="there is no order fox"):
        lab.command("mn", "order", "cancel", "fox")


def test_order_runs_in_a_sleep_and_its_files_come_back(lab: Lab, tmp_path: Path) -> None:
    said = lab.command("mn", "order", "add", "keepalive", "ping", "interval=5")
    assert "begins when the device sleeps" in said
    assert states(lab) == {"ping": "waiting"}
    lab.command("mn", "sleep")
    assert states(lab) == {"ping": "running"}
    with pytest.raises(LabError, match="wake the device first"):
        lab.command("mn", "order", "cancel", "ping")
    assert "begins with its next sleep" in lab.command("mn", "order", "add", "log", "later")
    assert states(lab) == {"ping": "running", "later": "waiting"}
    lab.command("mn", "order", "cancel", "later")
    wait_until("the proxy to run", lambda: [row["app"] for row in lab.ask("mnps", "app list")] == ["ping"])
    lab.command("mn", "wake")
    assert states(lab) == {"ping": "waiting"}

    place = directory(lab, "ping")
    place.mkdir(parents=True)
    (place / "fox.bin").write_bytes(CONTENT)
    (place / ".hidden").write_bytes(b"under way")
    with pytest.raises(LabError, match="nothing to fetch"):
        lab.command("mn", "order", "fetch", "ping", "-o", str(tmp_path))
    # Half of it was brought before, and the network was lost.
    (tmp_path / ".fox.bin.locum-part").write_bytes(CONTENT[:2_000_000])
    code, result = fetched(lab, "ping", tmp_path, "--all")
    assert code == Exit.PARTIAL, result
    assert [row["file"] for row in result["files"]] == [str(tmp_path / "fox.bin")] and not result["failed"]
    assert (tmp_path / "fox.bin").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["fox.bin"]
    _, again = fetched(lab, "ping", tmp_path, "--all")
    assert again["files"][0]["new"] is False

    lab.crash("mn")
    lab.restart("mn")
    lab.wait_registered()
    assert states(lab) == {"ping": "waiting"}, "orders outlive the daemon"
    assert "removed" in lab.command("mn", "order", "cancel", "ping")
    assert not place.exists() and states(lab) == {}


def test_unchecked_order_fails_at_the_sleep_which_goes_on(lab: Lab, tmp_path: Path) -> None:
    lab.crash("mnps")
    for command in (["publish", "site", str(tmp_path)], ["add", "log", "x", "--send", __file__]):
        with pytest.raises(LabError, match=r"nothing is ordered, as no file could be sent: 10\.10\.23\.2"):
            lab.command("mn", "order", *command)
    assert states(lab) == {}
    command = [*locum(), "--socket", str(lab.configuration.socket("mn")), "order", "add", "teleport", "fox"]
    done = lab.processes.run("mn", command, 60.0)
    assert done.returncode == Exit.DONE and "warning: the stand-in could not check it" in done.stderr
    lab.restart("mnps")
    lab.command("mn", "sleep")
    (row,) = lab.ask("mn", "order list")
    assert row["state"] == "failed" and "order fox: kind: 'teleport' is not known" in row["reason"]
    lab.command("mn", "wake")
    lab.crash("mnps")
    said = lab.command("mn", "order", "cancel", "fox")
    assert "removed" in said and states(lab) == {}, "it never ran: nothing of it is at the stand-in"
    lab.restart("mnps")


def fetched(lab: Lab, name: str, to: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `locum order fetch`."""
    command = [*locum(), "--socket", str(lab.configuration.socket("mn")), "-j", "order", "fetch", name]
    done = lab.processes.run("mn", [*command, "-o", str(to), *options], 60.0)
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, found
