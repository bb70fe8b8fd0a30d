"""Rows arrive in many packets while their device sleeps; the stand-in computes with them (A8, A10, C12).

Stock programs send: socat single datagrams and short connections from the correspondent, and a program that the device has connected
to before it slept says rows in that connection.
"""

import json
import math
import os
import signal
from collections.abc import Mapping
from typing import Any

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.processes import Program, wait_until
from locum.lab.programs.workbook import workbook
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.resets import no_resets
from locum.lab.steps.waking import judge_wakes
from locum.lab.timeline import Event
from locum.lab.world import Lab

DATAGRAMS, CONNECTIONS, SESSION = 5005, 5006, 7000
WHEN = "max > 30 and count >= 5"
PACKETS = 10
"""Datagrams in the first sleep; one message answers them."""
ROWS = 4
"""Rows in the session in each sleep, in two packets whose border is within a row."""


SHEETS = {
    "Data": {},
    "Results": {"A1": "AVERAGE(Data!B2:B6)", "A2": 'IF(MAX(Data!B2:B6)>90,"hot","fine")'},
}
"""Values feed five cells of the first sheet, and the second has formulas over them."""


COLUMNS = ["sensor", "celsius"]
BOOK = "bakery.xlsx"
BAKERY: Table = {
    "listen": {"port": CONNECTIONS, "protocol": "tcp"},
    "columns": COLUMNS,
    "file": BOOK,
    "feed": {"celsius": "Data!B2:B6"},
    "results": {"mean": "Results!A1", "state": "Results!A2"},
    "emit": {"to": "correspondent", "template": "{mean} {state}"},
}
"""An order with a file; the other computations are in the configuration."""


def apps(consume: str) -> list[Table]:
    """Two computations of the device's configuration; `consume` is for the one that attends a session."""
    readings: Table = {
        "listen": {"port": DATAGRAMS},
        "columns": COLUMNS,
        "values": ["celsius"],
        "when": WHEN,
        "emit": {"to": "correspondent", "rows": PACKETS},
    }
    session: Table = {"ports": [SESSION], "columns": COLUMNS, "values": ["celsius"]}
    return [
        {"kind": "compute", "name": "readings", "settings": readings},
        {"kind": "compute", "name": "session", "consume": consume, "settings": session},
    ]


