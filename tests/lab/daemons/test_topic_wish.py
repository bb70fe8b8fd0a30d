"""A device that is woken by one topic of a stock broker, and by no other (P3, P4)."""

from pathlib import Path

from locum.lab.configuration import Pair, Plan
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.mqtt import Mqtt
from locum.lab.scenarios.paging.fig11 import cause
from locum.lab.world import Lab
from tests.lab.daemons.test_event_tables import events
from tests.lab.daemons.test_wishes import pages, state

KEEP_ALIVE = 20
PLAN = Plan(
    short_lifetime=3,
    associations=(Pair("ha", "an1"), Pair("ha", "an2"), Pair("mn", "ha"), Pair("ha", "mnps")),
    tables={
        "ha": {"home_agent": {"page_seconds": 60.0}},
        "mnps": {"mnps": {"home_agent": str(figure_5((), 1).address4("ha"))}},
        "mn": {
            "mobile_node": {
                "app": [
                    {
                        "kind": "keepalive",
                        "name": "broker",
                        "settings": {"protocol": "mqtt", "ports": [1883], "on_data": "event"},
                    }
                ]
            }
        },
    },
)


def test_device_is_woken_by_the_topic_that_it_named(tmp_path: Path) -> None:
    with Lab("topic-wish", tmp_path, PLAN) as lab:
        lab.wait_registered()
        broker = Mqtt(lab, KEEP_ALIVE, ("news", "alerts/#"))
        broker.start()
        broker.publish("awake")
        broker.wait_for("awake")
        said = lab.command("mn", "wake-on", "mqtt", "--topic", "alerts/+/fire")
        assert said.strip() == "wish 1: mqtt --topic alerts/+/fire"
        lab.command("mn", "sleep")
        broker.publish("of no interest")
        broker.publish("another alert", "alerts/hall/smoke")
        wait_until(
            "both messages at the proxy",
            lambda: told(lab) == ["news", "alerts/hall/smoke"],
            30.0,
        )
        lab.pause(1.0)
        assert state(lab) == "asleep" and pages(lab) == []
        broker.publish("fire in the hall", "alerts/hall/fire")
        wait_until("the device to be awake", lambda: state(lab) == "awake", 60.0)
        broker.wait_for("fire in the hall")
        assert broker.lines == ["awake", "of no interest", "another alert", "fire in the hall"], "once each"
        assert (broker.connections, broker.disconnections) == (1, [])
        (ended,) = [event for event in lab.timeline.of("ha") if event.kind == "page-ended"]
        assert cause(ended) == "event broker published"


def told(lab: Lab) -> list[str]:
    """Topics that the proxy has told."""
    found = [event for event in events(lab, "mnps", "app-event") if event["event"] == "published"]
    return [event["detail"]["topic"] for event in found]
