"""A broker that restarts while its clients sleep: their stand-in connects for them, and the session goes on (A3, A11)."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab, locum

STOCK, RAW = 1883, 1884
TOPIC = "news"
CONNECT = b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03raw"
SUBSCRIBE = b"\x82\x09\x00\x01\x00\x04news\x01"


def keepalive(name: str, port: int, client: str, **settings: Any) -> Table:
    own: dict[str, Any] = {
        "protocol": "mqtt",
        "ports": [port],
        "interval": 2,
        "on_data": "event",
        "on_end": "reconnect",
    }
    return {"kind": "keepalive", "name": name, "settings": {**own, "client_id": client, **settings}}


PLAN = Plan(
    tables={
        "mn": {
            "mobile_node": {
                "app": [keepalive("stock", STOCK, "sleeper"), keepalive("raw", RAW, "raw", label="feed")]
            }
        }
    }
)


class Broker:
    """mosquitto with a store of its sessions."""

    def __init__(self, lab: Lab) -> None:
        self.lab, folder = lab, lab.output / "mqtt"
        folder.mkdir()
        self.settings = folder / "broker.conf"
        self.settings.write_text(
            f"listener {STOCK}\nlistener {RAW}\nallow_anonymous true\nlog_type all\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
        )
        self.program = self._start()

    def _start(self) -> Program:
        return self.lab.processes.start("cn", "broker", ["mosquitto", "-v", "-c", str(self.settings)])

    def restart(self) -> None:
        self.program = self._start()

    @property
    def log(self) -> str:
        return self.program.log.read_text(errors="replace")

    def publish(self, text: str) -> None:
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-t", TOPIC, "-m", text]
        assert self.lab.processes.run("cn", command).returncode == 0


def told(lab: Lab, kind: str) -> list[str]:
    """Names of the proxies that have told this."""
    events = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
    return sorted(detail["app"] for detail in events if detail["event"] == kind)


@pytest.mark.exhaustive
def test_mqtt_sessions_outlive_their_connections(tmp_path: Path) -> None:
    """The stock client connects again when it wakes; of the other one, a program takes the stand-in's connection over."""
    with Lab("resumed", tmp_path / "lab", PLAN, captures=False) as lab:
        lab.wait_registered()
        broker, server = Broker(lab), str(lab.topology.address4("cn"))
        wait_until("the broker to listen", lambda: "running" in broker.log)
        received = lab.output / "received"
        with received.open("wb") as sink:
            options = ("-A", str(HOME_ADDRESS4), "-k", "5", "-c", "-i", "sleeper", "-q", "1", "-t", TOPIC)
            stock = lab.processes.start(
                "mn", "stock", ["mosquitto_sub", "-h", server, *options], stdout=sink.fileno()
            )
        raw = lab.processes.start(
            "mn",
            "raw",
            ["socat", "-", f"TCP4:{server}:{RAW},bind={HOME_ADDRESS4}"],
            stdin=subprocess.PIPE,
        )
        assert raw.process.stdin is not None
        raw.process.stdin.write(CONNECT + SUBSCRIBE)
        raw.process.stdin.flush()
        for client in ("sleeper", "raw"):
            wait_until(f"the subscription of {client}", lambda one=client: f"SUBACK to {one}" in broker.log)  # type: ignore[misc]
        socket = str(lab.configuration.socket("mn"))
        accept = [*locum(), "--socket", socket, "accept", "feed", "--wait", "--", "sh", "-c", "cat -v >&2"]
        waits = lab.processes.start("mn", "waits", accept)

        lab.command("mn", "sleep")
        lab.cut("an1")
        wait_until(
            "the proxies", lambda: {row["state"] for row in lab.ask("mnps", "app list")} == {"running"}, 30
        )
        assert broker.program.stop() == 0
        wait_until("both ends", lambda: told(lab, "session_ended") == ["raw", "stock"], 30)
        broker.restart()
        wait_until("both successors", lambda: told(lab, "session_resumed") == ["raw", "stock"], 60)
        before = broker.log.count("PINGREQ from raw")
        broker.publish("asleep")
        wait_until("both messages", lambda: {"raw", "stock"} <= set(told(lab, "message_available")), 30)
        wait_until("keep-alives", lambda: broker.log.count("PINGREQ from raw") > before + 1, 30)

        lab.restore("an1")
        lab.command("mn", "wake")
        wait_until("the message in the program that waited", lambda: "asleep" in waits.log.read_text(), 30)
        wait_until("the message in the stock program", lambda: received.read_text() == "asleep\n", 30)
        broker.publish("awake")
        wait_until(
            "a message over the connection that was handed over", lambda: "awake" in waits.log.read_text(), 30
        )
        wait_until("a message in the stock program", lambda: received.read_text() == "asleep\nawake\n", 30)
        assert waits.log.read_text().startswith("2"), (
            "the first byte that it gets is of the message (PUBLISH, QoS 1)"
        )
        assert stock.running and waits.running
        assert broker.log.count("as raw (") == 2, "the program's own connection, and the stand-in's"
        results = [event.detail["result"] for event in lab.timeline.of("mn") if event.kind == "app-result"]
        assert [list(result["resumed"].values()) for result in results] == [[1], [1]]
