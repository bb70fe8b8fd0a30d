"""Which checks of a scenario's report tests judge: facts, and times with the slack that a busy machine needs."""

from locum.lab.report.checks import Check
from locum.lab.report.report import Report

SLACK = {"ms": 100, "s": 5, "segments": 50}
"""Factors on limits of time, and of segments that a peer sends again when time passes, by their unit.

Limits in milliseconds are for gaps of packets: `make bench` and `locum lab run` judge them; here a gap is wrong when it
lasts for seconds. Limits in seconds are for waits that take a lifetime or a retransmission where the product is wrong.
"""


def wrong(report: Report) -> list[Check]:
    """Return the checks that do not hold, whatever else the machine does meanwhile."""
    return [check for check in report.checks.made if not check.ok and not only_late(check)]


def only_late(check: Check) -> bool:
    """Return whether a slow machine alone can be the reason."""
    limit = check.wanted.removeprefix("<= ")
    if limit == check.wanted or check.unit not in SLACK:
        return False
    return float(check.value) <= SLACK[check.unit] * float(limit)
