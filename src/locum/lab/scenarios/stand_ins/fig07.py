"""Fig. 7: the stand-in registers at the home agent itself; the device's own binding stays as it is (R4, C12)."""

import sys
from ipaddress import IPv4Address
from typing import Any, ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.contexts import ACCESS, REFUSED, context, policed, refuse, wait_quiet
from locum.lab.steps.flow_checks import judge_flows
from locum.lab.steps.lateness import delay
from locum.lab.steps.resets import no_resets
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.steps.story import judge_sleeps, live, watch
from locum.lab.world import Lab, Sleep

HEAD_START = 4_000_000
AWAY = 3_000_000
"""Bytes that the stand-in receives while the device is awake."""
ASLEEP = 4.3
LATE_PORT, LATE_RATE, LATE_BITS = 7_310, 100, 70_000
"""A stream of 100 kbit/s in tunnels, and the share of it on the path to the stand-in's access node."""
LATE_BEFORE = 1.0
"""Seconds of it before the lid opens; it ends when the device is awake."""
LONGEST = 60


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
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.pid = self.download.program.pid
        self.download.wait_for(HEAD_START)
        self.own = [device_binding(lab)]
        lab.command("mn", "give", "--port", "80")
        self.registered = [row for row in _care_of(lab) if row["registrant"] != "mn"]
        self.rules = lab.flow_rules()
        self.own.append(device_binding(lab))
        self._look(lab)
        self.frozen = lab.all_frozen([self.download.program])
        before = held(lab)
        wait_until("the stand-in to receive", lambda: held(lab) >= before + AWAY, 20)
        self.marks = [lab.timeline.mark("taking")]
        lab.command("mn", "take", "--port", "80")
        self.afterwards = (stand_ins(lab), lab.flow_rules(), lab.sessions())
        self.own.append(device_binding(lab))
        there = self.download.received
        self.download.wait_for(there + HEAD_START)
        self.marks.append(lab.timeline.mark("sleeping"))
        self.slept = self._sleep(lab)
        self.marks.append(self.slept.opening)
        self.status = self.download.finish(60)
        self._settle(lab)
        self.marks.append(lab.timeline.mark("quiet"))

    def _look(self, lab: Lab) -> None:
        """While the download is at the stand-in and the device awake."""
        self.given = context(lab, "an3")

    def _settle(self, lab: Lab) -> None:
        """All is back."""
        self.back = context(lab, "an1")
        wait_quiet(lab, "an1", "an3")

    def _end(self, lab: Lab) -> IPv4Address:
        """The tunnel of the stand-in's registration ends at its foreign agent."""
        return lab.configuration.care_of("an3")

    def _sleep(self, lab: Lab) -> Sleep:
        """Sleep with all sessions; packets refused by policing are refused at the stand-in's access node."""
        programs = [self.download.program]
        closing, asleep, cut = lab.close_lid()
        before = lab.radio_frames()
        self.asleep = context(lab, "an3")
        self.refused = refuse(lab, "an3")
        lab.pause(ASLEEP - LATE_BEFORE)
        delay(lab, "mid", "an3", LATE_PORT, LATE_BITS)
        to = (str(HOME_ADDRESS4), str(LATE_PORT), str(LATE_RATE), str(LONGEST))
        late = lab.processes.start("cn", "late", [sys.executable, "-m", "locum.lab.programs.stream", *to])
        lab.pause(LATE_BEFORE)
        frozen, frames = lab.all_frozen(programs), lab.radio_frames() - before
        slept = Sleep(closing, asleep, cut, *lab.open_lid(), frames, frozen)
        late.stop()
        return slept

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        checks.holds(
            "device_binding_untouched", all(registration == self.own[0] for registration in self.own)
        )
        checks.equal("stand_ins_registered", len(self.registered), 1, "bindings")
        registered = ", ".join(str(registration["address"]) for registration in self.registered)
        checks.equal("stand_in_care_of", registered, str(self._end(lab)))
        checks.equal("rules_while_given", len(self.rules), 1, "rules")
        checks.holds("curl_frozen_while_given", self.frozen)
        checks.equal("left_after_take", sum(len(rows) for rows in self.afterwards), 0, "rows")
        checks.at_least("stand_in_requests", told(lab, "sent", "601''", "mnps"), 2, "messages")
        checks.equal("stand_in_refused", told(lab, "registration-denied", "604''", "mnps"), 0, "messages")
        judge_sleeps(lab, [self.slept], checks)
        for name, before in (("given", self.marks[0]), ("awake", self.marks[-1])):
            checks.holds(f"device_responsible_{name}", responsible(lab, "mn", before) is True)
        self._judge_context(lab, checks)
        no_resets(checks, "resets", pcap.segments(lab.captures.files["cn"]))
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
        self._judge_late(lab, checks)
        taking, sleeping, waking, quiet = self.marks
        for name, before, wanted in (
            ("given", taking, True),
            ("taken", sleeping, False),
            ("asleep", waking, True),
            ("awake", quiet, False),
        ):
            checks.equal(f"stand_in_responsible_{name}", responsible(lab, "mnps", before), wanted)

    @staticmethod
    def _judge_late(lab: Lab, checks: Checks) -> None:
        """620'': late datagrams reach the device through the stand-in's access node; each reaches one end."""
        went, came = (tunnelled(lab, node, way) for node, way in (("an3", "out"), ("an1", "in")))
        checks.more_than("tunnelled_back", went, 0, "packets")
        checks.equal("tunnelled_back_arrived", came, went, "packets")
        sent = stream.numbers(lab.captures.files["cn"], LATE_PORT, outgoing=True)
        at_stand_in, at_device = (
            stream.numbers(lab.captures.files[node], LATE_PORT, outgoing=False) for node in ("mnps", "mn")
        )
        checks.more_than("late_stream_at_stand_in", len(at_stand_in), 0, "packets")
        checks.at_least("late_stream_at_device", len(at_device), went, "packets")
        checks.equal("late_stream_at_both", len(at_stand_in & at_device), 0, "packets")
        checks.equal("late_stream_lost", len(sent - at_stand_in - at_device), 0, "packets")


