"""Fig. 6 with a restart of the sleeping device's machine: its sessions end, and their peers are reset."""

import subprocess
import sys

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6
from locum.lab.errors import LabError
from locum.lab.processes import Program, is_frozen, wait_until
from locum.lab.programs.services import SecureShell
from locum.lab.programs.talking import hear, say
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.story import PORT, download, web
from locum.lab.world import Lab

SIZE = 60_000_000
HEAD_START = 500_000
AFTERWARDS = 300_000
"""Bytes of a download after the restart."""
SSH_PORT = 22
TICKS = "while :; do echo; sleep 0.05; done"


class Fig06Reboot(Scenario):
    """A program that starts after the restart happens to get the process number of one that slept."""

    name = "fig06-reboot"
    title = "the sleeping device's machine restarts: no program is frozen, and the peers get resets"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, digests = web(lab, [("film", SIZE), ("news", AFTERWARDS)], "2m")
        shell = SecureShell(lab.processes, "cn", lab.place.path / "ssh")
        shell.start()
        ssh = shell.login("mn", HOME_ADDRESS4, str(lab.topology.address4("cn")))
        say(ssh, "echo before")
        film = download(lab, "film", digests["film"])
        film.wait_for(HEAD_START)
        lab.close_lid()
        self.held = len(lab.sessions())
        self.off = lab.lose_power("mn", [film.program, ssh])
        bystander = self._reborn(lab, film.program.pid)
        lab.restore()
        lab.restart("mn")
        lab.wait_registered()
        self.frozen = is_frozen(film.program.pid)
        wait_until("the correspondent to have no connection of before", lambda: self._over(lab), 20)
        self.after = download(lab, "news", digests["news"], program="curl-after")
        self.status = self.after.finish(20)
        self.state = lab.ask("mn", "status")["mobile_node"]["state"]
        self.frozen = self.frozen or is_frozen(film.program.pid)
        ticks = bystander.log.stat().st_size
        lab.pause(0.5)
        self.ticks = bystander.log.stat().st_size - ticks
        self.left = len(lab.sessions())

    @staticmethod
    def _reborn(lab: Lab, pid: int) -> Program:
        """A program of the device that has nothing to do with the sleep, under a number that is known to it."""
        log = lab.output / "logs" / "bystander.log"
        command = [
            sys.executable,
            "-m",
            "locum.lab.programs.reborn",
            str(pid),
            "sh",
            "-c",
            f"exec > {log}; {TICKS}",
        ]
        program = lab.processes.start("mn", "bystander", command, stdout=subprocess.PIPE)
        said = hear(program)
        if said != "born":
            raise LabError(f"no program gets the number {pid}: {said}")
        return program

    @staticmethod
    def _over(lab: Lab) -> bool:
        lines = lab.processes.run("cn", ["ss", "-Htn", "state", "established"]).stdout
        return str(HOME_ADDRESS4) not in lines and str(HOME_ADDRESS6) not in lines

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("sessions_held", self.held, 2, "sessions")
        checks.holds("bystander_never_frozen", not self.frozen)
        checks.at_least("bystander_ticks", self.ticks, 2, "lines")
        checks.equal("state_of_the_device", self.state, "awake")
        checks.equal("sessions_left_at_the_stand_in", self.left, 0, "sessions")
        lost = [event for event in lab.timeline.of("mn") if event.kind == "session-lost"]
        checks.equal("sessions_told_as_lost", len({event.flow for event in lost}), 2, "sessions")
        reset = {
            segment.source_port
            for segment in pcap.segments(lab.captures.files["cn"])
            if segment.flags & pcap.RST and not segment.outgoing and segment.time > self.off
            and segment.destination_port in (PORT, SSH_PORT)
        }  # fmt: skip
        checks.equal("connections_reset_at_the_correspondent", len(reset), 2, "connections")
        checks.holds("sha256_equal_afterwards", self.after.correct)
        checks.equal("curl_exit_afterwards", self.status, 0)
