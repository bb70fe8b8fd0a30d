"""A sleep of which not every session is part: a connection of the last moment goes, an excluded one stays, by name."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from locum.lab.configuration import Plan
from locum.lab.processes import is_frozen, wait_until
from locum.lab.world import Lab, locum

CARRIED, EXCLUDED = 7000, 7001
PLAN = Plan(tables={"mn": {"mobile_node": {"exclude_ports": [EXCLUDED]}}})
SERVER = """
import socket, select, sys
listeners = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
open_ones = []
print("ready", flush=True)
while True:
    for each in select.select([*listeners, sys.stdin], [], [])[0]:
        if each is sys.stdin:
            word = sys.stdin.readline().strip().encode()
            for connection in open_ones:
                connection.send(word + b"\\n")
        else:
            open_ones.append(each.accept()[0])
            print("accepted", flush=True)
"""
PROGRAM = """
import socket, sys
connections = []
print("ready", flush=True)
for line in sys.stdin:
    word, _, port = line.strip().partition(" ")
    if word == "connect":
        connections.append(socket.create_connection((sys.argv[1], int(port))))
        print("connected", flush=True)
    else:
        print(*(each.recv(100).decode().strip() for each in connections), flush=True)
"""


def started(lab: Lab, node: str, name: str, code: str, *arguments: str) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-c", code, *arguments]
    process = lab.processes.start(node, name, line, stdin=subprocess.PIPE, stdout=subprocess.PIPE).process
    assert said(process) == "ready"
    return process


def tell(process: "subprocess.Popen[bytes]", line: str) -> None:
    stdin: IO[bytes] | None = process.stdin
    assert stdin is not None
    stdin.write(line.encode() + b"\n")
    stdin.flush()


def said(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def command(lab: Lab, *arguments: str) -> "subprocess.CompletedProcess[str]":
    place = [*locum(), "--socket", str(lab.configuration.socket("mn")), *arguments]
    return lab.processes.run("mn", place, 60)


def test_sleep_reports_sessions_that_went_and_stayed(tmp_path: Path) -> None:
    with Lab("partial", tmp_path, PLAN, captures=False) as lab:
        lab.wait_registered()
        server = started(lab, "cn", "server", SERVER, str(CARRIED), str(EXCLUDED))
        peer = str(lab.topology.address4("cn"))
        carried, excluded = (started(lab, "mn", name, PROGRAM, peer) for name in ("carried", "excluded"))
        for process, port in ((carried, CARRIED), (excluded, EXCLUDED)):
            tell(process, f"connect {port}")
            assert (said(process), said(server)) == ("connected", "accepted")

        before = lab.timeline.events()
        rows = json.loads(command(lab, "sleep", "--dry-run", "-j").stdout)
        fates = {row["flow"].rpartition(":")[2]: (row["fate"], row["reason"], row["pids"]) for row in rows}
        assert fates == {
            str(CARRIED): ("goes", None, [carried.pid]),
            str(EXCLUDED): ("stays", f"port {EXCLUDED} is excluded", [excluded.pid]),
        }
        assert len(lab.timeline.events()) == len(before) and not is_frozen(carried.pid), (
            "nothing has happened"
        )

        results: list[subprocess.CompletedProcess[str]] = []
        os.kill(lab.daemons["ha"].pid, signal.SIGSTOP)
        falling = threading.Thread(target=lambda: results.append(command(lab, "sleep")))
        falling.start()
        wait_until("the device to leave", lambda: bool(sent(lab, "601", "brief")))
        tell(carried, f"connect {CARRIED}")
        assert (said(carried), said(server)) == ("connected", "accepted")
        os.kill(lab.daemons["ha"].pid, signal.SIGCONT)
        falling.join()
        (done,) = results
        assert done.returncode == 6, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "asleep: 2 sessions went to the stand-in, 1 session stayed"
        assert f"(process {excluded.pid})" in lines[1] and lines[1].endswith(f": port {EXCLUDED} is excluded")
        assert is_frozen(carried.pid) and not is_frozen(excluded.pid)

        tell(server, "hello")
        assert command(lab, "wake").returncode == 0
        tell(carried, "read")
        assert said(carried) == "hello hello"


def sent(lab: Lab, message: str, wish: str) -> list[object]:
    return [
        event
        for event in lab.timeline.of("mn")
        if event.message == message and event.detail.get("wish") == wish
    ]
