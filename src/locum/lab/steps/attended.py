"""Steps and checks of scenarios with application proxies."""

from collections.abc import Sequence

from locum.lab.captures import pcap
from locum.lab.configuration import Plan, Table
from locum.lab.processes import wait_until
from locum.lab.programs.mqtt import Mqtt
from locum.lab.report.checks import Checks
from locum.lab.steps.resets import no_resets
from locum.lab.world import Lab


def keeping_alive(interval: float, consume: str = "replay") -> Plan:
    """A device that orders keep-alives for MQTT, so many seconds apart; `consume` is for their answers."""
    app: Table = {
        "kind": "keepalive",
        "name": "mqtt",
        "consume": consume,
        "settings": {"interval": interval},
    }
    return Plan(tables={"mn": {"mobile_node": {"app": [app]}}})


def wait_spoken(lab: Lab, least: int) -> None:
    """Until the proxies at the stand-in have said so many bytes in this sleep: on a busy machine they begin late."""

    def spoken() -> int:
        return sum(app["spoken"] for app in lab.ask("mnps", "app list"))

    wait_until(f"{least} bytes of the proxies", lambda: spoken() >= least, 30.0)


def judge_mqtt(lab: Lab, checks: Checks, mqtt: Mqtt, messages: Sequence[str], pid: int) -> None:
    """One connection, one process, each message once and in order."""
    checks.equal("messages_once_and_in_order", mqtt.lines == list(messages), True)
    checks.holds("subscriber_runs", mqtt.subscriber.running)
    checks.equal("same_process", mqtt.subscriber.pid, pid)
    checks.equal("disconnections", len(mqtt.disconnections), 0)
    checks.equal("connections", mqtt.connections, 1)
    no_resets(checks, "cn_resets", pcap.segments(lab.captures.files["cn"]))
