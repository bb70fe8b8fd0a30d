"""Roles that share a host (R17): a stand-in in the home agent's daemon, and in an access node's."""

from typing import ClassVar

from locum.lab import measure, pcap
from locum.lab.checks import Checks
from locum.lab.configuration import Plan
from locum.lab.flow_checks import judge_flows
from locum.lab.scenario import Scenario
from locum.lab.scenarios.fig10 import grown
from locum.lab.stand_ins import Registering, bound_in_advance, further, registering
from locum.lab.story import download, web
from locum.lab.world import Lab

SIZE = 40_000_000
STEP = 2_000_000
ASLEEP = 2.0


class SharedHome(Scenario):
    """A download is given to the stand-in on the home agent's host, taken back, and slept through there."""

    name = "shared-home"
    title = "the stand-in lives on the home agent's host: what it takes never leaves that host"
    stand_in: ClassVar[Registering] = Registering("ha", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False, tables=registering(stand_in), associations=further(stand_in.at)
    )

    def play(self, lab: Lab) -> None:
        at = self.stand_in.at
        lab.wait_registered()
        self.server, digests = web(lab, [("film", SIZE)])
        self.download = download(lab, "film", digests["film"])
        self.download.wait_for(STEP)
        lab.command("mn", "give", "--port", "80", "--to", at)
        grown(lab, at, STEP)
        lab.command("mn", "take", "--port", "80")
        self.download.wait_for(self.download.received + STEP)
        self._sleep(lab, "--to", at)
        self.status = self.download.finish(60)

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
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        checks.equal("cn_resets", measure.resets(segments), 0, "segments")
        moved = measure.acknowledged_bytes(segments, 80, self.away, self.back)
        checks.more_than("bytes_while_asleep", moved, 1_000_000, "bytes")
        judge_flows(lab, checks)


class SharedAccess(SharedHome):
    """The same on the host of an access node, which is its own care-of address."""

    name = "shared-access"
    title = "the stand-in lives on its access node's host, registers from there, and its tunnel ends there"
    stand_in: ClassVar[Registering] = Registering("an3", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        tables={
            **registering(stand_in),
            "an3": {"mnps": stand_in.own(), "foreign_agent": {"static": None}},
        },
        associations=further(stand_in.at),
    )


class SharedAccessDefault(SharedHome):
    """The stand-in is bound in advance at the access node whose daemon it shares: the default care-of address is its host."""

    name = "shared-access-default"
    title = "the stand-in lives on its access node's host, which is the default care-of address"
    plan: ClassVar[Plan] = Plan(tables=bound_in_advance("an3"), associations=further("an3"))

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, digests = web(lab, [("film", SIZE)])
        self.download = download(lab, "film", digests["film"])
        self.download.wait_for(STEP)
        self._sleep(lab)
        self.status = self.download.finish(60)
