"""Programs of the stand-in use its own address; a node on the path translates the home address (R12).

Three home addresses side by side at the default care-of address: the home agent translates the first, the access node
the second, the stand-in's own host the third. For two more the stand-in registers (Fig. 7), and home agent and access
node translate as before. Programs at both ends are stock.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from locum.lab.captures import pcap
from locum.lab.captures.pcap import ICMP, TCP, UDP, Address
from locum.lab.configuration import Pair, Plan, Table
from locum.lab.errors import LabError
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.echoes import answered
from locum.lab.programs.services import WebServer, sha256
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.flow_checks import add_standing_rule, judge_flows
from locum.lab.world import Lab

SIZE = 3 << 20
DATAGRAMS, DATAGRAM = 340, 1200
"""Number of datagrams to each address, and bytes of each."""
IPERF_PORTS = {4: 5201, 6: 5202}
CLOSED_PORT = 9
ICMPV6 = 58
TOO_BIG = {4: (3, 4), 6: (2, 0)}


@dataclass(frozen=True, slots=True)
class Home:
    """A home address of both families, and its translator. `registered`: a stand-in has registered for it."""

    place: str
    four: IPv4Address
    six: IPv6Address
    registered: bool = False

    @property
    def name(self) -> str:
        return f"{self.place}_registered" if self.registered else self.place

    @property
    def both(self) -> tuple[Address, Address]:
        return self.four, self.six


HOMES = tuple(
    Home(place, IPv4Address(f"10.10.100.{host}"), IPv6Address(f"2001:db8:100::{host}"), registered)
    for place, host, registered in (
        ("home_agent", 41, False),
        ("access_node", 42, False),
        ("stand_in", 43, False),
        ("home_agent", 44, True),
        ("access_node", 45, True),
    )
)
REGISTERED = tuple(translated for translated in HOMES if translated.registered)


def tables() -> dict[str, Table]:
    """Additional configuration of each node, so that each of HOMES is translated at its place."""
    topology = figure_5()
    four, six = str(topology.address4("mnps")), str(topology.address6("mnps"))
    care_of = str(topology.address4("an3", "wire0"))
    mobiles: list[Table] = []
    static: list[Table] = []
    devices: list[Table] = []
    for number, home in enumerate(HOMES):
        mobile: dict[str, object] = {
            "home_address": str(home.four),
            "home_address_v6": str(home.six),
            "spi": 1200 + number,
            "key_file": f"key:{home.name}",
        }
        stand_in: Table = {"spi": 1300 + number, "key_file": f"key:stand-in-{number}"}
        if home.registered:
            own: Table = {"home_address": str(home.four), "home_address_v6": str(home.six), "bid": 1}
            devices.append({**own, **stand_in})
        else:
            mobile |= {"default_coa": care_of, "mnps": four, "mnps_v6": six}
        if home.registered or home.place == "home_agent":
            mobile["stand_in"] = [
                {
                    "name": "mnps",
                    "address": four,
                    "address_v6": six,
                    "translate": home.place == "home_agent",
                    **stand_in,
                }
            ]
        mobiles.append(mobile)  # type: ignore[arg-type]
        static.append(
            {
                "home_address": str(home.four),
                "home_address_v6": str(home.six),
                "home_agent": str(topology.address4("ha")),
                "link": "wire0",
                "next_hop": four,
                "next_hop_v6": six,
                "translate": home.place == "access_node",
                "translated": home.place == "home_agent",
            }
        )
    return {
        "ha": {"home_agent": {"mobile": mobiles}},
        "an3": {"foreign_agent": {"static": static}},
        "mnps": {
            "mnps": {
                "translate": [str(address) for address in HOMES[2].both],
                "mode": "register",
                "home_agent": str(topology.address4("ha")),
                "mobile": devices,
            }
        },
    }


class Translate(Scenario):
    """TCP, UDP, ping and ICMP errors through each of the places, IPv4 and IPv6."""

    name = "translate"
    title = "the home address becomes the stand-in's own at the home agent, the access node, the stand-in"
    plan = Plan(
        tables=tables(),
        associations=(
            Pair(
                "ha",
                "mnps",
                at_far={
                    "may_trigger": True,
                    "home_addresses": [str(address) for home in REGISTERED for address in home.both],
                },
            ),
        ),
    )

    def __init__(self) -> None:
        self.digests: dict[Address, bool] = {}
        self.lost: dict[Address, int] = {}
        self.pings: dict[Address, int] = {}
        self.refused: dict[Address, bool] = {}
        self.care_of: dict[Address, list[str]] = {}
        self.visitors: list[str] = []

    def play(self, lab: Lab) -> None:
        own = (lab.topology.address4("mnps"), lab.topology.address6("mnps"))
        for ruled in HOMES:
            add_standing_rule(lab, ruled.four, f"{IPERF_PORTS[4]}-{IPERF_PORTS[6]}", to=("mnps", "default"))
        server = WebServer(lab.processes, "mnps", lab.output / "web", addresses=tuple(map(str, own)))
        server.start()
        file = server.root / "file"
        # numbered lines: random bytes at the end of a download are taken by tshark for a broken message now and then
        file.write_text("".join(f"{number:015}\n" for number in range(SIZE // 16)))
        digest = sha256(file)
        for address in own:
            port = str(IPERF_PORTS[address.version])
            lab.processes.start(
                "mnps", f"iperf3-{address.version}", ["iperf3", "-s", "-B", str(address), "-p", port]
            )
        for home in REGISTERED:
            lab.command("ha", "trigger", "take", str(home.four), "--mnps", str(own[0]))
        for home in HOMES:
            for address in home.both:
                self._visit(lab, address, digest)
        self._look(lab)
        lab.processes.run("mnps", ["ping", "-c", "2", "-i", "0.2", str(lab.topology.address4("cn"))])
        self.counted = {
            node: {row["home_address"]: row for row in lab.ask(node, "translation list")}
            for node in ("ha", "an3", "mnps")
        }
        self.conflicts = sum(
            lab.counters(node)["data_plane"]["translation-conflict"] for node in ("ha", "an3", "mnps")
        )

    def _look(self, lab: Lab) -> None:
        """Registrants, as listed by the home agent and by the stand-in's access node."""
        rows = {row["home_address"]: row for row in lab.bindings()}
        for home in HOMES:
            listed = rows[str(home.four)]["care_of"]
            self.care_of[home.four] = [care_of["registrant"] for care_of in listed]
        self.visitors = [row["home_address"] for row in lab.bindings("an3") if row["kind"] == "visitor"]

    def _visit(self, lab: Lab, home: Address, digest: str) -> None:
        target = lab.output / f"download-{home}".replace(":", ".")
        host = f"[{home}]" if home.version == 6 else str(home)
        fetched = lab.processes.run(
            "cn", ["curl", "-sS", "--globoff", "--max-time", "15", "-o", str(target), f"http://{host}/file"]
        )
        self.digests[home] = fetched.returncode == 0 and sha256(target) == digest
        self.lost[home] = self._datagrams_lost(lab, home)
        self.pings[home] = ping(lab, home, 56, 3)
        wait_until(f"a ping of {home} in fragments", lambda: ping(lab, home, 4000, 1) == 1, pause=0.1)
        self.refused[home] = "refused" in refusal(lab, home)

    @staticmethod
    def _datagrams_lost(lab: Lab, home: Address) -> int:
        command = ["iperf3", "-c", str(home), "-p", str(IPERF_PORTS[home.version]), "-J"]
        options = ["-u", "-b", "4M", "-n", str(DATAGRAMS * DATAGRAM), "-l", str(DATAGRAM)]
        for _ in range(5):  # the server may still be busy with the end of the last one
            done = lab.processes.run("cn", [*command, *options])
            if done.returncode == 0:
                text = done.stdout
                return int(text.rpartition('"lost_packets":')[2].partition(",")[0])
        raise LabError(f"iperf3 to {home}: {done.stdout or done.stderr}")

    def judge(self, lab: Lab, checks: Checks) -> None:
        for home in HOMES:
            registrants = ["mnps"] if home.registered else []
            checks.holds(f"{home.name}_registrants", self.care_of[home.four] == registrants)
            for address in home.both:
                where = f"{home.name}_v{address.version}"
                checks.holds(f"{where}_download_same_bytes", self.digests[address])
                # what iperf3 is too late to read is lost in its socket; captures tell whether the way loses any
                checks.at_most(f"{where}_datagrams_not_read", self.lost[address], DATAGRAMS // 2, "packets")
                checks.equal(f"{where}_pings_answered", self.pings[address], 3, "packets")
                checks.holds(f"{where}_port_unreachable_heard", self.refused[address])
            self._judge_counters(home, checks)
        visitors = ", ".join(sorted(self.visitors))
        checks.equal(
            "visitors_at_the_stand_ins_access_node",
            visitors,
            ", ".join(str(home.four) for home in REGISTERED),
        )
        checks.equal("conflicts", self.conflicts, 0, "packets")
        own: set[Address] = {lab.topology.address4("mnps"), lab.topology.address6("mnps")}
        self._judge_captures(lab.captures.files, own, checks)
        judge_flows(lab, checks, frozenset(address for home in HOMES for address in home.both), own)

    def _judge_counters(self, home: Home, checks: Checks) -> None:
        node = {"home_agent": "ha", "access_node": "an3", "stand_in": "mnps"}[home.place]
        for address in home.both:
            row = self.counted[node].get(str(address), {"packets_towards": 0, "bytes_back": 0})
            where = f"{home.name}_v{address.version}"
            checks.more_than(f"{where}_towards", row["packets_towards"], 300, "packets")
            checks.more_than(f"{where}_back", row["bytes_back"], SIZE, "bytes")

    @staticmethod
    def _judge_captures(files: dict[str, Path], own: set[Address], checks: Checks) -> None:
        """Captured addresses at each node."""
        untranslated = {address for home in HOMES if home.place != "stand_in" for address in home.both}
        captured = {node: list(pcap.datagrams(files[node])) for node in ("cn", "mnps")}
        for version, port in IPERF_PORTS.items():
            sent, arrived = (
                sum(
                    datagram.outgoing is outgoing
                    and datagram.protocol == UDP
                    and datagram.transport_length > DATAGRAM
                    and datagram.ports[1] == port
                    for datagram in captured[node]
                )
                for node, outgoing in (("cn", True), ("mnps", False))
            )
            checks.at_least(f"v{version}_datagrams", sent, DATAGRAMS * len(HOMES), "packets")
            checks.equal(f"v{version}_datagrams_lost", sent - arrived, 0, "packets")
        at_mnps = [datagram for datagram in captured["mnps"] if not datagram.outgoing]
        checks.equal(
            "home_addresses_at_the_stand_in",
            sum(1 for datagram in at_mnps if datagram.destination in untranslated),
            0,
            "packets",
        )
        checks.more_than(
            "home_address_on_its_wire",
            sum(1 for datagram in at_mnps if datagram.destination in HOMES[2].both),
            300,
            "packets",
        )
        at_cn = [datagram for datagram in captured["cn"] if not datagram.outgoing and datagram.source in own]
        checks.equal(
            "answers_under_the_stand_ins_address",
            sum(1 for datagram in at_cn if datagram.protocol in (TCP, UDP)),
            0,
            "packets",
        )
        checks.more_than(
            "its_own_ping_is_its_own", sum(1 for datagram in at_cn if datagram.protocol == ICMP), 0, "packets"
        )
        for version in (4, 6):
            checks.more_than(
                f"path_mtu_told_v{version}",
                sum(1 for datagram in at_mnps if too_big(datagram, version)),
                0,
                "packets",
            )


def ping(lab: Lab, home: Address, size: int, count: int) -> int:
    """Number of answered echo requests."""
    return answered(lab.processes, "cn", str(home), count, "-s", str(size))


def refusal(lab: Lab, home: Address) -> str:
    """Error of a shell that writes to a closed UDP port."""
    script = (
        f"exec 3<>/dev/udp/{home}/{CLOSED_PORT}; for i in 1 2 3 4 5 6 7 8; do echo $i >&3; sleep 0.1; done"
    )
    return lab.processes.run("cn", ["env", "LC_ALL=C", "bash", "-c", script]).stderr


def too_big(packet: pcap.Datagram, version: int) -> bool:
    """ICMP "fragmentation needed" or "packet too big"."""
    protocol = ICMP if version == 4 else ICMPV6
    return packet.protocol == protocol and tuple(packet.transport[:2]) == TOO_BIG[version]
