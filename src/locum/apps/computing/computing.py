"""The course of a computation, whatever computes: rows from sessions and listeners in, events and messages out (A8, A10)."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from locum.apps.computing.conditions import Alarms
from locum.apps.computing.engines import ComputeError, Engine
from locum.apps.computing.messages import Form, TooLarge, by_group
from locum.apps.computing.progress import Progress
from locum.apps.computing.rows import BadRow, Row
from locum.apps.computing.settings import Emission, Settings
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import MAX_DETAIL, Effect, Note, Speak, Tell
from locum.roles.app_network import TCP, Connect, Send, SendTo
from locum.roles.app_results import DONE, FAILED, PROGRESS

LISTENER = 1
"""The number of the listener; connections to other hosts have the numbers after it."""
MAX_OUTGOING = 8
"""Messages on their way in connections of their own."""
_NOTED = 40  # characters of a bad line in the log
_MOST_NOTED = 20  # bad lines in the log


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of rows: a session, a connection, or a host that sent a datagram."""

    session: int | None = None
    connection: int | None = None
    host: str = ""
    port: int = 0


class Computing:
    """One computation. Times are steady seconds; every call returns what is to be done, in order."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self.engine = settings, engine
        self.progress = Progress()
        self._alarms = None if settings.when is None else Alarms(settings.when, settings.again)
        self._began = 0.0
        self._emit_at: float | None = None
        self._origin = Origin()
        self.outgoing: dict[int, bytes] = {}

    # rows

    def take(self, lines: Iterable[bytes], origin: Origin, *, now: float) -> list[Effect]:
        """Lines that are complete."""
        self._origin = origin
        effects: list[Effect] = []
        batch: list[tuple[bytes, Row]] = []
        mark = self._settings.until.mark
        for line in lines:
            if self.progress.over:
                self.progress.counts["late"] += 1
            elif mark and line == mark:
                effects += self._run(batch, now)
                effects += self._complete("mark")
                batch = []
            else:
                effects += self._read(line, batch, now)
        return effects + self._run(batch, now)

    def _read(self, line: bytes, batch: list[tuple[bytes, Row]], now: float) -> list[Effect]:
        """Add the line to the batch, which may be run then."""
        try:
            row = self._settings.format.read(line)
            if row is None:
                return []
            self.engine.check(row)
        except BadRow as problem:
            return self._run(batch, now) + self.bad(problem, line)
        batch.append((line, row))
        return self._run(batch, now) if self._is_time(self.progress.rows + len(batch)) else []

    def _is_time(self, rows: int) -> bool:
        """True if something depends on the results after so many rows."""
        emission = self._settings.emission
        every = None if emission is None else emission.rows
        return (
            not self.engine.at_once
            or rows == self._settings.until.rows
            or (every is not None and rows % every == 0)
        )

    def bad(self, problem: BadRow, line: bytes = b"") -> list[Effect]:
        """A line is no row that can be used."""
        if self.progress.over:
            return []
        self.progress.errors[problem.kind] += 1
        text = f"{problem}: {line[:_NOTED]!r}"
        if self._settings.end_on_error:
            return self.fail(text)
        return [Note(text)] if self.progress.errors.total() <= _MOST_NOTED else []

    def _run(self, batch: list[tuple[bytes, Row]], now: float) -> list[Effect]:
        """Give the rows to the engine; the batch is empty afterwards."""
        if not batch or self.progress.over:
            batch.clear()
            return []
        rows = [row for _, row in batch]
        self.progress.rows += len(rows)
        emission = self._settings.emission
        if emission is not None and emission.form.form == "lines":
            for line, _ in batch:
                self.progress.remember(line)
        batch.clear()
        return self.step(lambda: self.engine.feed(rows, now=now)) + self._fed()

    def step(self, step: Callable[[], Sequence[str]]) -> list[Effect]:
        """Have the engine do something that changes the results of the groups that it returns."""
        if self.progress.over:
            return []
        try:
            changed = step()
        except ComputeError as problem:
            return self.fail(str(problem))
        effects = self._changed(changed)
        return effects + (self._complete(why) if (why := self.engine.full()) else [])

    def _fed(self) -> list[Effect]:
        """Effects that follow from the number of rows."""
        rows, emission = self.progress.rows, self._settings.emission
        effects: list[Effect] = []
        if self.progress.over:
            return effects
        if emission is not None and emission.rows is not None and rows % emission.rows == 0:
            effects += self._emit(emission, self.engine.results())
        return effects + (self._complete("rows") if rows == self._settings.until.rows else [])

    def _changed(self, groups: Sequence[str]) -> list[Effect]:
        """Groups have new results."""
        emission, effects = self._settings.emission, list[Effect]()
        for group in groups:
            result = {group: self.engine.result(group)}
            if emission is not None and "window" in emission.on and self._settings.windows:
                effects += self._emit(emission, result)
            if self._alarms is not None and self._alarms.rises(group, result[group]):
                detail: dict[str, JSON] = {"why": "condition", "condition": self._alarms.when.text}
                effects.append(self._tell("computed", detail, result))
                if emission is not None and "condition" in emission.on:
                    effects += self._emit(emission, result)
        return effects

    # the end

    def _complete(self, why: str) -> list[Effect]:
        if self.progress.over:
            return []
        self.progress.complete = why
        results = self.engine.results()
        effects: list[Effect] = [self._tell("computed", {"why": "complete", "complete": why}, results)]
        emission = self._settings.emission
        if emission is not None and "complete" in emission.on:
            effects += self._emit(emission, results)
        return effects

    def fail(self, reason: str) -> list[Effect]:
        """The computation cannot go on."""
        if self.progress.over:
            return []
        self.progress.failed = reason
        return [Note(reason), Tell("computation_failed", self._origin.session, {"reason": reason[:500]})]

    def _tell(self, kind: str, detail: dict[str, JSON], results: Mapping[str, Mapping[str, JSON]]) -> Tell:
        """An event with as many results as it may have."""
        detail["rows"] = self.progress.rows
        whole = {**detail, **_json(by_group(results))}
        if len(json.dumps(whole)) > MAX_DETAIL:
            fitting: dict[str, Mapping[str, JSON]] = {}
            for group, result in results.items():
                if (
                    len(json.dumps({**detail, **_json(by_group({**fitting, group: result}))}))
                    > MAX_DETAIL - 40
                ):
                    break
                fitting[group] = result
            whole = {**detail, "left_out": len(results) - len(fitting), **_json(by_group(fitting))}
        return Tell(kind, self._origin.session, whole)

    # messages

    def _emit(self, emission: Emission, results: Mapping[str, Mapping[str, JSON]]) -> list[Effect]:
        """One message from what has arrived (A10)."""
        try:
            data = emission.form.write(self.progress.rows, results, self.progress.lines)
        except TooLarge as problem:
            return self._unsent(str(problem))
        self.progress.lines.clear()
        if not data:
            return []
        if emission.to == "device":
            self.progress.leave(data.decode(errors="replace"))
            return []
        way = self._way(emission, data)
        if way is None:
            return self._unsent("a message has nobody to go to")
        self.progress.counts["sent"] += 1
        return [way]

    def _way(self, emission: Emission, data: bytes) -> Effect | None:
        origin = self._origin
        if emission.to == "host":
            if emission.protocol != TCP:
                return SendTo(LISTENER, emission.host, emission.port, data)
            free = [n for n in range(LISTENER + 1, LISTENER + 1 + MAX_OUTGOING) if n not in self.outgoing]
            if not free:
                return None
            self.outgoing[free[0]] = data
            return Connect(free[0], emission.host, emission.port)
        if origin.session is not None:
            return Speak(origin.session, data)
        if origin.connection is not None:
            return Send(origin.connection, data)
        return SendTo(LISTENER, origin.host, origin.port, data) if origin.host else None

    def _unsent(self, reason: str) -> list[Effect]:
        self.progress.counts["unsent"] += 1
        return [Note(f"not sent: {reason}")]

    def lost(self, connection: int, reason: str) -> list[Effect]:
        """A connection for one message has ended before it was sent."""
        del self.outgoing[connection]
        self.progress.counts["sent"] -= 1
        return self._unsent(reason)

    def forget(self, origin: Origin) -> None:
        """Answer this source no more."""
        if self._origin == origin:
            self._origin = Origin()

    # for the device's program

    @property
    def unused(self) -> int:
        """Lines that were not computed with, and the failure."""
        return self.progress.errors.total() + self.progress.counts["late"] + bool(self.progress.failed)

    def replacement(self) -> bytes:
        """The result in the place of the rows that have completed it; empty before."""
        if not self.progress.complete:
            return b""
        emission = self._settings.emission
        form = Form() if emission is None or emission.form.form == "lines" else emission.form
        try:
            return form.write(self.progress.rows, self.engine.results(), ())
        except TooLarge:
            return b""

    # time

    def timeout(self, *, now: float) -> list[Effect]:
        """The deadline has come."""
        if self.progress.over:
            return []
        effects = self.step(lambda: self.engine.pass_time(now=now))
        emission, until = self._settings.emission, self._settings.until
        if emission is not None and self._emit_at is not None and self._emit_at <= now:
            self._emit_at = now + (emission.seconds or 0.0)
            if self.progress.rows:
                effects += self._emit(emission, self.engine.results())
        if until.seconds is not None and self._began + until.seconds <= now:
            effects += self._complete("seconds")
        return effects

    def deadline(self) -> float | None:
        if self.progress.over:
            return None
        seconds = self._settings.until.seconds
        over = None if seconds is None else self._began + seconds
        times = [at for at in (self.engine.deadline(), self._emit_at, over) if at is not None]
        return min(times, default=None)

    # state and result

    def begin(self, *, now: float) -> None:
        """Without a state, or after `restore`."""
        self._began = now - self.progress.elapsed
        emission = self._settings.emission
        if emission is not None and emission.seconds is not None:
            self._emit_at = now + emission.seconds

    def state(self, *, now: float) -> dict[str, object]:
        self.progress.elapsed = now - self._began
        return {
            "progress": self.progress.state(),
            "engine": dict(self.engine.state(now=now)),
            "alarms": sorted(self._alarms.raised) if self._alarms is not None else [],
            "peer": [self._origin.host, self._origin.port],
        }

    def restore(self, state: Mapping[str, object], *, now: float) -> None:
        """Raises ValueError, TypeError, KeyError or IndexError."""
        progress, engine, alarms, peer = state["progress"], state["engine"], state["alarms"], state["peer"]
        if not isinstance(progress, dict) or not isinstance(engine, dict) or not isinstance(alarms, list):
            raise ValueError("this is not the state of a computation")
        self.progress = Progress.of(progress)
        self.engine.restore(engine, now=now)
        if self._alarms is not None:
            self._alarms.raised = set(map(str, alarms))
        match peer:
            case [str(host), int(port)]:
                self._origin = Origin(host=host, port=port)

    def result(self) -> dict[str, JSON]:
        """For the device."""
        found = {**self.progress.result(), **self.engine.counts(), **_json(by_group(self.engine.results()))}
        found[PROGRESS] = self.progress.rows
        if self.progress.complete:
            found[DONE] = True
        if self.progress.failed:
            found[FAILED] = self.progress.failed
        return found


def _json(found: Mapping[str, object]) -> dict[str, JSON]:
    plain: dict[str, JSON] = json.loads(json.dumps(found))
    return plain
