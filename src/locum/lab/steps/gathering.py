"""A crowd of connections in a lab: `locum.lab.programs.crowd` at both ends, and its counts."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from locum.lab.processes import Program
from locum.lab.programs.talking import hear, say
from locum.lab.world import Lab

PROGRAMS = 4
"""Programs of the device that share the connections, where there are so many."""
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """The correspondent's program, the device's, and the file with its figures."""

    host: Program
    visitors: Program
    out: Path

    def tell(self, line: str) -> None:
        """Say a line to the host: "some N", "all" or "end"."""
        say(self.host, line, answered=False)

    def heard(self) -> int:
        """Number of answers, by the host's next count. Raises LabError without one."""
        return int(hear(self.host, PATIENCE))

    def end(self) -> tuple[int, int]:
        """Close all connections; the exit statuses of host and visitors."""
        self.tell("end")
        return self.host.wait(PATIENCE), self.visitors.wait(PATIENCE)

    @property
    def figures(self) -> dict[str, int]:
        """Sums over all visitors: `wrong`, `bytes` of active ones, `lines` to idle ones."""
        found: dict[str, int] = json.loads(self.out.read_text())
        return found


def gather(lab: Lab, port: int, count: int, active: int = 0, rate: int = 0) -> Crowd:
    """Open `count` connections from the device to the correspondent's port; `active` of them get `rate` bytes a second."""
    crowd = [sys.executable, "-m", "locum.lab.programs.crowd"]
    numbers = [str(number) for number in (port, count, active)]
    pipe = subprocess.PIPE
    host = lab.processes.start("cn", "host", [*crowd, "serve", *numbers, str(rate)], stdin=pipe, stdout=pipe)
    hear(host, PATIENCE)
    out = lab.output / f"visitors-{port}.json"
    server = str(lab.topology.address4("cn"))
    shared = str(min(PROGRAMS, count))
    visitors = lab.processes.start("mn", "visitors", [*crowd, "visit", server, *numbers, shared, str(out)])
    hear(host, PATIENCE)
    return Crowd(host, visitors, out)
