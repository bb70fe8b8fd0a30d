"""Pages over bad radio, with restarts and daemons that die: every page ends in an outcome, and no event is lost (P1, P11, P17).

The event is a connection of the correspondent: its first segment pages, and so does each repetition until one has an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from locum.lab.captures.pcap import ACK, SYN, segments
from locum.lab.configuration import Plan
from locum.lab.processes import Program, wait_until
from locum.lab.programs.services import WebServer
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.paging import (
    ASSOCIATIONS,
    HOME,
    PATIENCE,
    fall_asleep,
    judge_outcomes,
    paging,
    rule,
    wait_awake,
    wait_outcome,
)
from locum.lab.world import Lab

PORT = 80
CONTENT = b"what the device serves\n"
LONGEST = 180.0
"""Seconds for a connection, with all its repetitions."""
DOWN = 1.0
"""Seconds for which a daemon stays dead."""
LIMITS: Mapping[str, int | float] = {
    "pages_per_hour": 3600,
    "page_burst": 1000,
    "page_rule_interval": 1.0,
    "page_seconds": 10.0,
}


@dataclass(frozen=True, slots=True)
class Lossy:
    """The radio loses so many of 100 frames in each direction, from the sleep until the page has an outcome."""

    percent: int

    @property
    def name(self) -> str:
        return f"loss_{self.percent}"


@dataclass(frozen=True, slots=True)
class Killed:
    """A daemon dies at a step of a page, and is restarted. Steps: before, calling, answered."""

    node: str
    step: str

    @property
    def name(self) -> str:
        return f"{self.node}_killed_{self.step}"


@dataclass(frozen=True, slots=True)
class Moved:
    """The device is at another access node than its last location update says, and then comes back."""

    name = "moved"


Case = Lossy | Killed | Moved
NODES = ("ha", "an1", "mn", "mnps", "an3")
STEPS = ("before", "calling", "answered")


class PageLost(Scenario):
    """Each case is one sleep with one connection of the correspondent, which must complete."""

    name = "page-lost"
    title = (
        "pages with radio losses, moves and daemons that die at each step: every page ends, no event is lost"
    )
    exhaustive = True
    plan = Plan(
        associations=ASSOCIATIONS,
        tables={"ha": paging(rule(PORT, "tcp"), **LIMITS)},
    )
    cases: ClassVar[Sequence[Case]] = (
        *(Lossy(percent) for percent in (0, 10, 50) for _ in range(5)),
        Moved(),
        *(Killed(node, step) for node in NODES for step in STEPS),
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        web = WebServer(lab.processes, "mn", lab.output / "web")
        web.start()
        (web.root / "page").write_bytes(CONTENT)
        self.answers: list[tuple[str, bool, float]] = []
        self.outcomes: dict[str, list[str]] = {}
        for case in self.cases:
            self._play_case(lab, case)

    def _play_case(self, lab: Lab, case: Case) -> None:
        fall_asleep(lab)
        begin = lab.timeline.mark("case", name=case.name)
        match case:
            case Lossy(percent):
                lab.lose(percent)
                curl = self._connect(lab)
                outcome = wait_outcome(lab, begin)
                self.outcomes.setdefault(case.name, []).append(str(outcome.detail["outcome"]))
                lab.lose(0)
            case Killed(node, step):
                curl = self._kill(lab, node, step, begin)
            case Moved():
                lab.cut("an1")
                lab.restore("an2")
                curl = self._connect(lab)
                outcome = wait_outcome(lab, begin)
                self.outcomes.setdefault(case.name, []).append(str(outcome.detail["outcome"]))
                lab.cut("an2")
                lab.restore("an1")
        status = curl.wait(LONGEST)
        answered = status == 0 and (lab.output / "got").read_bytes() == CONTENT
        (lab.output / "got").unlink(missing_ok=True)
        awake = wait_awake(lab)
        self.answers.append((case.name, answered, awake - begin))

    def _kill(self, lab: Lab, node: str, step: str, begin: float) -> Program:
        """The daemon dies at this step: the radio is silent while the access node calls, so that the step lasts."""
        if step == "before":
            lab.crash(node)
            curl = self._connect(lab)
        else:
            if step == "calling":
                lab.fade("an1")
            curl = self._connect(lab)
            if step == "calling":
                lab.timeline.wait("an1", "calling", begin, PATIENCE)
            else:
                lab.timeline.wait("ha", "page-answered", begin, PATIENCE)
            lab.crash(node)
        lab.pause(DOWN)
        lab.restart(node)
        if step == "calling":
            lab.fade("an1", silent=False)
        return curl

    @staticmethod
    def _connect(lab: Lab) -> Program:
        command = [
            "curl",
            "-sf",
            "-m",
            str(LONGEST),
            "-o",
            str(lab.output / "got"),
            f"http://{HOME}:{PORT}/page",
        ]
        curl = lab.processes.start("cn", "curl", command)
        wait_until("the connection to begin", lambda: curl.running, 5.0)
        return curl

    def judge(self, lab: Lab, checks: Checks) -> None:
        missed = [name for name, answered, _seconds in self.answers if not answered]
        checks.equal("events_lost", ", ".join(missed) or "none", "none")
        checks.equal("cases", len(self.answers), len(self.cases), "cases")
        judge_outcomes(lab, checks, killed=any(isinstance(case, Killed) for case in self.cases))
        for name, outcomes in self.outcomes.items():
            checks.fact(f"outcomes_{name}", " ".join(outcomes))
        for name in dict.fromkeys(case.name for case in self.cases):
            longest = max(seconds for other, _answered, seconds in self.answers if other == name)
            checks.fact(f"awake_after_s_{name}", longest, "s")
        served = [
            one
            for one in segments(lab.captures.files["mn"])
            if not one.outgoing and one.destination_port == PORT and one.flags & (SYN | ACK) == SYN
        ]
        opened = {(one.source, one.source_port) for one in served}
        checks.equal("connections", len(opened), len(self.cases), "connections")


class PageLostBrief(PageLost):
    """A sample of the cases."""

    name = "page-lost-brief"
    title = "pages with radio losses and daemons that die: a sample"
    exhaustive = False
    cases: ClassVar[Sequence[Case]] = (
        Lossy(50),
        Killed("an1", "calling"),
        Killed("ha", "calling"),
    )
