"""Thousands of forged, replayed and foreign messages to every open port, awake and asleep: nothing changes."""

import json
import sys
from ipaddress import IPv4Address
from random import Random
from typing import Any

from locum.lab import forgery, measure, pcap
from locum.lab.checks import Checks
from locum.lab.configuration import HOME_ADDRESS4, OTHER_ADDRESS4, Plan
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.scenario import Scenario
from locum.lab.scenarios.fig06 import handovers
from locum.lab.state import differences, snapshot
from locum.lab.story import download, judge_naps, web
from locum.lab.topology import figure_5
from locum.lab.world import Lab, Nap

SIZE = 100_000_000
HEAD_START = 3_000_000
AWAKE_SHOTS, ASLEEP_SHOTS = 700, 300
"""Shots of each kind in either volley: a thousand in all."""
RATE = 4000
DEMANDS = 500
"""Demands of the other mobile node at the stand-in, in either volley."""
NODES = ("ha", "an1", "an2", "an3", "mnps", "mn")
SEED = 534


class Fig06Forged(Scenario):
    """A stranger who has overheard everything, and is another subscriber, attacks every open port."""

    name = "fig06-forged"
    title = "forged, replayed and foreign messages to every open port change nothing"
    plan = Plan(other_mobile=True)
    forger = str(figure_5().address4("evil"))

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        wait_until(
            "the other mobile node to register", lambda: str(OTHER_ADDRESS4) in str(lab.bindings()), 15
        )
        self.random = Random(SEED)
        self.changes: list[str] = []
        self.sent: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        self.server, digests = web(lab, [("film", SIZE)])
        before = {node: lab.counters(node) for node in NODES}
        self.download = download(lab, "film", digests["film"])
        self.download.wait_for(HEAD_START)
        self._attack(lab, AWAKE_SHOTS)
        closing, asleep, cut = lab.close_lid()
        lab.timeline.wait("ha", "expired", closing)  # of the brief registration: a change that nobody forged
        lab.timeline.wait("an1", "visitor-expired", closing)
        frames = lab.radio_frames()
        self._attack(lab, ASLEEP_SHOTS)
        frames = lab.radio_frames() - frames
        frozen = lab.all_frozen([self.download.program])
        restored, opening, awake = lab.open_lid()
        self.nap = Nap(closing, asleep, cut, restored, opening, awake, frames, frozen)
        self.counted = {node: refusals(before[node], lab.counters(node)) for node in NODES}
        self.status = self.download.finish(90)

    def _attack(self, lab: Lab, shots: int) -> None:
        """One volley of every kind and the other mobile node's demands; states before and after are compared."""
        aim = self._aim(lab)
        file = forgery.write(forgery.volley(aim, self.random, shots), lab.place.path / f"shots-{shots}")
        before = {node: snapshot(lab, node) for node in NODES}
        lab.timeline.mark("attack-begins", shots=shots)
        stranger = lab.processes.start(
            "evil",
            f"stranger-{shots}",
            [sys.executable, "-m", "locum.lab.stranger", str(file), str(RATE), str(aim.stranger)],
        )
        imposter = lab.processes.start(
            "evil",
            f"imposter-{shots}",
            [sys.executable, "-m", "locum.lab.imposter", str(self._imposter(lab))],
        )
        for program, totals in ((stranger, self.sent), (imposter, self.answers)):
            if program.wait(60):
                raise LabError(f"{program.name} failed; {program.complaint()}")
            for kind, number in json.loads(program.log.read_text().splitlines()[-1]).items():
                totals[kind] = totals.get(kind, 0) + number
        lab.pause(1.0)
        lab.timeline.mark("attack-ended")
        for node in NODES:
            self.changes += [f"{node}: {change}" for change in differences(before[node], snapshot(lab, node))]

    def _aim(self, lab: Lab) -> forgery.Aim:
        care_of = [lab.configuration.care_of(node) for node in ("an1", "an2", "an3")]
        home_agent, stand_in = lab.topology.address4("ha"), lab.topology.address4("mnps")
        registrations = lab.captures.files["ha"]
        return forgery.Aim(
            home_address=HOME_ADDRESS4,
            home_agent=home_agent,
            agents=(home_agent, *care_of),
            control=(*care_of, stand_in, HOME_ADDRESS4),
            stranger=lab.topology.address4("evil"),
            correspondent=lab.topology.address4("cn"),
            other_key=bytes.fromhex(lab.configuration.key("other-ha").read_text().strip()),
            requests=[
                message
                for _to, message in forgery.overheard(registrations, forgery.REGISTRATION, (1,))
                if HOME_ADDRESS4.packed in message
            ],
            replies=[
                message for _to, message in forgery.overheard(registrations, forgery.REGISTRATION, (3,))
            ],
            controls=overheard_control(lab),
            now=lab.timeline.mark("composing"),
        )

    @staticmethod
    def _imposter(lab: Lab) -> Any:
        file = lab.place.path / "imposter.json"
        file.write_text(
            json.dumps(
                {
                    "address": str(OTHER_ADDRESS4),
                    "victim": str(HOME_ADDRESS4),
                    "peer": str(lab.topology.address4("cn")),
                    "stand_in": str(lab.topology.address4("mnps")),
                    "sender_id": "0201",
                    "recipient_id": "0202",
                    "secret_file": str(lab.configuration.key("other-mnps")),
                    "store": str(lab.place.path / "state" / "imposter.db"),
                    "count": DEMANDS,
                }
            )
        )
        return file

    def judge(self, lab: Lab, checks: Checks) -> None:
        genuine = {kind: number for kind, number in self.sent.items() if " " not in kind}
        checks.equal("state_changes", len(self.changes), 0, "rows")
        for change in self.changes[:10]:
            checks.fact("state_change", change)
        checks.more_than("kinds", len(genuine), 20, "kinds")
        checks.at_least("messages", sum(genuine.values()), 1000 * len(genuine) * 0.9, "messages")
        for kind, number in sorted(self.sent.items()):
            checks.fact(f"sent: {kind}", number, "messages")
        checks.equal("demands_granted", self.answers.get("OK", 0), 0, "answers")
        for status, number in sorted(self.answers.items()):
            checks.fact(f"other mobile node was told: {status}", number, "answers")
        for node, reasons in self.counted.items():
            checks.more_than(f"refusals_counted_{node}", sum(reasons.values()), 100, "messages")
            for reason, number in sorted(reasons.items()):
                checks.fact(f"{node} refused: {reason}", number, "messages")
        excess = measure.largest_excess(pcap.datagrams(lab.captures.files["evil"]))
        checks.at_most("largest_reply_excess", excess, 0, "bytes")
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        judge_naps(lab, [self.nap], checks, bound_ms=None)
        checks.equal("handovers", handovers(lab), 1)


def overheard_control(lab: Lab) -> list[tuple[IPv4Address, bytes]]:
    """Confirmable CoAP requests to any node of ours, by the captures of the stand-in and an access node."""
    found: list[tuple[IPv4Address, bytes]] = []
    for node in ("mnps", "an1"):
        found += forgery.overheard(lab.captures.files[node], forgery.COAP, range(0x40, 0x4F))
    return found


def refusals(before: Any, after: Any) -> dict[str, int]:
    """How often each reason of a refusal or a drop was counted."""
    grown = increases(before, after)
    return {name: number for name, number in grown.items() if not name.startswith("events.")}


def increases(before: Any, after: Any, name: str = "") -> dict[str, int]:
    """Every number in a tree of counters that went up, by its path."""
    if isinstance(after, dict):
        found: dict[str, int] = {}
        for key, value in after.items():
            earlier = before.get(key, 0) if isinstance(before, dict) else 0
            found |= increases(earlier, value, f"{name}.{key}" if name else str(key))
        return found
    if isinstance(after, (int, float)) and not isinstance(after, bool):
        grown = int(after) - (int(before) if isinstance(before, (int, float)) else 0)
        return {name: grown} if grown > 0 else {}
    return {}
