"""Fast paging over real nodes: the SYN that pages is answered before the device asks for its full registration (P10, P17)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.lab.captures.pcap import ACK, SYN, datagrams, segments
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.world import Lab
from locum.wire.mobile_ip.registration import RegistrationRequest

HOME, PORT, BRIEF = str(HOME_ADDRESS4), 80, 3
UDP, REQUEST = 17, 1
REGISTRATION = b"\x01\xb2"  # port 434


def plan(forwarding: str) -> Plan:
    return Plan(
        short_lifetime=BRIEF,
        associations=(Pair("ha", "an1"), Pair("ha", "an2")),
        tables={
            "ha": {"home_agent": {
                "page_seconds": 60.0, "page_forwarding": forwarding,
                "mobile": {"rule": [
                    {"id": 7, "priority": 7, "action": "page", "protocol": "tcp", "destination_port": PORT},
                ]},
            }},
        },
    )  # fmt: skip


@pytest.fixture(params=["before", "with"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with Lab("fast", tmp_path, plan(request.param)) as made:
        made.wait_registered()
        yield made


def test_syn_is_answered_before_the_registration(lab: Lab) -> None:
    web = WebServer(lab.processes, "mn", lab.output / "web")
    web.start()
    (web.root / "page").write_bytes(b"what the device serves\n")
    lab.command("mn", "sleep")
    wait_until("the rule to be in force", lambda: lab.flow_rules()[0]["live"] == [4, 6], 20.0)
    got = lab.processes.run("cn", ["curl", "-sf", "-m", "60", f"http://{HOME}:{PORT}/page"], 90.0)
    assert (got.returncode, got.stdout) == (0, "what the device serves\n")
    wait_until("the device", lambda: lab.ask("mn", "status")["mobile_node"]["state"] == "awake", 30.0)
    changed = [event.detail for event in lab.timeline.of("ha") if event.kind == "forwarding-changed"]
    assert [detail["to"] for detail in changed] == [str(lab.configuration.care_of("an1")), "binding"]
    lab.finish()
    files = lab.captures.files
    answered = [
        one.time
        for one in segments(files["mn"])
        if one.outgoing and one.flags & (SYN | ACK) == SYN | ACK and one.source_port == PORT
    ]
    asked = requests(files["mn"])
    brief = max(time for time, lifetime in asked if lifetime <= BRIEF)
    full = [time for time, lifetime in asked if lifetime > BRIEF and time > brief]
    assert answered and full and answered[0] < full[0], "by its first SYN, before the full registration"
    opened = [
        sum(
            one.flags & (SYN | ACK) == SYN and one.destination_port == PORT and one.outgoing is outgoing
            for one in segments(files[node])
        )
        for node, outgoing in (("cn", True), ("mn", False))
    ]
    assert opened[0] == opened[1] >= 1, "each once"


def requests(file: Path) -> list[tuple[float, int]]:
    """Times and lifetimes of the registration requests that a node sent."""
    found = []
    for one in datagrams(file):
        if one.protocol == UDP and one.outgoing and one.transport[2:4] == REGISTRATION:
            payload = one.transport[8:]
            if payload[:1] == bytes((REQUEST,)):
                found.append((one.time, RegistrationRequest.decode(payload).lifetime))
    return found
