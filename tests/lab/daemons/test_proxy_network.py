"""Proxies of a sleeping device open connections from its home address to stock servers, and serve at it (A1, A5, A11)."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.world import Lab
from tests.node.apps.world import install

SERVED, HELD, DATAGRAMS = 8080, 8081, 5000
CONTENT = os.urandom(5 << 20)


def app(name: str, **settings: Any) -> Table:
    return {"kind": "puppet", "name": name, "settings": settings}


def fetching(lab_address: object) -> Table:
    request = f"GET /file HTTP/1.1\r\nHost: {lab_address}\r\nConnection: close\r\n\r\n"
    return app("fetch", save=True, begin=[["Connect", 1, str(lab_address), 80], ["Send", 1, request]])


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    install(tmp_path, monkeypatch)
    from locum.lab.network.topology import figure_5

    cn = figure_5((), 1)
    apps = [
        fetching(cn.address4("cn")),
        {**fetching(cn.address6("cn")), "name": "fetch6"},
        app(
            "serve",
            echo=True,
            begin=[["Listen", 1, SERVED], ["Listen", 2, HELD], ["Listen", 3, DATAGRAMS, 17]],
        ),
    ]
    listen: list[Table] = [{"port": HELD, "while_asleep": "accept"}]
    plan = Plan(tables={"mn": {"mobile_node": {"app": apps, "listen": listen}}})
    with Lab("proxy-network", tmp_path / "lab", plan, captures=False) as made:
        made.wait_registered()
        yield made


def saved(lab: Lab, name: str) -> bytes:
    path = lab.place.path / "state" / "mnps" / "mnps.apps" / str(HOME_ADDRESS4) / name / "saved"
    return path.read_bytes() if path.exists() else b""


def fetched(lab: Lab, name: str) -> bool:
    return saved(lab, name).endswith(CONTENT)


def listed(lab: Lab) -> list[Any]:
    """The lists of files that proxies were given."""
    told = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
    return [detail["detail"]["files"] for detail in told if detail["event"] == "Files"]


def echoed(lab: Lab, target: str) -> bool:
    """True if the proxy there has answered within a second of the last byte."""
    command = f"printf hello | socat -t 1 - {target}"
    return lab.processes.run("cn", ["sh", "-c", command]).stdout == "hello"


def test_proxies_fetch_and_serve_at_the_home_address(lab: Lab) -> None:
    web = WebServer(lab.processes, "cn", lab.output / "web")
    web.start()
    (web.root / "file").write_bytes(CONTENT)
    lab.command("mn", "sleep")
    lab.cut("an1")
    for name in ("fetch", "fetch6"):
        wait_until(f"the file of {name}", partial(fetched, lab, name), 30)
    # The last of its listeners; each is given to the proxy when all are bound.
    bound = lambda: f"{HOME_ADDRESS4}:{DATAGRAMS}" in lab.processes.run("mnps", ["ss", "-Hlun"]).stdout  # noqa: E731
    wait_until("the proxy to listen", bound, 30)
    for target in (f"TCP4:{HOME_ADDRESS4}", f"TCP6:[{HOME_ADDRESS6}]"):
        for port in (SERVED, HELD):
            wait_until(f"the echo of {target}:{port}", partial(echoed, lab, f"{target}:{port}"), 30)
    lab.restore("an1")
    lab.command("mn", "wake")
    refused = lab.processes.run("cn", ["curl", "-s", "-m", "5", f"http://{HOME_ADDRESS4}:{SERVED}/"])
    assert refused.returncode == 7, "the proxy listens no more, and the device never did"
    before = len(saved(lab, "fetch"))
    lab.command("mn", "sleep")
    wait_until("the next sleep's list of files", lambda: [["saved", before]] in listed(lab), 30)
    lab.command("mn", "wake")
