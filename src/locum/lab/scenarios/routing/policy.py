"""The profile of the device comes from a policy server, and the policy server has its troubles (features R3, C9, R20, P16)."""

import json
import sys
from ipaddress import IPv4Address
from typing import Any

from locum.lab.captures import pcap
from locum.lab.captures.radius_traffic import accepted, questions
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.processes import Program, wait_until
from locum.lab.programs.radius.freeradius import FreeRadius, client
from locum.lab.programs.stream import first_times
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.flow_checks import judge_flows
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

MN, OTHER = "mn@example.org", "other@example.org"
POOL = ("10.10.100.64", "10.10.100.79")
SERVERS = ("aaa", "aaa2")
RATE = "2m"
DROPPED, POLICED = 5005, 5006
"""UDP ports at the home address: the profile's rule drops the first at the home agent, its filter the second at the
access node (R20)."""
PAGED, SENT_ON = 5007, 5008
"""Those that a rule leads to the stand-in's access node: the paging classifier drops the first there (P16)."""
POLICED_LATER, OPEN = 5011, 5012
"""Ports that the filter drops after the change of the profile, and ports that are never dropped."""
NUMBER = 25
"""Datagrams to each of the ports since PAGED, but OPEN."""
PACE = 100
"""Of them a second."""
OPEN_SECONDS = 4.0
OVERLAP = 0.5
"""Seconds before the first server hung in which a request may have been sent that it did not answer."""
FORGING = 2.0  # seconds
DEAD, LEEWAY = 6.0, 1.5
"""Seconds for which a silent server counts as dead, and the longest wait for the other's answer."""
SILENCE = 1.5
"""Seconds until a server that hangs is given up: `timeout`, and twice that for the one retransmission."""
REPEATED = 7.0
"""Seconds until a device repeats its request for the third time, after 1, 2 and 4 s. The other server has SILENCE as well to
answer, and an answer to a request that was repeated meanwhile does not count: the repetition after 3 s gets its own."""
FORGED = ("no-message-authenticator", "not-authentic", "unexpected")
WRONG = "a-secret-that-nobody-else-knows"

