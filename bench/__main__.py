"""`python -m bench [--only NAME ...] [--report FILE] [--quick]`: measure, print a table, write the report."""

import argparse
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench.measurement import QUICK, Settings, Unmeasured
from bench.namespaces import CommandFailed, require_programs
from bench.quiet import observe
from bench.report import Result, show, write

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "bench.tunnel": ("tunnel_tcp", "tunnel_udp64", "tunnel_tcp_vxlan"),
    "bench.pairs": ("tunnel_pairs",),
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
    "bench.sleeper_drop": ("sleeper_drop",),
    "bench.registrations": ("registrations",),
    "bench.paging": ("page_p50", "page_p99", "page_slots", "pages"),
    "bench.fast_paging": ("page_fast",),
    "bench.crowd_handover": ("handover_1000_p50", "handover_1000_p99", "handover_1000_lost"),
    "bench.gaps": ("handover_gap", "reclaim_gap"),
    "bench.sleeping": ("sleep_1", "sleep_100", "sleep_1000", "wake_1", "wake_100", "wake_1000"),
    "bench.burst": ("sleep_burst_p50", "sleep_burst_p99", "proxy_memory"),
    "bench.attended": ("held_sessions", "attended_sessions", "keepalives"),
    "bench.memory": ("ha_memory_100k", "ha_memory_100k_restart"),
    "bench.updates": ("update_stress",),
    "bench.hold_flood": ("hold_flood",),
    "bench.splice": ("splice",),
    "bench.publish": ("publish_small_file",),
    "bench.downloads": ("ordered_download",),
    "bench.captured": ("attended_download",),
}
"""Module -> the rows that its `measure(settings, wanted)` makes."""
NAMES = tuple(name for names in BENCHMARKS.values() for name in names)
_PROGRAMS = ("ip", "nsenter", "iperf3", "nft", "taskset", "ping", "sysctl", "mount", "curl", "nginx")
_PARTIAL = 3
"""Exit status of a run that could not measure some rows."""


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


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CommandFailed) and text else f"{type(error).__name__}: {text}"


def _rows(module: str, names: Sequence[str], settings: Settings) -> list[Result]:
    """One result for each name: whatever fails in one row must not cost the others.

    Rows that are measured together are measured one by one if together they fail.
    """
    try:
        measured = {found.name: found for found in import_module(module).measure(settings, names)}
    except Exception as error:
        if len(names) > 1:
            return [result for name in names for result in _rows(module, [name], settings)]
        return [Unmeasured(names[0], _reason(error))]
    return [measured.get(name) or Unmeasured(name, f"{module} returned no such row") for name in names]


def _measure(wanted: Collection[str], settings: Settings, console: Console) -> Iterator[list[Result]]:
    """Results of one module after the other."""
    for module, names in BENCHMARKS.items():
        chosen = [name for name in names if name in wanted]
        if not chosen:
            continue
        told = ", ".join(chosen)
        console.print(f"{told} - before it the machine was {observe()}", highlight=False, soft_wrap=True)
        results = _rows(module, chosen, settings)
        for result in results:
            if isinstance(result, Unmeasured):
                text = f"{result.name}: not measured: {result.reason}"
                console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"{told} - after it: {observe()}", highlight=False, soft_wrap=True)
        yield results


def main(words: list[str]) -> int:
    """Exit status: 0 measured all, 1 failed, 2 usage, 3 some rows not measured, 5 privilege, 130 interrupted.

    The report is written after each group of rows, so that an interrupted run leaves those that it has measured.
    """
    arguments = _arguments(words)
    if os.geteuid():
        print(
            "python -m bench needs root: it makes network namespaces and loads BPF programs", file=sys.stderr
        )
        return 5
    signal.signal(signal.SIGTERM, _terminated)
    console = Console()
    results: list[Result] = []
    interrupted = False
    try:
        require_programs(_PROGRAMS)
        settings = QUICK if arguments.quick else Settings()
        for found in _measure(set(arguments.only or NAMES), settings, console):
            results += found
            write(results, arguments.report)
    except CommandFailed as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # of the lab too
        interrupted = True
    if results:
        show(results, console)
        console.print(f"report: {arguments.report}", highlight=False)
    if interrupted:
        return 130
    return _PARTIAL if any(isinstance(result, Unmeasured) for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
