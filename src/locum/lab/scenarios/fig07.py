"""Fig. 7: the stand-in registers at the home agent itself; the device's own binding stays as it is (R4, C12)."""

from typing import Any, ClassVar

from locum.lab import measure, pcap
from locum.lab.checks import Checks
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.contexts import ACCESS, REFUSED, context, policed, refuse, wait_quiet
from locum.lab.flow_checks import judge_flows
from locum.lab.processes import wait_until
from locum.lab.scenario import Scenario
from locum.lab.stand_ins import Registering, registering
from locum.lab.story import download, judge_naps, web
from locum.lab.world import Lab, Nap

SIZE = 40_000_000
HEAD_START = 4_000_000
AWAY = 3_000_000
"""Bytes that the stand-in receives while the device is awake."""
ASLEEP = 4.3


class Fig07(Scenario):
    """One download by one curl: given away, taken back, and slept through; the device's binding never changes."""

    name = "fig07"
    title = "the stand-in registers for a download, while the device is awake and while it sleeps"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1)
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        tables={
            **registering(stand_in),
            "an1": {"foreign_agent": {"profile": [policed()], "tunnel_silence": 2}},
            "an3": {"foreign_agent": {"tunnel_silence": 2}},
        },
        associations=(Pair("an1", "an3", ACCESS, ACCESS), Pair("an2", "an3", ACCESS, ACCESS)),
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, digests = web(lab, [("film", SIZE)])
        self.download = download(lab, "film", digests["film"])
        self.pid = self.download.program.pid
        self.download.wait_for(HEAD_START)
        self.own = [device_binding(lab)]
        lab.command("mn", "give", "--port", "80")
        self.registered = stand_ins(lab)
        self.rules = lab.flow_rules()
        self.own.append(device_binding(lab))
        self.given = context(lab, "an3")
        self.frozen = lab.all_frozen([self.download.program])
        before = held(lab)
        wait_until("the stand-in to receive", lambda: held(lab) >= before + AWAY, 20)
        lab.command("mn", "take", "--port", "80")
        self.afterwards = (stand_ins(lab), lab.flow_rules(), lab.sessions())
        self.own.append(device_binding(lab))
        there = self.download.received
        self.download.wait_for(there + HEAD_START)
        self.nap = self._sleep(lab)
        self.status = self.download.finish(60)
        self.back = context(lab, "an1")
        wait_quiet(lab, "an1", "an3")

    def _sleep(self, lab: Lab) -> Nap:
        """All of it, and what its policing refuses is refused at the stand-in's access node."""
        programs = [self.download.program]
        closing, asleep, cut = lab.close_lid()
        before = lab.radio_frames()
        self.asleep = context(lab, "an3")
        self.refused = refuse(lab, "an3")
        lab.pause(ASLEEP)
        frozen, frames = lab.all_frozen(programs), lab.radio_frames() - before
        return Nap(closing, asleep, cut, *lab.open_lid(), frames, frozen)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        checks.holds("device_binding_untouched", all(each == self.own[0] for each in self.own))
        checks.equal("stand_ins_registered", len(self.registered), 1, "bindings")
        checks.equal("rules_while_given", len(self.rules), 1, "rules")
        checks.holds("curl_frozen_while_given", self.frozen)
        checks.equal("left_after_take", sum(len(each) for each in self.afterwards), 0, "rows")
        checks.at_least("stand_in_requests", told(lab, "sent", "601''", "mnps"), 2, "messages")
        checks.equal("stand_in_refused", told(lab, "registration-denied", "604''", "mnps"), 0, "messages")
        judge_naps(lab, [self.nap], checks)
        self._judge_context(lab, checks)
        resets = measure.resets(pcap.segments(lab.captures.files["cn"]))
        checks.equal("resets", resets, 0, "segments")
        judge_flows(lab, checks)

    def _judge_context(self, lab: Lab, checks: Checks) -> None:
        checks.holds("context_at_stand_in_given", "policy" in self.given.get("blocks", {}))
        checks.holds("context_at_stand_in_asleep", "policy" in self.asleep.get("blocks", {}))
        checks.equal("refused_at_stand_ins_access_node", self.refused, REFUSED, "packets")
        checks.holds("context_back", "policy" in self.back.get("blocks", {}))
        for message, node in (("622", "an3"), ("624", "an1"), ("624", "an3")):
            checks.at_least(f"{node}_sent_{message}", told(lab, "sent", message, node), 1, "messages")
        for node in ("an1", "an3"):
            checks.at_least(f"{node}_received", told(lab, "context-received", "624", node), 1, "contexts")
            begun = told(lab, "in-flight-begins", "620", node)
            checks.at_least(f"{node}_tunnels", begun, 1, "tunnels")
            ended = told(lab, "in-flight-ended", "620", node)
            checks.equal(f"{node}_tunnels_left", begun - ended, 0, "tunnels")
            refused = lab.counters(node)
            checks.equal(f"{node}_unanswered", refused.get("context-unanswered", 0), 0, "messages")


def device_binding(lab: Lab) -> list[str]:
    """The device's own care-of addresses, as the home agent lists them."""
    return [str(each["address"]) for each in _care_of(lab) if each["registrant"] == "mn"]


def stand_ins(lab: Lab) -> list[str]:
    """Names of stand-ins that have a care-of address at the home agent."""
    return sorted({str(each["registrant"]) for each in _care_of(lab)} - {"mn"})


def _care_of(lab: Lab) -> list[dict[str, Any]]:
    row = next(row for row in lab.bindings() if row["home_address"] == str(HOME_ADDRESS4))
    found: list[dict[str, Any]] = row["care_of"]
    return found


def held(lab: Lab, node: str = "mnps") -> int:
    """Bytes that a stand-in has received for the sessions it holds."""
    return sum(int(row.get("total", 0)) for row in lab.sessions(node))


def told(lab: Lab, kind: str, message: str, node: str) -> int:
    """How often a node said so."""
    return sum(1 for each in lab.timeline.of(node) if (each.kind, each.message) == (kind, message))
