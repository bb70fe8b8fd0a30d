"""A stock WebSocket client sleeps far longer than its server waits for a pong: nobody notices (A3, C12)."""

from locum.lab.captures import pcap
from locum.lab.configuration import Plan
from locum.lab.programs.peers.websocket import PORT, WebSockets
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.attended import wait_spoken
from locum.lab.steps.resets import no_resets
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

PING_INTERVAL, PONG_PATIENCE = 2.0, 4.0
"""Seconds, of server and client."""
PONGS, PONG = 2, 6
"""Answers in each sleep at least, and the bytes of the shortest one."""
AUTO = Plan(tables={"mn": {"mobile_node": {"attend": "auto"}}})


class AppWebSocket(Scenario):
    """The stand-in knows the connection by the first text that arrives, and answers pings from then on."""

    name = "app-websocket"
    title = "a WebSocket goes on while its client sleeps, with no configuration of the protocol"
    plan = AUTO
    opaque = str(PORT)  # masked frames look like anything, to tshark like broken HTTP
    exhaustive = True
    asleep: tuple[float, ...] = (40.0, 7.0, 7.0, 7.0, 7.0)

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.sockets = WebSockets(lab, PING_INTERVAL, PONG_PATIENCE)
        self.sockets.start()
        self.pid = self.sockets.client.pid
        self.messages: list[str] = []
        self._publish(lab, "awake before")
        self.sockets.wait_for("awake before")
        for number, seconds in enumerate(self.asleep):
            lab.close_lid("an1")
            self._publish(lab, f"asleep {number}")
            lab.pause(seconds)
            wait_spoken(lab, PONGS * PONG)
            lab.open_lid("an1")
            self.sockets.wait_for(self.messages[-1])
            self._publish(lab, f"awake {number}")
            self.sockets.wait_for(self.messages[-1])

    def _publish(self, lab: Lab, text: str) -> None:
        self.messages.append(text)
        lab.timeline.mark("published", text=text)
        self.sockets.publish(text)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("messages_once_and_in_order", self.sockets.lines == self.messages, True)
        checks.equal("echoes_once_and_in_order", self.sockets.echoes == self.messages, True)
        checks.holds("client_runs", self.sockets.client.running)
        checks.equal("same_process", self.sockets.client.pid, self.pid)
        checks.equal("connections", self.sockets.log.count("opened"), 1)
        checks.equal("closed", sum(line.startswith("closed") for line in self.sockets.log), 0)
        results = [event.detail["result"] for event in lab.timeline.of("mn") if event.kind == "app-result"]
        answered = [sum(result.get("answered", {}).values()) for result in results]
        checks.at_least("answered_pings", min(answered, default=0), PONGS, "pongs in each sleep")
        checks.equal("handovers", handovers(lab), len(self.asleep))
        judge_wakes(lab, checks, (), most=0)
        no_resets(checks, "cn_resets", pcap.segments(lab.captures.files["cn"]))


class AppWebSocketBrief(AppWebSocket):
    """The same with two short sleeps."""

    name = "app-websocket-brief"
    title = "a WebSocket goes on in two sleeps longer than its server waits for a pong"
    exhaustive = False
    asleep: tuple[float, ...] = (9.0, 7.0)
