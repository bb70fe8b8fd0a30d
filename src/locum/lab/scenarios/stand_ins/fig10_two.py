"""Fig. 10 with two stand-ins: three flows at three places; the second has a care-of address of its own (R7, R9, R19)."""

from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import Plan
from locum.lab.programs.talking import say
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.stand_ins.fig10 import grown, judge_download, login
from locum.lab.steps.flow_checks import judge_flows
from locum.lab.steps.resets import no_resets
from locum.lab.steps.stand_ins import Registering, further, registering
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

HEAD_START = 1_000_000
STEP = 2_000_000


class Fig10Two(Scenario):
    """Two downloads and an ssh session: at two stand-ins and the device, then otherwise, then at home."""

    name = "fig10-two"
    title = (
        "three flows at three places: two stand-ins, one with a care-of address of its own, and the device"
    )
    first: ClassVar[Registering] = Registering("mnps", bid=1)
    second: ClassVar[Registering] = Registering("mnps2", bid=2, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        extras=("mnps2",),
        tables=registering(first, second),
        associations=further("mnps2"),
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, films = live(lab)
        self.ssh = login(lab)
        self.film = watch(lab, films, program="curl-film")
        self.song = watch(lab, films, "song", six=True, program="curl-song")
        for download in (self.film, self.song):
            download.wait_for(HEAD_START)
        self.said = [say(self.ssh, "echo here $((6*7))")]
        film, song = str(self.film.program.pid), str(self.song.program.pid)
        self._give(lab, film, "mnps")
        self._give(lab, song, "mnps2")
        self.places = [who(lab, film, song)]
        for node in ("mnps", "mnps2"):
            grown(lab, node, STEP)
        self.said.append(say(self.ssh, "echo here $((6*8))"))
        lab.command("mn", "take", "--pid", film)
        self._give(lab, str(self.ssh.pid), "mnps")
        self.film.wait_for(self.film.received + STEP)
        lab.command("mn", "take", "--pid", song)
        self._give(lab, film, "mnps2")
        self.places.append(who(lab, film, song))
        grown(lab, "mnps2", STEP)
        lab.command("mn", "take")
        self.places.append(who(lab, film, song))
        self.said.append(say(self.ssh, "echo here $((6*9))"))
        self.statuses = [download.finish(60) for download in (self.film, self.song)]
        say(self.ssh, "exit 3", answered=False)
        self.ssh_status = self.ssh.wait(10)

    @staticmethod
    def _give(lab: Lab, pid: str, to: str) -> None:
        lab.command("mn", "give", "--pid", pid, "--to", to)

    def judge(self, lab: Lab, checks: Checks) -> None:
        for one, status in zip((self.film, self.song), self.statuses, strict=True):
            judge_download(one, status, self.server.connections(one.path), checks)
        checks.equal("ssh_said", ", ".join(self.said), "here 42, here 48, here 54")
        checks.equal("ssh_exit", self.ssh_status, 3)
        checks.equal("places", "; ".join(self.places), "film@mnps song@mnps2; film@mnps2 other@mnps; ")
        no_resets(checks, "resets", pcap.segments(lab.captures.files["cn"]))
        judge_flows(lab, checks)


def who(lab: Lab, film: str, song: str) -> str:
    """Holders of the sessions, by the device's own list."""
    names = {film: "film", song: "song"}
    rows = lab.sessions("mn")
    return " ".join(sorted(f"{names.get(str(row['pids'][0]), 'other')}@{row['at']}" for row in rows))
