"""Jobs of proxies that attend connections of the device's programs."""

import json
import math
from collections.abc import Sequence

from locum.lab.configuration import HOME_ADDRESS4, Table
from locum.lab.jobs.job import Job, result, told
from locum.lab.processes import Program, wait_until
from locum.lab.programs.mqtt import Mqtt
from locum.lab.programs.services import WebServer
from locum.lab.programs.workbook import workbook
from locum.lab.report.checks import Checks
from locum.lab.steps.ordered import signal_workers, unread
from locum.lab.steps.story import Download, download
from locum.lab.world import Lab

PATIENCE = 60.0  # seconds
COLUMNS = ["sensor", "value"]


class Messages(Job):
    """`keepalive`: a subscriber of a stock MQTT broker."""

    name = "mqtt"
    keep_alive = 60
    """Seconds; the broker waits half as long again, longer than a daemon and a proxy take to start several times."""

    @staticmethod
    def tables() -> Sequence[Table]:
        return [{"kind": "keepalive", "name": "mqtt", "settings": {"interval": 4}}]

    def begin(self, lab: Lab) -> None:
        self.mqtt = Mqtt(lab, self.keep_alive)
        self.mqtt.start()
        self.pid = self.mqtt.subscriber.pid
        self.sent: list[str] = []

    def work(self, lab: Lab, number: int) -> None:
        self._publish(f"asleep {number}")

    def _publish(self, text: str) -> None:
        self.mqtt.publish(text)
        self.sent.append(text)

    def awake(self, lab: Lab) -> None:
        self._publish("awake")
        wait_until("the last message", lambda: "awake" in self.mqtt.lines, PATIENCE)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("mqtt_messages_once_and_in_order", self.mqtt.lines == self.sent)
        checks.holds("mqtt_same_process", self.mqtt.subscriber.running)
        checks.equal("mqtt_disconnections", len(self.mqtt.disconnections), 0)
        checks.equal("mqtt_connections", self.mqtt.connections, 1)


class Rows(Job):
    """`compute`: socat at the correspondent says rows to socat at the device."""

    name, port = "rows", 7000

    def __init__(self, *, split: bool = True) -> None:
        """`split`: each step ends in the middle of a row, so that there is one sleep only."""
        self.split = split

    @staticmethod
    def tables() -> Sequence[Table]:
        settings: Table = {"ports": [Rows.port], "columns": COLUMNS, "values": ["value"]}
        return [{"kind": "compute", "name": Rows.name, "settings": settings}]

    def begin(self, lab: Lab) -> None:
        self.said = lab.output / f"{self.name}.csv"
        self.received = lab.output / f"{self.name}-received.csv"
        self.said.touch()
        self.values: list[int] = []
        self.before = 0
        listen = f"TCP4-LISTEN:{self.port},reuseaddr"
        command = ["sh", "-c", f"tail -f -s 0.1 -n +1 {self.said} | socat -u - {listen}"]
        lab.processes.start("cn", f"{self.name}-sender", command)
        listening = ["ss", "-ltn"]
        wait_until(
            "the sender to listen",
            lambda: f":{self.port} " in lab.processes.run("cn", listening).stdout,
            PATIENCE,
        )
        source = f"TCP4:{lab.topology.address4('cn')}:{self.port},bind={HOME_ADDRESS4}"
        with self.received.open("wb") as sink:
            self.reader: Program = lab.processes.start(
                "mn", f"{self.name}-reader", ["socat", "-u", source, "-"], stdout=sink.fileno()
            )
        self._say("awake,1000\n")
        self._all_received()

    def _say(self, text: str) -> None:
        with self.said.open("a") as file:
            file.write(text)

    def _all_received(self) -> None:
        wait_until(
            f"all {self.name} at the device",
            lambda: self.received.stat().st_size >= self.said.stat().st_size,
            PATIENCE,
        )

    def work(self, lab: Lab, number: int) -> None:
        """A row; or the end of one, and the beginning of the next one."""
        if not self.split:
            self._say(f"asleep,{number}\n")
        else:
            self._say(f"{number}\nasleep," if self.values else f"asleep,{number}\nasleep,")
        self.values.append(number)

    def asleep(self, lab: Lab) -> None:
        self.before = self.said.stat().st_size

    def settled(self, lab: Lab) -> bool:
        sessions = lab.ask("mnps", "app show", app=self.name)["attends"]
        least = self.said.stat().st_size - self.before
        return any(one["answered"] == one["received"] >= least for one in sessions)

    def awake(self, lab: Lab) -> None:
        self._say("1\n" if self.split else "awake,1\n")
        self._all_received()

    def judge(self, lab: Lab, checks: Checks) -> None:
        found = result(lab, self.name)
        checks.equal(f"{self.name}_computed", found.get("rows", -1), len(self.values), "rows")
        checks.equal(f"{self.name}_sum", self.sum(found), math.fsum(self.values))
        checks.holds(f"{self.name}_at_the_program", self.received.read_text() == self.said.read_text())
        checks.holds(f"{self.name}_reader_runs", self.reader.running)

    @staticmethod
    def sum(found: Table) -> float:
        """Of the result."""
        results = found.get("results", {})
        assert isinstance(results, dict)
        return float(results.get("sum", -1))


class Sheet(Rows):
    """`spreadsheet`: the same rows feed a workbook that the device has sent."""

    name, port = "sheet", 7001

    @staticmethod
    def tables() -> Sequence[Table]:
        return ()

    def begin(self, lab: Lab) -> None:
        book = lab.output / "sheet.xlsx"
        book.write_bytes(workbook({"Data": {}, "Results": {"A1": "SUM(Data!B2:B400)"}}))
        settings: Table = {
            "ports": [self.port],
            "columns": COLUMNS,
            "file": book.name,
            "feed": {"value": "Data!B2:B400"},
            "results": {"sum": "Results!A1"},
        }
        given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        lab.command("mn", "order", "add", "spreadsheet", self.name, *given, "--send", str(book))
        super().begin(lab)


class Own(Job):
    """`download`, attended: curl of the device has asked, and the answer comes while it sleeps."""

    name = "own"
    port = 80

    def __init__(self, server: WebServer, path: str, wanted: str) -> None:
        self.server, self.path, self.wanted = server, path, wanted

    @staticmethod
    def tables() -> Sequence[Table]:
        return [{"kind": "download", "name": Own.name, "settings": {"ports": [Own.port]}}]

    def begin(self, lab: Lab) -> None:
        signal_workers(self.server.program, 19)
        self.curl: Download = download(lab, self.path, self.wanted)
        wait_until("the request to be at the server", lambda: unread(lab, self.port) > 0)

    def asleep(self, lab: Lab) -> None:
        signal_workers(self.server.program, 18)

    def settled(self, lab: Lab) -> bool:
        return bool(told(lab, self.name, "delivered"))

    def awake(self, lab: Lab) -> None:
        self.status = self.curl.finish(PATIENCE)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("own_exit", self.status, 0)
        checks.holds("own_digest", self.curl.correct)
        rows = [row for row in self.server.requests() if row["address"] == str(HOME_ADDRESS4)]
        checks.equal("own_requests", sum(f" /{self.path} " in str(row["request"]) for row in rows), 1)
