"""Common steps of scenarios that page: configuration, a sleep with the radio on, pages and their outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Pair, Table
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.timeline import Event
from locum.lab.world import Lab

HOME = str(HOME_ADDRESS4)
PATIENCE = 60.0
"""Seconds for a page with its outcome, or for a device to be awake."""
OUTCOMES = frozenset(("reached", "no-answer", "refused", "unknown", "busy", "limited"))
ASSOCIATIONS = (Pair("ha", "an1"), Pair("ha", "an2"))
"""Of the home agent with the access nodes of the device, for pages."""


def rule(port: int, protocol: str = "udp", identifier: int = 7) -> Table:
    """A table [[home_agent.mobile.rule]]: packets to this port page the device."""
    return {
        "id": identifier,
        "priority": identifier,
        "action": "page",
        "protocol": protocol,
        "destination_port": port,
    }


def paging(*rules: Table, **limits: int | float) -> Table:
    """The home agent's table for a device with these rules; `limits` are keys of `[home_agent]`."""
    return {"home_agent": {**limits, **({"mobile": {"rule": rules}} if rules else {})}}


def state(lab: Lab) -> str:
    """State of the device, as it says."""
    found: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return found


def fall_asleep(lab: Lab) -> float:
    """`locum sleep`; the radio stays on. Returns when the device's rules are in force."""
    lab.timeline.mark("lid-closes")
    lab.command("mn", "sleep")
    wait_until("rules that page to be in force", lambda: in_force(lab), PATIENCE)
    return lab.timeline.mark("asleep")


def in_force(lab: Lab) -> bool:
    """True if a rule of the device is in the home agent's kernel."""
    return any(
        found["live"]
        for found in lab.flow_rules()
        if found["action"] == "page" and found["home_address"] == HOME
    )


def wait_awake(lab: Lab) -> float:
    """Until the device is awake, and no rule takes its packets. Returns when."""
    wait_until("the device to be awake", lambda: state(lab) == "awake", PATIENCE)
    wait_until("its rules to be gone", lambda: not in_force(lab), PATIENCE)
    return lab.timeline.mark("awake")


def ended(lab: Lab, since: float = 0.0) -> list[Event]:
    """Ends of pages, those that did not begin included."""
    return [event for event in lab.timeline.of("ha") if event.kind == "page-ended" and event.time >= since]


def begun(lab: Lab, since: float = 0.0) -> list[Event]:
    """First messages 1170 of pages."""
    return [
        event
        for event in lab.timeline.of("ha")
        if event.kind == "sent"
        and event.message == "1170"
        and event.detail["attempt"] == 1
        and event.time >= since
    ]


def wait_outcome(lab: Lab, since: float) -> Event:
    """The first end of a page since then that had begun. Raises LabError without one."""
    wait_until("the outcome of a page", lambda: bool(sent_and_ended(lab, since)), PATIENCE)
    return sent_and_ended(lab, since)[0]


def sent_and_ended(lab: Lab, since: float) -> list[Event]:
    """Ends of pages that had begun."""
    return [event for event in ended(lab, since) if event.detail["outcome"] != "limited"]


@dataclass(frozen=True, slots=True)
class Passed:
    """A UDP datagram from outside that came to the device's own interfaces, with its first bytes."""

    time: float
    home_address: str
    port: int
    payload: bytes


def at_device(lab: Lab, ports: Sequence[int]) -> list[Passed]:
    """Datagrams to these ports in the capture of the device."""
    return [
        Passed(one.time, str(one.destination), one.ports[1], one.transport[8:])
        for one in pcap.datagrams(lab.captures.files["mn"])
        if not one.outgoing and one.protocol == pcap.UDP and one.ports[1] in ports
    ]


def judge_outcomes(lab: Lab, checks: Checks, *, killed: bool = False) -> None:
    """Every page has ended in an outcome. `killed`: pages of a home agent that was killed may have none."""
    outcomes = [str(event.detail["outcome"]) for event in ended(lab)]
    checks.holds("outcomes_are_known", OUTCOMES.issuperset(outcomes))
    over = len(sent_and_ended(lab, 0.0))
    if killed:
        checks.at_most("pages_ended", over, len(begun(lab)), "pages")
    else:
        checks.equal("pages_ended", over, len(begun(lab)), "pages")
    for outcome in sorted(set(outcomes)):
        checks.fact(f"pages_{outcome.replace('-', '_')}", outcomes.count(outcome), "pages")
