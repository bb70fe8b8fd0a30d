"""The radio fails silently: the access node makes the stand-in take over until an answer (C8, C11)."""

from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, merged
from locum.lab.processes import Program, wait_until
from locum.lab.programs import asking
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.stand_ins.fig07 import device_binding, stand_ins
from locum.lab.steps.flow_checks import judge_flows, standing_rule
from locum.lab.steps.resets import no_resets
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.steps.story import download, web
from locum.lab.world import Lab

ECHO, LISTENER = 7007, 8007
PROBE, MISSES = 0.1, 3
"""Seconds between probes of a visitor, and how many in a row make it lost."""
AWAY = 4.0
SIZE, RATE = 3_500_000, "400k"
"""The device's own session: as slow as that, it lasts from before the loss to after the return."""
SERVES = 2.0
RETURNS = 5.0
"""Bounds in seconds: until the home address answers again, and until the device itself does when it is back."""


class Fig07Lost(Scenario):
    """An echo, a listener and a download of the device; its radio fades, and comes back."""

    name = "fig07-lost"
    title = "the radio dies without a word: the access node starts the takeover, and ends it"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1)
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        associations=(Pair("an1", "mnps", at_far={"may_trigger": True}),),
        tables={
            **registering(stand_in),
            "ha": merged(registering(stand_in)["ha"], standing_rule(ECHO, to=("mnps", "mn"))),
            "an1": {
                "foreign_agent": {
                    "probe_interval": PROBE,
                    "probe_misses": MISSES,
                    "mnps": [stand_in.address],
                }
            },
            "mnps": merged(
                registering(stand_in)["mnps"],
                {
                    "mnps": {
                        "service": [
                            {"protocol": "udp", "port": ECHO},
                            {"protocol": "tcp", "port": LISTENER},
                        ]
                    }
                },
            ),
        },
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        for node, more in (("mn", ""), ("mnps", ",ip-transparent")):
            serve(lab, node, more)
        self.server, digests = web(lab, [("film", SIZE)], RATE)
        self.asker = asking.start(
            lab.processes, "cn", str(HOME_ADDRESS4), (ECHO, LISTENER), lab.output / "answers.jsonl"
        )
        self.download = download(lab, "film", digests["film"])
        wait_until("the device to answer", lambda: self.first(0.0, "mn") < float("inf"), 20)
        self.download.wait_for(SIZE // 10)
        self.before = device_binding(lab)
        self.faded = lab.fade("an1")
        wait_until("the stand-in to answer", lambda: self.first(self.faded, "mnps") < float("inf"), 20)
        lab.pause(AWAY)
        self.during, self.taken = device_binding(lab), stand_ins(lab)
        self.there = self.download.received
        self.returned = lab.fade("an1", silent=False)
        wait_until("the device to answer", lambda: self.first(self.returned, "mn") < float("inf"), 20)
        wait_until("the stand-in to be done", lambda: not stand_ins(lab), 10)
        self.status = self.download.finish(60)
        self.afterwards = device_binding(lab)
        self.asker.program.stop()

    def first(self, after: float, place: str) -> float:
        """Time of the first answer of the home address, in both directions; connections at this place."""
        return max(self.asker.first("udp", after), self.asker.first("tcp", after, place))

    def judge_silence(self, lab: Lab, checks: Checks) -> None:
        """The correspondent gets no reset, except those that the returned device itself sends in between."""
        cn = lab.captures.files["cn"]
        told = [
            datagram
            for datagram in pcap.datagrams(cn)
            if not datagram.outgoing and datagram.protocol == pcap.ICMP
        ]
        checks.equal("icmp_to_cn", len(told), 0, "packets")
        to_cn = [segment for segment in pcap.segments(cn) if not segment.outgoing]
        away = [segment for segment in to_cn if self.faded <= segment.time <= self.returned]
        no_resets(checks, "resets_while_lost", away)
        download = [
            segment for segment in pcap.segments(cn) if 80 in (segment.source_port, segment.destination_port)
        ]
        no_resets(checks, "resets_of_the_download", download)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.at_most("udp_answered_after_s", self.asker.first("udp", self.faded) - self.faded, SERVES, "s")
        checks.at_most(
            "tcp_answered_after_s", self.asker.first("tcp", self.faded, "mnps") - self.faded, SERVES, "s"
        )
        checks.at_most("back_at_device_s", self.first(self.returned, "mn") - self.returned, RETURNS, "s")
        checks.holds("device_binding_untouched", self.before == self.during == self.afterwards)
        checks.equal("taken_by", ", ".join(self.taken), "at-mnps")
        checks.at_most("received_before_return", self.there, SIZE - 1, "bytes")
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        self.judge_silence(lab, checks)
        judge_start(lab, checks, str(lab.configuration.care_of("an1")))
        judge_flows(lab, checks)


def serve(lab: Lab, node: str, more: str) -> tuple[Program, ...]:
    """A stock echo and a stock listener that sends its place, at the home address."""
    echo = f"UDP4-RECVFROM:{ECHO},bind={HOME_ADDRESS4},fork{more}"
    listener = f"TCP4-LISTEN:{LISTENER},bind={HOME_ADDRESS4},reuseaddr,fork{more}"
    return (
        lab.processes.start(node, f"echo-{node}", ["socat", echo, "PIPE"]),
        lab.processes.start(node, f"listener-{node}", ["socat", listener, f"SYSTEM:echo {node}"]),
    )


def judge_start(lab: Lab, checks: Checks, access_node: str) -> None:
    """Nodes that noticed the loss, and their requests."""
    seen = [event.kind for event in lab.timeline.of("an1") if event.kind.startswith("visitor-")]
    checks.equal("access_node_noticed", ", ".join(seen), "visitor-lost, visitor-back")
    asked = [event.detail for event in lab.timeline.of("mnps") if event.kind == "triggered"]
    take = [detail for detail in asked if detail["operation"] == "take"]
    checks.equal("takes", len(take), 1)
    checks.holds("started_by_access_node", all(detail["from"] == access_node for detail in take))
    checks.holds("because_lost", all(detail["reason"] == "lost" for detail in take))
    handovers = [event for event in lab.timeline.of("mnps") if event.message in ("634", "632")]
    checks.equal("handovers", len(handovers), 0, "messages")
