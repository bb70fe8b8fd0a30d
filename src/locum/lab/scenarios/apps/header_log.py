"""Packets that nothing at the stand-in takes, while their device sleeps: their headers are in a file that tshark reads (A2)."""

import subprocess
import time
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

NAME = "strays"
PER_SECOND = 20
CLOSED, FORGOTTEN, FLOODED = 81, 4000, 4001
"""Ports that nobody has: of TCP, and of UDP."""
FLOOD = 400
SECRET = "nobody else reads this"
LOG: Table = {"kind": "log", "name": NAME, "settings": {"per_second": PER_SECOND}}


class AppLog(Scenario):
    """A stock curl, datagrams of a shell, and a flood of them."""

    name = "app-log"
    title = "headers of packets that nothing takes are logged while their device sleeps"
    plan = Plan(tables={"mn": {"mobile_node": {"app": [LOG]}}})

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        lab.close_lid("an1")
        wait_until("the log to begin", lambda: "from now on" in lab.command("mnps", "app", "log", NAME), 30)
        self.before = self._dropped(lab)
        curl = ["curl", "-s", "-m", "2", f"http://{HOME_ADDRESS4}:{CLOSED}/"]
        self.refused = lab.processes.run("cn", curl).returncode
        for address in (HOME_ADDRESS4, HOME_ADDRESS6):
            self._send(lab, address, FORGOTTEN, 1)
        lab.pause(1.5)
        began = time.monotonic()
        self._send(lab, HOME_ADDRESS4, FLOODED, FLOOD)
        self.seconds = time.monotonic() - began
        wait_until("the packets to arrive", lambda: self._dropped(lab) - self.before >= FLOOD + 3)
        self.after = self._dropped(lab)
        lab.pause(1.5)
        self._send(lab, HOME_ADDRESS4, FORGOTTEN, 1)  # the next one logged has the number of those left out
        lab.open_lid("an1")
        self.listed = [app["name"] for app in lab.ask("mnps", "app list")]

    @staticmethod
    def _send(lab: Lab, address: object, port: int, count: int) -> None:
        """So many datagrams with a text. Raises LabError."""
        script = f"for n in $(seq {count}); do echo '{SECRET}' > /dev/udp/{address}/{port}; done"
        done = lab.processes.run("cn", ["bash", "-c", script])
        if done.returncode:
            raise LabError(f"bash: {done.stderr.strip()}")

    @staticmethod
    def _dropped(lab: Lab) -> int:
        found = lab.counters("mnps")["data_plane"]
        return int(found.get("no-session", 0))

    def judge(self, lab: Lab, checks: Checks) -> None:
        folder = lab.place.path / "state" / "mnps" / "mnps.apps" / str(HOME_ADDRESS4) / NAME
        files = sorted(folder.iterdir())
        checks.equal("files", len(files), 1)
        content = files[0].read_bytes() if files else b""
        checks.holds("no_data_of_users", content != b"" and SECRET.encode() not in content)
        packets = _ports(files[0])
        checks.at_least("syns", packets.count(("tcp", CLOSED)), 1)
        checks.at_least("datagrams", packets.count(("udp", FORGOTTEN)), 3)
        checks.at_least("of_the_flood", packets.count(("udp", FLOODED)), 1)
        checks.at_most(
            "of_the_flood_at_most", packets.count(("udp", FLOODED)), PER_SECOND * (self.seconds + 2)
        )
        results = [event.detail["result"] for event in lab.timeline.of("mn") if event.kind == "app-result"]
        result = results[0] if results else {}
        counted = result.get("packets", 0) + result.get("left_out", 0)
        checks.equal("counted", counted, self.after - self.before + 1)
        checks.equal("in_the_file", len(packets), result.get("packets", -1))
        told = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
        ports = {detail["detail"].get("port") for detail in told}
        checks.holds("events", {CLOSED, FORGOTTEN, FLOODED} <= ports)
        checks.at_most("few_events", len(told), 10)
        checks.equal("curl_has_no_answer", self.refused, 28)
        judge_wakes(lab, checks, (), most=0)  # its events wake nobody: they are for later


def _ports(file: Path) -> list[tuple[str, int]]:
    """Protocol and destination port of each packet, as tshark reads them."""
    fields = ["-e", "tcp.dstport", "-e", "udp.dstport"]
    command = ["tshark", "-n", "-r", str(file), "-T", "fields", *fields]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[tuple[str, int]] = []
    for line in done.stdout.splitlines():
        tcp, _, udp = line.partition("\t")
        found.append(("tcp", int(tcp)) if tcp else ("udp", int(udp or 0)))
    return found
