"""Fig. 6 with failures: a wake without a network, or while the stand-in is dead.

Programs are hostages of neither: after a few seconds they run, with their connections still away, and go on as soon as they can.
"""

import time

from locum.lab.captures import pcap
from locum.lab.configuration import Plan
from locum.lab.errors import LabError
from locum.lab.processes import Program, is_frozen, wait_until
from locum.lab.programs.services import LiveFilms
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.story import PORT, Download, live, watch
from locum.lab.world import Lab, locum
from locum.node.exits import Exit

HEAD_START = 500_000
PATIENCE = 1.5
"""`stranded_seconds` of the device."""
LATEST = 15.0
"""Seconds after which a program that is still frozen is a hostage, on however slow a machine."""
ASLEEP = 1.0
BOTH = ("without-network", "without-stand-in")


class Fig06Stranded(Scenario):
    """Three sleeps of one device; the third one's sessions are given up."""

    name = "fig06-stranded"
    title = (
        "no network or no stand-in when the lid opens: programs run all the same, and everything ends right"
    )
    plan = Plan(tables={"mn": {"mobile_node": {"stranded_seconds": PATIENCE}}})

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, films = live(lab, "1500k")
        self.downloads = [watch(lab, films)]
        self.freed: dict[str, float] = {}
        self._without_network(lab, self.downloads[0])
        self._without_stand_in(lab, self.downloads[0])
        self.status = self.downloads[0].finish(60)
        self._given_up(lab, films)

    def _without_network(self, lab: Lab, film: Download) -> None:
        film.wait_for(HEAD_START)
        lab.close_lid()
        lab.pause(ASLEEP)
        waking = self._open(lab, BOTH[0], film.program)
        lab.restore()
        self._awake(lab, waking)

    def _without_stand_in(self, lab: Lab, film: Download) -> None:
        film.wait_for(film.received + HEAD_START)
        lab.close_lid()
        lab.pause(ASLEEP)
        lab.crash("mnps")
        lab.restore()
        waking = self._open(lab, BOTH[1], film.program)
        lab.restart("mnps")
        self._awake(lab, waking)

    def _open(self, lab: Lab, story: str, program: Program) -> Program:
        """`locum wake`, which goes on in the background; how long the program is frozen still."""
        begin = lab.timeline.mark("lid-opens", story=story)
        command = [*locum(), "--socket", str(lab.configuration.socket("mn")), "wake"]
        waking = lab.processes.start("mn", f"wake-{story}", command)
        wait_until(f"{program.name} to run {story}", lambda: not is_frozen(program.pid), LATEST)
        self.freed[story] = lab.timeline.mark("program-runs", story=story) - begin
        if not lab.ask("mn", "status")["mobile_node"]["stranded"]:
            raise LabError(f"{program.name} runs {story}, and the device does not say that it is stranded")
        return waking

    @staticmethod
    def _awake(lab: Lab, waking: Program) -> None:
        """Wait until everything is back without a second command, even if the first has timed out."""
        wait_until(
            "the device to be awake", lambda: lab.ask("mn", "status")["mobile_node"]["state"] == "awake", 40
        )
        waking.wait(20)

    def _given_up(self, lab: Lab, films: LiveFilms) -> None:
        """The stand-in is dead, and its sessions are abandoned."""
        series = watch(lab, films, "series")
        series.wait_for(HEAD_START)
        lab.close_lid()
        lab.crash("mnps")
        lab.restore()
        self.abandoned = lab.timeline.mark("abandoned")
        command = [*locum(), "--socket", str(lab.configuration.socket("mn")), "wake", "--abandon"]
        self.gave_up = lab.processes.run("mn", command)
        self.freed["given-up"] = time.time() - self.abandoned
        self.ended = series.program.wait(20)
        self.state = lab.ask("mn", "status")["mobile_node"]["state"]
        lab.restart("mnps")
        wait_until("the stand-in to have no session", lambda: not lab.sessions(), 20)

    def judge(self, lab: Lab, checks: Checks) -> None:
        film = self.downloads[0]
        checks.holds("sha256_equal", film.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        for story in BOTH:
            checks.at_least(f"patience_{story}_s", self.freed[story], PATIENCE - 0.5)
            checks.fact(f"program_runs_{story}_s", self.freed[story], "s")
        checks.fact("program_runs_given_up_s", self.freed["given-up"], "s")
        checks.equal("exit_given_up", self.gave_up.returncode, Exit.PARTIAL)
        checks.holds("loss_is_named", "awake: 1 session lost" in self.gave_up.stdout)
        checks.more_than("curl_exit_given_up", self.ended, 0)
        checks.equal("state_given_up", self.state, "awake")
        reset = {
            segment.source_port
            for segment in pcap.segments(lab.captures.files["cn"])
            if segment.flags & pcap.RST and not segment.outgoing and segment.destination_port == PORT
        }
        checks.equal("connections_reset_at_the_correspondent", len(reset), 1, "connections")
        lost = [event for event in lab.timeline.of("mn") if event.kind == "session-lost"]
        checks.equal(
            "lost_before_giving_up", sum(event.time < self.abandoned for event in lost), 0, "sessions"
        )
