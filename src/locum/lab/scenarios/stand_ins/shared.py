"""Roles that share a host (R17): a stand-in in the home agent's daemon, and in an access node's.

The access node is the wired one, where no other device is, or the one that the device itself visits.
"""

from collections.abc import Mapping
from typing import ClassVar

from locum.lab.captures import measure, pcap
from locum.lab.configuration import Plan, Table, merged
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.stand_ins.fig10 import grown
from locum.lab.steps.flow_checks import HOMES, inner_packets, judge_flows, standing_rule_from
from locum.lab.steps.resets import no_resets
from locum.lab.steps.stand_ins import Registering, bound_in_advance, further, registering
from locum.lab.steps.story import PORT, live, watch
from locum.lab.world import Lab

"""Of a download that is only slept through."""
STEP = 2_000_000
ASLEEP = 2.0


def ruled(at: str) -> Mapping[str, Table]:
    """Preconfigured there, with a rule for the download and the same target: its packets are counted."""
    tables = bound_in_advance(at)
    return {**tables, "ha": merged(tables["ha"], standing_rule_from(PORT))}


class Shared(Scenario):
    """A download is given to a stand-in that registers, taken back, and slept through there."""

    stand_in: ClassVar[Registering]

    def play(self, lab: Lab) -> None:
        at = self.stand_in.at
        self._begin(lab)
        lab.command("mn", "give", "--port", "80", "--to", at)
        grown(lab, at, STEP)
        lab.command("mn", "take", "--port", "80")
        self.download.wait_for(self.download.received + STEP)
        self._sleep(lab, "--to", at)
        self.status = self.download.finish(60)

    def _begin(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.download.wait_for(STEP)

    def _sleep(self, lab: Lab, *to: str) -> None:
        before = lab.timeline.mark("lid-closes")
        lab.command("mn", "sleep", *to)
        self.away = lab.cut()
        lab.pause(ASLEEP)
        self.back = lab.restore()
        lab.command("mn", "wake")
        lab.timeline.mark("awake", slept=round(self.back - before, 1))

    def judge(self, lab: Lab, checks: Checks) -> None:
        segments = list(pcap.segments(lab.captures.files["cn"]))
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        no_resets(checks, "cn_resets", segments)
        moved = measure.acknowledged_bytes(segments, 80, self.away, self.back)
        checks.more_than("bytes_while_asleep", moved, 1_000_000, "bytes")
        judge_flows(lab, checks)


class SharedHome(Shared):
    """Packets for the stand-in never leave the home agent's host."""

    name = "shared-home"
    title = "the stand-in lives on the home agent's host: its packets never leave that host"
    stand_in: ClassVar[Registering] = Registering("ha", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False, tables=registering(stand_in), associations=further(stand_in.at)
    )


class SharedAccess(Shared):
    """A tunnel of the stand-in's own ends beside those of the access node's visitors."""

    name = "shared-access"
    exhaustive = True  # the host that the device visits has the same tunnel, and one more
    title = "the stand-in lives on the wired access node's host, and registers from there"
    stand_in: ClassVar[Registering] = Registering("an3", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        tables={
            **registering(stand_in),
            "an3": {"mnps": stand_in.own(), "foreign_agent": {"static": None}},
        },
        associations=further(stand_in.at),
    )

    def judge(self, lab: Lab, checks: Checks) -> None:
        super().judge(lab, checks)
        judge_tunnels(lab, self.stand_in.at, checks)


class SharedVisited(SharedAccess):
    """The home agent has two tunnels to that host: to the device by its foreign agent, and to the stand-in."""

    name = "shared-visited"
    exhaustive = False
    title = "the stand-in lives on the access node's host that the device visits, and registers from there"
    stand_in: ClassVar[Registering] = Registering("an1", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False, tables=registering(stand_in), associations=further(stand_in.at)
    )


class SharedAccessDefault(Shared):
    """Bound in advance at the access node whose daemon it shares: the default care-of address is its own host."""

    name = "shared-access-default"
    exhaustive = True
    title = "the stand-in lives on the wired access node's host, which is the default care-of address"
    host: ClassVar[str] = "an3"
    plan: ClassVar[Plan] = Plan(tables=ruled("an3"), associations=further("an3"))

    def play(self, lab: Lab) -> None:
        self._begin(lab)
        self._sleep(lab)
        self.status = self.download.finish(60)

    def judge(self, lab: Lab, checks: Checks) -> None:
        super().judge(lab, checks)
        judge_tunnels(lab, self.host, checks)


class SharedVisitedDefault(SharedAccessDefault):
    """Awake or asleep, the home agent has one care-of address: its access node chooses device or stand-in."""

    name = "shared-visited-default"
    exhaustive = False
    title = "the device sleeps where it is: its own access node's host is the default care-of address"
    host: ClassVar[str] = "an1"
    plan: ClassVar[Plan] = Plan(tables=ruled("an1"), associations=further("an1"))


def judge_tunnels(lab: Lab, host: str, checks: Checks) -> None:
    """Packets from a home address leave the stand-in's host in the reverse tunnel (R10)."""
    server = lab.topology.address4("cn")
    left = [
        packet.outer is not None
        for packet in inner_packets(lab.captures.files[host])
        if packet.datagram.outgoing
        and packet.datagram.source in HOMES
        and packet.datagram.destination == server
    ]
    checks.more_than("tunnelled_back", left.count(True), 100, "packets")
    checks.equal("not_tunnelled_back", left.count(False), 0, "packets")
