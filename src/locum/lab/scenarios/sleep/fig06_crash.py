"""Daemons die by SIGKILL, awake and asleep: the kernel goes on forwarding, the holder goes on receiving."""

import sys
import time
from collections.abc import Sequence

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.processes import Program
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.state import differences, snapshot
from locum.lab.steps.story import judge_sleeps, live, watch
from locum.lab.world import Lab, Sleep

HEAD_START = 5_000_000
RATE = 500
AWAKE_PORT, ASLEEP_PORT = 7001, 7002
DOWN = 1.0
"""Seconds for which a daemon stays dead."""
ASLEEP = 6.0
"""Seconds of sleep at least, however fast daemons come back."""
LONGEST = 60.0


class Fig06Crash(Scenario):
    """Home agent, access nodes and stand-in are each killed during the download and during the sleep."""

    name = "fig06-crash"
    title = "daemons are killed during a download and during a sleep, and come back"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.changes: list[str] = []
        self.server, films = live(lab, "2m")
        self.download = watch(lab, films)
        self.download.wait_for(HEAD_START)
        self._crashes(lab, ("ha", "an1", "mnps"), AWAKE_PORT)
        closing, asleep, cut = lab.close_lid()
        frames = lab.radio_frames()
        self._crashes(lab, ("ha", "an3", "mnps"), ASLEEP_PORT)
        lab.pause(max(0.0, cut + ASLEEP - time.time()))
        frames = lab.radio_frames() - frames
        frozen = lab.all_frozen([self.download.program])
        restored, opening, awake = lab.open_lid()
        self.slept = Sleep(closing, asleep, cut, restored, opening, awake, frames, frozen)
        self.status = self.download.finish(60)

    def _crashes(self, lab: Lab, nodes: Sequence[str], port: int) -> None:
        """Kill and restart one daemon after the other under a numbered stream to the home address."""
        numbered = start_stream(lab, port)
        for node in nodes:
            before = snapshot(lab, node)
            lab.crash(node)
            lab.pause(DOWN)
            lab.restart(node)
            self.changes += [f"{node}: {change}" for change in differences(before, snapshot(lab, node))]
        numbered.stop()
        lab.pause(0.3)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        files = lab.captures.files
        sent = {port: stream.numbers(files["cn"], port, outgoing=True) for port in (AWAKE_PORT, ASLEEP_PORT)}
        lost = sent[AWAKE_PORT] - stream.numbers(files["mn"], AWAKE_PORT, outgoing=False)
        lost_asleep = sent[ASLEEP_PORT] - stream.numbers(files["mnps"], ASLEEP_PORT, outgoing=False)
        checks.at_least("stream_packets", min(map(len, sent.values())), 4 * RATE, "packets")
        checks.equal("packets_lost_in_forwarding", len(lost) + len(lost_asleep), 0, "packets")
        checks.equal("state_after_restart", "; ".join(self.changes) or "as before", "as before")
        judge_sleeps(lab, [self.slept], checks, bound_ms=None)


def start_stream(lab: Lab, port: int, rate: int = RATE) -> Program:
    """A numbered stream of datagrams from the correspondent to the home address, until it is stopped."""
    command = [
        sys.executable,
        "-m",
        "locum.lab.programs.stream",
        str(HOME_ADDRESS4),
        str(port),
        str(rate),
        str(LONGEST),
    ]
    return lab.processes.start("cn", f"stream-{port}", command)
