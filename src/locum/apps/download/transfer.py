"""One ordered download: its attempts, and its file (A4). Happenings in, effects out.

The file grows as NAME.part. It gets its name when all of it is there, its length and digests are right, and the disk has it.
An attempt that fails is followed by another one, which asks for the rest if the server says that the file is still the same.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping

from locum.apps.download.address import Address
from locum.apps.download.digests import WANTED, Digests, Running, digests, of_representation
from locum.apps.download.reading import Body, Complete, Elsewhere, judge, strong_validator
from locum.apps.download.response import End, Head, HttpError, Response
from locum.apps.download.settings import Settings, Wanted
from locum.apps.download.stages import (
    Asking,
    Failed,
    GiveUp,
    Naming,
    Receiving,
    Rereading,
    Retry,
    Stage,
    Stored,
    Storing,
    Waiting,
)
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import Effect, Note
from locum.roles.app_network import (
    MAX_LOAD,
    Abort,
    Append,
    Connect,
    Finish,
    Load,
    Remove,
    Rename,
    Send,
    Sync,
    Truncate,
)
from locum.roles.app_results import MAX_FAILURE

FIRST_CHECKPOINT, CHECKPOINT = 1.0, 5.0
"""Seconds after which what has arrived is made durable: a later process goes on from there. In each answer twice as many
from time to time, up to the second value: a short sleep gets on as well."""
CHECKPOINT_BYTES = 64 << 20
"""The same in bytes: a disk takes so much within a second."""
WINDOW = 20.0
"""Seconds over which the least rate is measured."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts, twice as long each time
ROOM_AGAIN = 60.0
"""Seconds between two looks at a full disk."""
PROGRESS = 1 << 20
"""Bytes after which earlier failures are forgotten."""
_AGENT = "Locum (download)"


