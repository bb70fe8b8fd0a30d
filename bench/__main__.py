"""`python -m bench [--only NAME ...] [--report FILE] [--quick]`: measure, print a table, write the report."""

import argparse
import os
import signal
import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench.measurement import QUICK, Measurement, Settings
from bench.namespaces import CommandFailed, require_programs
from bench.quiet import observe
from bench.report import show, write

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "bench.tunnel": ("tunnel_tcp", "tunnel_udp64", "tunnel_tcp_vxlan"),
    "bench.packet_cost": ("packet_cost_1k", "packet_cost_1m"),
    "bench.rules": (
        "packet_cost_rules_1",
        "packet_cost_rules_8_first",
        "packet_cost_rules_8_last",
        "packet_cost_rules_64_first",
        "packet_cost_rules_64_last",
        "rule_changes",
        "weight_split",
    ),
    "bench.registrations": ("registrations",),
    "bench.crowd_handover": ("handover_1000_p50", "handover_1000_p99", "handover_1000_lost"),
    "bench.gaps": ("handover_gap", "reclaim_gap"),
    "bench.sleeping": ("sleep_1", "sleep_100", "sleep_1000", "wake_1", "wake_100", "wake_1000"),
    "bench.memory": ("ha_memory_100k",),
}
"""Module -> the rows that its `measure(settings, wanted)` makes."""
NAMES = tuple(name for names in BENCHMARKS.values() for name in names)
_PROGRAMS = ("ip", "nsenter", "iperf3", "nft", "taskset", "ping", "sysctl", "mount", "curl", "nginx")


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", action="extend", choices=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--report", type=Path, default=Path("bench/report.json"), help="default: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="small tables, short samples: shows only that it works"
    )
    return parser.parse_args(words)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(wanted: Collection[str], settings: Settings, console: Console) -> tuple[list[Measurement], bool]:
    """All wanted rows that could be measured, and whether that was all."""
    rows: list[Measurement] = []
    complete = True
    for module, names in BENCHMARKS.items():
        chosen = [name for name in names if name in wanted]
        if not chosen:
            continue
        console.print(
            f"{', '.join(chosen)} - before it the machine was {observe()}", highlight=False, soft_wrap=True
        )
        try:
            rows += import_module(module).measure(settings, chosen)
        except (CommandFailed, OSError) as error:
            complete = False
            console.print(
                f"{', '.join(chosen)}: not measured: {error}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        console.print(f"{', '.join(chosen)} - after it: {observe()}", highlight=False, soft_wrap=True)
    return rows, complete


def main(words: list[str]) -> int:
    """Exit status: 0 measured all, 1 not all, 2 usage, 5 privilege, 130 interrupted."""
    arguments = _arguments(words)
    if os.geteuid():
        print(
            "python -m bench needs root: it makes network namespaces and loads BPF programs", file=sys.stderr
        )
        return 5
    signal.signal(signal.SIGTERM, _terminated)
    console = Console()
    try:
        require_programs(_PROGRAMS)
        settings = QUICK if arguments.quick else Settings()
        rows, complete = _measure(set(arguments.only or NAMES), settings, console)
    except CommandFailed as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # of the lab too
        return 130
    order = {name: place for place, name in enumerate(NAMES)}
    rows.sort(key=lambda measured: order[measured.name])
    show(rows, console)
    write(rows, arguments.report)
    console.print(f"report: {arguments.report}", highlight=False)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
