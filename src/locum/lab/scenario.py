"""A scenario, and its course: build the lab, play, measure, report.

A scenario plays its story first and judges it afterwards from what was recorded; a story that cannot be played to
its end is a failure with a reason, and its records are kept.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

from locum.lab.captures.dissection import control_packets, malformed
from locum.lab.configuration import Plan
from locum.lab.errors import LabError
from locum.lab.report import diagram, ladder
from locum.lab.report.checks import Checks
from locum.lab.report.report import Report
from locum.lab.timeline import Event
from locum.lab.world import Lab
from locum.node.control.client import NodeUnreachable

LADDER_COLUMNS = ("mn", "mn2", "an1", "an2", "srv", "ha", "an3", "mnps", "mnps2")
LADDER_NOTES = frozenset(
    (
        "asleep",
        "awake",
        "expired",
        "visitor-expired",
        "revoked",
        "visitor-revoked",
        "nat-mapping-lost",
        "session-lost",
        "session-stays",
        "session-refused",
        "sleep-failed",
        "event-fired",
        "page-ended",
        "paged",
    )
)


class Scenario(ABC):
    """One scenario. A new object is made for every run, and keeps the results of `play` for `judge`."""

    name: ClassVar[str]
    title: ClassVar[str]
    plan: ClassVar[Plan] = Plan()
    exhaustive: ClassVar[bool] = False
    """Too long for every run of the tests."""
    broken_from: ClassVar[tuple[str, ...]] = ()
    """Addresses that send malformed packets on purpose, and nothing else."""
    opaque: ClassVar[str] = ""
    """Range of TCP ports with arbitrary content, as for `dissection.malformed`."""

    @abstractmethod
    def play(self, lab: Lab) -> None:
        """Act it out. Raises LabError when it cannot go on."""

    @abstractmethod
    def judge(self, lab: Lab, checks: Checks) -> None:
        """Measure, with all captures closed and the lab still standing."""


def perform(
    scenario: Scenario,
    output: Path,
    *,
    keep: bool = False,
    listener: Callable[[Event], None] | None = None,
    watch: Callable[[Lab], None] | None = None,
    whole_captures: bool = True,
) -> Report:
    """Run a scenario with all its evidence below `output`. Raises LabError when the lab cannot be built.

    `listener` is called with every mark of the lab, `watch` the lab itself once it stands. tshark reads all packets of the
    captures for malformed ones, or, without `whole_captures`, all but the segments of TCP connections: half the time.
    """
    checks = Checks()
    begin = time.monotonic()
    failure = ""
    with Lab(scenario.name, output, scenario.plan, keep=keep, listener=listener) as lab:
        if watch is not None:
            watch(lab)
        lab.timeline.mark("lab-stands")
        try:
            scenario.play(lab)
        except (LabError, NodeUnreachable) as reason:
            failure = str(reason)
            lab.timeline.mark("failed", reason=failure)
        lab.finish()
        if not failure:
            scenario.judge(lab, checks)
        checks.equal("malformed_packets", malformed_packets(lab, scenario, whole_captures), 0, "packets")
        events = lab.timeline.merge(lab.output / "events.jsonl")
        report = Report(
            scenario.name,
            checks,
            events,
            lab.captures.files,
            time.monotonic() - begin,
            failure,
            write_ladder(lab, scenario),
        )
    return report


def malformed_packets(lab: Lab, scenario: Scenario, whole_captures: bool) -> int:
    """Count malformed packets by tshark, in all captures: of all packets, or of control packets only.

    Whole captures are read by two processes, the largest first, so that both end at about the same time.
    """
    count = partial(malformed, broken_from=scenario.broken_from, opaque=scenario.opaque)
    files = sorted(lab.captures.files.values(), key=lambda file: file.stat().st_size, reverse=True)
    if not whole_captures:
        with control_packets(files) as control:
            return count(control)
    with ThreadPoolExecutor(2) as readers:  # each starts a tshark
        return sum(readers.map(count, files))


def write_ladder(lab: Lab, scenario: Scenario) -> dict[str, Path]:
    """The message diagram of everything so far, as text and as a page."""
    known = {node.name: node for node in lab.topology.nodes}
    nodes = [known[name] for name in LADDER_COLUMNS if name in known]
    drawn = ladder.draw(
        f"{scenario.name}: {scenario.title}", lab.timeline.events(), nodes, lab.owner, LADDER_NOTES
    )
    files = {"text": lab.output / "ladder.txt", "html": lab.output / "ladder.html"}
    files["text"].write_text(diagram.as_text(drawn))
    files["html"].write_text(diagram.as_html(drawn))
    return files
