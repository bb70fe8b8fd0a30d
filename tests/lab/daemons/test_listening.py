"""Stock servers of a sleeping device: clients wait, are refused, or get no answer, by the port's policy."""

import subprocess
from collections.abc import Iterator

import pytest

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.patience import patient
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.world import Lab

PAGE, SCRIPT, REFUSED, SILENT = 80, 8080, 8081, 8082
PORTS = ((PAGE, "accept"), (SCRIPT, "accept"), (REFUSED, "refuse"), (SILENT, "ignore"))
LISTEN: list[Table] = [{"port": port, "while_asleep": policy} for port, policy in PORTS]
PLAN = Plan(tables={"mn": {"mobile_node": {"listen": LISTEN}}})
CURL_REFUSED, CURL_TIMEOUT = 7, 28


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("listening", tmp_path_factory.mktemp("lab"), PLAN, captures=False) as made:
        made.wait_registered()
        yield made


def url(address: object, port: int) -> str:
    return f"http://[{address}]:{port}/page" if ":" in str(address) else f"http://{address}:{port}/page"


def test_client_of_a_sleeping_server_gets_its_page_after_wake(lab: Lab) -> None:
    web = WebServer(lab.processes, "mn", lab.output / "web")
    web.start()
    page = b"what the device serves\n" * 10_000
    (web.root / "page").write_bytes(page)
    lab.processes.start(
        "mn", "http.server", ["python3", "-m", "http.server", str(SCRIPT), "-d", str(web.root)]
    )
    wait_until(
        "http.server",
        lambda: not lab.processes.run("cn", ["curl", "-sf", url(HOME_ADDRESS4, SCRIPT)]).returncode,
    )
    lab.command("mn", "sleep")
    lab.cut("an1")

    silent = lab.processes.run("cn", ["curl", "-s", "-m", "1.5", url(HOME_ADDRESS4, SILENT)])
    refused = [
        lab.processes.run("cn", ["curl", "-s", "-m", "5", url(home_address, REFUSED)])
        for home_address in (HOME_ADDRESS4, HOME_ADDRESS6)
    ]
    assert silent.returncode == CURL_TIMEOUT
    assert [client.returncode for client in refused] == [CURL_REFUSED] * 2

    targets = [(HOME_ADDRESS4, PAGE), (HOME_ADDRESS6, PAGE), (HOME_ADDRESS4, SCRIPT)]
    clients = [
        lab.processes.start(
            "cn", f"curl-{number}", ["curl", "-sf", "-m", "300", url(*target)], stdout=subprocess.PIPE
        )
        for number, target in enumerate(targets)
    ]
    wait_until("three accepted connections", lambda: accepted(lab) == 3)
    lab.crash("mnps")
    lab.restart("mnps")
    assert accepted(lab) == 3
    assert all(client.running for client in clients)
    lab.restore("an1")
    lab.command("mn", "wake")
    for client in clients:
        assert client.process.communicate(timeout=patient(30))[0] == page
        assert client.process.returncode == 0
    assert web.connections("/page") == 2
    assert not lab.sessions("mnps")
    arrived = [event for event in lab.timeline.of("mn") if event.kind == "session-arrived"]
    assert len(arrived) == 3


def accepted(lab: Lab) -> int:
    return sum(session["kind"] == "accepted" and session["total"] > 0 for session in lab.sessions("mnps"))
