"""Five kinds of proxies work for one sleeping device at once, and one of them is killed each second (A1)."""

import os
import signal
import time

from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.mqtt import Mqtt
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.apps.header_log import LOG
from locum.lab.steps.attended import judge_mqtt
from locum.lab.steps.ordered import Ordered
from locum.lab.steps.story import web
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

ROWS, FORGOTTEN, SITE = 5005, 4000, 80
"""Ports: of rows for the computation, one that nobody has, and of the web site."""
RATE = 400_000
"""Bytes a second that nginx sends."""
KEEP_ALIVE = 5
KILLED = "strays"
"""The proxy that is killed each second: the log."""
KILLS = 3
"""Of its processes, at least: it starts again after 1, 2 and 4 seconds."""
PAGE = "<h1>asleep, and at your service</h1>\n"


def _apps() -> list[Table]:
    url = f"http://{figure_5((), 1).address4('cn')}/film"
    rows: Table = {
        "listen": {"port": ROWS},
        "columns": ["celsius"],
        "values": ["celsius"],
        "when": "count >= 5",
    }
    return [
        {"kind": "keepalive", "name": "mqtt", "settings": {"interval": 3}},
        {"kind": "download", "name": "film", "settings": {"url": url}},
        {"kind": "compute", "name": "rows", "settings": rows},
        LOG,
    ]


class AppMixed(Scenario):
    """MQTT, a download, a computation, a web site and a log, in one sleep of a device."""

    name = "app-mixed"
    title = "five kinds of proxies work for one device, and one that is killed each second harms no other"
    plan = Plan(tables={"mn": {"mobile_node": {"app": _apps()}}})
    opaque = "80"
    exhaustive = True
    asleep = 40.0

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.mqtt = Mqtt(lab, KEEP_ALIVE)
        self.mqtt.start()
        self.pid = self.mqtt.subscriber.pid
        size = int(self.asleep / 2 * RATE)
        _server, digests = web(lab, [("film", size)], str(RATE))
        self.digest = digests["film"]
        site = lab.output / "site"
        site.mkdir()
        (site / "index.html").write_text(PAGE)
        lab.command("mn", "order", "publish", "site", str(site))
        lab.close_lid("an1")
        self._all_run(lab)
        self.killed: set[int] = set()
        self.pages: list[str] = []
        self.kept = {app["app"]: app["pid"] for app in lab.ask("mnps", "app list")}
        begun = time.monotonic()
        self.film = Ordered(lab, "film")
        self.rows = Ordered(lab, "rows")
        number = 0
        while time.monotonic() - begun < self.asleep or len(self.killed) < KILLS:
            self._kill(lab)
            self._row(lab, number)
            number += 1
            self.pages.append(self._page(lab))
            lab.pause(1.0)
        self.mqtt.publish("asleep")
        self.film.wait_for("delivered")
        self.stored = self.film.sha256("film")
        self.listed = lab.ask("mnps", "app list")
        lab.open_lid("an1")
        self.mqtt.wait_for("asleep")

    @staticmethod
    def _all_run(lab: Lab) -> None:
        def run() -> bool:
            return [app["state"] for app in lab.ask("mnps", "app list")] == ["running"] * 5

        wait_until("five proxies", run, 60.0)
        wait_until("the site", lambda: "serves" in lab.command("mnps", "app", "log", "site"), 60.0)

    def _kill(self, lab: Lab) -> None:
        """The process of the log, if it has one now."""
        (app,) = [app for app in lab.ask("mnps", "app list") if app["app"] == KILLED]
        if app["pid"] is not None and app["pid"] not in self.killed:
            os.kill(app["pid"], signal.SIGKILL)
            self.killed.add(app["pid"])

    @staticmethod
    def _row(lab: Lab, number: int) -> None:
        script = (
            f"echo {number} > /dev/udp/{HOME_ADDRESS4}/{ROWS}; echo x > /dev/udp/{HOME_ADDRESS4}/{FORGOTTEN}"
        )
        lab.processes.run("cn", ["bash", "-c", script])

    @staticmethod
    def _page(lab: Lab) -> str:
        return lab.processes.run("cn", ["curl", "-s", "-m", "20", f"http://{HOME_ADDRESS4}:{SITE}/"]).stdout

    def judge(self, lab: Lab, checks: Checks) -> None:
        judge_mqtt(lab, checks, self.mqtt, ["asleep"], self.pid)
        checks.equal("download_digest", self.stored, self.digest)
        checks.equal("pages", sum(page == PAGE for page in self.pages), len(self.pages), "pages")
        checks.at_least("computed", len(self.rows.events("computed")), 1, "events")
        checks.at_least("killed", len(self.killed), KILLS, "processes")
        failed = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-failed"]
        checks.equal("failed_others", sum(detail["app"] != KILLED for detail in failed), 0)
        checks.at_least("failed_log", len(failed), KILLS, "failures")
        now = {app["app"]: app["pid"] for app in self.listed if app["app"] != KILLED}
        checks.holds(
            "same_processes", now == {name: pid for name, pid in self.kept.items() if name != KILLED}
        )
        results = {event.detail["app"] for event in lab.timeline.of("mn") if event.kind == "app-result"}
        checks.holds("results_of_all", {"mqtt", "film", "rows", "site"} <= results)
        judge_wakes(lab, checks, ("computed", "delivered"))


class AppMixedBrief(AppMixed):
    """The same in a short sleep."""

    name = "app-mixed-brief"
    title = "five kinds of proxies work for one device in a short sleep, and one is killed again and again"
    exhaustive = False
    asleep = 12.0
