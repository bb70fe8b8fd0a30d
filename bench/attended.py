"""Memory of the stand-in for sessions that it holds or that a proxy attends, and keep-alives that it says in a second of a core.

One lab with all its daemons: a device with a thousand idle connections falls asleep, first without a proxy, then with one that keeps
them alive. Memory is what the stand-in's processes have more than before the first sleep, the proxy's whole process among it, and the kernel's
memory for sockets.
"""

import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from bench.measurement import Measurement, Settings
from bench.memory import resident
from bench.namespaces import CommandFailed
from bench.report import quantity
from locum.lab.configuration import Plan, Table
from locum.lab.errors import LabError
from locum.lab.steps.gathering import gather
from locum.lab.world import Lab
from locum.node.control.client import NodeClient, NodeRefused, NodeUnreachable

NAMES = ("held_sessions", "attended_sessions", "keepalives")
_SESSIONS = 1_000
_GIGABYTE = 1e9
_PORT = 60_001
_PORTS = 64
"""Ports of the correspondent, one for each nap."""
_PATIENCE = 120.0
_SETTLE = 3.0
"""Seconds until the stand-in has nothing more to do than to wait."""
_SPEAKING = 10.0
"""Seconds in which keep-alives are counted."""
_TICKS = os.sysconf("SC_CLK_TCK")
_SOCKETS = ("TCP", "sock_inode_cache", "TCPv6", "request_sock_TCP", "tw_sock_TCP")


def _plan(interval: float | None) -> Plan:
    if interval is None:
        return Plan()
    ports = [_PORT + number for number in range(_PORTS)]
    app: Table = {
        "kind": "keepalive",
        "name": "idle",
        "settings": {"payload": "x", "ports": ports, "interval": interval, "jitter": 0.0},
    }
    return Plan(tables={"mn": {"mobile_node": {"app": [app]}}})


def _ask(lab: Lab, node: str, request: str) -> Any:
    with NodeClient(lab.configuration.socket(node), _PATIENCE) as client:
        return client.request(request)


def _proxies(lab: Lab) -> list[dict[str, object]]:
    found: list[dict[str, object]] = _ask(lab, "mnps", "app list")
    return found


def _seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def _lab(interval: float | None) -> Iterator[Lab]:
    with (
        tempfile.TemporaryDirectory(prefix="locum-bench-") as folder,
        Lab("attended", Path(folder), _plan(interval), captures=False) as lab,
    ):
        lab.wait_registered()
        yield lab


def _socket_memory() -> int:
    """Bytes of the kernel's objects for sockets, of the whole machine."""
    total = 0
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _all, size, *_ = line.split()
        total += int(active) * int(size) if name in _SOCKETS else 0
    return total


def _nap(lab: Lab, port: int, number: int, asleep: Callable[[], None]) -> None:
    """So many idle connections sleep; `asleep` is called meanwhile, and each one works afterwards."""
    crowd = gather(lab, port, number)
    _ask(lab, "mn", "sleep")
    if (held := len(lab.sessions())) != number:
        raise CommandFailed(f"the stand-in holds {held} of {number} sessions")
    time.sleep(_SETTLE)
    asleep()
    _ask(lab, "mn", "wake")
    crowd.tell("all")
    if crowd.heard() != number or crowd.end() != (0, 0):
        raise CommandFailed(f"not all of {number} sessions work after waking")


@dataclass(slots=True)
class _Memory:
    """Bytes for a session: of processes, and of the kernel."""

    processes: list[float]
    kernel: list[float]


def _memory(interval: float | None, sessions: int, rounds: int) -> _Memory:
    """Samples, one for each sleep."""
    found = _Memory([], [])
    with _lab(interval) as lab:
        daemon = lab.daemons["mnps"].process.pid
        ports = count(_PORT)
        _nap(lab, next(ports), 10, lambda: None)  # code that is loaded with the first one is not a session's
        before, kernel = resident(daemon), _socket_memory()

        def look() -> None:
            proxies = sum(int(str(app["memory"])) for app in _proxies(lab))
            found.processes.append((resident(daemon) - before + proxies) / sessions)
            found.kernel.append((_socket_memory() - kernel) / sessions)

        for _ in range(rounds):
            _nap(lab, next(ports), sessions, look)
    return found


def _per_gigabyte(name: str, memory: _Memory, sessions: int, what: str) -> Measurement:
    sizes = [processes + kernel for processes, kernel in zip(memory.processes, memory.kernel, strict=True)]
    values = tuple(_GIGABYTE / max(size, 1.0) for size in sizes)
    notes = (
        f"{sessions:,} idle sessions, {what}: {quantity(median(memory.processes))} bytes of processes each;"
        f" and {quantity(median(memory.kernel))} bytes of sockets in the kernel, those of both ends among them",
    )
    return Measurement(name, "sessions/GB", values, None, notes)


def _keepalives(sessions: int, rounds: int) -> Measurement:
    """Each session says something every second; the processor time of the stand-in and the proxy is counted."""
    rates: list[float] = []
    with _lab(1.0) as lab:
        daemon = lab.daemons["mnps"].process.pid
        ports = count(_PORT)

        def look() -> None:
            (app,) = _proxies(lab)
            proxy = int(str(app["pid"]))
            begun, said = _seconds(daemon) + _seconds(proxy), int(str(app["spoken"]))
            time.sleep(_SPEAKING)
            (app,) = _proxies(lab)
            used = _seconds(daemon) + _seconds(proxy) - begun
            rates.append((int(str(app["spoken"])) - said) / max(used, 1 / _TICKS))

        for _ in range(rounds):
            _nap(lab, next(ports), sessions, look)
    notes = (
        f"{sessions:,} sessions, one word of one byte a second in each; of the stand-in's daemon and the proxy",
    )
    return Measurement("keepalives", "1/(s core)", tuple(rates), None, notes)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of NAMES that are wanted."""
    sessions, rounds = max(int(_SESSIONS * settings.scale), 20), min(settings.long_rounds, 3)
    rows = []
    try:
        if "held_sessions" in wanted:
            held = _memory(None, sessions, rounds)
            rows.append(_per_gigabyte("held_sessions", held, sessions, "held"))
        if "attended_sessions" in wanted:
            attended = _memory(3600.0, sessions, rounds)
            rows.append(_per_gigabyte("attended_sessions", attended, sessions, "attended by one proxy"))
        if "keepalives" in wanted:
            rows.append(_keepalives(sessions, rounds))
    except (LabError, NodeRefused, NodeUnreachable) as error:
        raise CommandFailed(f"sessions at the stand-in: {error}") from error
    return rows
