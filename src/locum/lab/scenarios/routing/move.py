"""The mobile node moves between two access nodes: awake, in good order and by surprise, and asleep."""

import sys
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, Table
from locum.lab.processes import Program, wait_until
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.flow_checks import inner_packets, judge_flows, standing_rule
from locum.lab.steps.story import judge_sleeps, live, watch
from locum.lab.world import Lab

STEP = 4_000_000
ASLEEP = 5.1
RATE = 2_050
"""Datagrams a second of 1,220 bytes in all: 20 Mbit/s."""
PAYLOAD = 1_192
BEFORE = 0.3
AFTER = 0.5
"""Seconds of a stream before and after the device is at the other access node."""
NOWHERE = 0.5
"""Seconds in which it is at none; longer than a daemon on a busy machine needs to notice its lost link."""
ADVERTISE = 0.2
HEARD = 0.5
"""Seconds between two advertisements of an access node, and in which it advertises itself twice."""
PORTS = "7001-7004"
FORBIDDEN_PORT = 7_009
GROUP = IPv4Address("233.252.0.7")
GROUP_PORT = 7_007
OVERTAKEN_MS = 5.0
"""Time that a datagram which was held may come behind one that was not: two processors forward them at the same moment."""

STRANGERS, NEIGHBOURS = "access_node = false", "access_node = true"
GROUPS: Table = {"multicast_link": "mid0", "advertise_interval": ADVERTISE}
APART: Table = {"access_node": False}
POLICED: Table = {
    "home_address": str(HOME_ADDRESS4),
    "to_visitor": [{"id": 1, "action": "drop", "protocol": "udp", "destination_port": FORBIDDEN_PORT}],
}


@dataclass(slots=True)
class Transfer:
    """A numbered stream to the mobile node, and its fate."""

    port: int
    sent: int = 0
    arrived: tuple[int, ...] = ()

    @property
    def lost(self) -> int:
        return self.sent - len(set(self.arrived))

    @property
    def repeated(self) -> int:
        return len(self.arrived) - len(set(self.arrived))

    @property
    def overtaken(self) -> int:
        """Datagrams that came behind a later one."""
        latest, behind = -1, 0
        for number in self.arrived:
            behind += number < latest
            latest = max(latest, number)
        return behind


