"""A device's web site stays at its address: its own server while it is awake, the stand-in while it sleeps (A5)."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

NAME = "site"
FILM = 3_000_000
SLEEPS, AWAKE, ASLEEP = 5, 5, 15
"""Requests before each sleep and in it: 100 in all. The content changes after the second sleep."""


@dataclass(slots=True)
class Got:
    """The answer to one request, as curl had it."""

    status: str
    address: str
    right: bool


@dataclass(slots=True)
class Site:
    """The content of the device, in the folder that its own server serves as well."""

    root: Path
    version: int = 0
    contents: dict[str, bytes] = field(default_factory=dict)

    def write(self) -> None:
        """The next version: a page, and a file that is different from byte to byte."""
        self.version += 1
        film = hashlib.shake_256(bytes([self.version])).digest(FILM)
        page = f"<h1>version {self.version}</h1>\n".encode()
        self.contents = {"/": page, "/films/film.bin": film}
        (self.root / "films").mkdir(parents=True, exist_ok=True)
        (self.root / "index.html").write_bytes(page)
        (self.root / "films" / "film.bin").write_bytes(film)


class AppPublish(Scenario):
    """Five sleeps, an update between them, and a sleep without the proxy.

    A stock nginx is the device's own server, and a stock curl asks at the correspondent.
    """

    name = "app-publish"
    title = "a sleeping device's web site is served from its address, each time in the right version"
    opaque = "80"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server = WebServer(lab.processes, "mn", lab.output / "own", addresses=(str(HOME_ADDRESS4),))
        self.server.start()
        self.site = Site(self.server.root)
        self.site.write()
        self.got: list[Got] = []
        self._upload(lab)
        for number in range(SLEEPS):
            if number == 2:
                self.site.write()
                self._upload(lab)
            self._ask(lab, AWAKE)
            lab.close_lid("an1")
            wait_until("the proxy to serve", lambda: "serves" in lab.command("mnps", "app", "log", NAME), 60)
            self._ask(lab, ASLEEP)
            if number == 0:
                self._validate(lab)
            lab.open_lid("an1")
        lab.command("mn", "order", "cancel", NAME)
        lab.close_lid("an1")
        self.without = self._curl(lab, "/", "-m", "3")[0]
        lab.open_lid("an1")

    def _upload(self, lab: Lab) -> None:
        said = lab.command("mn", "order", "publish", NAME, str(self.server.root))
        lab.timeline.mark("uploaded", version=self.site.version, said=said.strip())

    def _ask(self, lab: Lab, count: int) -> None:
        """So many requests; every fourth one is for the larger file."""
        for number in range(count):
            path = "/films/film.bin" if number % 4 == 3 else "/"
            status, address, body = self._curl(lab, path)
            self.got.append(Got(status, address, body == self.site.contents[path]))

    def _validate(self, lab: Lab) -> None:
        """Three requests asleep with a validator or a range."""
        tag = lab.output / "etag"
        frames = lab.radio_frames()
        self._curl(lab, "/films/film.bin", "--etag-save", str(tag))
        self.unchanged = self._curl(lab, "/films/film.bin", "--etag-compare", str(tag))[0]
        self.resumed = self._resume(lab)
        self.frames = lab.radio_frames() - frames

    def _curl(self, lab: Lab, path: str, *options: str) -> tuple[str, str, bytes]:
        """Status, the address that answered, and the body."""
        file = lab.output / "body"
        file.unlink(missing_ok=True)
        url = f"http://{HOME_ADDRESS4}{path}"
        command = [
            "curl",
            "-s",
            "-m",
            "30",
            "-o",
            str(file),
            "-w",
            "%{http_code} %{remote_ip}",
            *options,
            url,
        ]
        done = lab.processes.run("cn", command)
        status, _, address = done.stdout.partition(" ")
        return status, address, file.read_bytes() if file.exists() else b""

    def _resume(self, lab: Lab) -> bool:
        """True if the rest of a file fits its beginning."""
        film = self.site.contents["/films/film.bin"]
        file = lab.output / "part"
        file.write_bytes(film[: FILM // 3])
        url = f"http://{HOME_ADDRESS4}/films/film.bin"
        done = lab.processes.run("cn", ["curl", "-s", "-m", "30", "-C", "-", "-o", str(file), url])
        if done.returncode:
            raise LabError(f"curl: exit status {done.returncode}")
        return file.read_bytes() == film

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("requests", len(self.got), SLEEPS * (AWAKE + ASLEEP))
        checks.equal("answered", sum(got.status == "200" for got in self.got), len(self.got))
        checks.equal("right_version", sum(got.right for got in self.got), len(self.got))
        checks.holds("one_address", {got.address for got in self.got} == {str(HOME_ADDRESS4)})
        checks.holds("resumed", self.resumed)
        checks.equal("unchanged_status", int(self.unchanged), 304)
        others = 3  # of `_validate`
        results = [event.detail["result"] for event in lab.timeline.of("mn") if event.kind == "app-result"]
        checks.equal(
            "served_by_the_stand_in", sum(result["requests"] for result in results), SLEEPS * ASLEEP + others
        )
        checks.equal("served_by_the_device", len(self.server.requests()), SLEEPS * AWAKE)
        checks.equal("radio_frames_asleep", self.frames, 0)
        checks.equal("wakes_by_requests", _wakes(lab) - SLEEPS - 1, 0)
        judge_wakes(lab, checks, (), most=0)
        # Each request of those sleeps would have had to wake the device.
        checks.equal("answered_without_the_proxy", int(self.without), 0)
        published = [
            event
            for event in lab.timeline.of("mnps")
            if event.kind == "app-event" and event.detail["event"] == "published"
        ]
        checks.equal("versions", len(published), 2)


def _wakes(lab: Lab) -> int:
    """How often the device has taken its sessions back."""
    return sum(event.kind == "awake" for event in lab.timeline.of("mn"))