class Transfer:
    """`number` gives numbers for connections."""

    def __init__(
        self, wanted: Wanted, settings: Settings, randomness: Randomness, number: Callable[[], int]
    ) -> None:
        self.wanted, self._settings, self._random, self._number = wanted, settings, randomness, number
        self.part = f"{wanted.name}.part"
        asked = f"{wanted.address} {wanted.sha256.hex()} {wanted.size}"
        self._order = hashlib.sha256(asked.encode()).hexdigest()[:16]
        self.stage: Stage = Waiting(0.0)
        self.have = 0
        self.total: int | None = None
        self.sha256 = ""
        self.attempts = 0
        self._safe = 0  # bytes that the disk has
        self._sync_at, self._sync_have, self._sync_after = 0.0, 0, FIRST_CHECKPOINT
        self._validator = ""
        self._expected: Digests = {}
        self._failures, self._gained = 0, 0
        self._began: float | None = None
        self._spent = 0.0
        self._running, self._hashed = Running("sha-256"), 0

    # for the proxy

    @property
    def connection(self) -> int | None:
        """Number of its connection."""
        return self.stage.connection if isinstance(self.stage, Asking | Receiving) else None

    @property
    def busy(self) -> bool:
        """True while it takes one of the places."""
        return not isinstance(self.stage, Waiting | Stored | Failed)

    @property
    def mark(self) -> tuple[object, ...]:
        """It changes when a later process has to know something else."""
        return type(self.stage), self._safe, self._validator, self._failures, self.total

    def row(self) -> dict[str, JSON]:
        """Its condition, for users and for the device, which knows the address."""
        row: dict[str, JSON] = {
            "name": self.wanted.name,
            "state": type(self.stage).__name__.lower(),
            "bytes": self.have,
            "size": self.total,
            "attempts": self.attempts,
        }
        if isinstance(self.stage, Failed):
            row["reason"] = self.stage.reason
        return row

    def event(self) -> dict[str, JSON]:
        """The detail of its event."""
        return {"url": str(self.wanted.address), **self.row(), "sha256": self.sha256}

    def kept(self, now: float) -> Mapping[str, object]:
        """The state for a later process."""
        return {
            **self.row(),
            "sha256": self.sha256,
            "order": self._order,
            "safe": self._safe,
            "validator": self._validator,
            "expected": dict(self._expected),
            "spent": self._spent + (0.0 if self._began is None else now - self._began),
            "failures": self._failures,
        }

    def recall(self, kept: Mapping[str, object]) -> None:
        """Go on where an earlier process was. Raises ValueError or KeyError if this is no state of this order."""
        if kept["order"] != self._order:
            raise ValueError("it is of another address, digest or size")
        safe, size, attempts, failures = (kept[key] for key in ("safe", "size", "attempts", "failures"))
        spent, expected = kept["spent"], kept["expected"]
        if not all(type(number) is int and number >= 0 for number in (safe, attempts, failures)):
            raise ValueError("numbers are expected")
        if not isinstance(spent, int | float) or not isinstance(expected, dict):
            raise ValueError("seconds and digests are expected")
        self._safe, self.attempts, self._failures = int(str(safe)), int(str(attempts)), int(str(failures))
        self.total = size if isinstance(size, int) else None
        self._spent, self._validator = float(spent), str(kept["validator"])
        self._expected = {str(name): bytes(value) for name, value in expected.items()}
        self.sha256 = str(kept["sha256"])
        if kept["state"] == "stored":
            self.stage, self.have = Stored(), self.total or 0
        elif kept["state"] == "failed":
            self.stage = Failed(str(kept.get("reason", "")))

    def begin(self, sizes: Mapping[str, int], *, now: float) -> list[Effect]:
        """The files of an earlier process."""
        if isinstance(self.stage, Stored | Failed):
            return []
        self.stage = Waiting(now)
        if self.sha256 and self.part not in sizes and self.wanted.name in sizes:
            self.have = self.total = sizes[self.wanted.name]  # it ended between the new name and its report
            self.stage = Naming()
            return [Sync(self.wanted.name)]
        return self._cut(min(self._safe, sizes.get(self.part, 0)))

    # attempts

    def start(self, *, now: float) -> list[Effect]:
        """It has a place."""
        if self._began is None:
            self._began = now
        self.attempts += 1
        self._sync_at, self._sync_after = now, FIRST_CHECKPOINT
        effects: list[Effect] = []
        if self.have and not (self._validator or self.wanted.sha256):
            effects += self._anew()
        if self._hashed < self.have:
            self.stage = Rereading()
            return [*effects, self._load()]
        return effects + self._ask(self.wanted.address, 0, now)

    def _load(self) -> Load:
        return Load(self.part, self._hashed, min(MAX_LOAD, self.have - self._hashed))

    def loaded(self, offset: int, data: bytes, *, now: float) -> list[Effect]:
        """Bytes of the file."""
        if not isinstance(self.stage, Rereading) or offset != self._hashed:
            return []
        if not data:  # it is shorter than an earlier process said
            return self._guard(lambda: self._again(Retry("its file is damaged", anew=True), now), now)
        self._running.update(data)
        self._hashed += len(data)
        if self._hashed < self.have:
            return [self._load()]
        return self._ask(self.wanted.address, 0, now)

    def _ask(self, address: Address, redirects: int, now: float) -> list[Effect]:
        if self.have and self.have == self.total:
            return self._guard(lambda: self._complete(End(), now), now)
        fields = {
            "User-Agent": _AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Want-Repr-Digest": WANTED,
            "Connection": "close",
        }
        if self.have:
            fields["Range"] = f"bytes={self.have}-"
            if self._validator:
                fields["If-Range"] = self._validator
        response = Response(fields, target=address.target, host=address.authority)
        number = self._number()
        patience = self._settings.patience
        self.stage = Asking(number, address, response, redirects, now + patience)
        return [Connect(number, address.host, address.port, address.secure, patience)]

    def opened(self, *, now: float) -> list[Effect]:
        """Its connection is open."""
        if not isinstance(self.stage, Asking) or self.stage.opened:
            return []
        self.stage.opened = True
        self.stage.until = now + self._settings.patience
        return [Send(self.stage.connection, self.stage.response.request)]

    def received(self, data: bytes, *, now: float) -> list[Effect]:
        """Bytes of the server; none: it sends no more."""
        stage = self.stage
        if not isinstance(stage, Asking | Receiving):
            return []
        effects: list[Effect] = []

        def read() -> list[Effect]:
            pieces = stage.response.receive(data) if data else stage.response.finish()
            for piece in pieces:
                if self.connection != stage.connection:  # a redirect, or complete
                    break
                match piece:
                    case Head():
                        effects.extend(self._headed(piece, now))
                    case bytes():
                        effects.extend(self._body(piece, now))
                    case End():
                        effects.extend(self._complete(piece, now))
            return effects

        return self._guard(read, now, effects)

    def _guard(
        self, read: Callable[[], list[Effect]], now: float, effects: list[Effect] | None = None
    ) -> list[Effect]:
        """The effects of this, and of its failure, behind those that it has left in `effects`."""
        try:
            return read()
        except HttpError as problem:
            return [*(effects or []), *self._again(Retry(str(problem)), now)]
        except Retry as problem:
            return [*(effects or []), *self._again(problem, now)]
        except GiveUp as problem:
            return [*(effects or []), *self._fail(str(problem))]

    def _headed(self, head: Head, now: float) -> list[Effect]:
        stage = self.stage
        assert isinstance(stage, Asking)
        match judge(head, self.have, self._validator):
            case Elsewhere(location):
                return self._redirected(stage, location, now)
            case Complete():
                self.total = self.have
                return self._complete(End(), now)
            case Body(first, total, expected, of_part):
                return self._begins(stage, head, Body(first, total, expected, of_part), now)

    def _redirected(self, stage: Asking, location: str, now: float) -> list[Effect]:
        if stage.redirects >= self._settings.redirects:
            raise GiveUp(f"the server redirects more than {self._settings.redirects} times")
        try:
            there = stage.address.to(location)
        except ValueError as problem:
            raise GiveUp(f"the server redirects to a wrong address: {problem}") from problem
        if stage.address.secure and not there.secure and not self._settings.downgrade:
            raise GiveUp(f"the server redirects from https to {there}, which `downgrade` would permit")
        said = Note(f"{self.wanted.name}: redirected to {there}")
        return [Abort(stage.connection), said, *self._ask(there, stage.redirects + 1, now)]

    def _begins(self, stage: Asking, head: Head, body: Body, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.have > body.first:
            effects += [Note(f"{self.wanted.name}: the server sends the whole file again"), *self._anew()]
        if self.total is not None and body.total is not None and body.first and self.total != body.total:
            raise Retry("the server has a file of another size now", anew=True)
        total = self.total if body.total is None and body.first else body.total
        self._judge_size(total or 0, exact=total is not None)
        self.total = total
        self._validator = strong_validator(head) or (self._validator if body.first else "")
        self._expected = _one(body.expected) or self._expected
        if not self.have:
            self._running, self._hashed = Running("sha-256", *self._expected), 0
            effects.append(Truncate(self.part, 0))
        of_part = _one(body.of_part)
        self.stage = Receiving(
            stage.connection,
            stage.response,
            body.first,
            now,
            now,
            part=Running(*of_part) if of_part else None,
            of_part=of_part,
        )
        return effects

    def _judge_size(self, size: int, *, exact: bool) -> None:
        """Raises GiveUp if the file is not what was ordered; `exact` False: it may still grow."""
        if size > self._settings.max_size:
            raise GiveUp(f"it has more than {self._settings.max_size} bytes (max_size)")
        wanted = self.wanted.size
        if wanted is not None and (size > wanted or (exact and size != wanted)):
            raise GiveUp(
                f"it has {'' if exact else 'more than '}{size if exact else wanted} bytes, not {wanted}"
            )

    def _body(self, data: bytes, now: float) -> list[Effect]:
        stage = self.stage
        assert isinstance(stage, Receiving)
        size = self.have + len(data)
        if self.total is not None and size > self.total:
            raise Retry("the server sends more than it has told", anew=True)
        self._judge_size(size, exact=False)
        self.have = self._hashed = size
        self._running.update(data)
        if stage.part is not None:
            stage.part.update(data)
        stage.gained += len(data)
        stage.last = now
        self._gained += len(data)
        effects: list[Effect] = [Append(self.part, data)]
        if now - self._sync_at >= self._sync_after or size - self._sync_have >= CHECKPOINT_BYTES:
            self._sync_at, self._sync_have = now, size
            self._sync_after = min(2 * self._sync_after, CHECKPOINT)
            effects.append(Sync(self.part))
        return effects

    def _complete(self, end: End, now: float) -> list[Effect]:
        """The answer is over: is the file all there, and right?"""
        stage = self.stage
        if self.total is not None and self.have < self.total:
            raise Retry(f"the server has ended its answer at {self.have} of {self.total} bytes")
        resumed = not isinstance(stage, Receiving) or stage.first > 0
        part, of_part = (stage.part, stage.of_part) if isinstance(stage, Receiving) else (None, None)
        if part is not None and of_part is not None and (problem := part.against(of_part)):
            raise Retry(f"a part is damaged: {problem}", anew=True)
        self._judge_size(self.have, exact=True)
        told = judge_trailers(end) or self._expected
        wanted = {"sha-256": self.wanted.sha256} if self.wanted.sha256 else {}
        if problem := self._running.against(wanted) or self._running.against(told):
            if resumed:
                raise Retry(problem, anew=True)
            raise GiveUp(problem)
        self.total, self.sha256 = self.have, self._running.hexadecimal("sha-256")
        connection = self.connection
        self.stage, self._sync_have = Storing(), self.have
        make: list[Effect] = [] if self.have else [Truncate(self.part, 0)]
        return [*([] if connection is None else [Finish(connection)]), *make, Sync(self.part)]

    # files

    def synced(self, file: str, size: int, *, now: float) -> list[Effect]:
        """The disk has so much of a file of it."""
        if isinstance(self.stage, Naming) and file == self.wanted.name:
            self.stage = Stored()
            return [Note(f"{self.wanted.name}: {self.have} bytes, sha256 {self.sha256}")]
        if file != self.part:
            return []
        self._safe = min(size, self._sync_have)
        if isinstance(self.stage, Storing) and self._safe == self.have:
            self.stage = Naming()
            return [Rename(self.part, self.wanted.name), Sync(self.wanted.name)]
        return []

    def failed(self, error: int, *, now: float) -> list[Effect]:
        """A file of it could not be written or read."""
        if isinstance(self.stage, Stored | Failed):
            return []
        reason = f"its file: {os.strerror(error)}"
        if isinstance(self.stage, Rereading):
            return self._again(Retry(reason, anew=True), now)
        if error not in (errno.ENOSPC, errno.EDQUOT) or not self._settings.wait_for_room:
            return self._fail(reason)
        effects = [
            *self._let_go(),
            *self._cut(self._safe),
        ]  # what came after the failure stands at a wrong place
        self.stage = Waiting(now + ROOM_AGAIN)
        return [*effects, Note(f"{self.wanted.name}: {reason}; again in {ROOM_AGAIN:.0f} s")]

    # failures

    def ended(self, reason: str, *, now: float) -> list[Effect]:
        """Its connection is gone."""
        if self.connection is None:
            return []
        stage, self.stage = self.stage, Waiting(now)  # there is nothing to abort
        if isinstance(stage, Receiving) or (isinstance(stage, Asking) and stage.opened):
            return self._again(Retry(reason or "the connection has ended"), now)
        return self._again(Retry(reason or "there is no connection"), now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        match self.stage:
            case Asking(until=until):
                at = until
            case Receiving(window=window, last=last):
                at = last + self._settings.patience
                if self._settings.least_rate:
                    at = min(at, window + WINDOW)
            case Waiting(at=later) if self._began is not None:
                at = later
            case _:
                return None
        return min(at, self._limit(at))

    def _limit(self, otherwise: float) -> float:
        if self._began is None:
            return otherwise
        return self._began + self._settings.time_limit - self._spent

    def timeout(self, *, now: float) -> list[Effect]:
        """Its deadline may have come."""
        stage = self.stage
        if isinstance(stage, Asking | Receiving | Waiting) and self._limit(now + 1) <= now:
            return self._fail(f"it took more than {self._settings.time_limit:.0f} seconds (time_limit)")
        patience = self._settings.patience
        match stage:
            case Asking(until=until) if until <= now:
                return self._again(Retry(f"no answer within {patience:.0f} seconds"), now)
            case Receiving(last=last) if last + patience <= now:
                return self._again(Retry(f"not a byte within {patience:.0f} seconds"), now)
            case Receiving() if stage.window + WINDOW <= now:
                rate = stage.gained / (now - stage.window)
                if rate < self._settings.least_rate:
                    return self._again(
                        Retry(f"{rate:.0f} bytes a second, less than {self._settings.least_rate}"), now
                    )
                stage.window, stage.gained = now, 0
        return []

    def _again(self, problem: Retry, now: float) -> list[Effect]:
        effects = self._let_go()
        if problem.anew:
            effects += self._anew()
        if self._gained >= PROGRESS:
            self._failures = 0
        self._gained = 0
        self._failures += 1
        if self._failures > self._settings.retries:
            return effects + self._fail(f"{problem.reason}, in the last of {self.attempts} attempts")
        pause = min(FIRST_PAUSE * 2.0 ** (self._failures - 1), LONGEST_PAUSE) * (
            0.5 + self._random.random() / 2
        )
        if problem.after is not None:
            pause = max(pause, problem.after)
        self.stage = Waiting(now + pause)
        where = f"again in {pause:.1f} s from byte {self.have}"
        return [*effects, Note(f"{self.wanted.name}: {problem.reason}; {where}")]

    def _fail(self, reason: str) -> list[Effect]:
        effects = self._let_go()
        self.stage = Failed(reason[:MAX_FAILURE])
        return [*effects, Remove(self.part), Note(f"{self.wanted.name}: failed: {reason}")]

    def _let_go(self) -> list[Effect]:
        connection = self.connection
        return [] if connection is None else [Abort(connection)]

    def _anew(self) -> list[Effect]:
        self._validator, self._expected, self.total = "", {}, None
        return self._cut(0)

    def _cut(self, size: int) -> list[Effect]:
        self.have = self._sync_have = size
        self._safe = min(self._safe, size)
        if self._hashed != size:
            self._running, self._hashed = Running("sha-256", *self._expected), 0
        return [Truncate(self.part, size)]


def judge_trailers(end: End) -> Digests:
    """Digests behind the body (RFC 9530 section 2); of SHA-256 alone, since it runs in any case."""
    told = of_representation(end.trailers) or digests(end.trailers, "content-digest")
    return {name: value for name, value in told.items() if name == "sha-256"}


def _one(found: Digests) -> Digests:
    """The best of them."""
    for name in ("sha-256", "sha-512"):
        if name in found:
            return {name: found[name]}
    return {}
