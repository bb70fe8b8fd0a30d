"""Packets while entries change: how many met the entry of another home address, or none.

A second thread replaces the entry of the packets' home address, and replaces and removes those of others, all the time. The
value must be 0.
"""

from collections.abc import Collection

from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed
from bench.report import quantity
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.layout.rules import FEW
from locum.dataplane.stress import stress

_PACKETS = 10_000_000
_RULES = (0, FEW, 64)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row `update_stress`. Raises CommandFailed."""
    packets = max(int(_PACKETS * settings.scale), 1_000_000) // len(_RULES)
    try:
        found = [stress(packets, rules=rules) for rules in _RULES]
    except DataPlaneError as error:
        raise CommandFailed(str(error)) from error
    values = tuple(float(one.wrong + one.missed) for one in found)
    notes = tuple(
        f"{rules} rules: {one.packets:,} packets during {one.changes:,} changes of entries, {one.wrong} by another "
        f"address's entry, {one.missed} by none ({quantity(one.changes / one.seconds)} changes a second)"
        for rules, one in zip(_RULES, found, strict=True)
    )
    return [Measurement("update_stress", "packets", (sum(values),), None, notes)]