class AppCompute(Scenario):
    """Five sleeps, in each of which rows arrive; the process of one computation is killed in each."""

    name = "app-compute"
    title = "rows from many packets become results while their device sleeps"
    exhaustive = True
    plan = Plan(tables={"mn": {"mobile_node": {"app": apps("replay")}}})
    sleeps = 5
    program_gets_all = True

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self._connect(lab)
        self._order(lab)
        for number in range(self.sleeps):
            lab.close_lid("an1")
            self._wait_running(lab, 2 if number else 3)  # the order is done in the first sleep
            self._say(lab, number)
            if number == 0:
                self._send_datagrams(lab)
                self._send_connection(lab)
            lab.open_lid("an1")
        (self.order,) = lab.ask("mn", "order list")
        self._append("awake,2000\n")
        wait_until("the last row at the device", lambda: self.received.read_text().endswith("2000\n"), 30.0)

    @staticmethod
    def _order(lab: Lab) -> None:
        """Order the workbook, and send it."""
        book = lab.output / BOOK
        book.write_bytes(workbook(SHEETS))
        settings = (f"{key}={json.dumps(value)}" for key, value in BAKERY.items())
        lab.command("mn", "order", "add", "spreadsheet", "bakery", *settings, "--send", str(book))

    def _connect(self, lab: Lab) -> None:
        """A program of the device listens to another one for rows."""
        self.rows = lab.output / "rows.csv"
        self.received = lab.output / "received.csv"
        self.rows.touch()
        listen = f"TCP4-LISTEN:{SESSION},reuseaddr"
        lab.processes.start("cn", "sender", ["sh", "-c", f"tail -f -n +1 {self.rows} | socat -u - {listen}"])
        listening = ["ss", "-ltn"]
        wait_until(
            "the sender to listen", lambda: f":{SESSION} " in lab.processes.run("cn", listening).stdout, 30.0
        )
        source = f"TCP4:{lab.topology.address4('cn')}:{SESSION},bind={HOME_ADDRESS4}"
        with self.received.open("wb") as sink:
            command = ["socat", "-u", source, "-"]
            self.reader: Program = lab.processes.start("mn", "reader", command, stdout=sink.fileno())
        self._append("awake,1000\n")  # rows that the device reads itself are not computed with
        wait_until("the connection", lambda: self.received.read_text() == "awake,1000\n", 30.0)

    def _append(self, text: str) -> None:
        with self.rows.open("a") as file:
            file.write(text)

    @staticmethod
    def _wait_running(lab: Lab, count: int) -> None:
        def run() -> bool:
            return [app["state"] for app in lab.ask("mnps", "app list")] == ["running"] * count

        wait_until(f"{count} computations", run, 60.0)

    def _say(self, lab: Lab, number: int) -> None:
        """Rows in the session, in two packets; the process dies between them."""
        text = "".join(f"s,{number}.{row}\n" for row in range(ROWS))
        self._append(text[:-3])
        pid = self._wait_shown(lab, len(text) - 3)
        os.kill(pid, signal.SIGKILL)
        self._append(text[-3:])
        self._wait_shown(lab, len(text), besides=pid)

    @staticmethod
    def _wait_shown(lab: Lab, least: int, besides: int = 0) -> int:
        """The process of the computation that has been shown so many bytes of the session; it is not this one."""
        pid = 0

        def shown() -> bool:
            nonlocal pid
            app = lab.ask("mnps", "app show", app="session")
            (session,) = app["attends"]
            pid = app["pid"] or 0
            ready = app["state"] == "running" and pid != besides
            return bool(ready and session["shown"] == session["received"] >= least)

        wait_until("the rows at the stand-in", shown, 60.0)
        return pid

    def _send_datagrams(self, lab: Lab) -> None:
        """One row each, from different ports; the last sender waits for the message."""
        target = f"UDP4:{HOME_ADDRESS4}:{DATAGRAMS}"
        for number in range(PACKETS):
            last = number == PACKETS - 1
            command = f"echo s{number},{25 + number} | socat -t {5 if last else 0.1} - {target}"
            done = lab.processes.run("cn", ["sh", "-c", command])
            self.answer = done.stdout

    def _send_connection(self, lab: Lab) -> None:
        """Five rows in two packets; their border is within a row."""
        command = f"(printf 'o,80\\no,85\\no,9'; sleep 0.3; printf '0\\no,95\\no,100\\n') | socat -t 10 - TCP4:{HOME_ADDRESS4}:{CONNECTIONS}"
        self.baked = lab.processes.run("cn", ["sh", "-c", command]).stdout

    def judge(self, lab: Lab, checks: Checks) -> None:
        """Results, messages, events, and the same connection all the time."""
        results = self._results(lab)
        rows = [float(f"{number}.{row}") for number in range(self.sleeps) for row in range(ROWS)]
        session = results["session"][-1]
        checks.equal("session_rows", session["rows"], len(rows))
        checks.equal("session_sum", session["results"]["sum"], math.fsum(rows))
        killed = [event for event in lab.timeline.of("mnps") if event.kind == "app-failed"]
        checks.equal("session_restarts", len(killed), self.sleeps)
        checks.equal("handovers", handovers(lab), self.sleeps)
        segments = [
            segment
            for segment in pcap.segments(lab.captures.files["cn"])
            if SESSION in (segment.source_port, segment.destination_port)
        ]
        no_resets(checks, "cn_resets", segments)
        wanted = self.rows.read_text() if self.program_gets_all else "awake,1000\nawake,2000\n"
        checks.holds("rows_at_the_program", self.received.read_text() == wanted)
        checks.holds("reader_runs", self.reader.running)
        judge_wakes(lab, checks, ("computed",))
        self._judge_message(lab, checks, results["readings"][0])
        baked = results["bakery"][0]
        checks.holds("workbook_complete", baked["complete"] == "full" and baked["done"] is True)
        checks.equal("order", self.order["state"], "done")
        checks.holds("workbook_results", baked["results"] == {"mean": 90.0, "state": "hot"})
        checks.holds("workbook_message", self.baked == "90.0 hot\n")

    def _judge_message(self, lab: Lab, checks: Checks, readings: Mapping[str, Any]) -> None:
        """Ten datagrams came, one went out, and one event would have woken the device."""
        message = json.loads(self.answer)
        checks.equal("message_rows", message["rows"], PACKETS)
        checks.equal("message_mean", message["results"]["mean"], 25 + (PACKETS - 1) / 2)
        checks.equal("readings_rows", readings["rows"], PACKETS)
        datagrams = [
            packet for packet in pcap.datagrams(lab.captures.files["cn"]) if DATAGRAMS in packet.ports
        ]
        there = [packet for packet in datagrams if packet.ports[1] == DATAGRAMS]
        checks.equal("datagrams_to_the_device", len(there), PACKETS)
        checks.equal("datagrams_from_it", len(datagrams) - len(there), 1)
        told = [event.detail["detail"] for event in self._told(lab, "readings")]
        checks.equal("wakes_without_the_proxy", len(there), PACKETS)
        checks.equal("wakes_with_it", len(told), 1)
        checks.holds("event_has_the_results", [event["condition"] for event in told] == [WHEN])

    @staticmethod
    def _told(lab: Lab, app: str) -> list[Event]:
        events = (event for event in lab.timeline.of("mnps") if event.kind == "app-event")
        return [event for event in events if event.detail["app"] == app]

    @staticmethod
    def _results(lab: Lab) -> dict[str, list[Any]]:
        """Of each computation, those of every wake."""
        found: dict[str, list[Any]] = {}
        for event in lab.timeline.of("mn"):
            if event.kind == "app-result":
                found.setdefault(str(event.detail["app"]), []).append(event.detail["result"])
        return found


class AppComputeBrief(AppCompute):
    """The same with two sleeps; the program does not get the rows that were computed with."""

    name = "app-compute-brief"
    title = "rows from many packets become results in two sleeps"
    exhaustive = False
    plan = Plan(tables={"mn": {"mobile_node": {"app": apps("omit")}}})
    sleeps = 2
    program_gets_all = False
