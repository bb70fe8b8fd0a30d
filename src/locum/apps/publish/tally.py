"""Counts of what was served, and the lines of the access log, both bounded."""

from collections import Counter
from collections.abc import Mapping

from locum.apps.publish.exchange import Served
from locum.roles.app_contract import Note

MAX_PATHS = 1000
"""Paths that are counted one by one; requests of others are counted together."""
SHOWN = 50
"""Paths in a result: those with most requests."""
SHOWN_PATH = 120
"""Characters of a path in a result and a line."""
BURST = 50
"""Lines at once."""


class Tally:
    """`lines` a second of the access log, on average."""

    def __init__(self, lines: float) -> None:
        self.requests = self.bytes = self.others = 0
        self.statuses: Counter[int] = Counter()
        self.paths: Counter[str] = Counter()
        self._rate, self._credit, self._at = lines, float(BURST) if lines else 0.0, 0.0
        self._unlogged = 0

    def served(self, peer: str, served: Served, *, now: float) -> list[Note]:
        """Count it; the line of it, if there is room for one now."""
        answer = served.answer
        length = answer.length
        self.requests += 1
        self.bytes += length
        self.statuses[answer.status] += 1
        if answer.path in self.paths or len(self.paths) < MAX_PATHS:
            self.paths[answer.path] += 1
        else:
            self.others += 1
        self._credit = min(self._credit + (now - self._at) * self._rate, BURST if self._rate else 0.0)
        self._at = now
        if self._credit < 1.0:
            self._unlogged += 1
            return []
        self._credit -= 1.0
        return [
            *self.unlogged(),
            Note(f"{peer} {served.method} {served.target[:SHOWN_PATH]} {int(answer.status)} {length}"),
        ]

    def unlogged(self) -> list[Note]:
        """A line for the requests without one."""
        count, self._unlogged = self._unlogged, 0
        return [Note(f"and {count} more requests")] if count else []

    def state(self) -> Mapping[str, object]:
        """For `restore`, and for a result."""
        top = sorted(self.paths.items(), key=lambda item: -item[1])[:SHOWN]
        shown = {path[:SHOWN_PATH]: count for path, count in top if path}
        return {
            "requests": self.requests,
            "bytes": self.bytes,
            "statuses": {str(int(status)): count for status, count in sorted(self.statuses.items())},
            "paths": shown,
            "others": self.requests - sum(shown.values()),
        }

    def restore(self, state: object) -> None:
        """Go on from the counts of an earlier process; anything else is passed over."""
        if not isinstance(state, dict):
            return
        requests, length = state.get("requests"), state.get("bytes")
        if isinstance(requests, int) and isinstance(length, int):
            self.requests, self.bytes = requests, length
        for key, into in (("statuses", self.statuses), ("paths", self.paths)):
            counts = state.get(key)
            for name, count in counts.items() if isinstance(counts, dict) else ():
                if isinstance(count, int) and (key == "paths" or str(name).isdecimal()):
                    into[int(name) if key == "statuses" else name] += count  # type: ignore[index]
