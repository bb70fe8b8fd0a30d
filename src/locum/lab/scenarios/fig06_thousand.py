"""Fig. 6 with a thousand connections, most of them idle: all fall asleep, and all are back."""

import json
import subprocess
import sys
import time

from locum.lab import measure, pcap
from locum.lab.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.fig06 import handovers
from locum.lab.scenarios.fig06_many import hear, say
from locum.lab.world import Lab

COUNT, ACTIVE, SPOKEN_TO = 1_000, 20, 100
"""Connections, those of them that carry data all the time, and the idle ones that get a line during the sleep."""
RATE = 20_000
"""Bytes per second of an active connection."""
PROCESSES = 4
PORT = 60_001
ASLEEP = 5.1


class Fig06Thousand(Scenario):
    """Four programs with a thousand connections between them."""

    name = "fig06-thousand"
    title = "a thousand connections of four programs sleep at once, most of them idle"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        figures = [COUNT, ACTIVE]
        crowd = [sys.executable, "-m", "locum.lab.crowd"]
        host = lab.processes.start(
            "cn",
            "host",
            [*crowd, "serve", str(PORT), *map(str, figures), str(RATE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        hear(host)
        out = lab.output / "visitors.json"
        server = str(lab.topology.address4("cn"))
        visitors = lab.processes.start(
            "mn",
            "visitors",
            [*crowd, "visit", server, str(PORT), *map(str, figures), str(PROCESSES), str(out)],
        )
        hear(host, 30.0)
        lab.pause(1.0)
        begin = time.monotonic()
        self.closing, self.asleep, _cut = lab.close_lid()
        self.held = len(lab.sessions())
        self.some = say(host, f"some {SPOKEN_TO}", answered=False)
        lab.pause(max(0.0, ASLEEP - (time.monotonic() - begin)))
        _restored, self.opening, self.awake = lab.open_lid()
        self.noticed = hear(host, 30.0)
        self.answers = say(host, "all")
        say(host, "end", answered=False)
        self.statuses = host.wait(30), visitors.wait(30)
        self.figures = json.loads(out.read_text())

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("sessions_at_the_stand_in", self.held, COUNT, "sessions")
        checks.equal("noticed_what_came_asleep", int(self.noticed), SPOKEN_TO, "sessions")
        checks.equal("answers", int(self.answers), SPOKEN_TO + COUNT - ACTIVE, "answers")
        checks.equal("lines_at_the_device", self.figures["lines"], SPOKEN_TO + COUNT - ACTIVE, "lines")
        checks.equal("wrong_blocks_or_resets", self.figures["wrong"], 0)
        checks.more_than("bytes_of_active_sessions", self.figures["bytes"], ACTIVE * RATE * ASLEEP, "bytes")
        checks.equal("exit_statuses", str(self.statuses), str((0, 0)))
        lost = [event for event in lab.timeline.of("mn") if event.kind in ("session-lost", "session-stays")]
        checks.equal("lost_or_left_behind", len(lost), 0, "sessions")
        segments = list(pcap.segments(lab.captures.files["cn"]))
        checks.equal("connections", measure.connections(segments, PORT), COUNT, "connections")
        checks.equal("handovers", handovers(lab), 1)
        checks.fact("falling_asleep_s", self.asleep - self.closing, "s")
        checks.fact("waking_s", self.awake - self.opening, "s")
