"""Downloads of a sleeping device: one that it has ordered, and one of its own curl (A4).

nginx ends and starts again in the middle of the ordered one.
"""

import signal

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.ordered import Ordered, signal_workers, unread
from locum.lab.steps.story import PORT, download, web
from locum.lab.world import Lab

RATE = 1_000_000
"""Bytes a second that nginx sends in one connection."""
OWN = 1_000_000
"""Bytes of the curl's file."""


class AppDownload(Scenario):
    """The curl has sent its request when the device falls asleep, and the answer comes later."""

    name = "app-download"
    title = "files arrive while their device sleeps, through a restart of the server"
    exhaustive = True
    size = 60_000_000
    cn = figure_5((), 1).address4("cn")
    plan = Plan(
        tables={
            "mn": {
                "mobile_node": {
                    "app": [
                        {"kind": "download", "name": "own", "settings": {"ports": [PORT]}},
                        {"kind": "download", "name": "film", "settings": {"url": f"http://{cn}/film"}},
                    ]
                }
            }
        }
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, self.digests = web(lab, [("film", self.size), ("page", OWN)], str(RATE))
        nginx = self.server.program
        signal_workers(nginx, signal.SIGSTOP)
        self.curl = download(lab, "page", self.digests["page"])
        self.pid = self.curl.program.pid
        wait_until("the request to be at the server", lambda: unread(lab, PORT) > 0)
        self.slept = lab.close_lid("an1")
        signal_workers(nginx, signal.SIGCONT)
        self.own, self.film = Ordered(lab, "own"), Ordered(lab, "film")
        self.own.wait_for("delivered")
        self.film.wait_for_size("film.part", self.size // 3)
        self.shown = lab.ask("mnps", "app show", app="film")
        lab.timeline.mark("server-ends")
        nginx.stop()
        (self.server.folder / "pid").unlink(missing_ok=True)
        lab.timeline.mark("server-starts")
        self.server.start()
        self.film.wait_for("delivered")
        self.stored = self.film.sha256("film")
        self.awake = lab.open_lid("an1")
        self.status = self.curl.finish(60)

    def judge(self, lab: Lab, checks: Checks) -> None:
        (ordered,) = self.film.events("delivered")
        checks.equal("ordered_digest", self.stored, self.digests["film"])
        checks.equal("told_digest", ordered["sha256"], self.digests["film"])
        checks.at_least("attempts", ordered["attempts"], 2, "attempts")
        rows = [row for row in self.server.requests() if " /film " in str(row["request"])]
        checks.equal("last_status", str(rows[-1]["status"]), "206")
        checks.at_most(
            "bytes_of_the_last_answer", int(str(rows[-1]["sent"])), self.size - self.size // 3, "bytes"
        )
        checks.holds("progress_shown", self.shown["result"]["progress"]["expected"] == self.size)
        told = [{"status": 200, "size": OWN, "framing": "length"}]
        checks.holds("own_told_once_with_its_length", self.own.events("delivered") == told)
        checks.equal("curl_exit", self.status, 0)
        checks.holds("curl_digest", self.curl.correct)
        checks.equal("curl_same_process", self.curl.program.pid, self.pid)
        checks.equal("handovers", handovers(lab), 1)
        arrived = self._data_while_asleep(lab)
        checks.at_least("packets_that_would_have_woken_it", arrived, 1000, "segments")
        checks.equal("events_that_wake_it", len(self.own.events("delivered")) + int(ordered["wake"]), 2)
        results = [event.detail for event in lab.timeline.of("mn") if event.kind == "app-result"]
        files = [row["result"].get("files") for row in results if row["app"] == "film"]
        checks.holds("result_has_the_file", files == [[["film", self.size, self.digests["film"]]]])

    def _data_while_asleep(self, lab: Lab) -> int:
        """Segments with data of the server to the home address, between the two movements of the lid."""
        begin, end = self.slept[-1], self.awake[0]
        return sum(
            1
            for segment in pcap.segments(lab.captures.files["cn"])
            if segment.destination == HOME_ADDRESS4 and segment.length and begin <= segment.time <= end
        )


class AppDownloadBrief(AppDownload):
    """The same with a smaller file."""

    name = "app-download-brief"
    title = "a file arrives while its device sleeps, through a restart of the server"
    exhaustive = False
    size = 12_000_000
