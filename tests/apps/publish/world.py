"""A stand-in in memory for the `publish` proxy: files, a clock, and peers whose received bytes are there to be read."""

import io
import tarfile
from collections import Counter
from collections.abc import Mapping
from random import Random

from locum.apps.publish.app import LISTENER, Publish
from locum.apps.publish.intake import UPLOADED
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Effect, Keep, Note, Tell
from locum.roles.app_network import (
    Abort,
    Accepted,
    Data,
    Drained,
    Ended,
    Failed,
    Files,
    Finish,
    Happening,
    Listen,
    Load,
    Loaded,
    Opened,
    Pause,
    Remove,
    Rename,
    Resume,
    Send,
    SendFile,
    Sync,
    Synced,
)

STARTED = 1_764_440_000.0
"""Seconds since 1970 when `now` is 0."""


def archive(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return sink.getvalue()


class World:
    """`takes` False: peers' kernels take nothing, so that nothing is drained until `drain`."""

    def __init__(self, files: Mapping[str, bytes] | None = None, **table: JSON) -> None:
        self.now = 0.0
        self.files = dict(files or {})
        self.faults: dict[str, int] = {}  # errno of each Load and Sync of this file
        self.takes = True
        self.slow = False  # answers to Load wait in `later`
        self.later: list[Happening] = []
        self.received: dict[int, bytearray] = {}
        self.state: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.told: list[Tell] = []
        self.kept: Mapping[str, object] = {}
        self.paused: set[int] = set()
        self._next = -1
        self.app = self.start(table)

    def start(self, table: Mapping[str, JSON], state: Mapping[str, object] | None = None) -> Publish:
        """Begin, also again: another process with the same files."""
        self.app = Publish(Publish.settings(table), Random(1), lambda: STARTED + self.now)
        self.perform(self.app.begin([], state or {}, now=self.now))
        self.happen(Files([(name, len(content)) for name, content in self.files.items()]))
        return self.app

    def upload(self, files: Mapping[str, bytes]) -> None:
        """An archive comes while the proxy runs."""
        self.files[UPLOADED] = archive(files)
        self.happen(Files([(name, len(content)) for name, content in self.files.items()]))

    def happen(self, event: Happening) -> None:
        self.perform(self.app.happened(event, now=self.now))

    def advance(self, seconds: float) -> None:
        """Let time pass, with every deadline in it."""
        end = self.now + seconds
        while (at := self.app.deadline()) is not None and at <= end:
            self.now = max(at, self.now)
            self.perform(self.app.timeout(now=self.now))
        self.now = end

    def connect(self, peer: str = "192.0.2.80") -> int:
        """A peer connects; returns the number of its connection."""
        number, self._next = self._next, self._next - 1
        self.received[number], self.state[number] = bytearray(), "open"
        self.happen(Accepted(LISTENER, number, peer, 40000))
        return number

    def say(self, number: int, data: bytes) -> None:
        """Bytes of the peer."""
        if self.state[number] == "open":
            self.happen(Data(number, data))

    def ask(self, number: int, data: bytes) -> bytes:
        """Bytes of the peer; returns what it gets from now on."""
        before = len(self.received[number])
        self.say(number, data)
        return bytes(self.received[number][before:])

    def get(self, target: str, *fields: str, method: str = "GET", number: int | None = None) -> bytes:
        """One request, on a connection of its own unless it is named."""
        lines = [f"{method} {target} HTTP/1.1", "Host: device.example", *fields, "", ""]
        return self.ask(self.connect() if number is None else number, "\r\n".join(lines).encode())

    def drain(self, number: int) -> None:
        """The peer has taken everything."""
        self.happen(Drained(number))

    def perform(self, effects: list[Effect]) -> None:
        """Carry them out; what follows from them happens at once."""
        following: list[Happening] = []
        for effect in effects:
            following += self._perform(effect)
        for event in following:
            self.happen(event)

    def _perform(self, effect: Effect) -> list[Happening]:
        self.counts[type(effect).__name__] += 1
        match effect:
            case Listen():
                return [Opened(effect.listener)]
            case Send() | SendFile():
                assert self.state[effect.connection] == "open"
                data = effect.data if isinstance(effect, Send) else self._read(effect)
                self.received[effect.connection] += data
                return [Drained(effect.connection)] if self.takes else []
            case Finish() | Abort():
                assert self.state[effect.connection] == "open"
                self.state[effect.connection] = "finished" if isinstance(effect, Finish) else "aborted"
                return [Ended(effect.connection)]
            case Pause(number):
                assert number not in self.paused
                self.paused.add(number)
            case Resume(number):
                self.paused.remove(number)
            case Load():
                return self._loaded(effect)
            case Sync(file):
                error = self.faults.get(file)
                return [Failed(file, error)] if error else [Synced(file, len(self.files[file]))]
            case Rename():
                self.files[effect.to] = self.files.pop(effect.file)
            case Remove(file):
                self.files.pop(file, None)
            case Note(text):
                self.notes.append(text)
            case Tell():
                self.told.append(effect)
            case Keep(state):
                self.kept = state
            case _:
                raise AssertionError(effect)
        return []

    def _read(self, effect: SendFile) -> bytes:
        data = self.files[effect.file][effect.offset : effect.offset + effect.length]
        assert len(data) == effect.length
        return data

    def _loaded(self, effect: Load) -> list[Happening]:
        if error := self.faults.get(effect.file):
            return [Failed(effect.file, error)]
        data = self.files[effect.file][effect.offset : effect.offset + effect.length]
        event = Loaded(effect.file, effect.offset, data)
        if not self.slow:
            return [event]
        self.later.append(event)
        return []

    def go_on(self) -> None:
        """Answer the Loads that wait, and all further ones."""
        self.slow = False
        waiting, self.later = self.later, []
        for event in waiting:
            self.happen(event)


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields by name in lower case, and the rest."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value for name, value in fields.items()}, rest
