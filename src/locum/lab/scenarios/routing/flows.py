"""Flow rules of every origin that stand from the beginning to the end: each flow at its place, each packet counted (R5 to R8)."""

import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

from locum.lab.captures.pcap import UDP, Address
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, STAND_INS, Pair, Plan, Table, merged
from locum.lab.processes import Program, wait_until
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.routing.police import wait_for
from locum.lab.scenarios.stand_ins.fig07 import stand_ins
from locum.lab.scenarios.stand_ins.fig07 import told as times_told
from locum.lab.steps.flow_checks import HOMES, inner_packets, judge_flows
from locum.lab.steps.stand_ins import Registering, further, registering
from locum.lab.world import Lab

RATE, SECONDS = 100, 2.0
FLOWS, SHARED = 128, 7045
"""Number of flows shared by weight, in each family, and their port."""
WEIGHTS = {"mnps": 1, "mnps2": 3}
PLACES = ("mn", "mnps", "mnps2")
NOWHERE = ""


@dataclass(frozen=True, slots=True)
class Told:
    """Destination of a stream to `port`, by a rule of `owner` (None: by no rule), in each family."""

    port: int
    place: str
    owner: str | None
    place6: str | None = None
    """Other destination with a rule for IPv4 only."""


TOLD = (
    Told(7001, "mn", None),
    Told(7012, "mnps", "at-mnps"),
    Told(7060, "mnps2", "at-mnps2"),
    Told(7020, "mnps2", "configuration"),
    Told(7030, NOWHERE, "configuration"),
    Told(7050, "mnps", "mn", "mn"),
)


class Flows(Scenario):
    """Rules by configuration, by an administrator, by the device, by a stand-in and by a trigger."""

    name = "flows"
    title = "flow rules hold: every flow at its place, and every counter as tcpdump saw it"
    first: ClassVar[Registering] = Registering("mnps", bid=1)
    second: ClassVar[Registering] = Registering("mnps2", bid=2, colocated=True)
    own: ClassVar[dict[str, Table]] = dict(registering(first, second))
    rules: ClassVar[list[Table]] = [
        {"id": 1, "priority": 10, "to": ["at-mnps2", "mn"], "protocol": "udp", "destination_port": 7020},
        {"id": 2, "priority": 20, "action": "drop", "protocol": "udp", "destination_port": 7030},
    ]
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        extras=("mnps2",),
        tables={
            **own,
            "ha": merged(own["ha"], {"home_agent": {"mobile": {"rule": rules}}}),
            "mnps2": merged(own["mnps2"], {"mnps": {"mobile": {"weight": WEIGHTS["mnps2"]}}}),
            "cn": {},
        },
        associations=(*further("mnps2"), Pair("cn", "mnps", at_far={"may_trigger": True})),
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        # a starting device asks its stand-ins to release triggered takeovers: wait for the end of that
        wait_until(
            "the device's requests to release",
            lambda: times_told(lab, "trigger-done", "trigger", "mn") == len(STAND_INS),
        )
        self.cn: dict[int, Address] = {4: lab.topology.address4("cn"), 6: lab.topology.address6("cn")}
        take = ("trigger", "take", str(HOME_ADDRESS4), "--mnps", self.first.address)
        lab.command("cn", *take, "--protocol", "udp", "--destination-port", "7010-7019")
        lab.command("mnps2", "flow", "add", "--protocol", "udp", "--destination-port", "7060")
        add = ("flow", "add", "--protocol", "udp")
        home = ("--home-address", str(HOME_ADDRESS4))
        lab.command("ha", *add, *home, "--priority", "30", "--share", "--to", "1", "--to", "2",
                    "--destination-port", "7030-7049")  # fmt: skip
        lab.command("mn", *add, "--priority", "40", "--to", "1", "--source", str(self.cn[4]),
                    "--destination-port", "7050")  # fmt: skip
        self.before = [(rule["id"], rule["packets"]) for rule in lab.flow_rules()]
        ports = [stream.port for stream in TOLD]
        wait_for([start(lab, home, port) for home in (HOME_ADDRESS4, HOME_ADDRESS6) for port in ports])
        wait_for([start(lab, home, SHARED, FLOWS) for home in (HOME_ADDRESS4, HOME_ADDRESS6)])
        self.there = stand_ins(lab)

    def judge(self, lab: Lab, checks: Checks) -> None:
        rules = lab.flow_rules()
        checks.equal("stand_ins", ", ".join(self.there), "at-mnps, at-mnps2")
        checks.holds(
            "rules_stood", [rule["id"] for rule in rules] == [identifier for identifier, _ in self.before]
        )
        checks.equal("rule_packets_before", sum(packets for _, packets in self.before), 0, "packets")
        checks.more_than("least_rule_packets", min(rule["packets"] for rule in rules), 100, "packets")
        sent = datagrams(lab.captures.files["cn"], outgoing=True)
        arrived = {node: datagrams(lab.captures.files[node]) for node in PLACES}
        self._judge_streams(sent, arrived, checks)
        self._judge_explanations(lab, {rule["id"]: rule["owner"] for rule in rules}, checks)
        self._judge_shares(lab, sent, arrived, checks)
        judge_flows(lab, checks)

    @staticmethod
    def _judge_streams(sent: "Found", arrived: "dict[str, Found]", checks: Checks) -> None:
        """Each stream whole at its place and at no other."""
        for told in TOLD:
            for version, place in ((4, told.place), (6, told.place if told.place6 is None else told.place6)):
                stream_, name = (version, told.port), f"{told.port}_v{version}"
                checks.more_than(f"sent_{name}", len(sent[stream_]), 100, "packets")
                if place != NOWHERE:
                    lost = sent[stream_] - arrived[place][stream_]
                    checks.equal(f"lost_{name}_at_{place}", len(lost), 0, "packets")
                others = sum(len(arrived[node][stream_]) for node in PLACES if node != place)
                checks.equal(f"elsewhere_{name}", others, 0, "packets")

    def _judge_explanations(self, lab: Lab, owners: dict[int, str], checks: Checks) -> None:
        """`locum explain` at the home agent gives the same places, by the same rules."""
        otherwise = []
        for told in TOLD:
            for version, place in ((4, told.place), (6, told.place if told.place6 is None else told.place6)):
                row = self._explained(lab, version, 40000, told.port)
                said = place_of(lab, row["tunnel"]), owners.get(row["rule"])
                if said != (place, told.owner if place == told.place else None):
                    otherwise.append(f"{told.port} v{version}: {said[0] or 'nowhere'} by {said[1]}")
        checks.equal("explained_otherwise", "; ".join(otherwise) or "none", "none")
        text = lab.command("ha", "-j", "explain", "udp", f"{self.cn[4]}:40000", f"{HOME_ADDRESS4}:7030")
        checks.equal("explained_drop", json.loads(text)["outcome"], "dropped")

    def _judge_shares(self, lab: Lab, sent: "Found", arrived: "dict[str, Found]", checks: Checks) -> None:
        """Every shared flow whole at one place, which is the one explained; the places by weight."""
        places: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        lost = 0
        for version in (4, 6):
            found = {node: arrived[node][version, SHARED] for node in PLACES}
            lost += len(sent[version, SHARED] - set().union(*found.values()))
            for node, packets in found.items():
                for source_port, _number in packets:
                    places[version, source_port].add(node)
        checks.equal("shared_flows", len(places), 2 * FLOWS, "flows")
        checks.equal("shared_lost", lost, 0, "packets")
        checks.equal("shared_hopped", sum(len(place) > 1 for place in places.values()), 0, "flows")
        otherwise = [
            flow
            for flow, nodes in places.items()
            if {place_of(lab, self._explained(lab, *flow, SHARED)["tunnel"])} != nodes
        ]
        checks.equal("shared_not_as_explained", len(otherwise), 0, "flows")
        count = Counter(node for nodes in places.values() for node in nodes)
        checks.equal("shared_at_device", count["mn"], 0, "flows")
        part = count["mnps"] / max(1, count.total())
        fair = WEIGHTS["mnps"] / sum(WEIGHTS.values())
        # 256 flows: five times the deviation that chance has
        checks.at_most("share_off_by", abs(part - fair), 0.135)

    def _explained(self, lab: Lab, version: int, source_port: int, port: int) -> dict[str, Any]:
        """The home agent's `explain` for a datagram of the correspondent."""
        ends = (self.cn[version], source_port), (HOME_ADDRESS4 if version == 4 else HOME_ADDRESS6, port)
        source, destination = (f"[{a}]:{p}" for a, p in ends)
        found: dict[str, Any] = lab.ask(
            "ha", "explain", protocol="udp", source=source, destination=destination
        )
        return found


