"""Common steps of scenarios: a download, and the expected course of its sleeps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from locum.lab.captures import measure, pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6
from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until
from locum.lab.programs import services
from locum.lab.programs.services import LiveFilms, WebServer
from locum.lab.report.checks import Checks
from locum.lab.steps.resets import no_resets
from locum.lab.world import Lab, Sleep

PORT = 80
AFTERWARDS = 500_000
"""Bytes that a live download goes on for when its story is over."""
SETTLING = 0.5
"""Seconds around a hand-over that still belong to it."""


@dataclass(slots=True)
class Download:
    """A stock curl that fetches one file of the correspondent's nginx into the output folder."""

    program: Program
    target: Path
    wanted: str
    """SHA-256 of the file as it was served, in hex."""
    path: str

    @property
    def received(self) -> int:
        """Bytes that curl has written so far."""
        return self.target.stat().st_size if self.target.exists() else 0

    @property
    def correct(self) -> bool:
        return services.sha256(self.target) == self.wanted

    def wait_for(self, size: int, patience: float = 20.0) -> None:
        """Until curl has written so many bytes. Raises LabError when it ends or stalls before."""

        def there() -> bool:
            if not self.program.running and self.received < size:
                raise LabError(
                    f"{self.program.name} ended with {self.received} bytes; {self.program.complaint()}"
                )
            return self.received >= size

        wait_until(f"{self.program.name} to have {size} bytes (it has {self.received})", there, patience)

    def finish(self, patience: float) -> int:
        """Wait for its end; returns its exit status."""
        return self.program.wait(patience)


@dataclass(slots=True)
class LiveDownload(Download):
    """A download that lasts as long as the story, however fast the machine is: it ends when `finish` asks for it."""

    films: LiveFilms

    ended: bool = False

    @property
    def name(self) -> str:
        """Name of the film."""
        return self.path.rpartition("/")[2]

    def end(self, patience: float) -> None:
        """Wait for more bytes, and let the film end."""
        self.wait_for(self.received + AFTERWARDS, patience)
        self.films.end(self.name)
        self.ended = True

    def finish(self, patience: float) -> int:
        """Let the film end, if it has not yet, and wait for the program; returns its exit status."""
        if not self.ended:
            self.end(patience)
        status = Download.finish(self, patience)
        self.wanted = self.films.digest(self.name)
        return status


def web(lab: Lab, files: Iterable[tuple[str, int]], rate: str = "0") -> tuple[WebServer, dict[str, str]]:
    """Start nginx at the correspondent with random files; returns it and their SHA-256 by name."""
    server = WebServer(lab.processes, "cn", lab.output / "nginx", rate)
    server.root.mkdir(parents=True, exist_ok=True)
    digests = {name: services.make_file(server.root / name, size) for name, size in files}
    server.start()
    return server, digests


def download(lab: Lab, name: str, wanted: str, *, six: bool = False, program: str = "curl") -> Download:
    """Start a download of a file by its name, over IPv6 if asked for, from the mobile node's home address."""
    server = f"[{lab.topology.address6('cn')}]" if six else str(lab.topology.address4("cn"))
    target = lab.output / "received" / f"{program}-{name.rpartition('/')[2]}"
    target.parent.mkdir(exist_ok=True)
    started = services.download(
        lab.processes,
        "mn",
        f"http://{server}/{name}",
        target,
        program,
        str(HOME_ADDRESS6 if six else HOME_ADDRESS4),
    )
    return Download(started, target, wanted, f"/{name}")


def live(lab: Lab, rate: str = "0") -> tuple[WebServer, LiveFilms]:
    """Start nginx at the correspondent with live films; `rate` is nginx's limit_rate, bytes per second."""
    server, _ = web(lab, [], rate)
    films = LiveFilms(lab.processes, "cn", lab.output / "live")
    films.start()
    return server, films


def watch(
    lab: Lab, films: LiveFilms, name: str = "film", *, six: bool = False, program: str = "curl"
) -> LiveDownload:
    """Start a download of a live film, as `download` does of a file."""
    made = download(lab, f"live/{name}", "", six=six, program=program)
    return LiveDownload(made.program, made.target, "", made.path, films)


def judge_sleeps(
    lab: Lab, sleeps: Sequence[Sleep], checks: Checks, *, bound_ms: float | None = 100.0
) -> None:
    """Everything that must be true of sleeps in the middle of downloads from the correspondent's port 80.

    `bound_ms` is the longest wait for an acknowledgement that is allowed around a hand-over; None only reports it.
    """
    segments = list(pcap.segments(lab.captures.files["cn"]))
    handovers = [
        measure.longest_wait(segments, PORT, sleep.closing, sleep.asleep + SETTLING) for sleep in sleeps
    ]
    reclaims = [
        measure.longest_wait(segments, PORT, sleep.opening, sleep.awake + SETTLING) for sleep in sleeps
    ]
    moved = [measure.acknowledged_bytes(segments, PORT, sleep.cut, sleep.restored) for sleep in sleeps]
    no_resets(checks, "cn_resets", segments)
    checks.more_than("bytes_while_asleep", min(moved), 10_000_000, "bytes")
    checks.at_least("radio_down_s", min(sleep.restored - sleep.cut for sleep in sleeps), 5.0, "s")
    checks.holds("programs_frozen", all(sleep.frozen for sleep in sleeps))
    in_captures = sum(_radio_frames_captured(lab, sleep) for sleep in sleeps)
    checks.equal("mn_frames_while_asleep", in_captures + sum(sleep.frames for sleep in sleeps), 0, "frames")
    for name, gap in (("handover_gap_ms", max(handovers)), ("reclaim_gap_ms", max(reclaims))):
        if bound_ms is None:
            checks.fact(name, 1000 * gap, "ms")
        else:
            checks.at_most(name, 1000 * gap, bound_ms, "ms")


def _radio_frames_captured(lab: Lab, sleep: Sleep) -> int:
    """Frames in the mobile node's capture, on its radios, while they were down."""
    radios = frozenset(lab.network.index("mn", name) for name in lab.topology.interfaces("mn"))
    return measure.frames_between(lab.captures.files["mn"], sleep.cut, sleep.restored, radios)
