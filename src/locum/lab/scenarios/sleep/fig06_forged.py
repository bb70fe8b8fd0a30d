"""Thousands of forged, replayed and foreign messages to every open port, awake and asleep: nothing changes.

Two strangers attack: one far away, who is another subscriber and has overheard everything, and one on an access link of
the foreign agent that the mobile node visits, whose requests that agent relays.
"""

import json
from collections import Counter, defaultdict
from typing import Any

from locum.lab.captures import measure, pcap
from locum.lab.configuration import OTHER_ADDRESS4, Pair, Plan
from locum.lab.forging.attack import Attack, Findings, Shares, Stranger
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.story import judge_sleeps, live, watch
from locum.lab.world import Lab, Sleep

RATE = "1m"
"""Text form as in nginx: the stand-in holds the data of the whole attack, and the device fetches it."""
HEAD_START = 1_000_000
PER_PORT = 1000
"""Messages to each open port, at least."""
AWAKE, ASLEEP = 700, 300
"""Roles that expect messages in each attack; a sleeping device receives none."""
PER_KIND = 30
"""Messages of each kind to each open port that it makes sense for, at least."""
DEMANDS = 480
"""Of the other mobile node at each peer that it has, in either attack."""
NODES = ("ha", "an1", "an2", "an3", "mnps", "mn")
BOTH = ("an1", "mn")
"""Nodes that the stranger on the access link attacks as well: it reaches them without a detour."""
SEED = 534
_TOPOLOGY = figure_5(("guest",))


