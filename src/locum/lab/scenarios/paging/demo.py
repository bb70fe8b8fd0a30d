"""The second act of `locum demo`: an MQTT client sleeps with a proxy, and the right message wakes the device (A3, P4, P15)."""

import sys
from typing import ClassVar

from locum.lab.configuration import Plan
from locum.lab.processes import wait_until
from locum.lab.programs.mqtt import Mqtt
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.paging.fig11 import AGENTS, STAND_IN, cause
from locum.lab.steps.attended import judge_mqtt, keeping_alive, wait_spoken
from locum.lab.steps.paging import HOME, PATIENCE, begun, judge_outcomes, state, wait_outcome
from locum.lab.world import Lab

KEEP_ALIVE = 5
INTERVAL = 3.0
ASLEEP = 16.0
PORT = 7007
PINGREQ = 2  # bytes
NEWS, ALERT = "news: it rains", "alert: water in the cellar"
_SEND = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(sys.argv[1].encode(), (sys.argv[2], {}))"


class PageDemo(Scenario):
    """The device asks to be woken by packets with the word alert: one with other words reaches its stand-in, and no more."""

    name = "mqtt-act"
    title = "an MQTT client sleeps longer than its keep-alive, and the right message wakes its device"
    exhaustive = True
    plan: ClassVar[Plan] = Plan(
        associations=AGENTS, tables={**keeping_alive(INTERVAL, "omit").tables, "mnps": STAND_IN}
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.mqtt = Mqtt(lab, KEEP_ALIVE)
        self.mqtt.start()
        self.pid = self.mqtt.subscriber.pid
        self.published: list[str] = []
        lab.command("mn", "wake-on", "event", "udp", "--app", "packet", "--where", "text contains alert")
        self.begin = lab.timeline.mark("lid-closes")
        lab.command("mn", "sleep")
        lab.timeline.mark("asleep")
        lab.pause(ASLEEP / 2)
        self._publish(lab, "while it sleeps")
        lab.pause(ASLEEP / 2)
        wait_spoken(lab, PINGREQ * int(ASLEEP / INTERVAL))
        self._send(lab, NEWS)
        lab.pause(2.0)
        self.before = state(lab)
        self.pages_before = len(begun(lab, self.begin))
        lab.timeline.mark("still-asleep")
        sent = self._send(lab, ALERT)
        self.page = wait_outcome(lab, sent)
        lab.timeline.mark("paged", cause=self.page.detail["cause"])
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        lab.timeline.mark("awake")
        self._publish(lab, "good morning")
        for text in self.published:
            self.mqtt.wait_for(text)
            lab.timeline.mark("arrived", text=text)

    def _publish(self, lab: Lab, text: str) -> None:
        self.published.append(text)
        lab.timeline.mark("published", text=text)
        self.mqtt.publish(text)

    @staticmethod
    def _send(lab: Lab, text: str) -> float:
        at = lab.timeline.mark("sent-to-sleeper", text=text)
        lab.processes.run("cn", [sys.executable, "-c", _SEND.format(PORT), text, HOME])
        return at

    def judge(self, lab: Lab, checks: Checks) -> None:
        judge_mqtt(lab, checks, self.mqtt, self.published, self.pid)
        checks.equal("state_after_the_news", self.before, "asleep")
        checks.equal("pages_by_the_news", self.pages_before, 0, "pages")
        checks.equal("page_of_the_alert", cause(self.page), "event packet udp")
        checks.equal("pages", len(begun(lab, self.begin)), 1, "pages")
        judge_outcomes(lab, checks)
