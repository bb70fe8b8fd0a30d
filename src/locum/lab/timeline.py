"""The event streams of all nodes of a lab, and the lab's own marks, as one stream ordered by time.

The daemons write JSON lines; this reads them while they are being written. It does not interpret them.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locum.lab.errors import LabError
from locum.lab.patience import patient

LAB = "lab"
"""The node name of the lab's own marks: the lid closes, the radio is cut."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an event stream. `message` is the number in the source text, where there is one."""

    time: float
    node: str
    kind: str
    message: str | None = None
    home_address: str | None = None
    flow: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: str) -> "Event":
        """Raises ValueError when the line is not an event."""
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError(f"not an event: {line[:80]}")
        return cls(
            float(value["time"]), str(value["node"]), str(value["kind"]), value.get("message"),
            value.get("home_address"), value.get("flow"), value.get("detail") or {},
        )  # fmt: skip

    def to_line(self) -> str:
        return json.dumps(
            {
                "time": self.time,
                "node": self.node,
                "kind": self.kind,
                "message": self.message,
                "home_address": self.home_address,
                "flow": self.flow,
                "detail": dict(self.detail),
            }
        )


class Timeline:
    """A folder of <node>.jsonl files. `listener` is called with every mark of the lab."""

    def __init__(self, folder: Path, listener: Callable[[Event], None] | None = None) -> None:
        self.folder = folder
        self.listener = listener
        folder.mkdir(parents=True, exist_ok=True)

    def mark(self, kind: str, **detail: object) -> float:
        """Write an event of the lab itself; returns its time, which is now."""
        event = Event(time.time(), LAB, kind, detail=detail)
        with (self.folder / f"{LAB}.jsonl").open("a") as file:
            file.write(event.to_line() + "\n")
        if self.listener is not None:
            self.listener(event)
        return event.time

    def of(self, node: str) -> Iterator[Event]:
        """The events of one node so far, a file that was rotated included; an unfinished line is left out."""
        for name in (f"{node}.jsonl.1", f"{node}.jsonl"):
            path = self.folder / name
            if path.exists():
                for line in path.read_text(errors="replace").splitlines(keepends=True):
                    if line.endswith("\n"):
                        yield Event.from_line(line)

    def events(self, since: float = 0.0) -> list[Event]:
        """Events of all nodes in the order of their times."""
        nodes = {path.name.split(".")[0] for path in self.folder.glob("*.jsonl*")}
        found = [event for node in sorted(nodes) for event in self.of(node) if event.time >= since]
        return sorted(found, key=lambda event: event.time)

    def count(self, node: str, kind: str, since: float = 0.0) -> int:
        return sum(1 for event in self.of(node) if event.kind == kind and event.time >= since)

    def wait(self, node: str, kinds: str | tuple[str, ...], since: float, patience: float = 15.0) -> Event:
        """The first event of a node of one of these kinds. Raises LabError when patience (seconds) runs out."""
        wanted = (kinds,) if isinstance(kinds, str) else kinds
        longest = patient(patience)
        deadline = time.monotonic() + longest
        while True:
            for event in self.of(node):
                if event.time >= since and event.kind in wanted:
                    return event
            if time.monotonic() > deadline:
                raise LabError(f"{node} did not say {' or '.join(wanted)} within {longest:.0f} s")
            time.sleep(0.02)

    def merge(self, target: Path) -> Path:
        """Write the whole stream to one file."""
        target.write_text("".join(event.to_line() + "\n" for event in self.events()))
        return target
