"""Daemons beside others of their hosts: systemd-networkd manages links, rules vanish, a program of somebody else comes first.

Packets flow in both directions meanwhile. None is lost that was sent more than a second after a disturbance.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from locum.lab.network.namespaces import run
from locum.lab.processes import Program, wait_until
from locum.lab.programs import networkd, stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06_crash import start_stream
from locum.lab.world import Lab

DOWN, UP = 7021, 7022
"""Ports of the streams to the device, and from it."""
RATE = 100
GRACE, QUIET = 1.0, 2.0
"""Seconds after a disturbance in which packets may be lost, and until the next one."""
CONTROL = 5000
"""Preference of a rule that nobody defends: its loss shows that networkd has removed rules."""
NEW_LINK = "[Match]\nName=new*\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
NODES = ("mn", "ha", "an1")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """When a disturbance began and was over, in seconds since the epoch."""

    begin: float
    end: float


class Neighbours(Scenario):
    """networkd at the device, the home agent and the access node; a foreign tcx program at the home agent."""

    name = "neighbours"
    exhaustive = True  # tests of the keeper and of the data plane hold its parts
    title = "daemons hold their ground beside networkd and a foreign program"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.done: list[Disturbance] = []
        streams = [start_stream(lab, DOWN, RATE), self._stream_up(lab)]
        lab.pause(1.0)
        with self._disturbance(lab, "networkd-starts"):
            for node in NODES:
                self._rule(lab, node, "add", str(CONTROL), "lookup", str(CONTROL))
                folder = lab.place.path / f"networkd-{node}"
                networkd.start(lab.processes, node, folder, {"new.network": NEW_LINK})
        with self._disturbance(lab, "link-appears"):
            for node in NODES:
                space = lab.place.namespace(node)
                run(["ip", "-n", space, "link", "add", "new0", "type", "veth", "peer", "new1"])
                run(["ip", "-n", space, "link", "set", "new0", "up"])
            wait_until("networkd to remove a rule at each node", lambda: not self._controls(lab), 20)
        with self._disturbance(lab, "rules-vanish"):
            for node, version, preference in self._own_rules(lab):
                self._rule(lab, node, "del", preference, version=version)
        with self._disturbance(lab, "routes-vanish"):
            run(["ip", "-n", lab.place.namespace("mn"), "route", "flush", "table", "436", "proto", "kernel"])
        with self._disturbance(lab, "program-attaches"):
            command = [sys.executable, "-m", "locum.lab.programs.foreign_program", "eth0"]
            foreign = lab.processes.start("ha", "foreign-program", command)
            wait_until(
                "the foreign program to attach",
                lambda: "attached" in foreign.log.read_text() or not foreign.running,
            )
        self.ended = time.time() - GRACE  # later packets may still be under way
        self.states = {node: lab.ask(node, "status").get("host", {}) for node in NODES}
        for program in streams:
            program.stop()

    def judge(self, lab: Lab, checks: Checks) -> None:
        for port, sender, receiver in ((DOWN, "cn", "mn"), (UP, "mn", "cn")):
            sent = due(stream.arrivals(lab.captures.files[sender], port, outgoing=True))
            arrived = stream.numbers(lab.captures.files[receiver], port, outgoing=False)
            way = f"to_{receiver}"
            checks.more_than(f"sent_{way}", len(sent), len(self.done) * RATE, "packets")
            lost = [at for number, at in sent.items() if at < self.ended and number not in arrived]
            checks.at_most(f"last_loss_{way}_s", max(map(self._since, lost), default=0.0), GRACE, "s")
            late = [at for at in lost if self._since(at) > GRACE + QUIET]
            checks.equal(f"lost_{way}_undisturbed", len(late), 0, "packets")
        by_networkd = self._restored(lab, "mn", "rule", until=self.done[2].begin)
        checks.equal("rules_lost_to_networkd", by_networkd, 0, "rules")
        checks.more_than("rules_restored", self._restored(lab, "mn", "rule"), 0, "rules")
        checks.more_than("routes_restored", self._restored(lab, "mn", "route"), 0, "routes")
        checks.at_least("programs_restored", lab.timeline.count("ha", "program-restored"), 1, "programs")
        checks.equal("hosts_in_order", all(not state for state in self.states.values()), True)

    @contextmanager
    def _disturbance(self, lab: Lab, name: str) -> Iterator[None]:
        begin = lab.timeline.mark(name)
        yield
        self.done.append(Disturbance(begin, time.time()))
        lab.pause(GRACE + QUIET)

    def _since(self, sent: float) -> float:
        """Seconds from the end of the latest disturbance, 0 within one; infinite before the first."""
        ends = [disturbance.end for disturbance in self.done if disturbance.begin <= sent]
        return max(0.0, sent - ends[-1]) if ends else inf

    def _stream_up(self, lab: Lab) -> Program:
        to = str(lab.topology.address4("cn"))
        command = [sys.executable, "-m", "locum.lab.programs.stream", to, str(UP), str(RATE), "600"]
        return lab.processes.start("mn", f"stream-{UP}", command)

    @staticmethod
    def _rule(lab: Lab, node: str, command: str, preference: str, *words: str, version: str = "-4") -> None:
        run(["ip", "-n", lab.place.namespace(node), version, "rule", command, "pref", preference, *words])

    @staticmethod
    def _controls(lab: Lab) -> list[str]:
        """Nodes whose undefended rule still stands."""
        return [node for node in NODES if f"lookup {CONTROL}" in _rules(lab, node, "-4")]

    @staticmethod
    def _own_rules(lab: Lab) -> list[tuple[str, str, str]]:
        """Rules of our daemons: node, version and preference."""
        return [
            (node, version, line.split(":")[0])
            for node in NODES
            for version in ("-4", "-6")
            for line in _rules(lab, node, version).splitlines()
            if line.split(":")[0] not in ("0", "32766", "32767", str(CONTROL))
        ]

    @staticmethod
    def _restored(lab: Lab, node: str, setting: str, until: float = inf) -> int:
        return sum(
            int(event.detail["number"])
            for event in lab.timeline.of(node)
            if event.kind == "setting-restored" and event.detail["setting"] == setting and event.time < until
        )


def due(sent: dict[int, float]) -> dict[int, float]:
    """Time at which each number was to be sent, by those that left: some were refused by the host's own kernel."""
    if not sent:
        return {}
    begin = min(at - number / RATE for number, at in sent.items())
    return {number: sent.get(number, begin + number / RATE) for number in range(max(sent) + 1)}


def _rules(lab: Lab, node: str, version: str) -> str:
    return run(["ip", "-n", lab.place.namespace(node), version, "rule", "show"])