def device_binding(lab: Lab) -> list[str]:
    """The device's own care-of addresses, as the home agent lists them."""
    return [str(row["address"]) for row in _care_of(lab) if row["registrant"] == "mn"]


def stand_ins(lab: Lab) -> list[str]:
    """Names of stand-ins that have a care-of address at the home agent."""
    return sorted({str(row["registrant"]) for row in _care_of(lab)} - {"mn"})


def _care_of(lab: Lab) -> list[dict[str, Any]]:
    row = next(row for row in lab.bindings() if row["home_address"] == str(HOME_ADDRESS4))
    found: list[dict[str, Any]] = row["care_of"]
    return found


def held(lab: Lab, node: str = "mnps") -> int:
    """Bytes that a stand-in has received for the sessions it holds."""
    return sum(int(row.get("total", 0)) for row in lab.sessions(node))


def told(lab: Lab, kind: str, message: str, node: str) -> int:
    """Number of such events of a node."""
    return sum(1 for event in lab.timeline.of(node) if (event.kind, event.message) == (kind, message))


def responsible(lab: Lab, node: str, before: float) -> bool | str:
    """The last 618 or 618'' to a node until then."""
    heard = [
        event
        for event in lab.timeline.of(node)
        if (event.kind, event.message) == ("notified", "618") and event.time < before
    ]
    return bool(heard[-1].detail["responsible"]) if heard else "not told"


def tunnelled(lab: Lab, node: str, way: str) -> int:
    """Packets of a node's ended tunnels 620, in one direction."""
    ended = [event.detail for event in lab.timeline.of(node) if event.kind == "in-flight-ended"]
    return sum(int(detail["packets"]) for detail in ended if detail["way"] == way and "packets" in detail)
