"""Filters in the kernel (R20): of a visitor in both directions, to a stand-in, and of its programs.

Allowed packets pass at full rate, others are dropped, and every counter agrees with tcpdump.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.errors import LabError
from locum.lab.network.topology import ACCESS_RATE
from locum.lab.processes import Program
from locum.lab.programs import stream
from locum.lab.programs.echoes import answered
from locum.lab.programs.services import WebServer
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.stand_ins.translate import HOMES, tables
from locum.lab.steps.flow_checks import add_standing_rule, inner_packets, judge_flows, takes
from locum.lab.world import Lab

STAND_IN = HOMES[2].four  # translated at the stand-in: its programs send under their own address
RATE, SECONDS = 200, 1.0
OPEN_PORT, SHUT_PORT, OUT_PORT = 7000, 7100, 7300
CLOSED_PORT, KEPT_PORT = 81, 82
FULL = 0.75 * ACCESS_RATE
PINGS = 5


def filters() -> dict[str, Table]:
    """Allowed traffic by place."""
    shut: Table = {"id": 1, "action": "drop", "protocol": "udp", "destination_port": "7100-7199"}
    ping: Table = {"id": 2, "action": "allow", "protocol": "icmp"}
    an1: list[Table] = [
        {"home_address": str(HOME_ADDRESS4), "place": "to-visitor", "rules": [shut, ping]},
        {"home_address": str(HOME_ADDRESS6), "place": "to-visitor", "rules": [shut]},
        {
            "home_address": str(HOME_ADDRESS4),
            "place": "from-visitor",
            "otherwise": "drop",
            "rules": [
                {"id": 1, "action": "allow", "protocol": "udp", "destination_port": 5683},
                {"id": 2, "action": "allow", "protocol": "tcp"},
                {"id": 3, "action": "allow", "protocol": "icmp"},
            ],
        },
    ]
    an3: list[Table] = [
        {
            "home_address": str(STAND_IN),
            "place": "to-visitor",
            "rules": [{"id": 1, "action": "drop", "protocol": "tcp", "destination_port": KEPT_PORT}],
        }
    ]
    emission: list[Table] = [
        {
            "home_address": str(STAND_IN),
            "otherwise": "drop",
            "rules": [
                {"id": 1, "action": "allow", "protocol": "tcp", "source_port": 80},
                {"id": 2, "action": "allow", "protocol": "icmp"},
                {"id": 3, "action": "drop", "protocol": "tcp", "source_port": CLOSED_PORT},
            ],
        }
    ]
    found = tables()
    return {
        "ha": found["ha"],
        "an1": {"foreign_agent": {"filter": an1}},
        "an3": {"foreign_agent": {**_inside(found["an3"], "foreign_agent"), "filter": an3}},
        "mnps": {"mnps": {**_inside(found["mnps"], "mnps"), "emission": emission}},
    }


def _inside(table: Table, key: str) -> Table:
    inside = table[key]
    assert isinstance(inside, dict)
    return inside


class Police(Scenario):
    """The mobile node is a visitor of the first access node; the stand-in serves another home address at the third."""

    name = "police"
    title = "filters at the access nodes and at the stand-in, counted by rule"
    plan = Plan(tables=filters())

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        own = str(lab.topology.address4("mnps"))
        server = WebServer(lab.processes, "mnps", lab.output / "web", addresses=(own,))
        server.start()
        (server.root / "file").write_text("".join(f"{number:07}\n" for number in range(60_000)))
        lab.processes.start("mnps", "iperf3-mnps", ["iperf3", "-s", "-B", own])
        lab.processes.start("mn", "iperf3-mn", ["iperf3", "-s", "-B", str(HOME_ADDRESS4)])
        add_standing_rule(lab, HOME_ADDRESS4, f"{OPEN_PORT}-{SHUT_PORT + 99}")
        self._visitor(lab)
        self._stand_in(lab)
        lab.crash("an1")
        self.dead = start_streams(lab, "cn", [(str(HOME_ADDRESS4), SHUT_PORT + 1)])
        wait_for(self.dead)
        lab.restart("an1")
        self.found = {node: rows(lab, node) for node in ("an1", "an3", "mnps")}
        self.dropped = {node: lab.counters(node)["data_plane"] for node in ("an1", "an3", "mnps")}

    def _visitor(self, lab: Lab) -> None:
        home = str(HOME_ADDRESS4)
        self.rates = [rate(lab, home, ("-t", "2")), rate(lab, home, ("-R", "-n", "10M"))]
        wait_for(
            [
                *start_streams(
                    lab, "cn", [(home, OPEN_PORT), (home, SHUT_PORT), (str(HOME_ADDRESS6), SHUT_PORT)]
                ),
                *start_streams(lab, "mn", [(str(lab.topology.address4("cn")), OUT_PORT)]),
            ]
        )
        self.pings = answered(lab.processes, "cn", home, PINGS)

    def _stand_in(self, lab: Lab) -> None:
        self.fetched = fetch(lab, 80, "/file")
        self.refused = fetch(lab, CLOSED_PORT, "/")
        self.kept = fetch(lab, KEPT_PORT, "/")
        command = ["iperf3", "-c", str(STAND_IN), "--connect-timeout", "1500"]
        self.emitted = lab.processes.run("cn", command).returncode == 0

    def judge(self, lab: Lab, checks: Checks) -> None:
        files = lab.captures.files
        checks.at_least("allowed_rate_to_visitor", self.rates[0], FULL, "bit/s")
        checks.at_least("allowed_rate_from_visitor", self.rates[1], FULL, "bit/s")
        sent = {port: stream.numbers(files["cn"], port, outgoing=True) for port in (OPEN_PORT, SHUT_PORT)}
        arrived = {
            port: stream.numbers(files["mn"], port, outgoing=False)
            for port in (OPEN_PORT, SHUT_PORT, SHUT_PORT + 1)
        }
        checks.more_than("allowed_datagrams", len(sent[OPEN_PORT]), 100, "packets")
        checks.equal("allowed_datagrams_lost", len(sent[OPEN_PORT] - arrived[OPEN_PORT]), 0, "packets")
        checks.equal("refused_datagrams_delivered", len(arrived[SHUT_PORT]), 0, "packets")
        checks.equal("refused_with_the_daemon_dead", len(arrived[SHUT_PORT + 1]), 0, "packets")
        checks.equal("sent_by_visitor_in_vain", len(stream.numbers(files["cn"], OUT_PORT, outgoing=False)), 0)
        checks.equal("pings_answered", self.pings, PINGS, "packets")
        checks.equal("allowed_service_fetched", self.fetched, 0, "exit status")
        checks.holds("other_services_silent", self.refused != 0 and self.kept != 0 and not self.emitted)
        self._judge_counters(lab, checks)
        judge_flows(lab, checks, frozenset((HOME_ADDRESS4, HOME_ADDRESS6, STAND_IN)))

    def _judge_counters(self, lab: Lab, checks: Checks) -> None:
        """Counters by rule beside the packets that tcpdump saw in front of the filter."""
        files = lab.captures.files
        for home in (HOME_ADDRESS4, HOME_ADDRESS6):
            rules = self._rules("an1", str(home), "to-visitor")
            before = [
                packet.datagram
                for packet in inner_packets(files["an1"])
                if not packet.datagram.outgoing
                and packet.outer is not None
                and packet.datagram.destination == home
            ]
            compare(checks, f"to_visitor_v{home.version}", rules, before)
        own = {lab.topology.address4("an1", link) for link in lab.topology.interfaces("an1")}
        compare(
            checks,
            "from_visitor",
            self._rules("an1", str(HOME_ADDRESS4), "from-visitor"),
            [
                datagram
                for datagram in pcap.datagrams(files["an1"])
                if not datagram.outgoing
                and datagram.source == HOME_ADDRESS4
                and datagram.destination not in own
                and not datagram.destination.is_multicast
            ],
        )
        to_stand_in = [
            packet.datagram
            for packet in inner_packets(files["an3"])
            if not packet.datagram.outgoing
            and packet.outer is not None
            and packet.datagram.destination == STAND_IN
        ]
        compare(checks, "to_stand_in", self._rules("an3", str(STAND_IN), "to-visitor"), to_stand_in)
        self._judge_emission(lab, checks)

    def _judge_emission(self, lab: Lab, checks: Checks) -> None:
        """Passed packets are in the capture; for each dropped attempt there is a reset."""
        counted = {rule["id"]: rule["packets"] for rule in self._rules("mnps", str(STAND_IN), "emission")}
        passed = [
            e for e in pcap.datagrams(lab.captures.files["mnps"]) if e.outgoing and e.source == STAND_IN
        ]
        attempts = [
            datagram
            for datagram in pcap.datagrams(lab.captures.files["mnps"])
            if not datagram.outgoing and datagram.protocol == pcap.TCP and datagram.ports[1] == CLOSED_PORT
        ]
        checks.more_than("emission_allowed", counted[1], 10, "packets")
        checks.equal("emission_allowed_in_capture", len(passed), counted[1] + counted[2], "packets")
        checks.equal("emission_refused", counted[3], len(attempts), "packets")
        checks.more_than("emission_refused_by_default", counted[0], 0, "packets")
        checks.equal(
            "emission_drops", self.dropped["mnps"]["filtered-emission"], counted[0] + counted[3], "packets"
        )

    def _rules(self, node: str, home: str, place: str) -> list[dict[str, Any]]:
        return [r for r in self.found[node] if r["home_address"] == home and r["place"] == place]


def compare(
    checks: Checks, name: str, rules: Sequence[dict[str, Any]], packets: Iterable[pcap.Datagram]
) -> None:
    """The counter of every rule is the number of packets that it takes and no rule before it."""
    seen: Counter[int] = Counter()
    for packet in packets:
        seen[
            next((rule["id"] for rule in rules[:-1] if takes({"selector": rule["selector"]}, packet)), 0)
        ] += 1
    for rule in rules:
        checks.equal(f"{name}_rule_{rule['id']}", rule["packets"], seen[rule["id"]], "packets")


def rows(lab: Lab, node: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.command(node, "--json", "filter", "list"))
    return found


def start_streams(lab: Lab, node: str, targets: Iterable[tuple[str, int]]) -> list[Program]:
    """Numbered datagrams to each address and port."""
    return [
        lab.processes.start(
            node,
            f"stream-{node}-{port}",
            [sys.executable, "-m", "locum.lab.programs.stream", address, str(port), str(RATE), str(SECONDS)],
        )
        for address, port in targets
    ]


def wait_for(programs: Iterable[Program]) -> None:
    """Until each has ended."""
    for program in programs:
        program.process.wait(20)


def fetch(lab: Lab, port: int, path: str) -> int:
    """curl's exit status."""
    url = f"http://{STAND_IN}:{port}{path}"
    command = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "10",
        "--connect-timeout",
        "1.5",
        "-o",
        "/dev/null",
        url,
    ]
    return lab.processes.run("cn", command).returncode


def rate(lab: Lab, home: str, options: Sequence[str]) -> float:
    """Bits per second that arrive by TCP, at the best: a busy machine is slower at times, and never faster."""
    best = 0.0
    for _ in range(5):  # the server may still be busy with the end of the last one
        done = lab.processes.run("cn", ["iperf3", "-c", home, "-J", *options])
        said = json.loads(done.stdout or "{}")
        if "error" not in said and done.returncode == 0:
            best = max(best, float(said["end"]["sum_received"]["bits_per_second"]))
            if best >= FULL:
                break
        lab.pause(0.2)
    if not best:
        raise LabError(f"iperf3 to {home}: {done.stdout or done.stderr}")
    return best
