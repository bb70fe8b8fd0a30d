"""How often a sleeping device would have been woken: without its proxies by every packet, with them by some events."""

from collections.abc import Collection

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6
from locum.lab.report.checks import Checks
from locum.lab.world import Lab

_HOMES = (HOME_ADDRESS4, HOME_ADDRESS6)


def sleeps(lab: Lab) -> list[tuple[float, float]]:
    """Begin and end of each sleep, in seconds since the epoch."""
    begun = 0.0
    found: list[tuple[float, float]] = []
    for event in lab.timeline.of("lab"):
        if event.kind == "asleep":
            begun = event.time
        elif event.kind == "lid-opens" and begun:
            found.append((begun, event.time))
            begun = 0.0
    return found


def judge_wakes(
    lab: Lab, checks: Checks, kinds: Collection[str], *, most: int | None = None
) -> tuple[int, int]:
    """Count packets that the correspondent sent to the sleeping device, and events of these kinds.

    The events are not more than the packets, nor than `most`. Returns both counts.
    """
    asleep = sleeps(lab)
    packets = sum(
        1
        for packet in pcap.datagrams(lab.captures.files["cn"])
        if packet.destination in _HOMES and any(begin <= packet.time <= end for begin, end in asleep)
    )
    events = sum(
        1
        for event in lab.timeline.of("mnps")
        if event.kind == "app-event"
        and event.detail["event"] in kinds
        and any(begin <= event.time <= end for begin, end in asleep)
    )
    checks.at_least("wakes_without_the_proxies", packets, max(events, 1), "packets")
    checks.at_most("wakes_with_them", events, packets if most is None else most, "events")
    return packets, events
