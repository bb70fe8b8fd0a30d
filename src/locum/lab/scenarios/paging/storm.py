"""Floods that page: many packets, then many events, for one sleeping device, and many devices triggered at once (P1, P3, P17)."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network
from itertools import pairwise
from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Pair, Plan, Table
from locum.lab.network.namespaces import inside, run
from locum.lab.network.topology import HOME_NETWORK4, HOME_NETWORK6
from locum.lab.processes import Program, wait_until
from locum.lab.programs import stream
from locum.lab.programs.paging import sleepers
from locum.lab.programs.paging.sleepers import Sleepers
from locum.lab.programs.talking import hear
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.paging.fig11 import STAND_IN, cause
from locum.lab.steps.paging import HOME, PATIENCE, begun, ended, fall_asleep, rule, wait_awake, wait_outcome
from locum.lab.world import Lab

CHATTER = "chatter"
"""Kind and name of the proxy that tells many events."""
NOISE = "noise"
"""Of its events."""
CROWD = IPv4Network("10.66.0.0/16")
FIRST = CROWD.network_address + 257
PORT, CROWD_PORT = 7001, 7002
RATE = 5_000
"""Packets per second for the one device."""
BRIEF = 5
"""Seconds of the registration with which a device of the crowd falls asleep."""
LONGEST = 300
"""Seconds for all pages: a slow machine is no silent device."""
HOLD_AGE = 120
"""Seconds for which a packet waits at most: the longest that a node takes."""
PACE = 2_000
"""Triggers per second for the crowd."""


def storm_plan(devices: int) -> Plan:
    """The crowd's devices are known to the home agent, each with a rule; pages of all go to the first access node."""
    homes = [str(FIRST + number) for number in range(devices)]
    crowd: list[Table] = [
        {"home_address": home, "spi": sleepers.SPI, "key_file": "key:crowd", "rule": [rule(CROWD_PORT)]}
        for home in homes
    ]
    prefixes = [str(HOME_NETWORK4), str(HOME_NETWORK6), str(CROWD)]
    everybody: Table = {"home_addresses": [str(HOME_ADDRESS4), str(HOME_ADDRESS6), *homes]}
    return Plan(
        kinds={CHATTER: "locum.apps.chatter:Chatter"},
        associations=(
            Pair("ha", "an1", everybody, everybody),
            Pair("ha", "an2"),
            Pair("ha", "mn"),
            Pair("ha", "mnps", at_near={"may_trigger": True}),
        ),
        tables={
            "mnps": STAND_IN,
            "ha": {
                "node": {"hold_packets_each": 16_384, "hold_age": HOLD_AGE},
                "home_agent": {
                    "home_prefixes": prefixes,
                    "mobile": crowd,
                    "page_seconds": LONGEST,
                },
            },
        },
    )


