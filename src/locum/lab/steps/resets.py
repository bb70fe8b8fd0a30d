"""The check that no connection was reset."""

from collections.abc import Iterable

from locum.lab.captures import measure
from locum.lab.captures.pcap import Segment
from locum.lab.report.checks import Checks


def no_resets(checks: Checks, name: str, segments: Iterable[Segment]) -> None:
    """Check `name` is the number of segments with RST; each of them is a failed check of its own, with its addresses."""
    found = measure.resets(segments)
    checks.equal(name, len(found), 0, "segments")
    for segment in found:
        checks.equal(f"{name}_segment", segment, "none")