class Move(Scenario):
    """Streams over moves of both kinds, without access nodes that exchange contexts and with; then a download that sleeps."""

    name = "move"
    title = "from one access node to the other awake, and back asleep; packets and context move along"
    plan = Plan(
        tables={
            "ha": standing_rule(PORTS),
            "an1": {"foreign_agent": {**GROUPS, "profile": [POLICED]}},
            "an2": {"foreign_agent": GROUPS},
            "mn": {"mobile_node": {"context_transfer": True}},
        },
        associations=(
            Pair("an1", "an2", APART, APART),
            Pair("an1", "an3", APART, APART),
            Pair("an2", "an3", APART, APART),
        ),
    )

    def __init__(self) -> None:
        self.alone, self.alone_by_surprise = Transfer(7_001), Transfer(7_002)
        self.announced, self.surprise = Transfer(7_003), Transfer(7_004)

    def play(self, lab: Lab) -> None:
        lab.wait_registered("an1")
        self._in_good_order(lab, self.alone)
        self._by_surprise(lab, self.alone_by_surprise)
        self._introduce(lab)
        self._with_group(lab)
        self._by_surprise(lab, self.surprise)
        self.ended = lab.timeline.mark("streams-ended")
        self._download(lab)

    @staticmethod
    def _introduce(lab: Lab) -> None:
        """The access nodes exchange contexts from now on; the device is at the first, which knows it from before."""
        nodes = ("an1", "an2", "an3")
        begin = lab.timeline.mark("access-nodes-introduced")
        for node in nodes:
            lab.crash(node)
            file = lab.configuration.file(node)
            file.write_text(file.read_text().replace(STRANGERS, NEIGHBOURS))
            lab.launch(node)
        for node in nodes:
            lab.wait_ready(node)
        lab.timeline.wait("mn", "registered", begin)
        lab.wait_registered("an1")

    @staticmethod
    def _stream(lab: Lab, node: str, port: int, to: IPv4Address, *more: str) -> Program:
        command = [sys.executable, "-m", "locum.lab.programs.stream", str(to), str(port), *more]
        return lab.processes.start(node, f"stream-{port}-{node}{len(more)}", command)

    def _transfer(self, lab: Lab, transfer: Transfer, seconds: float) -> Program:
        more = (str(RATE), str(seconds), str(PAYLOAD))
        program = self._stream(lab, "cn", transfer.port, HOME_ADDRESS4, *more)
        lab.pause(BEFORE)
        return program

    @staticmethod
    def _finish(transfer: Transfer, program: Program) -> None:
        program.wait(20.0)
        transfer.sent = int(program.log.read_text().split()[-1])

    def _by_surprise(self, lab: Lab, transfer: Transfer) -> None:
        """At the second: the link breaks; a moment later the device appears at the first, a known access node."""
        program = self._transfer(lab, transfer, BEFORE + NOWHERE + 2 * AFTER)
        lab.cut("an2")
        lab.pause(NOWHERE)
        lab.restore("an1")
        lab.wait_registered("an1")
        self._finish(transfer, program)

    def _in_good_order(self, lab: Lab, transfer: Transfer) -> None:
        """`locum move`: the first access node hands over, then the device goes."""
        lab.restore("an2")
        lab.pause(HEARD)
        program = self._transfer(lab, transfer, BEFORE + 2 * AFTER)
        lab.command("mn", "move", "--to", str(lab.configuration.care_of("an2")))
        self.moved_at = lab.timeline.mark("moved", to="an2")
        lab.wait_registered("an2")
        lab.cut("an1")
        self._finish(transfer, program)

    def _judge_surprise(self, lab: Lab, checks: Checks) -> None:
        """The old access node keeps packets from the moment that it knows of its lost link, and none after the first is lost.

        How soon its daemon knows depends on the load of the machine.
        """
        down = max(
            event.time
            for event in lab.timeline.of("an2")
            if event.kind == "link-down" and event.time < self.ended
        )
        switched = next(
            event.time for event in lab.timeline.of("ha") if event.message == "603" and event.time > down
        )
        sent = stream.arrivals(lab.captures.files["cn"], self.surprise.port, outgoing=True)
        arrived = set(self.surprise.arrived)
        kept = {number for number, time in sent.items() if down < time < switched} & arrived
        checks.more_than("packets_kept_by_surprise", len(kept), 0, "packets")
        lost = {number for number in sent.keys() - arrived if number > min(kept, default=-1)}
        checks.equal("packets_lost_once_noticed", len(lost), 0, "packets")
        lost_without = self.alone_by_surprise.lost
        checks.more_than("packets_lost_by_surprise_without", lost_without, 0, "packets")
        checks.at_most("packets_lost_by_surprise", self.surprise.lost, lost_without - 1, "packets")
        checks.fact("packets_overtaken_by_surprise", self.surprise.overtaken, "packets")

    def _with_group(self, lab: Lab) -> None:
        """In good order with contexts: a group goes on, policing as well."""
        member = lab.processes.start("mn", "member", _member(lab.topology.radio("an1").far.interface))
        wait_until("the first access node to forward the group", lambda: _forwarded(lab, "an1"), 10.0)
        for access_node in ("an1", "an2"):
            via = lab.topology.address4("mid", access_node)
            self._stream(lab, "mid", GROUP_PORT, GROUP, "50", "6", "100", str(via))
        self._in_good_order(lab, self.announced)
        forbidden = self._stream(lab, "cn", FORBIDDEN_PORT, HOME_ADDRESS4, "50", "0.5", "100")
        forbidden.wait(10.0)
        member.stop()

    def _download(self, lab: Lab) -> None:
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.download.wait_for(STEP)
        lab.restore("an2")
        left = lab.cut("an1")
        lab.wait_registered("an2")
        self.moved = lab.timeline.mark("moved", to="an2") - left
        self.download.wait_for(self.download.received + STEP)
        self.slept = lab.sleep(ASLEEP, [self.download.program], at="an2", back_at="an1")
        lab.wait_registered("an1")
        self.status = self.download.finish(60)

    # Measurements -----------------------------------------------------------------------------------------------------

    def judge(self, lab: Lab, checks: Checks) -> None:
        device = lab.captures.files["mn"]
        for transfer in (self.alone, self.alone_by_surprise, self.announced, self.surprise):
            transfer.arrived = tuple(stream.order(device, transfer.port))
        checks.more_than("packets_lost_without", self.alone.lost, 0, "packets")
        checks.equal("packets_lost", self.announced.lost, 0, "packets")
        checks.fact("packets_overtaken", self.announced.overtaken, "packets")
        overtaken = stream.longest_overtaken(stream.arrivals(device, self.announced.port))
        checks.at_most("longest_overtaken_ms", 1000 * overtaken, OVERTAKEN_MS, "ms")
        self._judge_surprise(lab, checks)
        repeated = self.announced.repeated + self.surprise.repeated
        checks.equal("packets_delivered_twice", repeated, 0, "packets")
        self._judge_context(lab, checks)
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        checks.at_most("registered_after_move_s", self.moved, 5.0, "s")
        judge_sleeps(lab, [self.slept], checks, bound_ms=None)
        checks.equal("handovers", handovers(lab), 1)
        judge_flows(lab, checks)

    def _judge_context(self, lab: Lab, checks: Checks) -> None:
        device, second = lab.captures.files["mn"], lab.captures.files["an2"]
        index = lab.network.index("mn", lab.topology.radio("an2").far.interface)
        group = [
            datagram
            for datagram in pcap.datagrams(device)
            if datagram.destination == GROUP and datagram.interface == index and not datagram.outgoing
        ]
        checks.more_than("group_packets_after_move", len(group), 0, "packets")
        if group:
            checks.at_most("group_after_move_s", group[0].time - self.moved_at, 0.5, "s")
        there = sum(
            1
            for packet in inner_packets(second)
            if packet.outer is not None
            and packet.datagram.protocol == pcap.UDP
            and packet.datagram.ports[1] == FORBIDDEN_PORT
        )
        checks.more_than("forbidden_packets_at_access_node", there, 0, "packets")
        delivered = len(stream.arrivals(device, FORBIDDEN_PORT))
        checks.equal("forbidden_packets_delivered", delivered, 0, "packets")
        for node, kind in (("an1", "context-transferred"), ("an2", "context-received")):
            happened = sum(1 for event in lab.timeline.of(node) if event.kind == kind)
            checks.at_least(f"{node}_{kind.replace('-', '_')}", happened, 1)


def _member(interface: str) -> list[str]:
    """A program that is a member of the group on one link, and prints none of the data."""
    join = f"UDP4-RECV:{GROUP_PORT},ip-add-membership={GROUP}:{interface},reuseaddr"
    return ["socat", "-u", join, "OPEN:/dev/null"]


def _forwarded(lab: Lab, node: str) -> bool:
    """True if an access node forwards the group, by its own answer."""
    return any(row["group"] == str(GROUP) and row["links"] for row in lab.ask(node, "group list"))