class PageStorm(Scenario):
    """One page each, and nothing is lost."""

    name = "page-storm"
    title = (
        "10,000 packets and 10,000 events for one sleeping device, then 1,000 devices at once: one page each"
    )
    exhaustive = True
    packets: ClassVar[int] = 10_000
    events: ClassVar[int] = 10_000
    devices: ClassVar[int] = 1_000
    plan: ClassVar[Plan] = storm_plan(1_000)

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self._one(lab)
        self._events(lab)
        lab.daemons["mn"].stop()
        self._many(lab)

    def _one(self, lab: Lab) -> None:
        add = ("flow", "add", "--home-address", HOME, "--priority", "7", "--page")
        lab.command("ha", *add, "--protocol", "udp", "--destination-port", str(PORT))
        self.asleep = fall_asleep(lab)
        seconds = str(self.packets / RATE)
        command = [sys.executable, "-m", "locum.lab.programs.stream", HOME, str(PORT), str(RATE), seconds]
        lab.processes.start("cn", "storm", command).wait(PATIENCE)
        self.awake = wait_awake(lab)
        self.folded = sum(int(event.detail["folded"]) for event in ended(lab))

    def _events(self, lab: Lab) -> None:
        """The radio is silent until every event was told, so that the device sleeps for all of them."""
        lab.command("mn", "order", "add", CHATTER, CHATTER, f"events={self.events}")
        lab.command("mn", "wake-on", "event", NOISE, "--app", CHATTER, "--store")
        self.chatter_asleep = fall_asleep(lab)
        lab.fade("an1")
        wait_until("every event", lambda: sum(self._told(lab)) >= self.events, PATIENCE)
        lab.fade("an1", silent=False)
        self.by_event = wait_outcome(lab, self.chatter_asleep)
        wait_awake(lab)
        self.taken, self.limited = self._told(lab)
        self.brought = sum(row["events"] for row in lab.ask("mn", "event list") if row["app"] == CHATTER)

    @staticmethod
    def _told(lab: Lab) -> tuple[int, int]:
        """Events of the proxy that the stand-in has taken, and those beyond its bound for a proxy."""
        taken = [event for event in lab.timeline.of("mnps") if event.kind == "app-event"]
        limited = lab.counters("mnps")["refusals"].get("app-events-limited", 0)
        return sum(event.detail["app"] == CHATTER for event in taken), limited

    def _many(self, lab: Lab) -> None:
        route_crowd(lab)
        self.crowd = start_crowd(lab, self.devices)
        self.crowd_asleep = lab.timeline.mark("crowd-asleep", devices=self.devices)
        triggers = [f"{FIRST + number}" for number in range(self.devices)]
        self.begin = lab.timeline.mark("triggered", devices=self.devices)
        trigger(lab, triggers)
        wait_until("the outcome of every page", lambda: len(self._reached(lab)) >= self.devices, LONGEST)
        assert self.crowd.process.stdin is not None
        self.said = hear(self.crowd, PATIENCE)
        self.figures: dict[str, int] = json.loads(hear(self.crowd, PATIENCE))

    def _reached(self, lab: Lab) -> set[str | None]:
        """Home addresses of the crowd whose page has reached its device."""
        since = self.crowd_asleep
        return {event.home_address for event in ended(lab, since) if event.detail["outcome"] == "reached"}

    def judge(self, lab: Lab, checks: Checks) -> None:
        self._judge_one(lab, checks)
        self._judge_events(lab, checks)
        self._judge_many(lab, checks)

    def _judge_one(self, lab: Lab, checks: Checks) -> None:
        one = [event for event in begun(lab) if event.time < self.chatter_asleep]
        checks.equal("pages_of_one_device", len(one), 1, "pages")
        files = lab.captures.files
        sent = stream.numbers(files["cn"], PORT, outgoing=True)
        order = stream.order(files["mn"], PORT)
        checks.equal("packets_sent", len(sent), self.packets, "packets")
        checks.equal("packets_lost", len(sent - set(order)), 0, "packets")
        checks.equal("packets_doubled", len(order) - len(set(order)), 0, "packets")
        checks.fact("packets_behind_a_later_one", sum(a > b for a, b in pairwise(order)))
        first = stream.arrivals(files["cn"], PORT, outgoing=True)[0]
        checks.fact("first_packet_to_awake_s", self.awake - first, "s")

    def _judge_events(self, lab: Lab, checks: Checks) -> None:
        pages = [event for event in begun(lab, self.chatter_asleep) if event.time < self.crowd_asleep]
        checks.equal("pages_of_the_events", len(pages), 1, "pages")
        checks.equal("page_of_the_events", cause(self.by_event), f"event {CHATTER} {NOISE}")
        checks.equal("events_counted", self.taken + self.limited, self.events, "events")
        checks.at_least("events_taken", self.taken, min(50, self.events), "events")
        checks.equal("taken_events_lost", self.taken - self.brought, 0, "events")

    def _judge_many(self, lab: Lab, checks: Checks) -> None:
        checks.equal("crowd_says", self.said, "awake")
        checks.equal("devices_woken", self.figures["woken"], self.devices, "devices")
        checks.equal("pages_heard", self.figures["pages"], self.devices, "pages")
        checks.equal("most_pages_of_a_device", self.figures["most_pages"], 1, "pages")
        pages = [event for event in begun(lab) if event.time >= self.crowd_asleep]
        checks.equal("pages_sent", len(pages), self.devices, "pages")
        outcomes = Counter(str(event.detail["outcome"]) for event in ended(lab, self.crowd_asleep))
        checks.equal("outcomes", str(dict(outcomes)), str({"reached": self.devices}))
        arrived = Counter(
            one.destination
            for one in pcap.datagrams(lab.captures.files["mn"])
            if one.protocol == pcap.UDP and not one.outgoing and one.ports[1] == CROWD_PORT
        )
        checks.equal("triggers_arrived", len(arrived), self.devices, "devices")
        checks.equal("most_copies_of_a_trigger", max(arrived.values(), default=0), 1, "packets")
        last = max(event.time for event in pages)
        over = max(event.time for event in ended(lab, self.crowd_asleep))
        checks.fact("all_paged_s", last - self.begin, "s")
        checks.fact("all_reached_s", over - self.begin, "s")
        checks.fact("calls_heard", self.figures["calls"], "calls")


class PageStormBrief(PageStorm):
    """The same with fewer packets and devices."""

    name = "page-storm-brief"
    title = "2,000 packets and 1,000 events for one sleeping device, then 50 devices at once: one page each"
    exhaustive = False
    packets: ClassVar[int] = 2_000
    events: ClassVar[int] = 1_000
    devices: ClassVar[int] = 50
    plan: ClassVar[Plan] = storm_plan(50)


def route_crowd(lab: Lab) -> None:
    """Routes to the crowd's addresses: towards the home agent everywhere, and to the device's host on its access link."""
    topology = lab.topology
    for node in ("cnr", "mid", "hr"):
        via = next(route.via for route in topology.routes(node) if route.prefix == HOME_NETWORK4)
        run(["ip", "-n", lab.place.namespace(node), "route", "add", str(CROWD), "via", str(via)])
    run(["ip", "-n", lab.place.namespace("ha"), "route", "add", "unreachable", str(CROWD)])
    radio = topology.radio("an1")
    enter = ["ip", "-n", lab.place.namespace("mn")]
    care_of = lab.configuration.care_of("an1")
    run([*enter, "route", "add", "local", str(CROWD), "dev", "lo"])
    run([*enter, "route", "replace", f"{care_of}/32", "dev", radio.far.interface, "scope", "link"])


def start_crowd(lab: Lab, devices: int) -> Program:
    """The devices, once all have registered briefly and these registrations are over."""
    said = Sleepers(
        str(FIRST),
        devices,
        str(lab.topology.address4("ha")),
        str(lab.configuration.care_of("an1")),
        lab.configuration.key("crowd").read_text().strip(),
        BRIEF,
    )
    file = sleepers.written(said, lab.place.path / "sleepers.json")
    command = [sys.executable, "-m", "locum.lab.programs.paging.sleepers", str(file)]
    program = lab.processes.start("mn", "sleepers", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if hear(program, 2 * PATIENCE) != "asleep":
        raise AssertionError("the crowd says it is asleep first")
    lab.pause(BRIEF + 1.0)
    return program


def trigger(lab: Lab, homes: Sequence[str]) -> None:
    """A datagram of the correspondent to each of these addresses."""
    command = [sys.executable, "-m", "locum.lab.programs.paging.triggers", str(CROWD_PORT), str(PACE)]
    run([*inside(lab.place, "cn"), *command], stdin="\n".join(homes))
