"""Files and events of a proxy at the stand-in, and a server that is slow to answer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.processes import Program, wait_until
from locum.lab.programs import services
from locum.lab.world import Lab

PATIENCE = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Ordered:
    """The proxy of this name."""

    lab: Lab
    name: str

    def file(self, name: str) -> Path:
        """A file of it."""
        return self.lab.place.path / "state" / "mnps" / "mnps.apps" / str(HOME_ADDRESS4) / self.name / name

    def size(self, name: str) -> int:
        """Bytes of a file; 0 if there is none."""
        path = self.file(name)
        return path.stat().st_size if path.exists() else 0

    def sha256(self, name: str) -> str:
        """Digest of a file."""
        return services.sha256(self.file(name))

    def wait_for_size(self, name: str, size: int) -> None:
        """Until a file has so many bytes. Raises LabError."""
        wait_until(f"{size} bytes of {name}", lambda: self.size(name) >= size, PATIENCE)

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Until it has told so many events of this kind. Raises LabError."""
        wait_until(f"{self.name} to tell {kind}", lambda: len(self.events(kind)) >= count, PATIENCE)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Details of its events of this kind, as the stand-in has published them."""
        found = [event.detail for event in self.lab.timeline.of("mnps") if event.kind == "app-event"]
        return [row["detail"] for row in found if (row["app"], row["event"]) == (self.name, kind)]


def signal_workers(server: Program, number: int) -> None:
    """Send a signal to the processes that answer for a server: one that is stopped is slow to answer. Their parent gets none."""
    for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        os.kill(int(pid), number)


def unread(lab: Lab, port: int) -> int:
    """Bytes that wait for the correspondent's program at this port."""
    command = ["ss", "-Htn", "state", "established", "sport", "=", f":{port}"]
    return sum(int(line.split()[0]) for line in lab.processes.run("cn", command).stdout.splitlines())
