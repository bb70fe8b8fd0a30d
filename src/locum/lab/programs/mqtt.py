"""A stock MQTT broker at the correspondent, and a stock subscriber at the device."""

from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab

PORT = 1883
CLIENT = "sleeper"


@dataclass(slots=True)
class Mqtt:
    """`keep_alive` seconds of the subscriber, at least 5; its broker waits half as long again."""

    lab: Lab
    keep_alive: int
    topics: tuple[str, ...] = ("news",)
    """Of the subscriber."""
    broker: Program = field(init=False)
    subscriber: Program = field(init=False)
    received: Path = field(init=False)

    def start(self) -> None:
        """Start both; returns when the subscription stands. Raises LabError."""
        folder = self.lab.output / "mqtt"
        folder.mkdir()
        settings = folder / "broker.conf"
        settings.write_text(f"listener {PORT}\nallow_anonymous true\nlog_type all\n")
        self.broker = self.lab.processes.start("cn", "broker", ["mosquitto", "-v", "-c", str(settings)])
        wait_until("the broker to listen", lambda: "running" in self.log)
        self.received = folder / "received"
        options = (
            "-A",
            str(HOME_ADDRESS4),
            "-k",
            str(self.keep_alive),
            "-i",
            CLIENT,
            "-q",
            "1",
            *(word for topic in self.topics for word in ("-t", topic)),
        )
        server = ("-h", str(self.lab.topology.address4("cn")))
        with self.received.open("wb") as sink:
            command = ["mosquitto_sub", *server, *options]
            self.subscriber = self.lab.processes.start("mn", "subscriber", command, stdout=sink.fileno())
        wait_until("the subscription", lambda: f"SUBACK to {CLIENT}" in self.log)

    @property
    def log(self) -> str:
        """The broker's."""
        return self.broker.log.read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Messages that the subscriber has received."""
        return self.received.read_text().splitlines()

    def publish(self, text: str, topic: str = "news") -> None:
        """Publish a message beside the broker. Raises LabError."""
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-t", topic, "-m", text]
        done = self.lab.processes.run("cn", command)
        if done.returncode:
            raise LabError(f"mosquitto_pub: {done.stderr.strip()}")

    def wait_for(self, text: str) -> None:
        """Wait until the subscriber has this message. Raises LabError."""
        wait_until(f"the message {text}", lambda: text in self.lines)

    @property
    def disconnections(self) -> list[str]:
        """Lines of the broker's log that say that the subscriber's connection has ended."""
        return [line for line in self.log.splitlines() if CLIENT in line and "disconnect" in line.lower()]

    @property
    def connections(self) -> int:
        """Connections that the subscriber has made."""
        return self.log.count(f"as {CLIENT}")
