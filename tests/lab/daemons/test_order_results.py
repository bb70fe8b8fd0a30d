"""Jobs of stock peers' files, ordered, done in a sleep and collected: a download from nginx, a directory for curl (A4, A5)."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs.services import sha256
from locum.lab.steps.story import web
from locum.lab.world import Lab
from tests.lab.daemons.test_orders import directory, states

SIZE = 3_000_000
PORT = "8080"


def test_ordered_jobs_are_done_in_a_sleep(tmp_path: Path) -> None:
    with Lab("order-results", tmp_path / "lab", Plan(), captures=False) as lab:
        lab.wait_registered()
        _, digests = web(lab, [("film", SIZE)], "0")
        url = f"http://{lab.topology.address4('cn')}/film"
        lab.command("mn", "order", "download", url, "--sha256", digests["film"])
        site = tmp_path / "site"
        (site / "sub").mkdir(parents=True)
        (site / "sub" / "page").write_text("first")
        lab.command("mn", "order", "publish", "site", str(site), "--port", PORT)
        sleep_until_delivered(lab)
        assert page(lab) == "first"
        lab.command("mn", "wake")
        assert states(lab) == {"film": "done", "site": "waiting"}

        home = tmp_path / "home"
        said = lab.command("mn", "order", "fetch", "film", "-o", str(home))
        assert f"{SIZE} bytes" in said and os.listdir(home) == ["film"]
        assert sha256(home / "film") == digests["film"]
        assert states(lab)["film"] == "collected" and not directory(lab, "film").exists()
        with pytest.raises(LabError, match="was collected before"):
            lab.command("mn", "order", "fetch", "film", "-o", str(home))

        (site / "sub" / "page").write_text("second")
        lab.command("mn", "order", "publish", "site", str(site), "--port", PORT)
        lab.command("mn", "sleep")
        wait_until("the second page", lambda: page(lab) == "second", 20.0)
        lab.command("mn", "wake")
        lab.command("mn", "order", "cancel", "site")
        assert not directory(lab, "site").exists() and set(states(lab)) == {"film"}
        lab.crash("mnps")
        with pytest.raises(LabError, match="was collected before"):
            lab.command("mn", "order", "fetch", "film", "-o", str(home))


def sleep_until_delivered(lab: Lab) -> None:
    """Fall asleep; returns when the stand-in has the film and serves the page."""
    lab.command("mn", "sleep")
    wait_until("the film", lambda: bool(result(lab, "film").get("done")), 30.0)
    assert (directory(lab, "film") / "film").exists()
    wait_until("the page", lambda: bool(page(lab)), 20.0)


def result(lab: Lab, order: str) -> dict[str, Any]:
    """The last result that the proxy has reported, of files that are on the disk for example; empty without one."""
    with suppress(LabError):  # it is not there yet
        return lab.ask("mnps", "app show", app=order)["result"] or {}
    return {}


def page(lab: Lab) -> str:
    """From the home address, for the correspondent's curl; empty if there is none."""
    url = f"http://{HOME_ADDRESS4}:{PORT}/sub/page"
    return lab.processes.run("cn", ["curl", "-s", "-m", "5", url], 10.0).stdout
