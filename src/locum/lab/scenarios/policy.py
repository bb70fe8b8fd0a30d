"""The profile of the device comes from a policy server, and the policy server has its troubles (features R3, C9, R20)."""

import sys
from ipaddress import IPv4Address
from typing import Any

from locum.lab.checks import Checks
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.flow_checks import judge_flows
from locum.lab.freeradius import FreeRadius, client
from locum.lab.processes import wait_until
from locum.lab.scenario import Scenario
from locum.lab.story import download, web
from locum.lab.world import Lab

MN, OTHER = "mn@example.org", "other@example.org"
POOL = ("10.10.100.64", "10.10.100.79")
SERVERS = ("aaa", "aaa2")
SIZE = 30_000_000
DROPPED, POLICED = 5005, 5006
"""UDP ports at the home address: the profile's rule drops the first at the home agent, its filter the second at the
access node (R20)."""
FORGING = 2.0  # seconds
WRONG = "a-secret-that-nobody-else-knows"

POLICY: Table = {
    "servers": [{"address": address, "secret_file": "key:radius"} for address in ("10.10.5.2", "10.10.6.2")],
    "timeout": 0.5,
    "retries": 1,
    "dead_time": 2.0,
}


class Policy(Scenario):
    """Home address, keys, default care-of address and rules by RADIUS; failover, outage, forgery, change, withdrawal."""

    name = "policy"
    title = "the profile of the device comes from a policy server"
    plan = Plan(
        lifetime=12,
        extras=("aaa",),
        other_mobile=True,
        tables={
            "ha": {
                "policy": POLICY,
                "home_agent": {
                    "mobile": None,
                    "pool": [
                        {"name": "guests", "prefix": "10.10.100.0/24", "first": POOL[0], "last": POOL[1]}
                    ],
                },
            },
            "an1": {"policy": POLICY},
            # Control messages need an address from the start: this device only registers.
            "mn": {"control": None, "mobile_node": {"home_address": None, "nai": MN, "mnps": None}},
            "evil": {"mobile_node": {"home_address": None, "nai": OTHER}},
        },
    )

    # The story ---------------------------------------------------------------------------------------------------

    def play(self, lab: Lab) -> None:
        self.servers = [
            FreeRadius(
                lab.processes, node, lab.place.path / node, self._clients(lab, self._secret(lab, "radius"))
            )
            for node in SERVERS
        ]
        wait_until("a refusal: no server runs", lambda: self._refusals(lab, "refused-130") > 0, 20.0)
        self._serve(lab)
        self._fail_over(lab)
        self._outage(lab)
        self._forge(lab)
        self._wrong_secret(lab)
        self._change(lab)
        self._withdraw(lab)

    def _serve(self, lab: Lab) -> None:
        """Both servers start: the device is served by its profile, the other one from the pool."""
        for each in self.servers:
            each.start(self._users(lab))
        lab.wait_registered("an1", 40.0)
        lab.timeline.mark("served")
        self.first = self._row(lab)
        wait_until("the other to be registered", lambda: self._other(lab) is not None, 40.0)
        self.assigned = self._other(lab)
        self.web, digests = web(lab, [("film", SIZE)])
        self.film = download(lab, "film", digests["film"])
        self.film.wait_for(1 << 20)
        self.sent = self._datagrams(lab)

    def _fail_over(self, lab: Lab) -> None:
        """The first server is gone."""
        self.servers[0].stop()
        begin = lab.timeline.mark("first-server-stopped")
        before = self._fetched(lab)
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until("an answer of the second", lambda: self._fetched(lab) < before, 20.0)
        self.failover = lab.timeline.mark("second-server-answered") - begin

    def _outage(self, lab: Lab) -> None:
        """Both are gone: who is known goes on and renews."""
        self.servers[1].stop()
        begin = lab.timeline.mark("both-servers-stopped")
        lab.command("ha", "profile", "refresh")
        wait_until("the profile to be stale", lambda: self._events(lab, "profile-stale") > 0, 20.0)
        wait_until("a renewal without servers", lambda: self._renewed_since(lab, begin), 30.0)
        self.outage = self._row(lab)

    def _forge(self, lab: Lab) -> None:
        """Servers that do not answer, and a stranger who does in their name."""
        for each in self.servers:
            each.start(self._users(lab))
            each.hang()
        lab.command("ha", "profile", "refresh")
        done = lab.processes.run(
            "evil",
            [
                sys.executable, "-m", "locum.lab.radius_forgery", "10.10.5.2", str(lab.topology.address4("ha")),
                str(self._port(lab)), str(FORGING), str(lab.topology.address4("evil")),
            ],
        )  # fmt: skip
        self.forged = int(done.stdout or 0)
        self.after_forgery = self._row(lab)
        self.counted = {
            kind: self._refusals(lab, f"radius-{kind}")
            for kind in ("no-message-authenticator", "not-authentic", "unexpected")
        }
        lab.timeline.mark("forged", datagrams=self.forged)
        for each in self.servers:
            each.go_on()

    def _wrong_secret(self, lab: Lab) -> None:
        """A server with another secret does not answer; it is as if it were silent."""
        for each in self.servers:
            each.stop()
        stranger = FreeRadius(lab.processes, SERVERS[0], lab.place.path / "wrong", self._clients(lab, WRONG))
        stranger.start(self._users(lab))
        before = self._events(lab, "profile-stale")
        lab.command("ha", "profile", "refresh")
        wait_until("nobody to answer", lambda: self._events(lab, "profile-stale") > before, 20.0)
        self.wrong_secret = stranger.complaints("invalid Message-Authenticator")
        self.after_wrong_secret = self._row(lab)
        stranger.stop()

    def _change(self, lab: Lab) -> None:
        """The profile says something else while the device is registered, in the middle of a download."""
        for each in self.servers:
            each.start(self._users(lab))
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        before = self._row(lab)
        for each in self.servers:
            each.users(self._users(lab, default_coa=lab.configuration.care_of("an2"), rules=False))
        lab.timeline.mark("profile-changed")
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until(
            "the change",
            lambda: self._row(lab)["default_coa"] == str(lab.configuration.care_of("an2")),
            20.0,
        )
        after = self._row(lab)
        self.kept = [each["address"] for each in after["care_of"]] == [
            each["address"] for each in before["care_of"]
        ]
        self.rules_after = len(lab.flow_rules())
        self.status = self.film.finish(90)

    def _withdraw(self, lab: Lab) -> None:
        """The policy server does not know the device any more."""
        for each in self.servers:
            each.users("")
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until("the withdrawal", lambda: not self._rows(lab, str(HOME_ADDRESS4)), 20.0)
        lab.timeline.mark("withdrawn")
        wait_until("the device to be refused", lambda: self._refusals(lab, "refused-131") > 0, 40.0)
        wait_until("the access node to hear of it", lambda: not lab.bindings("an1"), 20.0)
        self.revoked = lab.timeline.count("an1", "visitor-revoked")
        self.tunnels = [
            each
            for each in lab.ask("ha", "tunnel list")
            if each["home_address"] in (str(HOME_ADDRESS4), str(HOME_ADDRESS6))
        ]

    # What was found ----------------------------------------------------------------------------------------------

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("home_address", str(self.first["home_address"]), str(HOME_ADDRESS4))
        checks.equal("default_coa", str(self.first["default_coa"]), str(lab.configuration.care_of("an3")))
        checks.holds(
            "other_from_pool", IPv4Address(POOL[0]) <= IPv4Address(self.assigned) <= IPv4Address(POOL[1])
        )
        checks.at_least("refused_without_servers", self._refusals(lab, "refused-130"), 1, "requests")
        checks.equal("rule_dropped", self.sent, 10, "packets")
        checks.equal("filter_dropped_at_access_node", self.policed, 10, "packets")
        checks.at_most("failover_s", self.failover, 10.0, "s")
        checks.holds("known_goes_on_without_servers", bool(self.outage["care_of"]))
        checks.more_than("forged_answers", self.forged, 1000, "packets")
        for kind, number in self.counted.items():
            checks.more_than(f"forged_counted_{kind}", number, 0, "packets")
        checks.equal(
            "default_coa_after_forgery",
            str(self.after_forgery["default_coa"]),
            str(self.first["default_coa"]),
        )
        checks.more_than("wrong_secret_noticed_by_server", self.wrong_secret, 0, "requests")
        checks.holds("known_goes_on_with_wrong_secret", bool(self.after_wrong_secret["care_of"]))
        checks.holds("change_keeps_registration", self.kept)
        checks.equal("rules_after_change", self.rules_after, 0, "rules")
        checks.holds("sha256_equal", self.film.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.web.connections("/film"), 1, "connections")
        checks.at_least("revoked_at_access_node", self.revoked, 1, "visitors")
        checks.equal("tunnels_after_withdrawal", len(self.tunnels), 0, "tunnels")
        judge_flows(lab, checks)

    # Facts -------------------------------------------------------------------------------------------------------

    def _users(self, lab: Lab, *, default_coa: IPv4Address | None = None, rules: bool = True) -> str:
        care_of = default_coa or lab.configuration.care_of("an3")
        mnps = lab.topology.address4("mnps")
        rule = f'id = 40, priority = 1, action = "drop", protocol = "udp", destination_port = {DROPPED}'
        lines = [
            "Session-Timeout := 600",
            f"Locum-Home-Address := {HOME_ADDRESS4}",
            f"Locum-Home-Address-V6 := {HOME_ADDRESS6}",
            "Locum-SPI := 1000",
            f'Locum-Key := "{self._secret(lab, "mn-ha")}"',
            f"Locum-Default-CoA := {care_of}",
            f'Locum-MNPS := \'name = "proxy", address = "{mnps}", spi = 1100\'',
            f'Locum-MNPS-Key := "1100 {self._secret(lab, "mnps-ha")}"',
            *([f"Locum-Rule := '{rule}'"] if rules else []),
            f'Locum-Filter-To := \'id = 7, action = "drop", protocol = "udp", destination_port = {POLICED}\'',
        ]
        guest = [
            'Locum-Pool := "guests"',
            "Locum-SPI := 1001",
            f'Locum-Key := "{self._secret(lab, "other-ha")}"',
        ]
        return _entry(MN, lines) + _entry(OTHER, guest)

    def _clients(self, lab: Lab, secret: str) -> str:
        agents = {"home-agent": lab.topology.address4("ha"), "access-node": lab.configuration.care_of("an1")}
        return "".join(client(name, address, secret) for name, address in agents.items())

    def _secret(self, lab: Lab, name: str) -> str:
        return lab.configuration.key(name).read_text().strip()

    def _rows(self, lab: Lab, home_address: str) -> list[dict[str, Any]]:
        return [each for each in lab.bindings() if each["home_address"] == home_address]

    def _row(self, lab: Lab) -> dict[str, Any]:
        return self._rows(lab, str(HOME_ADDRESS4))[0]

    def _other(self, lab: Lab) -> str | None:
        others = [each for each in lab.bindings() if each["home_address"] != str(HOME_ADDRESS4)]
        return next((each["home_address"] for each in others if each["care_of"]), None)

    def _refusals(self, lab: Lab, reason: str) -> int:
        return int(lab.counters("ha")["refusals"].get(reason, 0))

    def _events(self, lab: Lab, kind: str) -> int:
        return int(lab.counters("ha")["events"].get(kind, 0))

    def _filters(self, lab: Lab) -> list[dict[str, Any]]:
        """The rules that the profile has made at the access node for IPv4, with their counters."""
        rows: list[dict[str, Any]] = lab.ask("an1", "filter list")
        return [each for each in rows if each["home_address"] == str(HOME_ADDRESS4) and each.get("id") == 7]

    def _fetched(self, lab: Lab) -> float:
        """Seconds since the device's profile was fetched."""
        rows = [each for each in lab.ask("ha", "profile list") if each["home_address"] == str(HOME_ADDRESS4)]
        return float(rows[0]["age"])

    def _renewed_since(self, lab: Lab, begin: float) -> bool:
        return any(
            each.kind == "registered" and each.node == "mn" and each.time > begin
            for each in lab.timeline.events()
        )

    def _port(self, lab: Lab) -> int:
        """From which the home agent asks the first server."""
        done = lab.processes.run("ha", ["ss", "-Huan", "dst", "10.10.5.2"])
        return int(done.stdout.split()[3].rpartition(":")[2])

    def _datagrams(self, lab: Lab) -> int:
        """Ten datagrams to the port that a rule drops, ten to another; how many the rule took."""
        wait_until("the access node to police", lambda: bool(self._filters(lab)), 20.0)
        lab.processes.run("cn", [sys.executable, "-c", _SEND, str(HOME_ADDRESS4), str(DROPPED), str(POLICED)])
        wait_until("the rule to count", lambda: lab.flow_rules()[0]["packets"] >= 10, 10.0)
        wait_until("the filter to count", lambda: self._filters(lab)[0]["packets"] >= 10, 10.0)
        self.policed = self._filters(lab)[0]["packets"]
        return int(lab.flow_rules()[0]["packets"])


_SEND = """
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10):
    for port in sys.argv[2:]:
        out.sendto(b"x", (sys.argv[1], int(port)))
"""


def _entry(name: str, lines: list[str]) -> str:
    """One entry of a users file."""
    return f"{name}\tAuth-Type := Accept\n\t" + ",\n\t".join(lines) + "\n\n"
