"""A stock MQTT client sleeps far longer than its keep-alive, five times: the broker notices nothing (A3, C12)."""

from locum.lab.programs.mqtt import Mqtt
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.attended import judge_mqtt, keeping_alive, wait_spoken
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

KEEP_ALIVE = 5  # seconds, the least that mosquitto_sub takes; its broker waits half as long again
ASLEEP = (60.0, 10.0, 10.0, 10.0, 10.0)
INTERVAL = 3.0
PINGREQ = 2  # bytes


class AppKeepAlive(Scenario):
    """One mosquitto_sub, and a message in each sleep and after it."""

    name = "app-keepalive"
    title = "MQTT goes on while its subscriber sleeps longer than its keep-alive"
    plan = keeping_alive(INTERVAL)
    exhaustive = True
    omits = False
    asleep: tuple[float, ...] = ASLEEP

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.mqtt = Mqtt(lab, KEEP_ALIVE)
        self.mqtt.start()
        self.pid = self.mqtt.subscriber.pid
        self.messages: list[str] = []
        self.left_out = 0
        for number, seconds in enumerate(self.asleep):
            lab.close_lid("an1")
            lab.pause(seconds / 2)
            self._publish(lab, f"asleep {number}")
            lab.pause(seconds / 2)
            wait_spoken(lab, PINGREQ * int(seconds / INTERVAL))
            attended = lab.ask("mnps", "app show", app="mqtt")["attends"]
            self.left_out += sum(one["replaced"] for one in attended)
            lab.open_lid("an1")
            self._arrives(lab)
            self._publish(lab, f"awake {number}")
            self._arrives(lab)
            lab.pause(KEEP_ALIVE * 1.5 + 1)  # the client pings for itself again

    def _publish(self, lab: Lab, text: str) -> None:
        self.messages.append(text)
        lab.timeline.mark("published", text=text)
        self.mqtt.publish(text)

    def _arrives(self, lab: Lab) -> None:
        self.mqtt.wait_for(self.messages[-1])
        lab.timeline.mark("arrived", text=self.messages[-1])

    def judge(self, lab: Lab, checks: Checks) -> None:
        judge_mqtt(lab, checks, self.mqtt, self.messages, self.pid)
        results = [event.detail for event in lab.timeline.of("mn") if event.kind == "app-result"]
        kept = sum(detail["result"]["keepalives"]["0"] for detail in results)
        checks.at_least("keepalives", kept, int(sum(self.asleep) / INTERVAL), "pings")
        if self.omits:
            checks.at_least("left_out", self.left_out, 2 * len(self.asleep), "bytes of the broker's answers")
        else:
            checks.equal("left_out", self.left_out, 0, "bytes")
        checks.equal("handovers", handovers(lab), len(self.asleep))
        judge_wakes(lab, checks, (), most=0)


class AppKeepAliveBrief(AppKeepAlive):
    """The same with short sleeps, and a program that does not get the broker's answers to the stand-in."""

    name = "app-keepalive-brief"
    title = "MQTT goes on in three sleeps longer than its keep-alive"
    plan = keeping_alive(INTERVAL, "omit")
    omits = True
    exhaustive = False
    asleep: tuple[float, ...] = (12.0, 9.0, 9.0)
