"""One server with one address and the stock masquerade of its own: home agent, stand-in and translator on one host (R17).

The device is behind another masquerade. No address of the home network is seen outside.
"""

import subprocess
import time
from typing import ClassVar

from locum.lab.captures import measure, pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table, merged
from locum.lab.network.namespaces import run
from locum.lab.network.topology import HOME_NETWORK4, HOME_NETWORK6
from locum.lab.processes import Program, wait_until
from locum.lab.programs.echoes import answered
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.stand_ins.fig10 import grown
from locum.lab.steps.flow_checks import HOMES
from locum.lab.steps.resets import no_resets
from locum.lab.steps.stand_ins import Registering, further, registering
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

NAT, OUTSIDE = "natr", "10.10.31.2"
STEP = 1_500_000
PINGS = 5
FORWARDED = 8080
"""The server's port that leads to the same port of the device."""
PAGE = b"what the device serves\n" * 20_000
SERVER_RULES = f"""
table inet locum_nat {{
  chain inwards {{
    type nat hook prerouting priority dstnat;
    iifname "eth0" tcp dport {FORWARDED} dnat ip to {HOME_ADDRESS4}
  }}
  chain outwards {{
    type nat hook postrouting priority srcnat;
    oifname "eth0" ip saddr {HOME_NETWORK4} masquerade
    oifname "eth0" ip6 saddr {HOME_NETWORK6} masquerade
  }}
}}
"""
DEVICE_RULES = (
    "table ip nat { chain outwards { type nat hook postrouting priority srcnat; oifname mid0 masquerade\n}\n}"
)

_STAND_IN = Registering("ha", bid=1, colocated=True)
_AT_HOME = registering(_STAND_IN)
_LISTENING: Table = {"port": FORWARDED, "while_asleep": "accept"}
_DEVICE: Table = {"mobile_node": {"links": ["radio2"], "listen": [_LISTENING]}}


def apply(lab: Lab, node: str, rules: str) -> None:
    """Load rules of nft at a node."""
    run(["nsenter", f"--net={lab.place.namespace_path(node)}", "--", "nft", "-f", "-"], rules)


class OneServer(Scenario):
    """A download is given, taken, and slept through while daemons die; a port forward leads to the device, awake or asleep."""

    name = "one-server"
    title = (
        "home agent, stand-in and stock masquerade on one host with one address; a port forward to the device"
    )
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        mode="colocated",
        extras=("nat",),
        associations=further("ha"),
        tables={**_AT_HOME, "mn": merged(_AT_HOME["mn"], _DEVICE)},
    )

    def play(self, lab: Lab) -> None:
        apply(lab, NAT, DEVICE_RULES)
        apply(lab, "ha", SERVER_RULES)
        lab.cut("an1")
        lab.give_care_of_address(NAT)
        wait_until("the device's registration by UDP", lambda: self._registered(lab), 25)
        self.server, films = live(lab)
        self.download = watch(lab, films)
        self.download.wait_for(STEP)
        self._serve(lab)
        awake = self._fetch(lab)
        self.fetched_awake = awake.process.communicate(timeout=30)[0] == PAGE
        self.echoes = [
            self._echoes(lab, str(lab.topology.address4("cn")), str(HOME_ADDRESS4)),
            self._echoes(lab, str(lab.topology.address6("cn")), str(HOME_ADDRESS6)),
        ]
        lab.command("mn", "give", "--port", "80", "--to", "ha")
        grown(lab, "ha", STEP)
        lab.command("mn", "take", "--port", "80")
        self.download.wait_for(self.download.received + STEP)
        self._sleep(lab)
        self.status = self.download.finish(60)

    @staticmethod
    def _registered(lab: Lab) -> bool:
        rows = (care_of for row in lab.bindings() for care_of in row["care_of"])
        return any(str(care_of.get("outer", "")).startswith(f"{OUTSIDE}:") for care_of in rows)

    @staticmethod
    def _echoes(lab: Lab, target: str, source: str) -> int:
        return answered(lab.processes, "mn", target, PINGS, "-I", source, interval=0.05)

    def _serve(self, lab: Lab) -> None:
        root = lab.output / "web"
        root.mkdir()
        (root / "page").write_bytes(PAGE)
        lab.processes.start(
            "mn", "http.server", ["python3", "-m", "http.server", str(FORWARDED), "-d", str(root)]
        )
        local = ["curl", "-sf", "-o", "/dev/null", f"http://{HOME_ADDRESS4}:{FORWARDED}/page"]
        wait_until("the device's server", lambda: not lab.processes.run("mn", local).returncode)

    @staticmethod
    def _fetch(lab: Lab) -> Program:
        url = f"http://{lab.topology.address4('ha')}:{FORWARDED}/page"
        command = ["curl", "-s", "-m", "60", url]
        return lab.processes.start("cn", "forwarded", command, stdout=subprocess.PIPE)

    def _sleep(self, lab: Lab) -> None:
        lab.command("mn", "sleep", "--to", "ha")
        self.away = lab.cut(NAT)
        grown(lab, "ha", STEP)
        caller = self._fetch(lab)
        wait_until("an accepted connection", lambda: self._accepted(lab) == 1)
        lab.crash("ha")
        before = time.time()
        lab.restart("ha")
        self.restarted = time.time() - before
        grown(lab, "ha", STEP)
        self.back = lab.restore(NAT)
        lab.command("mn", "wake")
        lab.timeline.mark("awake")
        self.fetched_asleep = caller.process.communicate(timeout=30)[0] == PAGE

    @staticmethod
    def _accepted(lab: Lab) -> int:
        return sum(session["kind"] == "accepted" and session["total"] > 0 for session in lab.sessions("ha"))

    def judge(self, lab: Lab, checks: Checks) -> None:
        segments = list(pcap.segments(lab.captures.files["cn"]))
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/live/film"), 1, "connections")
        no_resets(checks, "cn_resets", segments)
        moved = measure.acknowledged_bytes(segments, 80, self.away, self.back)
        checks.more_than("bytes_while_asleep", moved, 2 * STEP, "bytes")
        for version, number in zip((4, 6), self.echoes, strict=True):
            checks.equal(f"echoes_{version}", number, PINGS, "packets")
        checks.holds("forwarded_awake", self.fetched_awake)
        checks.holds("forwarded_asleep", self.fetched_asleep)
        seen = sum(
            not HOMES.isdisjoint((datagram.source, datagram.destination))
            for datagram in pcap.datagrams(lab.captures.files["cn"])
        )
        checks.equal("home_addresses_outside", seen, 0, "packets")
        drops = lab.counters("ha")["data_plane"]
        checks.equal("stray", drops.get("stray", 0), 0, "packets")
        checks.equal("unclaimed", drops.get("unclaimed", 0), 0, "packets")