class Fig06Forged(Scenario):
    """Strangers who have captured everything attack every open port; one is a subscriber, one a visitor."""

    name = "fig06-forged"
    title = "forged, replayed and foreign messages to every open port change nothing"
    plan = Plan(
        other_mobile=True,
        extras=("guest",),
        short_lifetime=6,
        tables={"an1": {"foreign_agent": {"links": ["radio0", "radio1"]}}},
        associations=(Pair("other", "an1"), Pair("other", "mn")),
    )
    broken_from = tuple(
        str(address)
        for node in ("evil", "guest")
        for address in (_TOPOLOGY.broken4(node), _TOPOLOGY.broken6(node))
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        wait_until(
            "the other mobile node to register", lambda: str(OTHER_ADDRESS4) in str(lab.bindings()), 15
        )
        self.server, films = live(lab, RATE)
        before = {node: lab.counters(node) for node in NODES}
        strangers = (Stranger("evil", 4500, NODES), Stranger("guest", 1500, BOTH))
        attack = Attack(lab, strangers, NODES, SEED)
        self.found = attack.found
        self.download = watch(lab, films)
        self.download.wait_for(HEAD_START)
        attack.run("awake", shares(AWAKE, PER_PORT), demands=DEMANDS, of=("mnps", "an1", "mn"), singles=2)
        closing, asleep, cut = lab.close_lid()
        lab.timeline.wait("ha", "expired", closing)  # of the brief registration: a change without forging
        lab.timeline.wait("an1", "visitor-expired", closing)
        frames = lab.radio_frames()
        attack.run("asleep", shares(ASLEEP, ASLEEP), demands=DEMANDS, of=("mnps", "an1"), singles=0)
        frames = lab.radio_frames() - frames
        frozen = lab.all_frozen([self.download.program])
        restored, opening, awake = lab.open_lid()
        self.slept = Sleep(closing, asleep, cut, restored, opening, awake, frames, frozen)
        self.counted = {node: refusals(before[node], lab.counters(node)) for node in NODES}
        attack.end()
        self.status = self.download.finish(90)

    def judge(self, lab: Lab, checks: Checks) -> None:
        found = self.found
        checks.equal("state_changes", len(found.changes), 0, "rows")
        for change in found.changes[:10]:
            checks.equal("state_change", change, "none")
        checks.equal("agreed_in_attacks", len(found.agreed), 0, "events")
        for event in found.agreed[:10]:
            checks.equal("agreed", event.to_line(), "none")
        judge_messages(found, checks)
        (lab.output / "sent.json").write_text(json.dumps(found.sent, indent=1, sort_keys=True) + "\n")
        judge_demands(found, checks)
        for node, reasons in self.counted.items():
            checks.more_than(f"refusals_counted_{node}", sum(reasons.values()), 100, "messages")
            for reason, number in sorted(reasons.items()):
                checks.fact(f"{node} refused: {reason}", number, "messages")
        judge_replies(lab, found, checks)
        complaints = sum(len(lab.daemons[node].log.read_text().splitlines()) for node in NODES)
        checks.equal("daemon_complaints", complaints, 0, "lines")
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        judge_sleeps(lab, [self.slept], checks, bound_ms=None)
        checks.equal("handovers", handovers(lab), 1)


def shares(entry: int, mobile: int) -> Shares:
    """Messages to each port of each node; where both strangers reach it, either sends half of them."""
    whole = {**dict.fromkeys(NODES, entry), "mn": mobile}
    half = {node: -(-whole[node] // 2) for node in BOTH}
    return {"evil": whole | half, "guest": half}


def judge_messages(found: Findings, checks: Checks) -> None:
    """Every open port got its messages, and of every kind; from either side."""
    at_port: dict[str, Counter[str]] = defaultdict(Counter)
    by_kind: Counter[str] = Counter()
    by_stranger: Counter[str] = Counter()
    for name, number in found.sent.items():
        stranger, _, rest = name.partition(": ")
        kind, _, port = rest.partition(" > ")
        at_port[port][kind] += number
        by_kind[kind] += number
        by_stranger[stranger] += number
    checks.more_than("requests_relayed", found.relayed, 100, "messages")
    checks.more_than("open_ports", len({port.label for port in found.ports}), 40, "ports")
    checks.more_than("kinds", len(by_kind), 35, "kinds")
    checks.at_least(
        "messages_least_at_a_port", min(sum(counts.values()) for counts in at_port.values()), PER_PORT
    )
    checks.at_least(
        "messages_least_of_a_kind_at_a_port",
        min(min(counts.values()) for counts in at_port.values()),
        PER_KIND,
    )
    for kind, number in sorted(by_kind.items()):
        checks.fact(f"sent: {kind}", number, "messages")
    for stranger, number in by_stranger.items():
        checks.more_than(f"messages_from_{stranger}", number, PER_PORT, "messages")
    for name, number in sorted(found.failed.items()):
        checks.fact(f"not sent: {name}", number, "messages")
    for port, kinds in sorted(at_port.items()):
        least = min(kinds, key=lambda kind: kinds[kind])
        checks.fact(f"at {port}", f"{sum(kinds.values())} of {len(kinds)} kinds, {kinds[least]} {least}")


def judge_demands(found: Findings, checks: Checks) -> None:
    """A member gets no resources of others."""
    granted = sum(number for answer, number in found.demands.items() if answer.endswith(": OK"))
    checks.equal("demands_granted", granted, 0, "answers")
    for answer, number in sorted(found.demands.items()):
        checks.fact(f"member was told by {answer}", number, "answers")


def judge_replies(lab: Lab, found: Findings, checks: Checks) -> None:
    """No reply is larger than its request: one at a time, and in the message batches by their captures."""
    answered = [single for single in found.singles if single.answered]
    checks.more_than("single_messages_answered", len(answered), 20, "messages")
    checks.at_most("single_reply_excess", max(single.excess for single in found.singles), 0, "bytes")
    for single in sorted(answered, key=lambda answer: -answer.excess)[:3]:
        checks.fact(
            f"single: {single.kind} > {single.aimed_at}", f"{single.asked} asked, {single.answered} answered"
        )
    checks.at_most("greeting", max(single.greeting for single in found.singles), 16, "bytes")
    for node in ("evil", "guest"):
        own = (lab.topology.address4(node), lab.topology.broken4(node))
        excess = measure.largest_excess(pcap.datagrams(lab.captures.files[node]), own)
        checks.at_most(f"largest_reply_excess_{node}", excess, 0, "bytes")


def refusals(before: Any, after: Any) -> dict[str, int]:
    """Counts of each reason of a refusal or a drop."""
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
