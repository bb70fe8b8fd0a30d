"""Figs. 14 to 17 as one run: the method step by step, with packets of both types (C12, P1, P3, P4, P17)."""

import signal
from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.paging.fig11 import AGENTS, STAND_IN, cause
from locum.lab.steps.ordered import Ordered, signal_workers, unread
from locum.lab.steps.paging import (
    HOME,
    PATIENCE,
    at_device,
    begun,
    in_force,
    judge_outcomes,
    state,
    wait_outcome,
)
from locum.lab.steps.story import PORT, download, web
from locum.lab.world import Lab

SIZE, RATE = 6_000_000, 2_000_000
"""Bytes of the file, more than a session may hold that nobody reads, and bytes a second of the server."""
FIRST_TYPE, OTHER = 7014, 7015
"""Ports of packets of the first type: to one of them the device is paged, to the other it is not."""


class Fig14(Scenario):
    """A download is taken over, the device sleeps, the file is complete, the device is paged and its program goes on."""

    name = "fig14"
    title = "download, takeover, sleep, packets of both types, page, results and state back, resumption"
    exhaustive = True
    plan: ClassVar[Plan] = Plan(
        associations=AGENTS,
        tables={
            "mnps": STAND_IN,
            "mn": {
                "mobile_node": {"app": [{"kind": "download", "name": "own", "settings": {"ports": [PORT]}}]}
            },
        },
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        server, digests = web(lab, [("page", SIZE)], str(RATE))
        lab.command("mn", "wake-on", "udp", str(FIRST_TYPE))
        lab.command("mn", "wake-on", "download")
        self._step(lab, 1404, "the device exchanges packets with the peer")
        signal_workers(server.program, signal.SIGSTOP)
        self.curl = download(lab, "page", digests["page"])
        self.pid = self.curl.program.pid
        wait_until("the request to be at the server", lambda: unread(lab, PORT) > 0)
        self.begin = self._step(lab, 1412, "the proxy takes over, with state and rules")
        lab.command("mn", "sleep")
        wait_until("rules that page to be in force", lambda: in_force(lab), PATIENCE)
        self._step(lab, 1424, "the device sleeps")
        self._step(lab, 1436, "a packet of the first type pages nobody")
        self._send(lab, OTHER)
        lab.pause(1.0)
        self.before = (state(lab), len(begun(lab, self.begin)))
        self._step(lab, 1444, "packets of the second type go to the proxy")
        signal_workers(server.program, signal.SIGCONT)
        Ordered(lab, "own").wait_for("delivered")
        self._step(lab, 1454, "an event matches its trigger")
        self.page = wait_outcome(lab, self.begin)
        self._step(lab, 1458, "the device is paged")
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        self._step(lab, 1468, "the device has results and state")
        self.status = self.curl.finish(PATIENCE)
        self._step(lab, 1470, "its program has resumed")
        self.again = self._step(lab, 1424, "the device sleeps again")
        lab.command("mn", "sleep")
        wait_until("rules that page to be in force", lambda: in_force(lab), PATIENCE)
        self._step(lab, 1438, "a packet of the first type pages the device")
        self._send(lab, FIRST_TYPE)
        self.second = wait_outcome(lab, self.again)
        wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
        self._step(lab, 1442, "the device has the packet")
        lab.pause(1.0)

    @staticmethod
    def _step(lab: Lab, number: int, what: str) -> float:
        """Name a step of the method in the event log; returns when."""
        return lab.timeline.mark("step", number=number, what=what)

    @staticmethod
    def _send(lab: Lab, port: int) -> None:
        lab.processes.run("cn", ["bash", "-c", f"echo first type > /dev/udp/{HOME}/{port}"])

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("after_the_other_packet", str(self.before), str(("asleep", 0)))
        checks.equal("page_of_the_file", cause(self.page), "event own delivered")
        checks.equal("page_of_the_packet", cause(self.second), "packet")
        checks.equal("pages", len(begun(lab, self.begin)), 2, "pages")
        checks.equal("curl_exit", self.status, 0)
        checks.equal("curl_same_process", self.curl.program.pid, self.pid)
        checks.holds("sha256_equal", self.curl.correct)
        arrived = [one for one in at_device(lab, [FIRST_TYPE]) if one.home_address == str(HOME_ADDRESS4)]
        checks.equal("packet_of_the_first_type_arrives", len(arrived), 1, "packets")
        data = sum(
            one.destination == HOME_ADDRESS4 and one.source_port == PORT and one.length > 0
            for one in pcap.segments(lab.captures.files["cn"])
        )
        checks.at_least("packets_of_the_second_type", data, 500, "segments")
        steps = [event.detail["number"] for event in lab.timeline.of("lab") if event.kind == "step"]
        checks.fact("steps", " ".join(map(str, steps)))
        judge_outcomes(lab, checks)
