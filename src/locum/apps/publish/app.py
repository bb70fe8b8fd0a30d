"""The `publish` proxy: a listener, its connections, and the version of the content that they get (A5).

An update is a new archive beside the old one. It takes over when all of it was read and is durable; a request gets the version
that was there when the request was read, and the old archive goes when its last byte has been sent.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate

import h11

from locum.apps.publish.answers import Answer, answer
from locum.apps.publish.exchange import Exchange, Patience, Remembered, Served
from locum.apps.publish.intake import UPLOADED, Intake, moment_of
from locum.apps.publish.settings import Settings, read
from locum.apps.publish.site import Site
from locum.apps.publish.tally import Tally
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Note, Port, Tell
from locum.roles.app_network import (
    TCP,
    Abort,
    Accepted,
    Data,
    Drained,
    Ended,
    Failed,
    Files,
    Happening,
    Listen,
    Loaded,
    Opened,
    Pause,
    Remove,
    Resume,
    Send,
    Synced,
)
from locum.roles.app_results import PROBLEM, RESULT
from locum.wire.control import Flow

LISTENER = 1
MAX_REMEMBERED = 1024
"""Requests whose answers are in memory; with more of them all are forgotten."""
TICK = 1.0
"""Seconds between two looks at connections that take too long."""
KEPT = 10.0
"""Seconds between two notes of the counts for a next process."""
TOLD = 60.0
"""Seconds between two `served` events."""
LISTEN_AGAIN = 5.0


class Publish:
    """`clock` gives seconds since 1970, for Date and Last-Modified."""

    takes_uploads = True

    def __init__(
        self, settings: object, randomness: Randomness, clock: Callable[[], float] = time.time
    ) -> None:
        assert isinstance(settings, Settings)
        self._settings, self._clock = settings, clock
        self._patience = Patience(settings.head_seconds, settings.idle_seconds, settings.stall_seconds)
        self._site: Site | None = None
        self._intake: Intake | None = None
        self._fallback: int | None = None  # the version to take if a new one is refused
        self._uploaded = False  # another archive has come meanwhile
        self._loading = True  # nothing is known of the files yet, or the first version is being read
        self._latest = 0  # moment of the last version
        self._retiring: set[str] = set()  # archives that are of use until their last byte was sent
        self._exchanges: dict[int, Exchange] = {}
        self._peers: Counter[str] = Counter()
        self._full = False
        self._refused = 0
        self._memory: dict[bytes, Remembered] = {}
        self._second, self._date = -1, b""
        self._now = 0.0
        self._tally = Tally(settings.lines)
        self._notes: list[Effect] = []
        self._tick: float | None = None
        self._listen_at: float | None = None
        self._deaf = ""  # why it does not listen
        self._kept = (0, 0.0)  # requests, and when they were kept
        self._told = (0, -TOLD)

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        return read(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """No session of the device: a connection that is open when the device falls asleep is held."""
        return False

    @staticmethod
    def ports(settings: object) -> Mapping[str, Port]:
        """Its own."""
        assert isinstance(settings, Settings)
        return {"port": (TCP, settings.port)}

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        self._tally.restore(state.get(RESULT))
        self._kept, self._told = (self._tally.requests, now), (self._tally.requests, -TOLD)
        return [Listen(LISTENER, self._settings.port)]

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        return []

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return []

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        self._now = now
        effects = self._data(event) if isinstance(event, Data) else self._other(event)
        if self._notes:
            effects += self._notes
            self._notes = []
        return effects

    def timeout(self, *, now: float) -> list[Effect]:
        """End connections that take too long; note counts."""
        self._now = now
        effects: list[Effect] = []
        if self._listen_at is not None and self._listen_at <= now:
            self._listen_at = None
            effects.append(Listen(LISTENER, self._settings.port))
        if self._tick is None or self._tick > now:
            return effects
        if not self._loading:
            for exchange in self._exchanges.values():
                effects += exchange.overdue(self._patience, now=now)
        effects += self._noted()
        unnoted = self._kept[0] != self._tally.requests or self._told[0] != self._tally.requests
        self._tick = now + TICK if self._exchanges or unnoted else None
        effects += self._notes
        self._notes = []
        return effects

    def deadline(self) -> float | None:
        if self._listen_at is None:
            return self._tick
        return self._listen_at if self._tick is None else min(self._tick, self._listen_at)

    def end(self, *, now: float) -> Mapping[str, object]:
        return {RESULT: self._result()}

    # connections

    def _data(self, event: Data) -> list[Effect]:
        exchange = self._exchanges.get(event.connection)
        if exchange is None:
            return []
        if exchange.idle and (known := self._memory.get(event.data)) is not None:
            self.served(exchange, known.served)
            data = known.before + self.date() + known.after + known.body
            exchange.said(len(data), now=self._now)
            return [Send(exchange.number, data)]
        return [*exchange.received(event.data, ready=not self._loading, now=self._now)]

    def _other(self, event: Happening) -> list[Effect]:
        match event:
            case Drained():
                exchange = self._exchanges.get(event.connection)
                effects: list[Effect] = [] if exchange is None else [*exchange.drained(now=self._now)]
                return effects + self._retire()
            case Accepted():
                return self._accepted(event)
            case Ended():
                return self._ended(event)
            case Opened():
                self._deaf = ""
                return [Note(f"listens at port {self._settings.port}")]
            case Files():
                return self._files(event)
            case Loaded() | Synced() | Failed():
                if self._intake is None:
                    return []
                return [*self._intake.happened(event), *self._taken_in()]
        return []

    def _accepted(self, event: Accepted) -> list[Effect]:
        if self._peers[event.peer] >= self._settings.connections_per_peer:
            self._refused += 1
            return [Abort(event.connection)]
        self._peers[event.peer] += 1
        self._exchanges[event.connection] = Exchange(event.connection, event.peer, self, self._now)
        if self._tick is None:
            self._tick = self._now + TICK
        if len(self._exchanges) < self._settings.connections:
            return []
        idle = [exchange for exchange in self._exchanges.values() if exchange.idle]
        effects: list[Effect] = []
        if len(idle) > 1:  # the newest one is idle, too
            effects += min(idle, key=lambda exchange: exchange.since).finish()
        if not self._full:
            self._full = True
            effects.append(Pause(LISTENER))
        return effects

    def _ended(self, event: Ended) -> list[Effect]:
        if event.connection == LISTENER:
            self._listen_at = self._now + LISTEN_AGAIN
            self._deaf = f"port {self._settings.port} of the home address: {event.reason or 'closed'}"
            detail: dict[str, JSON] = {"port": self._settings.port, "reason": event.reason}
            return [
                Note(f"cannot listen at port {self._settings.port}: {event.reason}"),
                Tell("deaf", None, detail),
            ]
        exchange = self._exchanges.pop(event.connection, None)
        if exchange is None:
            return []
        self._peers[exchange.peer] -= 1
        if not self._peers[exchange.peer]:
            del self._peers[exchange.peer]
        effects = self._retire()
        if self._full and len(self._exchanges) < self._settings.connections:
            self._full = False
            effects.append(Resume(LISTENER))
        return effects

    # the requests' side of an exchange

    def answer(self, request: h11.Request) -> Answer:
        """The answer of the present version."""
        fields: dict[str, str] = {}
        for name, value in request.headers:
            key, text = name.decode("ascii"), value.decode("latin-1")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        return answer(
            request.method.decode("ascii"),
            request.target.decode("ascii"),
            request.http_version.decode("ascii"),
            fields,
            self._site,
        )

    def date(self) -> bytes:
        """The Date of now."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode("ascii")
        return self._date

    def served(self, exchange: Exchange, served: Served) -> None:
        """Count."""
        self._notes += self._tally.served(exchange.peer, served, now=self._now)

    def remember(self, raw: bytes, remembered: Remembered) -> None:
        """The same bytes get the same answer as long as this version is there."""
        if len(self._memory) >= MAX_REMEMBERED:
            self._memory.clear()
        self._memory[raw] = remembered

    # content

    def _files(self, event: Files) -> list[Effect]:
        names = {name for name, _size in event.files}
        moments = sorted(moment for name in names if (moment := moment_of(name)) is not None)
        self._uploaded = UPLOADED in names
        if self._intake is not None or self._site is not None:
            return self._next_upload()
        self._fallback = moments[-1] if moments else None
        self._latest = moments[-1] if moments else 0
        self._retiring = {name for name in names if moment_of(name) not in (None, self._fallback)}
        return [*self._retire(), *self._next_upload()]

    def _next_upload(self) -> list[Effect]:
        """Take the archive in that waits, or the one that was there before."""
        if self._intake is not None:
            return []
        if self._uploaded:
            self._uploaded = False
            self._latest = max(int(self._clock()), self._latest + 1)
            self._intake = Intake(self._latest, uploaded=True)
            return self._intake.begin()
        if self._site is None and self._fallback is not None:
            self._intake, self._fallback = Intake(self._fallback, uploaded=False), None
            return self._intake.begin()
        if not self._loading:
            return []
        self._loading = False
        return [Note("there is no content yet"), *self._all_go_on()]

    def _taken_in(self) -> list[Effect]:
        """The archive is a version, or refused."""
        intake = self._intake
        if intake is None or not intake.done:
            return []
        self._intake = None
        if intake.entries is None or intake.problem:
            reason = intake.problem
            effects: list[Effect] = [
                Note(f"the archive is refused: {reason}"),
                Tell("refused", None, {"reason": reason[:500]}),
                Remove(intake.file),
            ]
            return effects + self._next_upload()
        if self._site is not None:
            self._retiring.add(self._site.file)
        if self._fallback is not None:
            self._retiring.add(Intake(self._fallback, uploaded=False).file)
            self._fallback = None
        site = Site(intake.file, intake.entries, intake.moment, self._settings)
        self._site = site
        self._memory.clear()
        detail: dict[str, JSON] = {"files": len(site.resources), "bytes": site.length, "since": site.modified}
        effects = [Note(f"serves {len(site.resources)} files, {site.length} bytes"), *self._retire()]
        if intake.uploaded:
            effects.append(Tell("published", None, detail))
        self._loading = False
        return [*effects, *self._all_go_on(), *self._next_upload()]

    def _all_go_on(self) -> list[Effect]:
        """Answer what was asked meanwhile."""
        effects: list[Effect] = []
        for exchange in self._exchanges.values():
            if not exchange.idle and not exchange.ending:
                effects += exchange.go_on(now=self._now)
        return effects

    def _retire(self) -> list[Effect]:
        """Remove archives of which nothing is on its way."""
        if not self._retiring:
            return []
        used = {file for exchange in self._exchanges.values() for file in exchange.pinned}
        gone = sorted(self._retiring - used)
        self._retiring -= set(gone)
        return [Remove(file) for file in gone]

    # results

    def _result(self) -> dict[str, object]:
        site = self._site
        version = (
            None
            if site is None
            else {"files": len(site.resources), "bytes": site.length, "since": site.modified}
        )
        counts = self._tally.state()
        return {
            **counts,
            "refused_connections": self._refused,
            "version": version,
            "progress": self._tally.requests,
            **({PROBLEM: self._deaf} if self._deaf else {}),
        }

    def _noted(self) -> list[Effect]:
        requests = self._tally.requests
        effects: list[Effect] = []
        if requests != self._kept[0] and self._now - self._kept[1] >= KEPT:
            self._kept = requests, self._now
            effects += [*self._tally.unlogged(), Keep({RESULT: self._result()})]
        if requests != self._told[0] and self._now - self._told[1] >= TOLD:
            effects.append(
                Tell("served", None, {"requests": requests - self._told[0], "bytes": self._tally.bytes})
            )
            self._told = requests, self._now
        return effects
