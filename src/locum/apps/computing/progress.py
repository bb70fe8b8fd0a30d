"""How far a computation is: what its state and its result hold besides those of its engine."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from locum.apps.computing.messages import MAX_MESSAGE
from locum.apps.computing.rows import KINDS
from locum.roles.action_values.addresses import JSON

MAX_MESSAGES = 4
"""Messages that wait for the device; the oldest ones give way."""


@dataclass(slots=True)
class Progress:
    """`elapsed` seconds while the device slept. `complete` and `failed` say why it is over, and are empty before."""

    rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    complete: str = ""
    failed: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[bytes] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return bool(self.complete or self.failed)

    def remember(self, line: bytes) -> None:
        """Keep a line for the next message; the oldest ones give way."""
        self.lines.append(line)
        while sum(len(kept) + 1 for kept in self.lines) > MAX_MESSAGE:
            self.lines.pop(0)
            self.counts["lines_left_out"] += 1

    def leave(self, message: str) -> None:
        """Keep a message for the device."""
        self.messages.append(message)
        if len(self.messages) > MAX_MESSAGES:
            self.messages.pop(0)
            self.counts["messages_left_out"] += 1

    def result(self) -> dict[str, JSON]:
        """For the device, without parts that say nothing."""
        found: dict[str, JSON] = {"rows": self.rows}
        if self.errors:
            found["errors"] = dict(self.errors)
        found.update({name: count for name, count in self.counts.items() if count})
        if self.complete:
            found["complete"] = self.complete
        if self.messages:
            found["messages"] = list(self.messages)
        return found

    def state(self) -> dict[str, object]:
        return {
            "rows": self.rows,
            "errors": dict(self.errors),
            "elapsed": self.elapsed,
            "complete": self.complete,
            "failed": self.failed,
            "counts": dict(self.counts),
            "lines": list(self.lines),
            "messages": list(self.messages),
        }

    @classmethod
    def of(cls, state: Mapping[str, object]) -> "Progress":
        """Raises KeyError or ValueError."""
        match state:
            case {
                "rows": int(rows),
                "errors": dict(errors),
                "elapsed": float(elapsed),
                "complete": str(complete),
                "failed": str(failed),
                "counts": dict(counts),
                "lines": list(lines),
                "messages": list(messages),
            } if set(errors) <= set(KINDS):
                return cls(
                    rows,
                    Counter({str(name): int(count) for name, count in errors.items()}),
                    elapsed,
                    complete,
                    failed,
                    Counter({str(name): int(count) for name, count in counts.items()}),
                    [bytes(line) for line in lines if isinstance(line, bytes)],
                    [str(message) for message in messages],
                )
        raise ValueError("this is not the state of a computation")