Found = defaultdict[tuple[int, int], set[tuple[int, int]]]
"""By IP version and destination port: the source port and number of each datagram."""


def datagrams(file: Path, *, outgoing: bool = False) -> Found:
    """Numbered datagrams to the home addresses that came to a node, in whatever tunnel, or left it."""
    found: Found = defaultdict(set)
    for packet in inner_packets(file):
        one = packet.datagram
        if one.outgoing != outgoing or one.protocol != UDP or one.destination not in HOMES:
            continue
        if one.transport[8:15] == stream.MAGIC:
            source_port, port = one.ports
            number = int.from_bytes(one.transport[15:19], "big")
            found[one.destination.version, port].add((source_port, number))
    return found


def place_of(lab: Lab, tunnel: str | None) -> str:
    """The node with that care-of address; NOWHERE without one."""
    if tunnel is None:
        return NOWHERE
    owner = lab.topology.owner(str(ip_address(tunnel)))
    return {"an1": "mn", "an3": "mnps"}.get(owner or "", owner or tunnel)


def start(lab: Lab, home: Address, port: int, flows: int = 1) -> Program:
    """A numbered stream of the correspondent to a home address, for `SECONDS`; more packets where there are many flows."""
    rate = RATE if flows == 1 else 4 * RATE
    command = [
        sys.executable,
        "-m",
        "locum.lab.programs.stream",
        str(home),
        str(port),
        str(rate),
        str(SECONDS),
    ]
    name = f"stream-{port}-v{home.version}"
    return lab.processes.start("cn", name, [*command, str(stream.PAYLOAD), "-", str(flows)])
