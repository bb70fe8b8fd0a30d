"""Fig. 6: the device falls asleep during a download, which goes on."""

from collections.abc import Callable

from locum.lab.captures import measure
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.story import Download, download, judge_sleeps, web
from locum.lab.world import Lab

SIZE = 45_000_000
HEAD_START = 6_000_000
ASLEEP = 6.0


class Fig06(Scenario):
    """One download by one curl, one sleep with the radio off."""

    name = "fig06"
    title = "a device falls asleep in the middle of a download, which goes on"

    def __init__(self, on_download: Callable[[Download], None] | None = None) -> None:
        self.on_download = on_download

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, digests = web(lab, [("film", SIZE)])
        self.before = lab.tcp_counters("cn")
        lab.timeline.mark("download-starts")
        self.download = download(lab, "film", digests["film"])
        if self.on_download is not None:
            self.on_download(self.download)
        self.pid = self.download.program.pid
        self.download.wait_for(HEAD_START)
        self.slept = lab.sleep(ASLEEP, [self.download.program])
        self.status = self.download.finish(60)
        lab.timeline.mark("download-ended", status=self.status)
        self.after = lab.tcp_counters("cn")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("curl_same_process", self.download.program.pid, self.pid)
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        judge_sleeps(lab, [self.slept], checks)
        checks.at_most(
            "cn_retransmits", measure.counted(self.before, self.after, "Tcp.RetransSegs"), 20, "segments"
        )
        checks.equal("handovers", handovers(lab), 1)


def handovers(lab: Lab) -> int:
    """Takeovers that came to their end, as the stand-in reported them."""
    return sum(
        1
        for event in lab.timeline.of("mnps")
        if (event.kind, event.message, event.detail.get("request")) == ("sent", "632", "transfer")
    )