POLICY: Table = {
    "servers": [{"address": address, "secret_file": "key:radius"} for address in ("10.10.5.2", "10.10.6.2")],
    "timeout": 0.5,
    "retries": 1,
    "dead_time": DEAD,
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
            "an3": {"policy": POLICY},
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
        self._police(lab)
        self._back(lab)
        self._fail_over(lab)
        self._outage(lab)
        self._forge(lab)
        self._wrong_secret(lab)
        self._change(lab)
        self._withdraw(lab)

    def _serve(self, lab: Lab) -> None:
        """The first server hangs, the second answers: the device is served by its profile, the other one from the pool."""
        self.servers[0].start(self._users(lab))
        self.servers[0].hang()
        self.hangs = lab.timeline.mark("first-server-hangs")
        self.servers[1].start(self._users(lab))
        lab.wait_registered("an1", 40.0)
        lab.timeline.mark("served")
        self.first = self._row(lab)
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until("the other to be registered", lambda: self._other(lab) is not None, 40.0)
        self.assigned = self._other(lab)

    def _police(self, lab: Lab) -> None:
        """Effects of the profile's rule, filter and classifier on packets."""
        for node in ("an1", "an3"):  # theirs may not have been to be had when they asked
            lab.command(node, "profile", "refresh")
        self.sent = self._datagrams(lab)
        wait_until(
            "the stand-in's access node to classify", lambda: len(self._filters(lab, "an3")) == 2, 20.0
        )
        for port in (PAGED, SENT_ON):
            self._stream(lab, port)
        wait_until("the classifier to count", lambda: self._filters(lab, "an3")[0]["packets"] > 0, 10.0)
        self.classified = self._filters(lab, "an3")

    def _back(self, lab: Lab) -> None:
        """The first server goes on, and is asked first again when it has been dead for long enough."""
        self.servers[0].go_on()
        back = lab.timeline.mark("first-server-goes-on")

        def asked_again() -> bool:
            lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
            lab.pause(0.5)
            return lab.timeline.count("ha", "policy-server-back", back) > 0

        wait_until("the first server to be asked again", asked_again, 4 * DEAD)
        self.asked_again = lab.timeline.wait("ha", "policy-server-back", back).time

    def _fail_over(self, lab: Lab) -> None:
        """The first server is gone."""
        self.servers[0].stop()
        begin = lab.timeline.mark("first-server-stopped")
        before = self._fetched(lab)
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until("an answer of the second", lambda: self._fetched(lab) < before, 20.0)
        self.failover = lab.timeline.mark("second-server-answered") - begin

    def _outage(self, lab: Lab) -> None:
        """Both servers are gone: a known device stays registered and renews."""
        self.servers[1].stop()
        begin = lab.timeline.mark("both-servers-stopped")
        lab.command("ha", "profile", "refresh")
        wait_until("the profile to be stale", lambda: self._events(lab, "profile-stale") > 0, 20.0)
        wait_until("a renewal without servers", lambda: self._renewed_since(lab, begin), 30.0)
        self.outage = self._row(lab)

    def _forge(self, lab: Lab) -> None:
        """Silent servers, and a stranger who answers in their name."""
        for server in self.servers:
            server.start(self._users(lab))
            server.hang()
        before = {kind: self._refusals(lab, f"radius-{kind}") for kind in FORGED}
        lab.command("ha", "profile", "refresh")
        done = lab.processes.run(
            "evil",
            [
                sys.executable, "-m", "locum.lab.forging.radius_forgery", "10.10.5.2", str(lab.topology.address4("ha")),
                str(self._port(lab)), str(FORGING), str(lab.topology.address4("evil")),
            ],
        )  # fmt: skip
        self.forged = int(done.stdout or 0)
        self.after_forgery = self._row(lab)
        self.counted = {kind: self._refusals(lab, f"radius-{kind}") - before[kind] for kind in FORGED}
        lab.timeline.mark("forged", datagrams=self.forged)
        for server in self.servers:
            server.go_on()

    def _wrong_secret(self, lab: Lab) -> None:
        """A server with another secret does not answer; it is as if it were silent."""
        for server in self.servers:
            server.stop()
        stranger = FreeRadius(lab.processes, SERVERS[0], lab.place.path / "wrong", self._clients(lab, WRONG))
        stranger.start(self._users(lab))
        before = self._events(lab, "profile-stale")
        lab.command("ha", "profile", "refresh")
        wait_until("no answer", lambda: self._events(lab, "profile-stale") > before, 20.0)
        self.wrong_secret = stranger.complaints("invalid Message-Authenticator")
        self.after_wrong_secret = self._row(lab)
        stranger.stop()

    def _change(self, lab: Lab) -> None:
        """The profile changes while the device is registered, during a download."""
        for server in self.servers:
            server.start(self._users(lab))
        for node in ("ha", "an1"):
            lab.command(node, "profile", "refresh", str(HOME_ADDRESS4))
        before = self._row(lab)
        for server in self.servers:
            server.users(self._users(lab, changed=True))
        self.web, films = live(lab, RATE)
        self.film = watch(lab, films)
        self.film.wait_for(1 << 20)
        self.changed = lab.timeline.mark("profile-changed")
        stream = self._start_stream(lab, OPEN, OPEN_SECONDS)
        for node in ("ha", "an1"):
            lab.command(node, "profile", "refresh", str(HOME_ADDRESS4))
        default = str(lab.configuration.care_of("an2"))
        wait_until("the change", lambda: self._row(lab)["default_coa"] == default, 20.0)
        wait_until(
            "the change at the access node", lambda: [r["id"] for r in self._filters(lab)] == [8], 20.0
        )
        for port in (POLICED, POLICED_LATER, PAGED):
            self._stream(lab, port)
        wait_until("the new filter to count", lambda: self._filters(lab)[0]["packets"] > 0, 10.0)
        stream.wait(OPEN_SECONDS + 10)
        self.during_download = self.film.program.running
        after = self._row(lab)
        self.kept = [care_of["address"] for care_of in after["care_of"]] == [
            care_of["address"] for care_of in before["care_of"]
        ]
        self.rules_after = len(lab.flow_rules())
        self.filters_after = self._filters(lab)
        self.told = json.loads(lab.command("an1", "--json", "profile", "list"))
        self.status = self.film.finish(90)
        self.stayed = lab.timeline.mark("download-ended")

    def _withdraw(self, lab: Lab) -> None:
        """The policy server does not know the device any more."""
        for server in self.servers:
            server.users("")
        lab.command("ha", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until("the withdrawal", lambda: not self._rows(lab, str(HOME_ADDRESS4)), 20.0)
        lab.timeline.mark("withdrawn")
        wait_until("the device to be refused", lambda: self._refusals(lab, "refused-131") > 0, 40.0)
        wait_until("the access node to learn of it", lambda: not lab.bindings("an1"), 20.0)
        self.revoked = lab.timeline.count("an1", "visitor-revoked")
        self.tunnels = [
            row
            for row in lab.ask("ha", "tunnel list")
            if row["home_address"] in (str(HOME_ADDRESS4), str(HOME_ADDRESS6))
        ]

    # Findings ----------------------------------------------------------------------------------------------------

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("home_address", str(self.first["home_address"]), str(HOME_ADDRESS4))
        checks.equal("default_coa", str(self.first["default_coa"]), str(lab.configuration.care_of("an3")))
        checks.holds(
            "other_from_pool", IPv4Address(POOL[0]) <= IPv4Address(self.assigned) <= IPv4Address(POOL[1])
        )
        checks.at_least("refused_without_servers", self._refusals(lab, "refused-130"), 1, "requests")
        self._judge_hanging(lab, checks)
        checks.equal("rule_dropped", self.sent, 10, "packets")
        checks.equal("filter_dropped_at_access_node", self.policed, 10, "packets")
        self._judge_classifier(lab, checks)
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
        self._judge_change(lab, checks)
        checks.holds("sha256_equal", self.film.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.web.connections("/live/film"), 1, "connections")
        checks.at_least("revoked_at_access_node", self.revoked, 1, "visitors")
        checks.equal("tunnels_after_withdrawal", len(self.tunnels), 0, "tunnels")
        judge_flows(lab, checks)

    def _judge_hanging(self, lab: Lab, checks: Checks) -> None:
        """One of the two devices waits for the server that hangs; then that is not asked for a while."""
        waited = max(self._waited(lab, node) for node in ("mn", "evil"))
        checks.at_least("first_waited_for_s", waited, SILENCE, "s")
        checks.at_most("registered_with_first_hanging_s", waited, REPEATED, "s")
        own, found = lab.topology.address4("ha"), self._datagrams_of(lab, "ha")
        first, second = (lab.topology.address4(node) for node in SERVERS)
        answered = accepted(found, own, second)[0]
        dead = (answered, answered + DEAD - LEEWAY)
        checks.equal("first_asked_while_dead", _within(questions(found, own, first), dead), 0, "requests")
        meanwhile = _within(questions(found, own, second), dead)
        checks.at_least("second_asked_meanwhile", meanwhile, 1, "requests")
        checks.at_least("first_asked_again_after_s", self.asked_again - answered, DEAD - LEEWAY, "s")

    def _judge_classifier(self, lab: Lab, checks: Checks) -> None:
        """At the stand-in's access node the classifier drops before the policing; see below for the device's."""
        classifier, policing = self.classified
        checks.equal("classifier_dropped", classifier["packets"], NUMBER, "packets")
        checks.equal("policed_after_classifier", policing["packets"], 0, "packets")
        arrived = self._datagrams_of(lab, "mnps")
        checks.equal("classified_at_stand_in", len(first_times(arrived, PAGED)), 0, "packets")
        checks.equal("forwarded_to_stand_in", len(first_times(arrived, SENT_ON)), NUMBER, "packets")

    def _judge_change(self, lab: Lab, checks: Checks) -> None:
        """The access node's new filter holds, and the visitor was there all the time."""
        (rule,) = self.filters_after
        checks.equal("new_filter_dropped", rule["packets"], NUMBER, "packets")
        arrived, sent = self._datagrams_of(lab, "mn"), self._datagrams_of(lab, "cn")
        for name, port, wanted in (
            ("new_filter_let_through", POLICED_LATER, 0),
            ("old_filter_is_gone", POLICED, NUMBER),
            ("unclassified_at_device", PAGED, NUMBER),
        ):
            checks.equal(name, len(first_times(arrived, port)), wanted, "packets")
        lost = first_times(sent, OPEN, outgoing=True).keys() - first_times(arrived, OPEN).keys()
        checks.equal("lost_during_change", len(lost), 0, "packets")
        ended = [
            event.kind
            for event in lab.timeline.of("an1")
            if self.changed <= event.time <= self.stayed and event.kind.startswith("visitor-")
        ]
        checks.equal("visitor_ended_during_change", len(ended), 0, "events")
        changed = lab.timeline.count("an1", "profile-changed", self.changed)
        checks.equal("change_at_access_node", changed, 1, "events")
        (told,) = self.told
        checks.holds("listed_at_access_node", str(POLICED_LATER) in str(told["filter_to"]))
        checks.holds("download_during_change", self.during_download)

    # Facts -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _datagrams_of(lab: Lab, node: str) -> list[pcap.Datagram]:
        """All UDP in a node's capture."""
        return [
            datagram for datagram in pcap.datagrams(lab.captures.files[node]) if datagram.protocol == pcap.UDP
        ]

    def _users(self, lab: Lab, *, changed: bool = False) -> str:
        """The servers' data: about the device by its name, and by its home address."""
        care_of = lab.configuration.care_of("an2" if changed else "an3")
        mnps = lab.topology.address4("mnps")
        udp = 'protocol = "udp", destination_port'
        rules = (
            f'id = 40, priority = 1, action = "drop", {udp} = {DROPPED}',
            f'id = 41, priority = 2, to = ["default"], {udp} = "{PAGED}-{SENT_ON}"',
        )
        number, policed = (8, POLICED_LATER) if changed else (7, POLICED)
        lines = [
            "Session-Timeout := 600",
            f"Locum-Home-Address := {HOME_ADDRESS4}",
            f"Locum-Home-Address-V6 := {HOME_ADDRESS6}",
            "Locum-SPI := 1000",
            f'Locum-Key := "{self._secret(lab, "mn-ha")}"',
            f"Locum-Default-CoA := {care_of}",
            f'Locum-MNPS := \'name = "proxy", address = "{mnps}", spi = 1100\'',
            f'Locum-MNPS-Key := "1100 {self._secret(lab, "mnps-ha")}"',
            *(() if changed else (f"Locum-Rule += '{rule}'" for rule in rules)),
            f"Locum-Filter-To := 'id = {number}, action = \"drop\", {udp} = {policed}'",
            f"Locum-Paging := 'id = 7, action = \"drop\", {udp} = {PAGED}'",
        ]
        guest = [
            'Locum-Pool := "guests"',
            "Locum-SPI := 1001",
            f'Locum-Key := "{self._secret(lab, "other-ha")}"',
        ]
        return _entry(MN, lines) + _entry(str(HOME_ADDRESS4), lines) + _entry(OTHER, guest)

    def _clients(self, lab: Lab, secret: str) -> str:
        agents = {node: lab.configuration.care_of(node) for node in ("an1", "an3")}
        agents["ha"] = lab.topology.address4("ha")
        return "".join(client(name, address, secret) for name, address in agents.items())

    def _secret(self, lab: Lab, name: str) -> str:
        return lab.configuration.key(name).read_text().strip()

    def _rows(self, lab: Lab, home_address: str) -> list[dict[str, Any]]:
        return [binding for binding in lab.bindings() if binding["home_address"] == home_address]

    def _row(self, lab: Lab) -> dict[str, Any]:
        return self._rows(lab, str(HOME_ADDRESS4))[0]

    def _other(self, lab: Lab) -> str | None:
        others = [binding for binding in lab.bindings() if binding["home_address"] != str(HOME_ADDRESS4)]
        return next((other["home_address"] for other in others if other["care_of"]), None)

    def _refusals(self, lab: Lab, reason: str) -> int:
        return int(lab.counters("ha")["refusals"].get(reason, 0))

    def _events(self, lab: Lab, kind: str) -> int:
        return int(lab.counters("ha")["events"].get(kind, 0))

    def _filters(self, lab: Lab, node: str = "an1") -> list[dict[str, Any]]:
        """The rules that the profile has made at an access node for IPv4, with their counters."""
        rows: list[dict[str, Any]] = lab.ask(node, "filter list")
        return [row for row in rows if row["home_address"] == str(HOME_ADDRESS4) and row["id"]]

    def _fetched(self, lab: Lab) -> float:
        """Seconds since the device's profile was fetched."""
        rows = [row for row in lab.ask("ha", "profile list") if row["home_address"] == str(HOME_ADDRESS4)]
        return float(rows[0]["age"])

    def _waited(self, lab: Lab, node: str) -> float:
        """Seconds of the request by which a device first registered after the first server hung.

        Denied earlier requests do not count, a repeated one counts from its first.
        """
        told = [event for event in lab.timeline.of(node) if event.time > self.hangs - OVERLAP]
        done = next(event.time for event in told if event.kind == "registered" and event.time > self.hangs)
        denied = [event.time for event in told if event.kind == "registration-denied" and event.time < done]
        asked = (
            event.time for event in told if event.message == "601" and event.time > max(denied, default=0.0)
        )
        return done - next(asked, self.hangs)

    def _renewed_since(self, lab: Lab, begin: float) -> bool:
        return any(
            event.kind == "registered" and event.node == "mn" and event.time > begin
            for event in lab.timeline.events()
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

    def _stream(self, lab: Lab, port: int) -> None:
        """Numbered datagrams to a port of the device; returns when they are sent."""
        self._start_stream(lab, port, NUMBER / PACE).wait(10.0)

    def _start_stream(self, lab: Lab, port: int, seconds: float) -> Program:
        command = [sys.executable, "-m", "locum.lab.programs.stream", str(HOME_ADDRESS4)]
        return lab.processes.start(
            "cn", f"stream-{port}-{seconds:g}", [*command, str(port), str(PACE), str(seconds)]
        )


_SEND = """
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10):
    for port in sys.argv[2:]:
        out.sendto(b"x", (sys.argv[1], int(port)))
"""


def _within(times: list[float], span: tuple[float, float]) -> int:
    """Number of times within the interval."""
    return sum(1 for time in times if span[0] < time < span[1])


def _entry(name: str, lines: list[str]) -> str:
    """One entry of a users file."""
    return f"{name}\tAuth-Type := Accept\n\t" + ",\n\t".join(lines) + "\n\n"
