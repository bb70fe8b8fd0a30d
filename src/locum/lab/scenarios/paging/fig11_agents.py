"""Fig. 11, the further ways: two agents at once, and a direct page whose device gives new directions and sleeps on (P2, P5).

A rule leads packets of each kind to an agent of its own. The second page goes by the access node alone (1172A).
"""

import sys
from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, Table, merged
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.paging.fig11 import AGENTS, cause
from locum.lab.steps.flow_checks import inner_packets
from locum.lab.steps.paging import HOME, PATIENCE, begun, judge_outcomes, state, wait_outcome
from locum.lab.steps.stand_ins import Registering, further, registering
from locum.lab.timeline import Event
from locum.lab.world import Lab

_NODES = figure_5(("mnps2",))
_SERVER: Table = {"location_server": str(_NODES.address4("ha"))}
FIRST, SECOND = 7012, 7022
"""Ports of packets for each agent."""
_SEND = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(sys.argv[1].encode(), (sys.argv[2], int(sys.argv[3])))"


def _entry(word: str) -> Table:
    return {
        "app": "packet",
        "kind": "udp",
        "where": [{"field": "text", "is": "contains", "value": word}],
    }


DIRECTION: Table = {
    **_entry("hint"),
    "decision": "stay",
    "entry": [{"id": 9, **_entry("treasure"), "actions": ["page"]}],
}
"""Answer of the device to a direct page about a hint: it sleeps on, and a treasure is to page it."""


def _plan() -> Plan:
    own = registering(Registering("mnps", bid=1), Registering("mnps2", bid=2, colocated=True))
    nodes = [str(_NODES.address4(node, "radio0")) for node in ("an1", "an2")]
    location: Table = {"access_nodes": nodes, "clients": [str(_NODES.address4("mnps"))]}
    return Plan(
        extras=("mnps2",),
        associations=(*AGENTS, Pair("mnps", "an1"), Pair("mnps", "an2"), *further("mnps2")),
        tables={
            "ha": merged(own["ha"], {"location": location}),
            "mn": merged(own["mn"], {"mobile_node": {"direction": [DIRECTION]}}),
            "mnps2": own["mnps2"],
            "mnps": merged(own["mnps"], {"mnps": _SERVER}),
            "an1": {"foreign_agent": _SERVER},
            "an2": {"foreign_agent": _SERVER},
        },
    )


class Fig11Agents(Scenario):
    """Packets of two kinds go to two agents while the device sleeps; then a hint changes what wakes it, and a treasure does."""

    name = "fig11-agents"
    title = "two agents of a sleeping device at once, and a direct page that changes its directions"
    plan: ClassVar[Plan] = _plan()

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        lab.command(
            "mn", "wake-on", "ssh"
        )  # so that it sleeps with a very short registration, whatever its stand-ins do
        for node, port in (("mnps", FIRST), ("mnps2", SECOND)):  # each registers as soon as it has a flow
            lab.command(node, "flow", "add", "--protocol", "udp", "--destination-port", str(port + 1))
        add = ("flow", "add", "--home-address", HOME, "--agent", "--protocol", "udp")
        lab.command("ha", *add, "--priority", "7", "--to", "at-mnps", "--destination-port", str(FIRST))
        lab.command("ha", *add, "--priority", "8", "--to", "at-mnps2", "--destination-port", str(SECOND))
        self._together(lab)
        self._direct(lab)

    def _together(self, lab: Lab) -> None:
        self._wish(lab, "alert")
        self.begin = self._sleep(lab)
        self._send(lab, "news", FIRST)
        self._send(lab, "song", SECOND)
        self._send(lab, "alert of the second agent", SECOND)
        lab.pause(2.0)
        self.before = (state(lab), len(begun(lab, self.begin)))
        self._send(lab, "alert of the first agent", FIRST)
        self.by_agent = wait_outcome(lab, self.begin)
        self.woken = self._wait_awake(lab)

    def _direct(self, lab: Lab) -> None:
        self._wish(lab, "hint", "--direct")
        self.second = self._sleep(lab)
        self.registered = self._registrations(lab)
        self._send(lab, "a treasure too early", FIRST)
        self._send(lab, "a hint", FIRST)
        wait_until("the directions", lambda: bool(self._direct_pages(lab)), PATIENCE)
        lab.pause(2.0)
        self.directed = (state(lab), self._registrations(lab) - self.registered, len(begun(lab, self.second)))
        self._send(lab, "a treasure", FIRST)
        self.by_direction = wait_outcome(lab, self.second)
        self._wait_awake(lab)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("state_after_other_packets", str(self.before), str(("asleep", 0)))
        for node, port in (("mnps", FIRST), ("mnps2", SECOND)):
            checks.equal(f"ports_at_{node}", str(sorted(self._ports(lab, node))), str([port]))
        checks.equal("page_of_the_first_agent", cause(self.by_agent), "event packet udp")
        outcomes = [str(event.detail["outcome"]) for event in self._direct_pages(lab)]
        checks.equal("direct_pages", ", ".join(outcomes), "directed")
        checks.equal("state_and_registrations_and_pages", str(self.directed), str(("asleep", 0, 0)))
        checks.equal("page_of_the_directions", cause(self.by_direction), "event packet udp")
        fired = [event.detail["entry"] for event in lab.timeline.of("mnps") if event.kind == "event-fired"]
        checks.equal("last_entry", fired[-1], 9)
        checks.equal("pages_of_the_home_agent", len(begun(lab, self.begin)), 2, "pages")
        judge_outcomes(lab, checks)

    # Steps -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _wish(lab: Lab, word: str, *options: str) -> None:
        where = ("--app", "packet", "--where", f"text contains {word}")
        lab.command("mn", "wake-on", "event", "udp", *where, *options)

    @staticmethod
    def _sleep(lab: Lab) -> float:
        lab.timeline.mark("lid-closes")
        lab.command("mn", "sleep")
        wait_until(
            "its rules to be in force", lambda: all(rule["live"] for rule in lab.flow_rules()), PATIENCE
        )
        return lab.timeline.mark("asleep")

    @staticmethod
    def _wait_awake(lab: Lab) -> float:
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        return lab.timeline.mark("awake")

    @staticmethod
    def _send(lab: Lab, text: str, port: int) -> None:
        lab.timeline.mark("sent-to-sleeper", text=text)
        lab.processes.run("cn", [sys.executable, "-c", _SEND, text, HOME, str(port)])

    @staticmethod
    def _direct_pages(lab: Lab) -> list[Event]:
        return [event for event in lab.timeline.of("mnps") if event.kind == "direct-page-ended"]

    @staticmethod
    def _registrations(lab: Lab) -> int:
        return sum(event.kind == "sent" and event.message == "601" for event in lab.timeline.of("mn"))

    def _ports(self, lab: Lab, node: str) -> set[int]:
        """Ports of the home address to which packets came at a node during the first sleep."""
        found = (inner.datagram for inner in inner_packets(lab.captures.files[node]))
        return {
            one.ports[1]
            for one in found
            if one.protocol == pcap.UDP
            and not one.outgoing
            and one.destination == HOME_ADDRESS4
            and one.ports[1] in (FIRST, SECOND)
            and self.begin <= one.time <= self.woken
        }
