"""Patience against another program that takes away the same setting again and again. Pure: time comes in."""

from dataclasses import dataclass

from locum.dataplane.kernel.host.lost import Key

TRIES = 5  # repairs at once; from then on the other program has some time, twice as much each time
FIRST = 0.5  # seconds, of that time
LONGEST = 60.0  # seconds between two repairs
CALM = 120.0  # seconds after which an earlier contest is forgotten
_MOST = 4096  # remembered settings


@dataclass(slots=True)
class _Contest:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Contests:
    """One entry for each setting that was lost lately."""

    def __init__(self) -> None:
        self._known: dict[Key, _Contest] = {}

    def wait(self, setting: Key, now: float) -> float:
        """Seconds until the setting may be made again; 0: now."""
        contest = self._known.get(setting)
        return 0.0 if contest is None else max(0.0, contest.until - now)

    def repaired(self, setting: Key, now: float) -> None:
        """It was made again just now, or could not be: after some of these the next repair has to wait."""
        contest = self._known.get(setting)
        if contest is None:
            self._prune(now)
            contest = self._known.setdefault(setting, _Contest())
        elif now - max(contest.last, contest.until) > CALM:
            contest.count = 0
        contest.count, contest.last = contest.count + 1, now
        if contest.count >= TRIES:
            contest.until = now + min(FIRST * 2.0 ** (contest.count - TRIES), LONGEST)

    def contested(self, now: float) -> list[Key]:
        """Settings whose next repair has to wait, or had to within the last CALM seconds."""
        return [
            setting
            for setting, contest in self._known.items()
            if contest.count >= TRIES and now - max(contest.last, contest.until) <= CALM
        ]

    def _prune(self, now: float) -> None:
        if len(self._known) < _MOST:
            return
        calm = {key: held for key, held in self._known.items() if now - max(held.last, held.until) <= CALM}
        self._known = calm if len(calm) < _MOST else {}
