"""Triggers come, change and go by the policy server while the device sleeps (P7): a stock radclient pushes them (RFC 5176).

Before a push a connection does not wake the device, after it one does, and after its removal none does. What is forged, old,
stale or recorded changes nothing and is counted.
"""

import sys
import time

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Pair, Plan, Table
from locum.lab.forging.push_replay import signed_push
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.radius.freeradius import FreeRadius, client
from locum.lab.programs.radius.radclient import Radclient, push_text
from locum.lab.programs.services import WebServer
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.world import Lab

HOME = str(HOME_ADDRESS4)
PORT, OTHER_PORT = 80, 8081
CONTENT = "what the device serves\n"
REPLAYS = 20
AGES = (-3600.0, 3600.0)
"""Seconds by which the time of a request is off."""
WRONG = "a-secret-that-nobody-else-knows!"
REASONS = ("stranger", "not-authentic", "old", "future", "stale", "duplicate", "refused-407", "refused-503")

EVENT_PORT = 5000
"""Datagrams to it are events at the stand-in, once the policy server says so."""
SERVER: Table = {"address": "10.10.5.2", "secret_file": "key:radius"}
POLICY: Table = {"servers": [SERVER], "timeout": 0.5, "changes": {"clients": [SERVER]}}


class PagePolicy(Scenario):
    """Pushes of versions 2 to 7 to the home agent, each judged by a connection of the correspondent; others to the stand-in."""

    name = "page-policy"
    title = "triggers come, change and go by the policy server while the device sleeps"
    exhaustive = True
    plan = Plan(
        short_lifetime=3,
        extras=("aaa",),
        associations=(Pair("ha", "an1"), Pair("ha", "an2"), Pair("ha", "mnps")),
        tables={
            "ha": {
                "home_agent": {"mobile": None, "page_seconds": 60.0, "page_rule_interval": 1.0},
                "policy": POLICY,
            },
            "mnps": {"mnps": {"home_agent": str(figure_5((), 1).address4("ha"))}, "policy": POLICY},
        },
    )

    def play(self, lab: Lab) -> None:
        self.secret = lab.configuration.key("radius").read_text().strip()
        self.server = lab.topology.address4("aaa")
        known = client("ha", lab.topology.address4("ha"), self.secret)
        FreeRadius(lab.processes, "aaa", lab.place.path / "aaa", known).start(self._users(lab))
        lab.wait_registered("an1", 60.0)
        web = WebServer(lab.processes, "mn", lab.output / "web")
        web.start()
        (web.root / "page").write_text(CONTENT)
        self.answers: dict[str, str] = {}
        self.woke: dict[str, bool] = {}
        self._come_and_go(lab)
        self._lag(lab)
        self._agent(lab)
        self._strangers(lab)
        self._end(lab)

    # The story ---------------------------------------------------------------------------------------------------

    def _come_and_go(self, lab: Lab) -> None:
        """A trigger comes, becomes another, and goes, while the device sleeps."""
        self._sleep(lab)
        self._connect(lab, "before")
        self._push(lab, "come", 2, [_page(PORT)])
        self._connect(lab, "after_push")
        self._sleep(lab)
        self._push(lab, "change", 3, [_page(OTHER_PORT)])
        self._connect(lab, "after_change")
        self._push(lab, "change_back", 4, [_page(PORT)])
        self._connect(lab, "after_change_back")
        self._sleep(lab)
        self._push(lab, "go", 5, ["none"])
        self._connect(lab, "after_removal")

    def _lag(self, lab: Lab) -> None:
        """The server's own file has version 1 still: a fetch does not undo what was pushed."""
        lab.command("ha", "profile", "refresh", HOME)
        wait_until("the older profile", lambda: _refusals(lab, "profile-older") > 0, 20.0)

    def _agent(self, lab: Lab) -> None:
        """Entries of the event table at the stand-in: a datagram becomes an event that pages, and one that does not."""
        self._datagram(lab, "event_before")
        entry = (
            'id = 1, app = "packet", kind = "udp", '
            f'where = [{{ field = "destination_port", is = "=", value = {EVENT_PORT} }}]'
        )
        self._push_to_agent(lab, "event_come", 1, entry)
        self._datagram(lab, "event_after_push")
        self._sleep(lab)
        self._push_to_agent(lab, "event_go", 2, "none")
        self._datagram(lab, "event_after_removal")
        stale = push_text(time.time(), HOME, version=2, others=[f"Locum-Event += '{entry}'"])
        agent = lab.topology.address4("mnps")
        self.answers["event_stale"] = self._radclient(lab, "aaa").send(agent, "coa", stale)
        text = push_text(time.time(), HOME)
        self.answers["event_disconnect"] = self._radclient(lab, "aaa").send(agent, "disconnect", text)

    def _strangers(self, lab: Lab) -> None:
        """Requests that must change nothing."""
        before = {reason: _refusals(lab, f"push-{reason}") for reason in REASONS}
        self.rules_before = self._rules(lab)
        own, other = self._radclient(lab, "aaa"), self._radclient(lab, "evil")
        ha, rules = lab.topology.address4("ha"), [_page(PORT)]
        text = push_text(time.time(), HOME, version=9, rules=rules)
        self.answers["wrong_secret"] = own.send(ha, "coa", text, secret=WRONG)
        self.answers["stranger"] = other.send(ha, "coa", text)
        for age in AGES:
            aged = push_text(time.time() + age, HOME, version=9, rules=rules)
            self.answers[f"age_{age:.0f}"] = own.send(ha, "coa", aged)
        stale = push_text(time.time(), HOME, version=4, rules=rules)
        self.answers["stale"] = own.send(ha, "coa", stale)
        unknown = push_text(time.time(), "nobody@example.org", version=9, rules=rules)
        self.answers["unknown"] = own.send(ha, "coa", unknown)
        self._replay(lab)
        self.rules_after = self._rules(lab)
        self.counted = {reason: _refusals(lab, f"push-{reason}") - before[reason] for reason in REASONS}
        self._connect(lab, "after_forgery")

    def _replay(self, lab: Lab) -> None:
        """A trigger of the server comes and goes; the stranger has recorded it and sends it again in the server's name."""
        recorded = signed_push(time.time(), HOME, 6, [_page(PORT)], self.secret)
        self._send_bytes(lab, "aaa", recorded, 1)
        wait_until("the push", lambda: self._rules(lab) == [5], 20.0)
        self._push(lab, "go_again", 7, ["none"])
        self._send_bytes(lab, "evil", recorded, REPLAYS)
        wait_until("the replays", lambda: _refusals(lab, "push-duplicate") >= REPLAYS, 20.0)

    def _end(self, lab: Lab) -> None:
        """The policy server ends the registration of the device, which is awake."""
        lab.command("ha", "page", HOME, patience=120.0)
        wait_until("the device", lambda: _state(lab) == "awake", 60.0)
        lab.wait_registered("an1", 60.0)
        begin = lab.timeline.mark("disconnect")
        text = push_text(time.time(), HOME)
        said = self._radclient(lab, "aaa").send(lab.topology.address4("ha"), "disconnect", text)
        self.answers["disconnect"] = said
        wait_until("the access node", lambda: lab.timeline.count("an1", "visitor-revoked", begin) > 0, 20.0)

    # Steps -------------------------------------------------------------------------------------------------------

    def _sleep(self, lab: Lab) -> None:
        lab.command("mn", "sleep")
        wait_until("the device to sleep", lambda: _state(lab) == "asleep", 60.0)
        lab.pause(self.plan.short_lifetime + 1.0)  # until its short registration is over

    def _push(self, lab: Lab, name: str, version: int, rules: list[str]) -> None:
        lab.timeline.mark("push", name=name, version=version)
        text = push_text(time.time(), HOME, version=version, rules=rules)
        self.answers[name] = self._radclient(lab, "aaa").send(lab.topology.address4("ha"), "coa", text)

    def _push_to_agent(self, lab: Lab, name: str, version: int, entry: str) -> None:
        lab.timeline.mark("push", name=name, version=version)
        text = push_text(time.time(), HOME, version=version, others=[f"Locum-Event += '{entry}'"])
        said = self._radclient(lab, "aaa").send(lab.topology.address4("mnps"), "coa", text)
        self.answers[name] = said

    def _datagram(self, lab: Lab, name: str) -> None:
        """A datagram of the correspondent; notes whether the device has woken."""
        lab.timeline.mark("datagram", name=name)
        arguments = (HOME, str(EVENT_PORT), "10", "0.1")
        lab.processes.run("cn", [sys.executable, "-m", "locum.lab.programs.stream", *arguments])
        if name in WAKING:
            wait_until("the device to wake", lambda: _state(lab) == "awake", 60.0)
            lab.wait_registered("an1", 60.0)
        else:
            lab.pause(3.0)
        self.woke[name] = _state(lab) == "awake"

    def _connect(self, lab: Lab, name: str) -> None:
        """A connection of the correspondent; notes whether the device has woken and has served it."""
        lab.timeline.mark("connect", name=name)
        patience = "60" if name in WAKING else "4"
        done = lab.processes.run("cn", ["curl", "-sf", "-m", patience, f"http://{HOME}:{PORT}/page"], 90.0)
        if name in WAKING:
            wait_until("the device to wake", lambda: _state(lab) == "awake", 60.0)
            lab.wait_registered("an1", 60.0)
        self.woke[name] = done.stdout == CONTENT and _state(lab) == "awake"

    def _send_bytes(self, lab: Lab, node: str, data: bytes, times: int) -> None:
        arguments = (str(self.server), str(lab.topology.address4("ha")), data.hex(), str(times))
        lab.processes.run(node, [sys.executable, "-m", "locum.lab.forging.push_replay", *arguments])

    def _radclient(self, lab: Lab, node: str) -> Radclient:
        return Radclient(lab.processes, node, lab.place.path / f"radclient-{node}", self.secret)

    @staticmethod
    def _rules(lab: Lab) -> list[int]:
        """Identifiers of the device's rules at the home agent."""
        return [rule["id"] for rule in lab.flow_rules() if rule["home_address"] == HOME]

    def _users(self, lab: Lab) -> str:
        """The server's data about the device, version 1 all the time."""
        lines = [
            "Session-Timeout := 600",
            "Locum-Version := 1",
            f"Locum-Home-Address := {HOME_ADDRESS4}",
            f"Locum-Home-Address-V6 := {HOME_ADDRESS6}",
            "Locum-SPI := 1000",
            f'Locum-Key := "{lab.configuration.key("mn-ha").read_text().strip()}"',
            f"Locum-Default-CoA := {lab.configuration.care_of('an3')}",
            f'Locum-MNPS := \'name = "proxy", address = "{lab.topology.address4("mnps")}", spi = 1100\'',
            f'Locum-MNPS-Key := "1100 {lab.configuration.key("mnps-ha").read_text().strip()}"',
        ]
        return f"{HOME}\tAuth-Type := Accept\n\t" + ",\n\t".join(lines) + "\n\n"

    # Findings ----------------------------------------------------------------------------------------------------

    def judge(self, lab: Lab, checks: Checks) -> None:
        for name in ("come", "change", "change_back", "go", "go_again", "event_come", "event_go"):
            checks.holds(f"acknowledged_{name}", "Received CoA-ACK" in self.answers[name])
        for name, woke in self.woke.items():
            checks.equal(f"woke_{name}", woke, name in WAKING)
        for name in ("wrong_secret", "stranger", *(f"age_{age:.0f}" for age in AGES)):
            checks.holds(f"unanswered_{name}", "No reply" in self.answers[name])
        for name, cause in (
            ("stale", "Invalid-Attribute-Value"),
            ("unknown", "Session-Context-Not-Found"),
            ("event_stale", "Invalid-Attribute-Value"),
            ("event_disconnect", "Session-Context-Not-Removable"),
        ):
            refused = "-NAK" in self.answers[name] and cause in self.answers[name]
            checks.holds(f"refused_{name}", refused)
        checks.equal("rules_before_forgery", len(self.rules_before), 0, "rules")
        checks.equal("rules_after_forgery", len(self.rules_after), 0, "rules")
        for reason, number in self.counted.items():
            checks.at_least(f"counted_{reason}", number, REPLAYS if reason == "duplicate" else 1, "requests")
        pages = [event for event in lab.timeline.of("ha") if event.kind == "page-ended"]
        by_rule = [event.detail for event in pages if event.detail.get("cause") == "packet"]
        outcomes = " ".join(str(detail["outcome"]) for detail in by_rule)
        checks.equal("pages_by_rules", outcomes, "reached reached")
        by_event = [event.detail["outcome"] for event in pages if event.detail.get("cause") == "event"]
        checks.equal("pages_by_events", " ".join(map(str, by_event)), "reached")
        checks.holds("disconnected", "Received Disconnect-ACK" in self.answers["disconnect"])
        checks.equal("profile_pushed", lab.timeline.count("ha", "profile-pushed"), 6, "events")


WAKING = ("after_push", "after_change_back", "event_after_push")


def _page(port: int) -> str:
    return f'id = 5, priority = 3, action = "page", protocol = "tcp", destination_port = {port}'


def _state(lab: Lab) -> str:
    return str(lab.ask("mn", "status")["mobile_node"]["state"])


def _refusals(lab: Lab, reason: str) -> int:
    return int(lab.counters("ha")["refusals"].get(reason, 0))
