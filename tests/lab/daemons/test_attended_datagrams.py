"""A proxy answers the datagrams of a stock program's UDP flow while its device sleeps; the program gets all of them (A1, A12)."""

from pathlib import Path

import pytest

from locum.lab.configuration import Plan, Table
from locum.lab.processes import wait_until
from locum.lab.world import Lab
from tests.lab.daemons.test_datagrams import Client
from tests.node.apps.world import install

ATTENDED = 7


def states(lab: Lab) -> list[str]:
    return [app["state"] for app in lab.ask("mnps", "app list")]


def test_proxy_answers_for_a_sleeping_socat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    app: Table = {"kind": "wayward", "name": "echo", "settings": {"way": "well"}}
    plan = Plan(tables={"mn": {"mobile_node": {"app": [app]}}})
    with Lab("attended-udp", tmp_path / "lab", plan, captures=False) as lab:
        lab.wait_registered()
        client = Client(lab, ATTENDED)
        client.server.settimeout(60)
        try:
            lab.command("mn", "sleep")
            lab.cut("an1")
            wait_until("the proxy", lambda: states(lab) == ["running"], 30)
            for word in (b"one\n", b"two\n"):
                client.server.sendto(word, client.peer)
                assert client.server.recvfrom(100) == (word.upper(), client.peer)
            lab.crash("mnps")
            lab.restart("mnps")
            client.server.sendto(b"three\n", client.peer)
            assert client.server.recvfrom(100) == (b"THREE\n", client.peer), "and nothing again"
            lab.restore("an1")
            lab.command("mn", "wake")
            assert client.heard(14) == b"one\ntwo\nthree\n"
        finally:
            client.close()
