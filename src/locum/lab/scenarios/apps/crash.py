"""Proxies of every kind and the stand-in's daemon are killed at random while their device sleeps: nobody notices (A1)."""

import contextlib
import os
import random
import signal

from locum.lab.configuration import Plan
from locum.lab.errors import LabError
from locum.lab.jobs.attended import Messages, Own, Rows, Sheet
from locum.lab.jobs.job import Job
from locum.lab.jobs.ordered import TRUST, Calls, Films, Mails, Site, Strays
from locum.lab.processes import wait_until
from locum.lab.programs.mqtt import PORT as MQTT
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.story import web
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab, locum

KINDS: tuple[type[Job], ...] = (Messages, Rows, Sheet, Own, Films, Site, Mails, Calls, Strays)
DAEMON = "mnps"
PATIENCE = 90.0  # seconds
GOES_ON = 1
"""Status of `locum wake` when the stand-in needs longer than the command waits: the wake goes on."""
SEED = "LOCUM_LAB_SEED"
"""The variable with the seed of a run that is to be repeated."""
RATE = 600_000
"""Bytes a second that nginx sends in one connection."""


class AppCrash(Scenario):
    """Each proxy is killed `rounds` times, and the daemon `deaths` times: asleep, and once while the device wakes."""

    name = "app-crash"
    title = "proxies of every kind and the stand-in's daemon are killed at random while their device sleeps"
    exhaustive = True
    opaque = "80-7001"
    plan = Plan(
        tables={
            "mn": {"mobile_node": {"app": [table for kind in KINDS for table in kind.tables()]}},
            "mnps": {"mnps": {"app_trust": TRUST}},
        }
    )
    rounds, deaths = 3, 4
    longest = 1.5
    """Seconds between two kills, at most."""
    waking = True
    """Kill the daemon once more while the device wakes."""
    size = 6_000_000

    def __init__(self) -> None:
        self.seed = int(os.environ.get(SEED) or self._seed())
        self.chance = random.Random(self.seed)

    @staticmethod
    def _seed() -> int:
        return random.SystemRandom().randrange(1 << 32)

    def play(self, lab: Lab) -> None:
        lab.timeline.mark("seed", seed=self.seed)
        try:
            with contextlib.ExitStack() as undone:
                self._play(lab, undone)
        except LabError as problem:
            raise LabError(f"with {SEED}={self.seed}: {problem}") from problem

    def _play(self, lab: Lab, undone: contextlib.ExitStack) -> None:
        lab.wait_registered()
        server, digests = web(lab, [("film", self.size), ("page", 1_000_000)], str(RATE))
        mails = Mails()
        self.jobs: list[Job] = [
            Messages(),
            Rows(),
            Sheet(),
            Films(server, digests["film"]),
            Site(),
            mails,
            Calls(),
            Strays(),
            Own(server, "page", digests["page"]),
        ]
        for job in self.jobs:
            job.begin(lab)
            if job is mails:
                undone.callback(mails.close)
        self.killed = dict.fromkeys((job.name for job in self.jobs), 0)
        lab.close_lid("an1")
        for job in self.jobs:
            job.asleep(lab)
        self._running(lab)
        self._kill_all(lab)
        for job in self.jobs:
            lab.timeline.mark("settles", job=job.name)
            wait_until(f"{job.name} to settle", lambda job=job: job.settled(lab), PATIENCE, pause=0.2)  # type: ignore[misc]
        self.shown = lab.command(DAEMON, "app", "show", Messages.name)
        self.logged = [lab.command(DAEMON, "app", "log", name) for name in self.killed]
        self._wake(lab)
        for job in self.jobs:
            job.awake(lab)

    def _running(self, lab: Lab) -> None:
        def run() -> bool:
            return [app["state"] for app in lab.ask(DAEMON, "app list")] == ["running"] * len(self.jobs)

        wait_until("all proxies to run", run, PATIENCE)

    def _kill_all(self, lab: Lab) -> None:
        """In a random order, with work in between."""
        victims = [*self.killed] * self.rounds + [DAEMON] * self.deaths
        self.chance.shuffle(victims)
        for number, victim in enumerate(victims):
            for job in self.jobs:
                job.work(lab, number)
            lab.pause(self.chance.uniform(0, self.longest))
            if victim == DAEMON:
                self._kill_daemon(lab)
            else:
                self._kill(lab, victim)
            self.last = victim

    def _kill_daemon(self, lab: Lab) -> None:
        lab.crash(DAEMON)
        lab.pause(self.chance.uniform(0, 0.5))
        lab.launch(DAEMON)
        lab.wait_ready(DAEMON, PATIENCE)
        lab.timeline.mark("daemon-restarted", daemon=DAEMON)

    def _kill(self, lab: Lab, name: str) -> None:
        """Its process, as soon as it has one."""
        found: list[int] = []

        def lives() -> bool:
            found[:] = [
                app["pid"] for app in lab.ask(DAEMON, "app list") if app["app"] == name and app["pid"]
            ]
            return bool(found)

        wait_until(f"{name} to run", lives, PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGKILL)
        self.killed[name] += 1
        lab.timeline.mark("proxy-killed", proxy=name)

    def _wake(self, lab: Lab) -> None:
        if not self.waking:
            lab.open_lid("an1")
            return
        lab.restore("an1")
        lab.timeline.mark("lid-opens")
        command = [*locum(), "--socket", str(lab.configuration.socket("mn")), "wake"]
        waking = lab.processes.start("mn", "wake", command)
        lab.pause(self.chance.uniform(0, 1.0))
        self._kill_daemon(lab)
        status = waking.wait(PATIENCE)
        if status not in (0, GOES_ON):
            raise LabError(f"locum wake ended with {status}; {waking.complaint()}")
        wait_until("the device to be awake", lambda: self._is_awake(lab), PATIENCE)
        lab.timeline.mark("awake")

    @staticmethod
    def _is_awake(lab: Lab) -> bool:
        return bool(lab.ask("mn", "status")["mobile_node"]["state"] == "awake")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.fact("seed", self.seed)
        for job in self.jobs:
            job.judge(lab, checks)
        checks.equal("killed_proxies", sum(self.killed.values()), self.rounds * len(self.jobs))
        failed = [event.detail for event in lab.timeline.of(DAEMON) if event.kind == "app-failed"]
        killed = {detail["app"] for detail in failed if "SIGKILL" in detail["reason"]}
        checks.at_least("failures_reported", len(killed), len(self.jobs) - self.deaths - 1, "proxies")
        logged = any("SIGKILL" in text for text in self.logged)
        checks.holds("app_log_has_a_failure", logged or self.last == DAEMON)
        checks.holds("app_show_has_the_flow", f":{MQTT}" in self.shown)
        judge_wakes(lab, checks, ("message_available", "delivered", "decoded"))


class AppCrashBrief(AppCrash):
    """Each is killed once, with the same moments in every run."""

    name = "app-crash-brief"
    title = "a proxy of each kind and the stand-in's daemon are killed once while their device sleeps"
    exhaustive = False
    rounds, deaths = 1, 1
    longest = 0.3
    waking = False
    size = 2_000_000

    @staticmethod
    def _seed() -> int:
        return 9
