"""Fig. 10: a download at the stand-in while an interactive ssh session stays with the device; then they swap (R19, C12)."""

from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.processes import Program, wait_until
from locum.lab.programs.services import SecureShell
from locum.lab.programs.talking import hear, say
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.stand_ins.fig07 import held
from locum.lab.steps.flow_checks import judge_flows
from locum.lab.steps.resets import no_resets
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.steps.story import Download, live, watch
from locum.lab.world import Lab

HEAD_START = 3_000_000
STEP = 3_000_000
"""Bytes that the download receives in each place."""


class Fig10(Scenario):
    """Two applications of one device at two places, each of them at both in turn, then both at home."""

    name = "fig10"
    title = "a download at the stand-in, an ssh session at the device; then they swap, then both come home"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1)
    plan: ClassVar[Plan] = Plan(default_coa=False, tables=registering(stand_in))

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, films = live(lab)
        self.ssh = login(lab)
        self.film = watch(lab, films)
        self.film.wait_for(HEAD_START)
        self.said = [say(self.ssh, "echo here $((6*7))")]
        lab.command("mn", "give", "--port", "80")
        self.places = [places(lab)]
        grown(lab, "mnps")
        self.said.append(say(self.ssh, "echo here $((6*8))"))
        self.thawed = [lab.all_frozen([self.film.program]) and not lab.all_frozen([self.ssh])]
        # the server's data while ssh is away waits at the stand-in
        say(self.ssh, "(sleep 1; echo late) & echo soon")
        lab.command("mn", "give", "--port", "22")
        self.places.append(places(lab))
        lab.command("mn", "take", "--port", "80")
        self.places.append(places(lab))
        self.film.wait_for(self.film.received + STEP)
        self.thawed.append(lab.all_frozen([self.ssh]) and not lab.all_frozen([self.film.program]))
        wait_until("the stand-in to receive the server's data", lambda: held(lab) > 0, 10)
        lab.command("mn", "take")
        self.places.append(places(lab))
        self.said += [hear(self.ssh), say(self.ssh, "echo here $((6*9))")]
        self.status = self.film.finish(60)
        say(self.ssh, "exit 3", answered=False)
        self.ssh_status = self.ssh.wait(10)

    def judge(self, lab: Lab, checks: Checks) -> None:
        judge_download(self.film, self.status, self.server.connections("/live/film"), checks)
        checks.equal("ssh_said", ", ".join(self.said), "here 42, here 48, late, here 54")
        checks.equal("ssh_exit", self.ssh_status, 3)
        wanted = "80@mnps; 22@mnps 80@mnps; 22@mnps; "
        checks.equal("places", "; ".join(self.places), wanted)
        checks.holds("only_what_is_away_is_frozen", all(self.thawed))
        no_resets(checks, "resets", pcap.segments(lab.captures.files["cn"]))
        judge_flows(lab, checks)


def login(lab: Lab) -> Program:
    """An interactive session from the device's home address to the correspondent's sshd."""
    shell = SecureShell(lab.processes, "cn", lab.place.path / "ssh")
    shell.start()
    return shell.login("mn", HOME_ADDRESS4, str(lab.topology.address4("cn")))


def places(lab: Lab) -> str:
    """The correspondent's port and the stand-in of every session that is away, by the device's own list."""
    rows = lab.sessions("mn")
    return " ".join(sorted(f"{row['flow'].rpartition(':')[2]}@{row['at']}" for row in rows))


def grown(lab: Lab, node: str, by: int = STEP) -> None:
    """Wait until a stand-in has received so much more. Raises LabError."""
    before = held(lab, node)
    wait_until(f"{node} to receive {by} bytes", lambda: held(lab, node) >= before + by, 20)


def judge_download(one: Download, status: int, connections: int, checks: Checks) -> None:
    """It is whole, on one connection, by a curl that noticed nothing."""
    name = one.path.lstrip("/")
    checks.holds(f"{name}_sha256_equal", one.correct)
    checks.equal(f"{name}_curl_exit", status, 0)
    checks.equal(f"{name}_server_connections", connections, 1, "connections")
