"""Fig. 6 with stock programs of every kind that waits for a socket: all fall asleep in their midst, and each ends right."""

import time
from collections import Counter
from collections.abc import Sequence

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs.stage import Act, Stage
from locum.lab.programs.stock import BASE_PORT, SIZE, STOCK, Stock
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.resets import no_resets
from locum.lab.world import Lab

HEAD_START = 60_000
"""Bytes that each program with a file has moved before the sleep."""
ASLEEP = 5.5
OPEN = 4_000_000
"""Bits per second for each file of those that arrive during the sleep, and of all after it."""
HEARING = 10.0
"""Seconds after waking in which the data of the sleep has to be noticed."""
PAUSE = 0.5
"""Seconds between the last lines and the end of a program's input."""
PATIENCE = 40.0
"""Seconds in which all of them have to end."""


class Fig06Programs(Scenario):
    """Each program has one connection to the end (or the number that it always makes), and never makes another."""

    name = "fig06-programs"
    title = "stock programs of every kind sleep at once, and each ends right in one connection"

    opaque = f"{BASE_PORT}-{BASE_PORT + 2 * len(STOCK)}"

    def __init__(self, programs: Sequence[Stock] = STOCK) -> None:
        self.programs = programs

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.stage = Stage(lab, self.programs)
        self.stage.set_up()
        self.acts = self.stage.start()
        self.stage.wait_under_way(self.acts, 1)
        self._say("before")
        self.stage.wait_under_way(self.acts, HEAD_START)
        lab.timeline.mark("programs-under-way", programs=len(self.acts))
        self.closing, _asleep, _cut = lab.close_lid()
        self.frames = lab.radio_frames()
        self.held = Counter(self._port(row["flow"]) for row in lab.sessions())
        self._say("asleep")
        self.stage.open_lanes(OPEN, through=True)
        lab.pause(ASLEEP)
        self._wait_through()
        self.frames = lab.radio_frames() - self.frames
        self.ended = [act.stock.name for act in self.acts if not act.device.running]
        _restored, self.opening, _awake = lab.open_lid()
        self._hear()
        self._say("after")
        self.stage.open_lanes(OPEN)
        self.stage.awake.touch()
        lab.pause(PAUSE)
        for act in self.acts:
            act.hang_up()
        deadline = time.monotonic() + PATIENCE
        self.found = {act.stock.name: self._finish(act, deadline) for act in self.acts}
        lab.timeline.mark("programs-ended")

    def _wait_through(self) -> None:
        """Until the stand-in has acknowledged the whole file of every program that it comes through of."""
        through = {act.port: act.stock for act in self.acts if act.stock.through}

        def there() -> bool:
            moved = self.stage.moved()
            return all(moved.get(port, (0, SIZE))[1] >= act.files * SIZE for port, act in through.items())

        wait_until("the stand-in to have whole files", there, PATIENCE, pause=0.2)

    def _hear(self) -> None:
        """Wait until every talk shows the data of the sleep; return those that do not."""
        self.deaf: list[Act] = []
        deadline = time.monotonic() + HEARING
        for act in self.acts:
            wanted = act.stock.talk.heard if act.stock.talk else ""
            while wanted not in self.stage.said(act) and time.monotonic() < deadline:
                time.sleep(0.02)
            if wanted not in self.stage.said(act):
                self.deaf.append(act)

    def _say(self, when: str) -> None:
        for act in self.acts:
            if act.stock.talk is not None:
                act.say(str(getattr(act.stock.talk, when)))

    def _port(self, flow: str) -> int | None:
        ports = [int(word.rpartition(":")[2]) for word in flow.split() if word[-1].isdigit()]
        return self.stage.program_port(*[port for port in ports if 0 < port < 65536])

    def _finish(self, act: Act, deadline: float) -> str:
        """Faults of the program, in words; empty if it ended correctly."""
        faults = ["does not notice the data of its sleep"] if act in self.deaf else []
        while not self.stage.correct(act) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not self.stage.correct(act):
            faults.append("has not brought the expected data")
        ending = [("it", act.device)] if not act.stock.forever else []
        if act.stock.serves and act.peer is not None:
            ending.append(("its client", act.peer))
        for who, program in ending:
            try:
                status = program.wait(max(0.1, deadline - time.monotonic()))
            except LabError:
                faults.append(f"{who} still runs")
                continue
            if status:
                faults.append(f"{who} ended with {status}")
        return ", ".join(faults)

    def judge(self, lab: Lab, checks: Checks) -> None:
        segments = list(pcap.segments(lab.captures.files["cn"]))
        opened = self._opened(segments)
        for act in self.acts:
            made = opened[act.port]
            faults = [self.found[act.stock.name]] if self.found[act.stock.name] else []
            if self.held[act.port] != act.stock.connections:
                faults.append(f"{self.held[act.port]} of {act.stock.connections} connections at the stand-in")
            if made != act.stock.connections:
                faults.append(f"{made} connections made instead of {act.stock.connections}")
            checks.equal(
                f"{act.stock.name} ({act.stock.waits})", "; ".join(faults) or "ended right", "ended right"
            )
        checks.at_least("programs", len(self.acts), 20)
        checks.equal("ended_before_waking", ", ".join(self.ended) or "none", "none")
        resets = [segment for segment in segments if self.closing < segment.time < self.opening]
        no_resets(checks, "cn_resets_while_asleep", resets)
        checks.equal("mn_frames_while_asleep", self.frames, 0, "frames")
        checks.equal("handovers", handovers(lab), 1)

    def _opened(self, segments: Sequence[pcap.Segment]) -> Counter[int]:
        """Connections that were opened, by the port of their program: a SYN without ACK, each once."""
        seen = {
            (segment.source, segment.source_port, segment.destination_port)
            for segment in segments
            if segment.flags & pcap.SYN
            and not segment.flags & pcap.ACK
            and str(HOME_ADDRESS4) in map(str, (segment.source, segment.destination))
        }
        ports = Counter(self.stage.program_port(there, here) for _source, here, there in seen)
        return Counter({port: count for port, count in ports.items() if port is not None})
