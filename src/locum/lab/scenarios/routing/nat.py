"""RFC 3519: the mobile node behind a stock masquerade, its tunnel in UDP, kept open and found again (R9, R10)."""

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, merged
from locum.lab.network.namespaces import run
from locum.lab.processes import wait_until
from locum.lab.programs import services, stream
from locum.lab.programs.echoes import answered
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.scenarios.sleep.fig06_crash import start_stream
from locum.lab.steps.flow_checks import inner_packets, judge_flows, standing_rule
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

HEAD_START = 3_000_000
UPLOAD = 900_000
ASLEEP = 2.0
UDP_TIMEOUT = 4
"""Seconds after which the translator forgets a UDP mapping that is quiet."""
KEEPALIVE = 1
"""Seconds between keepalives, as the home agent sets them."""
IDLE = 1.6 * UDP_TIMEOUT
PORT, RATE = 7003, 100
NODE = "natr"
CARE_OF = "10.10.32.4"
FIRST_OUTSIDE, NEXT_OUTSIDE = "10.10.31.2", "10.10.31.3"
NEXT_PORTS = range(20_000, 20_101)
TUNNEL_DATA, REGISTRATION = 4, 434
PINGS = 10


class Nat(Scenario):
    """Downloads and sleeps meanwhile, is quiet, is reached all the same; then the translator gets another address."""

    name = "nat"
    title = (
        "behind a masquerade: a tunnel in UDP, kept open while quiet, found again when the translator changes"
    )
    plan = Plan(
        mode="colocated",
        extras=("nat",),
        tables={
            "ha": merged({"home_agent": {"keepalive_interval": KEEPALIVE}}, standing_rule(PORT)),
            "mn": {"mobile_node": {"links": ["radio2"]}},
        },
    )

    def play(self, lab: Lab) -> None:
        self._masquerade(lab, "masquerade")
        lab.cut("an1")
        lab.give_care_of_address(NODE)
        self.first = wait_outer(lab, FIRST_OUTSIDE)
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.download.wait_for(HEAD_START)
        self.slept = lab.sleep(ASLEEP, [self.download.program], at=NODE)
        self.status = self.download.finish(30)
        self.outwards = reached(lab, "mn", str(lab.topology.address4("cn")), str(HOME_ADDRESS4))
        self.inwards = reached(lab, "cn", str(HOME_ADDRESS4))
        self.inwards_6 = reached(lab, "cn", str(HOME_ADDRESS6))
        self.uploaded = upload(lab, UPLOAD)
        self.revoking = lab.timeline.mark("home-agent-revokes")
        lab.command("ha", "binding", "revoke", str(HOME_ADDRESS4))
        self.revoked = lab.timeline.wait("mn", "registration-revoked", self.revoking).time
        self.again = lab.timeline.wait("mn", "registered", self.revoking).time
        self.quiet = lab.timeline.mark("quiet-begins")
        registrations = lab.timeline.count("mn", "registered")
        lab.pause(IDLE)
        self.renewals = lab.timeline.count("mn", "registered") - registrations
        lab.timeline.mark("quiet-ends")
        self.first_after_quiet = reached(lab, "cn", str(HOME_ADDRESS4), count=1)
        probes = start_stream(lab, PORT, RATE)
        lab.pause(1.0)
        self.changed = self._change_translator(lab)
        self.second = wait_outer(lab, NEXT_OUTSIDE)
        self.recovered = lab.timeline.wait("mn", "registered", self.changed).time
        lab.pause(1.0)
        self.stopped = lab.timeline.mark("stream-ends")
        probes.stop()
        self.after_change = reached(lab, "mn", str(lab.topology.address4("cn")), str(HOME_ADDRESS4))
        self.counters = lab.counters("ha")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("outer_address", self.first, f"{FIRST_OUTSIDE}:{REGISTRATION}")
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        checks.equal("handovers", handovers(lab), 1)
        checks.holds("curl_frozen_asleep", self.slept.frozen)
        checks.equal("echoes_outwards", self.outwards, PINGS, "packets")
        checks.equal("echoes_inwards", self.inwards, PINGS, "packets")
        checks.equal("echoes_inwards_ipv6", self.inwards_6, PINGS, "packets")
        checks.equal("uploaded", self.uploaded, UPLOAD, "bytes")
        checks.equal("registrations_while_quiet", self.renewals, 0, "registrations")
        checks.equal("reached_after_quiet", self.first_after_quiet, 1, "packets")
        checks.at_most("told_of_revocation_s", self.revoked - self.revoking, 3.0, "s")
        checks.at_most("registered_anew_s", self.again - self.revoking, 6.0, "s")
        checks.at_least("keepalives_while_quiet", self._keepalives(lab), int(IDLE / KEEPALIVE) - 1, "packets")
        checks.holds("another_outer_port", int(self.second.rpartition(":")[2]) in NEXT_PORTS)
        losses = lab.timeline.count("mn", "nat-mapping-lost", self.changed)
        checks.at_least("mapping_losses", losses, 1, "events")
        checks.at_most("recovered_s", self.recovered - self.changed, 20.0, "s")
        checks.equal("echoes_after_change", self.after_change, PINGS, "packets")
        inner = (packet.datagram for packet in inner_packets(lab.captures.files["mn"]) if packet.outer)
        arrived = stream.first_times(inner, PORT)
        checks.more_than(
            "stream_before_change", sum(t < self.changed for t in arrived.values()), 50, "packets"
        )
        late = sum(self.recovered < t <= self.stopped for t in arrived.values())
        checks.more_than("stream_after_change", late, 50, "packets")
        checks.more_than("tunnel_in_udp", self._tunnelled(lab, pcap.UDP), 1000, "packets")
        checks.equal("tunnel_in_ip", self._tunnelled(lab, 4), 0, "packets")
        judge_flows(lab, checks)

    def _masquerade(self, lab: Lab, rule: str) -> None:
        """The whole of a stock address translator."""
        namespace = [f"nsenter --net={lab.place.namespace_path(NODE)} --".split()]
        rules = (
            "table ip nat\ndelete table ip nat\ntable ip nat {\n chain outwards {\n"
            f"  type nat hook postrouting priority srcnat;\n  oifname mid0 {rule}\n }}\n}}\n"
        )
        run([*namespace[0], "nft", "-f", "-"], rules)
        timeouts = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
        settings = [f"net.netfilter.{name}={UDP_TIMEOUT}" for name in timeouts]
        run([*namespace[0], "sysctl", "-q", *settings])

    def _change_translator(self, lab: Lab) -> float:
        """It gets another address from its provider, forgets its mappings with the old one, and takes other ports."""
        self._masquerade(lab, f"meta l4proto udp masquerade to :{NEXT_PORTS[0]}-{NEXT_PORTS[-1]}")
        at = lab.timeline.mark("translator-changes", to=NEXT_OUTSIDE)
        ip = ["ip", "-n", lab.place.namespace(NODE)]
        run([*ip, "addr", "del", f"{FIRST_OUTSIDE}/24", "dev", "mid0"])
        run([*ip, "addr", "add", f"{NEXT_OUTSIDE}/24", "dev", "mid0"])
        run([*ip, "route", "replace", "default", "via", "10.10.31.1", "dev", "mid0"])
        return at

    def _keepalives(self, lab: Lab) -> int:
        """Tunnelled packets of the mobile node while its programs were silent: keepalives."""
        return sum(
            datagram.outgoing
            and self.quiet <= datagram.time <= self.quiet + IDLE
            and is_tunnel_data(datagram)
            for datagram in pcap.datagrams(lab.captures.files["mn"])
        )

    @staticmethod
    def _tunnelled(lab: Lab, protocol: int) -> int:
        """Packets between home agent and translator in that protocol."""
        outside = {FIRST_OUTSIDE, NEXT_OUTSIDE, CARE_OF}
        return sum(
            datagram.protocol == protocol
            and bool({str(datagram.source), str(datagram.destination)} & outside)
            for datagram in pcap.datagrams(lab.captures.files["ha"])
        )


