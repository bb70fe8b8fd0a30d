"""Fig. 6 three times in one download: the connection goes to the stand-in and comes back, again and again (C12)."""

from locum.lab.captures import measure
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.story import judge_sleeps, live, watch
from locum.lab.world import Lab

STEP = 3_000_000
TIMES = 3
ASLEEP = 5.1


class Fig06Repeat(Scenario):
    """One download by one curl, three sleeps."""

    name = "fig06-repeat"
    title = "three sleeps in the middle of one download"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.before = lab.tcp_counters("cn")
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.sleeps = []
        for _time in range(TIMES):
            self.download.wait_for(self.download.received + STEP)
            self.sleeps.append(lab.sleep(ASLEEP, [self.download.program]))
        self.status = self.download.finish(60)
        self.after = lab.tcp_counters("cn")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        judge_sleeps(lab, self.sleeps, checks, bound_ms=250.0)
        checks.at_most(
            "cn_retransmits",
            measure.counted(self.before, self.after, "Tcp.RetransSegs"),
            20 * TIMES,
            "segments",
        )
        checks.equal("handovers", handovers(lab), TIMES)
