"""Background noise in fast motion against kinds of paging: wake-ups, missed events, false wakes and seconds awake (P1, P3, P14, P15).

The device is paged by every packet, by rules, or by an entry of its event table at the stand-in. After each wake it stays awake for a while and falls asleep again. What is on
its access link alone, ARP and mDNS, wakes nobody.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until
from locum.lab.programs.paging.noise import ALERT, DEVICE_PORT, SERVER_PORT
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.paging.fig11 import AGENTS, STAND_IN
from locum.lab.steps.paging import (
    HOME,
    PATIENCE,
    judge_outcomes,
    paging,
    sent_and_ended,
    state,
    wait_awake,
)
from locum.lab.world import Lab

FACTOR = 30.0
"""An hour lasts two minutes."""
LINGER = 1.0
"""Seconds that the device is awake at least after it was woken."""
LIMITS: Mapping[str, int | float] = {"pages_per_hour": 3600, "page_burst": 1000, "page_rule_interval": 0.0}
"""No limits: what the kinds of paging do is to be seen."""
_SERVER = ("--protocol", "udp", "--source-port", str(SERVER_PORT))
MODES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "every": (("--priority", "7", "--page"),),
    "rules": (("--priority", "7", "--page", *_SERVER),),
    "events": (("--priority", "7", "--agent", "--to", "mnps", *_SERVER), ("--priority", "8", "--hold")),
}
"""Rules of each kind of paging: every packet pages, those of one server do, or the stand-in gets those and decides."""
WISH = ("event", "udp", "--app", "packet", "--where", f"text contains {ALERT.decode().strip()}", "--store")
"""Condition of the event table; the device gets the packet as an event."""


@dataclass(slots=True)
class Mode:
    """One kind of paging, and its course."""

    name: str
    begin: float = 0.0
    end: float = 0.0
    """Of the noise."""
    over: float = 0.0
    """When the device is awake for good."""
    awake: list[tuple[float, float]] = field(default_factory=list)
    """Begin of each wake, which is that of its page, and of the next sleep."""
    noise: dict[str, int] = field(default_factory=dict)


class PageQuiet(Scenario):
    """An hour of noise for each kind of paging."""

    name = "page-quiet"
    title = (
        "an hour of background noise in fast motion, against pages by every packet, by rules and by events"
    )
    exhaustive = True
    plan = Plan(associations=AGENTS, tables={"ha": paging(**LIMITS), "mnps": STAND_IN})
    hours: ClassVar[float] = 1.0

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.modes = [self._mode(lab, name) for name in MODES]
        events = [row["detail"]["text"] for row in lab.ask("mn", "event list") if row["app"] == "packet"]
        self.brought = {int(text.removeprefix(ALERT.decode())) for text in events}

    def _mode(self, lab: Lab, name: str) -> Mode:
        for options in MODES[name]:
            lab.command("ha", "flow", "add", "--home-address", HOME, *options)
        if name == "events":
            lab.command("mn", "wake-on", *WISH)
        mode = Mode(name)
        lab.command("mn", "sleep")
        wait_until("its rules to be in force", lambda: _live(lab), PATIENCE)
        mode.begin = lab.timeline.mark("noise-begins", mode=name)
        link = lab.topology.radio("an1").near.interface
        noises = [
            _noise(lab, "cn", name, ["outside"], self.hours),
            _noise(lab, "an1", name, ["link", link], self.hours),
        ]
        slept = mode.begin
        while any(noise.running for noise in noises):
            if state(lab) == "asleep":
                lab.pause(0.05)
                continue
            slept = self._linger(lab, mode, slept)
        lab.pause(LINGER)
        if state(lab) != "asleep":
            self._linger(lab, mode, slept)
        for noise in noises:
            counts = json.loads(noise.log.read_text().splitlines()[-1])
            mode.noise.update(counts)
        mode.end = lab.timeline.mark("noise-ends", mode=name)
        if state(lab) == "asleep":
            lab.command("mn", "wake")
        mode.over = wait_awake(lab) + 1.0
        lab.pause(1.0)
        rules = [found["id"] for found in lab.flow_rules()]
        for identifier in rules:
            lab.command("ha", "flow", "remove", "--home-address", HOME, str(identifier))
        return mode

    @staticmethod
    def _linger(lab: Lab, mode: Mode, slept: float) -> float:
        """The device was woken: it stays awake for a while, and falls asleep. Returns when."""
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        pages = sent_and_ended(lab, slept)
        begin = pages[0].time if pages else slept
        while True:
            lab.pause(LINGER)
            try:
                lab.command("mn", "sleep")
            except LabError as problem:
                if "woken meanwhile" not in str(problem):
                    raise
            else:
                break
        again = lab.timeline.mark("asleep")
        mode.awake.append((begin, again))
        return again

    def judge(self, lab: Lab, checks: Checks) -> None:
        sent = alerts(lab.captures.files["cn"], outgoing=True)
        came = alerts(lab.captures.files["mn"], outgoing=False)
        for mode in self.modes:
            own = [(time, number) for time, number in sent if mode.begin <= time <= mode.end]
            name = mode.name
            checks.at_least(f"{name}_events", len(own), 1, "events")
            there = {number for time, number in came if mode.begin <= time <= mode.over}
            if mode.name == "events":
                there |= self.brought
            missed = [number for _time, number in own if number not in there]
            checks.equal(f"{name}_missed_events", len(missed), 0, "events")
            wakes = len(mode.awake)
            false = sum(
                not any(begin - 1.0 <= time <= end for time, _number in own) for begin, end in mode.awake
            )
            if name == "events":
                checks.at_most(f"{name}_wakes", wakes, len(own), "wakes")
            else:
                checks.fact(f"{name}_wakes", wakes, "wakes")
            checks.fact(f"{name}_false_wakes", false, "wakes")
            checks.fact(f"{name}_awake_s", sum(end - begin for begin, end in mode.awake), "s")
            checks.fact(f"{name}_noise", json.dumps(mode.noise))
        seconds = [sum(end - begin for begin, end in mode.awake) for mode in self.modes[:2]]
        checks.holds("rules_let_it_sleep_longer", seconds == sorted(seconds, reverse=True))
        judge_outcomes(lab, checks)


class PageQuietBrief(PageQuiet):
    """Six minutes."""

    name = "page-quiet-brief"
    title = "six minutes of background noise in fast motion, against pages by every packet, by rules and by events"
    hours: ClassVar[float] = 0.1


def _live(lab: Lab) -> bool:
    """True if each rule of the device is in the home agent's kernel."""
    return all(found["live"] for found in lab.flow_rules() if found["home_address"] == HOME)


def _noise(lab: Lab, node: str, mode: str, where: list[str], hours: float) -> Program:
    command = [sys.executable, "-m", "locum.lab.programs.paging.noise", *where, HOME, str(hours), str(FACTOR)]
    return lab.processes.start(node, f"noise-{node}-{mode}", command)


def alerts(file: Path, *, outgoing: bool) -> list[tuple[float, int]]:
    """Times and numbers of the server's datagrams that matter, in a capture."""
    return [
        (one.time, int(one.transport[8 + len(ALERT) :]))
        for one in pcap.datagrams(file)
        if one.protocol == pcap.UDP
        and one.outgoing is outgoing
        and one.ports[1] == DEVICE_PORT
        and one.destination == HOME_ADDRESS4
        and one.transport[8:].startswith(ALERT)
    ]
