"""Fig. 6 with a thousand connections, most of them idle: all fall asleep, and all are back."""

from locum.lab.captures import measure, pcap
from locum.lab.configuration import Plan
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.gathering import gather
from locum.lab.world import Lab

COUNT, ACTIVE, SPOKEN_TO = 1_000, 20, 100
"""Connections, those of them that carry data all the time, and the idle ones that get a line during the sleep."""
RATE = 4_000
"""Bytes per second of an active connection."""
PORT = 60_001
ASLEEP = 5.1


class Fig06Thousand(Scenario):
    """Four programs with a thousand connections between them."""

    name = "fig06-thousand"
    title = "a thousand connections of four programs sleep at once, most of them idle"
    plan = Plan(tables={"mn": {"mobile_node": {"sleep_seconds": 60.0}}})

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.crowd = gather(lab, PORT, COUNT, ACTIVE, RATE)
        lab.pause(1.0)
        self.closing, self.asleep, _cut = lab.close_lid()
        self.held = len(lab.sessions())
        self.crowd.tell(f"some {SPOKEN_TO}")
        lab.pause(ASLEEP)
        _restored, self.opening, self.awake = lab.open_lid()
        self.noticed = self.crowd.heard()
        self.crowd.tell("all")
        self.answers = self.crowd.heard()
        self.statuses = self.crowd.end()

    def judge(self, lab: Lab, checks: Checks) -> None:
        figures, lines = self.crowd.figures, SPOKEN_TO + COUNT - ACTIVE
        checks.equal("sessions_at_the_stand_in", self.held, COUNT, "sessions")
        checks.equal("noticed_what_came_asleep", self.noticed, SPOKEN_TO, "sessions")
        checks.equal("answers", self.answers, lines, "answers")
        checks.equal("lines_at_the_device", figures["lines"], lines, "lines")
        checks.equal("wrong_blocks_or_resets", figures["wrong"], 0)
        checks.more_than("bytes_of_active_sessions", figures["bytes"], ACTIVE * RATE * ASLEEP, "bytes")
        checks.equal("exit_statuses", str(self.statuses), str((0, 0)))
        lost = [event for event in lab.timeline.of("mn") if event.kind in ("session-lost", "session-stays")]
        checks.equal("lost_or_left_behind", len(lost), 0, "sessions")
        segments = list(pcap.segments(lab.captures.files["cn"]))
        checks.equal("connections", measure.connections(segments, PORT), COUNT, "connections")
        checks.equal("handovers", handovers(lab), 1)
        checks.fact("falling_asleep_s", self.asleep - self.closing, "s")
        checks.fact("waking_s", self.awake - self.opening, "s")
