"""UDP flows of a sleeping device are kept alive: SIP OPTIONS with stock sipp in both directions, and a NAT's mapping (A3)."""

import subprocess
from pathlib import Path

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab

SIP, HERE, NAT = 5060, 5062, 4500
QUESTIONS = 3
ORDERS: list[Table] = [
    {
        "kind": "keepalive",
        "name": "sip",
        "settings": {
            "transport": "udp",
            "protocol": "sip",
            "ports": [SIP],
            "interval": 1.5,
            "on_data": "event",
        },
    },
    {
        "kind": "keepalive",
        "name": "nat",
        "settings": {"transport": "udp", "payload_hex": "ff", "ports": [NAT], "interval": 1},
    },
]
ANSWERS = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="answers"><recv request="OPTIONS"/><send><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send></scenario>
"""
ASKS = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="asks"><send retrans="500"><![CDATA[

OPTIONS sip:ann@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:pbx@[local_ip]>;tag=[call_number]
To: <sip:ann@[remote_ip]>
Call-ID: [call_id]
CSeq: 102 OPTIONS
Contact: <sip:pbx@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Length: 0

]]></send><recv response="200"/></scenario>
"""


def sipp(lab: Lab, name: str, scenario: str, *options: str) -> Program:
    """At the correspondent; its exit status is 0 when everything went as the scenario says."""
    path = lab.output / f"{name}.xml"
    path.write_text(scenario)
    here = str(lab.topology.address4("cn"))
    own = ("-sf", str(path), "-i", here, "-p", str(SIP), "-m", str(QUESTIONS), "-nostdin", "-timeout", "60s")
    return lab.processes.start("cn", name, ["sipp", *options, *own, "-timeout_error", "-deadcall_wait", "0"])


def socat(lab: Lab, name: str, port: int, here: int) -> Program:
    """A program of the device with a connected socket."""
    there = f"UDP4:{lab.topology.address4('cn')}:{port},bind={HOME_ADDRESS4}:{here}"
    program = lab.processes.start("mn", name, ["socat", "-", there], stdin=subprocess.PIPE)
    wait_until(f"{name} to have its socket", lambda: _has_port(lab, here))
    return program


def _has_port(lab: Lab, port: int) -> bool:
    return f":{port} " in lab.processes.run("mn", ["ss", "-Hun"]).stdout


# Between two runs of sipp its host would say that nobody is there, and the program would be told.
SILENT = (
    "add table ip quiet; add chain ip quiet out { type filter hook output priority 0; };"
    "add rule ip quiet out icmp type destination-unreachable drop"
)


@pytest.mark.exhaustive
def test_sip_and_nat_keepalives_over_udp(tmp_path: Path) -> None:
    plan = Plan(tables={"mn": {"mobile_node": {"app": ORDERS}}})
    with Lab("udp-keepalive", tmp_path / "lab", plan, captures=False) as lab:
        lab.wait_registered()
        assert lab.processes.run("cn", ["nft", SILENT]).returncode == 0
        heard = lab.processes.start("cn", "nat", ["socat", "-u", f"UDP4-RECV:{NAT}", "OPEN:/dev/stdout"])
        telephone = socat(lab, "telephone", SIP, HERE)
        wait_until("port", lambda: f":{NAT} " in lab.processes.run("cn", ["ss", "-Huln"]).stdout)
        tunnel = socat(lab, "tunnel", NAT, NAT)
        answers = sipp(lab, "answers", ANSWERS)
        lab.command("mn", "sleep")
        lab.cut("an1")
        assert answers.wait(60) == 0, answers.complaint()
        asks = sipp(lab, "asks", ASKS, f"{HOME_ADDRESS4}:{HERE}", "-r", "2")
        assert asks.wait(60) == 0, asks.complaint()

        def bytes_of_nat() -> int:
            return heard.log.read_bytes().count(b"\xff")

        before = bytes_of_nat()
        wait_until("keep-alives of one byte", lambda: bytes_of_nat() > before + 2, 30)
        lab.restore("an1")
        lab.command("mn", "wake")
        after = bytes_of_nat()
        wait_until("the questions in the program", lambda: "OPTIONS" in telephone.log.read_text(), 30)
        assert telephone.running and tunnel.running
        assert bytes_of_nat() <= after + 1, "nothing is said for a device that is awake"
        told = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
        assert [detail["event"] for detail in told if detail["app"] == "sip"] == [], (
            "all of it was questions and answers"
        )
        results = {
            event.detail["app"]: event.detail["result"]
            for event in lab.timeline.of("mn")
            if event.kind == "app-result"
        }
        assert min(results["sip"]["answered"].values()) >= QUESTIONS
