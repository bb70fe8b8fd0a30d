"""Fig. 11: network paging by a connection, and application paging by a file that is complete (P1, P3, P4, P17).

The device says what shall wake it by `locum wake-on`: its home agent learns of packets (1204), its stand-in of events (1206).
"""

from typing import Any, ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs import services
from locum.lab.programs.services import SecureShell
from locum.lab.programs.talking import hear, say
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.ordered import Ordered
from locum.lab.steps.paging import (
    ASSOCIATIONS,
    HOME,
    PATIENCE,
    begun,
    fall_asleep,
    judge_outcomes,
    state,
    wait_awake,
    wait_outcome,
)
from locum.lab.steps.story import PORT, web
from locum.lab.timeline import Event
from locum.lab.world import Lab

_NODES = figure_5()
SIZE = 6_000_000
RATE = 2_000_000
"""Bytes a second of the server."""
AGENTS = (*ASSOCIATIONS, Pair("ha", "mn"), Pair("ha", "mnps", at_near={"may_trigger": True}))
"""Further control associations of paging: what the device and its stand-in tell the home agent."""
STAND_IN = {"mnps": {"home_agent": str(_NODES.address4("ha"))}}
"""Of the stand-in, for pages of the devices whose event tables it has."""


class Fig11(Scenario):
    """ssh from the correspondent wakes the device; then a file of many packets does, once, when all of it is there."""

    name = "fig11"
    title = "ssh to a sleeping device connects, and a download wakes it at its end"
    plan: ClassVar[Plan] = Plan(associations=AGENTS, tables={"mnps": STAND_IN})

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.cn = lab.topology.address4("cn")
        self._network(lab)
        self._application(lab)

    def _network(self, lab: Lab) -> None:
        shell = SecureShell(lab.processes, "mn", lab.output / "ssh")
        shell.start()
        lab.command("mn", "wake-on", "ssh")
        self.slept = fall_asleep(lab)
        self.connects = lab.timeline.mark("ssh-connects")
        client = shell.login("cn", self.cn, HOME)
        say(client, "echo here $((6*7))", answered=False)
        self.said = hear(client, PATIENCE)
        self.by_packet = wait_outcome(lab, self.connects)
        self.woken = wait_awake(lab)
        say(client, "exit", answered=False)
        client.wait(PATIENCE)
        self.shown = lab.command("ha", "page", "list")

    def _application(self, lab: Lab) -> None:
        _server, digests = web(lab, [("film", SIZE)], str(RATE))
        lab.command("mn", "order", "download", f"http://{self.cn}/film")
        lab.command("mn", "wake-on", "download")
        self.second = lab.timeline.mark("lid-closes")
        lab.command("mn", "sleep")
        lab.timeline.mark("asleep")
        Ordered(lab, "film").wait_for("delivered")
        self.by_event = wait_outcome(lab, self.second)
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        lab.timeline.mark("awake")
        lab.command("mn", "order", "fetch", "film", "-o", str(lab.output))
        self.whole = services.sha256(lab.output / "film") == digests["film"]

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("ssh_said", self.said, "here 42")
        checks.equal("page_of_the_connection", cause(self.by_packet), "packet")
        syns = [
            one
            for one in pcap.segments(lab.captures.files["cn"])
            if one.outgoing
            and one.destination_port == 22
            and one.flags & (pcap.SYN | pcap.ACK) == pcap.SYN
            and one.time >= self.connects
        ]
        checks.fact("syns_of_the_correspondent", len(syns), "segments")
        checks.fact("connected_after_s", self.woken - self.connects, "s")
        checks.holds("page_is_listed", "reached" in self.shown)
        checks.equal("page_of_the_file", cause(self.by_event), "event film delivered")
        checks.holds("file_is_whole", self.whole)
        pages = begun(lab, self.second)
        checks.equal("pages_of_the_file", len(pages), 1, "pages")
        data = [
            one.time
            for one in pcap.segments(lab.captures.files["cn"])
            if one.outgoing and one.source_port == PORT and one.destination == HOME_ADDRESS4 and one.length
        ]
        before = sum(self.second <= time < pages[0].time for time in data)
        checks.at_least("packets_before_the_page", before, 1000, "segments")
        checks.equal("packets_after_the_page", sum(time >= pages[0].time for time in data), 0, "segments")
        told = messages(lab)
        checks.holds("messages_of_the_figure", {"1204", "1206", "1170", "1172"} <= told)
        judge_outcomes(lab, checks)


def cause(page: Event) -> str:
    """The cause of a page, in words."""
    detail: Any = page.detail
    if detail["outcome"] != "reached":
        return f"{detail['outcome']}: {detail.get('reason', '')}"
    words = (detail["cause"], detail.get("app"), detail.get("event"))
    return " ".join(str(word) for word in words if word)


def messages(lab: Lab) -> set[str]:
    """Numbers of the messages that events are about."""
    return {event.message or "" for event in lab.timeline.events()}
