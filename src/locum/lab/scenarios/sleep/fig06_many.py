"""Fig. 6 with many sessions at once: ten downloads over both families, an idle ssh, and half a request."""

import subprocess
import sys

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.programs.services import SecureShell, make_file
from locum.lab.programs.talking import hear, say
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.story import judge_sleeps, live, watch
from locum.lab.world import Lab

COUNT = 10
HEAD_START = 400_000
ASLEEP = 6.0
SMALL = 100_000


class Fig06Many(Scenario):
    """Twelve programs sleep and wake together."""

    name = "fig06-many"
    title = "ten downloads over IPv4 and IPv6, an idle ssh and half a request, all asleep at once"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, films = live(lab)
        self.small = make_file(self.server.root / "small", SMALL)
        shell = SecureShell(lab.processes, "cn", lab.place.path / "ssh")
        shell.start()
        server = str(lab.topology.address4("cn"))
        self.ssh = shell.login("mn", HOME_ADDRESS4, server)
        self.greeting = say(self.ssh, "echo before $((6*7))")
        self.half = lab.processes.start(
            "mn",
            "half-request",
            [sys.executable, "-m", "locum.lab.programs.half_request", str(HOME_ADDRESS4), server, "/small"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        hear(self.half)
        self.downloads = [
            watch(lab, films, f"film{n}", six=n % 2 == 1, program=f"curl{n}") for n in range(COUNT)
        ]
        for transfer in self.downloads:
            transfer.wait_for(HEAD_START)
        self.slept = lab.sleep(
            ASLEEP, [transfer.program for transfer in self.downloads] + [self.ssh, self.half]
        )
        self.farewell = say(self.ssh, "echo after $((6*9))")
        self.answer = say(self.half, "now")
        for transfer in self.downloads:
            transfer.end(60)
        self.statuses = [transfer.finish(60) for transfer in self.downloads]
        self.half_status = self.half.wait(10)
        say(self.ssh, "exit 3", answered=False)
        self.ssh_status = self.ssh.wait(10)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal(
            "downloads_correct", sum(transfer.correct for transfer in self.downloads), COUNT, "files"
        )
        checks.equal("curls_ended_well", self.statuses.count(0), COUNT, "processes")
        used = [self.server.connections(transfer.path) for transfer in self.downloads]
        checks.equal("server_connections", sum(used), COUNT, "connections")
        checks.equal("ssh_before", self.greeting, "before 42")
        checks.equal("ssh_after", self.farewell, "after 54")
        checks.equal("ssh_exit", self.ssh_status, 3)
        checks.equal("half_request", self.answer, f"HTTP/1.1 200 OK {self.small}")
        checks.equal("half_request_exit", self.half_status, 0)
        judge_sleeps(lab, [self.slept], checks, bound_ms=None)
        checks.equal("handovers", handovers(lab), 1)
