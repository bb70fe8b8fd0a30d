"""The correspondent's gap around a takeover and a reclaim, against a download that is cut and resumed.

Ours is the lab's scenario fig06 with its own measurement. The baseline plays the same download over the same network and daemons, with the
same time of radio silence, but without a stand-in: the connection is cut, and afterwards `curl -C -` fetches the rest.
"""

import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed
from bench.report import quantity
from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.errors import LabError
from locum.lab.processes import Program
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import ASLEEP, HEAD_START, SIZE, Fig06
from locum.lab.steps.story import PORT, download, web
from locum.lab.world import Lab
from locum.node.control.client import NodeUnreachable

NAMES = ("handover_gap", "reclaim_gap")
_RESUMED_SECONDS = 60.0


def progress(segments: Iterable[pcap.Segment]) -> Iterator[float]:
    """Times at which acknowledgements of payload arrived at the server on PORT, on any connection.

    The first acknowledgement of a connection ends its handshake and moves no payload.
    """
    highest: dict[tuple[pcap.Address, int], int] = {}
    for segment in segments:
        if segment.outgoing or segment.destination_port != PORT or not segment.flags & pcap.ACK:
            continue
        peer, number = (segment.source, segment.source_port), segment.acknowledgement
        before = highest.setdefault(peer, number)
        if 0 < (number - before) & 0xFFFFFFFF < 1 << 31:
            highest[peer] = number
            yield segment.time


class CutAndResumed(Scenario):
    """The download of fig06 without a stand-in."""

    name = "cut-and-resumed"
    title = "the radio is cut in the middle of a download; afterwards curl -C - resumes it"

    def play(self, lab: Lab) -> None:
        """Download, cut, wait as long as fig06 sleeps, resume."""
        lab.wait_registered()
        _, digests = web(lab, [("film", SIZE)])
        first = download(lab, "film", digests["film"])
        first.wait_for(HEAD_START)
        self.cut = lab.cut()
        first.program.kill()
        lab.pause(ASLEEP)
        self.restored = lab.restore()
        command = ("curl", "--silent", "--show-error", "--fail", "--continue-at", "-", "--interface")
        url = f"http://{lab.topology.address4('cn')}/film"
        end = time.monotonic() + _RESUMED_SECONDS
        while self._resume(lab, [*command, str(HOME_ADDRESS4), "-o", str(first.target), url]):
            if time.monotonic() > end:
                raise LabError(f"curl -C - could not resume within {_RESUMED_SECONDS:.0f} s")
        if not first.correct:
            raise LabError("the resumed file is not the one that was served")

    @staticmethod
    def _resume(lab: Lab, command: list[str]) -> int:
        program: Program = lab.processes.start("mn", "curl-resumed", command)
        return program.wait(_RESUMED_SECONDS)

    def judge(self, lab: Lab, checks: Checks) -> None:
        """The gap at the correspondent: all of it, and the part after the radio was back."""
        moments = list(progress(pcap.segments(lab.captures.files["cn"])))
        before = max(moment for moment in moments if moment <= self.restored)
        after = min(moment for moment in moments if moment > self.restored)
        checks.fact("handover_gap_ms", 1000 * (after - before), "ms")
        checks.fact("reclaim_gap_ms", 1000 * (after - self.restored), "ms")


@dataclass(frozen=True, slots=True)
class Gaps:
    """Results of one run: gaps in milliseconds, and the names of failed checks."""

    handover_gap: float
    reclaim_gap: float
    failed: tuple[str, ...]


def _play(scenario: Scenario) -> Gaps:
    """One run in a lab of its own, without the lab's report and its check of every packet."""
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as folder:
        try:
            with Lab(scenario.name, Path(folder), scenario.plan) as lab:
                scenario.play(lab)
                lab.finish()
                scenario.judge(lab, checks)
        except (LabError, NodeUnreachable) as error:
            raise CommandFailed(f"{scenario.name}: {error}") from error
    handover, reclaim = (float(checks.value(f"{name}_ms")) for name in NAMES)
    return Gaps(handover, reclaim, tuple(check.name for check in checks.made if not check.ok))


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of NAMES that are wanted; without a warm-up, as a person's sleep has none."""
    ours: list[Gaps] = []
    plain: list[Gaps] = []
    for _ in range(settings.long_rounds):
        ours.append(_play(Fig06()))
        plain.append(_play(CutAndResumed()))
    base = f"baseline: the same download cut for {quantity(ASLEEP)} s and resumed by curl -C -"
    failed = sorted({name for run in ours for name in run.failed})
    more = (f"checks of fig06 that did not hold: {', '.join(failed)}",) if failed else ()
    rows = (
        Measurement(
            "handover_gap",
            "ms",
            tuple(run.handover_gap for run in ours),
            tuple(run.handover_gap for run in plain),
            (f"{base}, all of the silence", *more),
        ),
        Measurement(
            "reclaim_gap",
            "ms",
            tuple(run.reclaim_gap for run in ours),
            tuple(run.reclaim_gap for run in plain),
            (f"{base}, the silence after the radio is back", *more),
        ),
    )
    return [measured for measured in rows if measured.name in wanted]
