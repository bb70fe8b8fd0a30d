"""Bytes a second of a captured download that its proxy follows, beside one that is held, in a lab with all its daemons.

Two labs take turns. The correspondent's link has no bound here. A curl has sent its request, the device falls asleep, and the server answers: the stand-in
stores the file, which is what the server sees of its speed. The proxy reads it meanwhile, on the same processors.
"""

import signal
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed
from locum.lab.configuration import Plan, Table
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs import services
from locum.lab.steps.ordered import Ordered, signal_workers, unread
from locum.lab.steps.story import PORT, download, web
from locum.lab.world import Lab
from locum.node.control.client import NodeRefused, NodeUnreachable

NAMES = ("attended_download",)
_SIZE = 32 << 20
_PATIENCE = 120.0
_TABLES: Mapping[str, Table] = {"mnps": {"mnps": {"session_least": "256M"}}}
"""Else a stand-in holds 4 MiB of a connection whose program has read nothing."""
_APP: Table = {"kind": "download", "name": "own", "settings": {"ports": [PORT]}}
_HELD = Plan(tables=_TABLES)
_ATTENDED = Plan(tables={**_TABLES, "mn": {"mobile_node": {"app": [_APP]}}})


class _Naps:
    """One sleep after the other in a lab of its own."""

    def __init__(self, lab: Lab, size: int, *, attended: bool) -> None:
        self._lab, self._size, self._attended = lab, size, attended
        self._server, _ = web(lab, [])
        self._numbers = count()
        self.told: list[float] = []
        """Mbit/s until the proxy had told the end."""

    def sample(self) -> float:
        """Mbit/s."""
        lab = self._lab
        name = f"file{next(self._numbers)}"
        digest = services.make_file(self._server.root / name, self._size)
        signal_workers(self._server.program, signal.SIGSTOP)
        curl = download(lab, name, digest)
        wait_until("the request to be at the server", lambda: unread(lab, PORT) > 0, _PATIENCE)
        lab.command("mn", "sleep")
        own = Ordered(lab, "own")
        told = len(own.events("delivered"))
        if self._attended:  # its start is another row
            wait_until("the proxy to run", self._runs, _PATIENCE)
        begin = time.perf_counter()
        signal_workers(self._server.program, signal.SIGCONT)
        wait_until("the file to be stored", lambda: self._stored() >= self._size, _PATIENCE)
        seconds = time.perf_counter() - begin
        if self._attended:
            wait_until("its end to be told", lambda: len(own.events("delivered")) > told, _PATIENCE)
            self.told.append(self._size * 8 / (time.perf_counter() - begin) / 1e6)
        lab.command("mn", "wake")
        if curl.finish(_PATIENCE) or not curl.correct:
            raise CommandFailed("the program has not got the file")
        return self._size * 8 / seconds / 1e6

    def _runs(self) -> bool:
        rows = self._lab.ask("mnps", "app list")
        return [row["state"] for row in rows] == ["running"]

    def _stored(self) -> int:
        return sum(int(row.get("total", 0)) for row in self._lab.sessions())


@contextmanager
def _naps(name: str, plan: Plan, size: int) -> Iterator[_Naps]:
    with (
        tempfile.TemporaryDirectory(prefix="locum-bench-") as folder,
        Lab(name, Path(folder), plan, captures=False) as lab,
    ):
        lab.wait_registered()
        if lab.processes.run("cn", [*["tc", "qdisc", "del", "dev", "eth0", "root"]]).returncode:
            raise CommandFailed("the correspondent's link keeps its bound")
        yield _Naps(lab, size, attended=plan is _ATTENDED)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row among NAMES that is wanted."""
    if not set(NAMES) & set(wanted):
        return []
    size = max(int(_SIZE * settings.scale), 8 << 20)
    try:
        with _naps("attended", _ATTENDED, size) as attended, _naps("held", _HELD, size) as held:
            values, baselines = in_turns(settings.short_rounds, attended.sample, held.sample)
    except (LabError, NodeRefused, NodeUnreachable) as error:
        raise CommandFailed(f"a captured download: {error}") from error
    notes = (
        f"{size >> 20} MiB from nginx to a captured connection, until the stand-in has stored them",
        f"until the proxy has read them as well, and told their end: {median(attended.told[1:]):.0f} Mbit/s",
    )
    return [Measurement("attended_download", "Mbit/s", values, baselines, notes)]