def is_tunnel_data(datagram: pcap.Datagram) -> bool:
    """True for a packet of a tunnel in UDP (RFC 3519 section 3.3)."""
    if datagram.protocol != pcap.UDP or REGISTRATION not in datagram.ports:
        return False
    return datagram.transport[8:9] == bytes((TUNNEL_DATA,))


def wait_outer(lab: Lab, address: str, patience: float = 25.0) -> str:
    """Until the home agent sees the mobile node at that outer address; returns it with its port."""
    found: list[str] = []

    def seen() -> bool:
        outer = [str(care_of.get("outer", "")) for row in lab.bindings() for care_of in row["care_of"]]
        found[:] = [mapping for mapping in outer if mapping.startswith(f"{address}:")]
        return bool(found)

    wait_until(f"the home agent to see the mobile node at {address}", seen, patience)
    return found[0]


def upload(lab: Lab, size: int) -> int:
    """A stock curl posts so many bytes from the home address; returns the server's count of them."""
    file = lab.output / "upload"
    services.make_file(file, size)
    source = ["--interface", str(HOME_ADDRESS4)]
    url = f"http://{lab.topology.address4('cn')}/upload"
    done = lab.processes.run("mn", ["curl", "-sS", *source, "--data-binary", f"@{file}", url], 30)
    words = done.stdout.split()
    return int(words[0]) if words[1:] == ["bytes"] else 0


def reached(lab: Lab, node: str, target: str, source: str | None = None, count: int = PINGS) -> int:
    """Number of answered echo requests, out of `count`."""
    chosen = ["-I", source] if source else []
    return answered(lab.processes, node, target, count, *chosen, interval=0.05)
