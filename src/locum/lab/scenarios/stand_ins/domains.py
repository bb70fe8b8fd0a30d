"""Fig. 6 with addresses from two and from three addressing domains (R18); every other scenario has one."""

from ipaddress import IPv4Network

from locum.lab.captures import measure, pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.network.topology import DOMAIN_BITS
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.flow_checks import inner_packets
from locum.lab.steps.resets import no_resets
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

STEP = 4_000_000
ASLEEP = 3.0


def domain(address: object) -> IPv4Network:
    """The prefix of an address's domain."""
    return IPv4Network(f"{address}/{DOMAIN_BITS}", strict=False)


class TwoDomains(Scenario):
    """Home address, home agent here; both care-of addresses and the stand-in there."""

    name = "domains-2"
    title = "asleep in the middle of a download, with addresses from two domains"
    plan = Plan(domains=2)
    exhaustive = True  # three domains hold all that two do

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.download.wait_for(STEP)
        self.slept = lab.sleep(ASLEEP, [self.download.program])
        self.status = self.download.finish(60)

    def judge(self, lab: Lab, checks: Checks) -> None:
        segments = list(pcap.segments(lab.captures.files["cn"]))
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        no_resets(checks, "cn_resets", segments)
        moved = measure.acknowledged_bytes(segments, 80, self.slept.cut, self.slept.restored)
        checks.more_than("bytes_while_asleep", moved, 1_000_000, "bytes")
        ends = {
            domain(packet.outer[1])
            for packet in inner_packets(lab.captures.files["ha"])
            if packet.outer is not None
            and packet.datagram.outgoing
            and packet.datagram.destination == HOME_ADDRESS4
        }
        home = {domain(HOME_ADDRESS4), domain(lab.topology.address4("ha"))}
        checks.equal("domains_of_home", len(home), 1, "domains")
        checks.equal("domains_in_tunnels", len(home | ends), self.plan.domains, "domains")


class ThreeDomains(TwoDomains):
    """Home address and home agent; stand-in and its access node; the device's access networks: three prefixes."""

    name = "domains-3"
    title = "the same with addresses from three domains"
    plan = Plan(domains=3)
    exhaustive = False
