"""The shape of a job: prepared awake, worked at while the device sleeps, judged in the end."""

from collections.abc import Sequence
from typing import Any

from locum.lab.configuration import Table
from locum.lab.report.checks import Checks
from locum.lab.world import Lab


class Job:
    """One proxy of the device, and the stock programs that it meets."""

    name: str
    """Of the proxy."""

    @staticmethod
    def tables() -> Sequence[Table]:
        """Tables `[[mobile_node.app]]` of it; none, if it is ordered by a command."""
        return ()

    def begin(self, lab: Lab) -> None:
        """Before the device sleeps."""

    def asleep(self, lab: Lab) -> None:
        """The device sleeps, and the proxy may run."""

    def work(self, lab: Lab, number: int) -> None:
        """Do some more of it; steps are counted from 0."""

    def settled(self, lab: Lab) -> bool:
        """True if the proxy has done all that it was given."""
        return True

    def awake(self, lab: Lab) -> None:
        """The device is awake: wait until its programs have what is theirs."""

    def judge(self, lab: Lab, checks: Checks) -> None:
        """Nothing is lost, and nothing is there twice."""


def told(lab: Lab, app: str, kind: str) -> list[dict[str, Any]]:
    """Details of events of a proxy."""
    events = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
    return [row["detail"] for row in events if (row["app"], row["event"]) == (app, kind)]


def result(lab: Lab, app: str) -> dict[str, Any]:
    """The last result of a proxy that the device has got; empty without any."""
    events = [event.detail for event in lab.timeline.of("mn") if event.kind == "app-result"]
    found = [row["result"] for row in events if row["app"] == app]
    return dict(found[-1]) if found else {}
