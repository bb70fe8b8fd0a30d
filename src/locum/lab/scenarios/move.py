"""The mobile node moves between two access nodes: awake, and asleep."""

from locum.lab.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.fig06 import handovers
from locum.lab.story import download, judge_naps, web
from locum.lab.world import Lab

SIZE = 60_000_000
STEP = 5_000_000
ASLEEP = 5.1


class Move(Scenario):
    """A download starts at one access node, goes on at the other, sleeps there, and wakes at the first."""

    name = "move"
    title = "from one access node to the other awake, and back asleep, in one download"

    def play(self, lab: Lab) -> None:
        lab.wait_registered("an1")
        self.server, digests = web(lab, [("film", SIZE)])
        self.download = download(lab, "film", digests["film"])
        self.download.wait_for(STEP)
        lab.restore("an2")
        left = lab.cut("an1")
        lab.wait_registered("an2")
        self.moved = lab.timeline.mark("moved", to="an2") - left
        self.download.wait_for(self.download.received + STEP)
        self.nap = lab.nap(ASLEEP, [self.download.program], at="an2", back_at="an1")
        lab.wait_registered("an1")
        self.status = self.download.finish(60)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        checks.at_most("registered_after_move_s", self.moved, 5.0, "s")
        judge_naps(lab, [self.nap], checks, bound_ms=None)
        checks.equal("handovers", handovers(lab), 1)
