"""The download proxy: ordered files, several at a time, and the device's own downloads (A4, A9)."""

import itertools
from collections.abc import Mapping, Sequence

from locum.apps.decode.unpacking import Broken, Unpacking
from locum.apps.download.following import Following
from locum.apps.download.settings import AT_ONCE, STATUS, Settings, settings
from locum.apps.download.stages import Failed, Stored, Waiting
from locum.apps.download.transfer import Transfer
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Note, Tell
from locum.roles.app_network import (
    TCP,
    Data,
    Decoded,
    Ended,
    Files,
    Happening,
    Loaded,
    Opened,
    Synced,
)
from locum.roles.app_network import (
    Failed as FileFailed,
)
from locum.roles.app_results import DONE, FAILED, FILES, PROBLEM, PROGRESS, RESULT
from locum.wire.control import Flow

MAX_DELIVERED = 64
"""Answers of captured connections in the result."""
_STATE, _FOLLOWING = "downloads", "following"


class Download:
    """One order."""

    reads_all = True

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, Settings)
        self._settings = settings
        numbers = itertools.count(1)
        self._transfers = [
            Transfer(wanted, settings, randomness, lambda: next(numbers)) for wanted in settings.files
        ]
        self._unpacking: dict[str, Unpacking] = {}  # by the name of the packed file
        self._following: dict[int, Following] = {}
        self._told: set[str] = set()
        self._earlier: dict[
            str, object
        ] = {}  # what an earlier process has kept of its unpacking, until the files are known
        self._delivered: list[Mapping[str, JSON]] = []
        self._ready = False
        self._kept: object = None

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        return settings(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """By the server's port."""
        assert isinstance(settings, Settings)
        return flow.protocol == TCP and flow.peer_port in settings.ports

    @staticmethod
    def only_asleep(settings: object) -> bool:
        """True where it follows the device's own downloads."""
        assert isinstance(settings, Settings)
        return bool(settings.ports)

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        effects: list[Effect] = []
        self._following = {
            session.number: Following(
                session.number,
                self._settings.quiet,
                session.shown,
                _row(state, _FOLLOWING, str(session.number)),
            )
            for session in sessions
        }
        for number in self._following:
            effects.append(Note(f"follows the answer in session {number}"))
        for transfer in self._transfers:
            row = _row(state, _STATE, transfer.wanted.name)
            if not isinstance(row, dict):
                continue
            try:
                transfer.recall(row)
            except (ValueError, KeyError, TypeError) as problem:
                effects.append(Note(f"{transfer.wanted.name}: its earlier state does not count: {problem}"))
                continue
            if row.get("told"):
                self._told.add(transfer.wanted.name)
            self._earlier[transfer.wanted.name] = row.get("decoded")
        return effects

    # happenings

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        """Something has happened to a connection or a file."""
        effects: list[Effect] = []
        match event:
            case Files(files):
                effects = self._begin(dict(files), now)
            case Opened(connection, _):
                effects = [effect for one in self._of(connection) for effect in one.opened(now=now)]
            case Data(connection, data):
                effects = [effect for one in self._of(connection) for effect in one.received(data, now=now)]
            case Ended(connection, reason):
                effects = [effect for one in self._of(connection) for effect in one.ended(reason, now=now)]
            case Loaded(file, offset, data):
                effects = self._loaded(file, offset, data, now)
            case Synced(file, size):
                effects = self._synced(file, size, now)
            case Decoded(file, _, size, reason) if (unpacking := self._unpacking.get(file)) is not None:
                effects = unpacking.decoded(size, reason)
            case FileFailed(file, error):
                effects = self._failed(file, error, now)
        return effects + self._settle(now)

    def _begin(self, sizes: Mapping[str, int], now: float) -> list[Effect]:
        self._ready = True
        for transfer in self._transfers:
            row, limits = self._earlier.get(transfer.wanted.name), self._settings.decode
            if isinstance(row, dict) and limits is not None and isinstance(transfer.stage, Stored):
                unpacking = Unpacking(transfer.wanted.name, transfer.have, limits)
                if unpacking.recall(row, sizes):
                    self._unpacking[transfer.wanted.name] = unpacking
        return [effect for transfer in self._transfers for effect in transfer.begin(sizes, now=now)]

    def _of(self, connection: int) -> list[Transfer]:
        """The download of this connection, if it still has it."""
        return [one for one in self._transfers if one.connection == connection]

    def _loaded(self, file: str, offset: int, data: bytes, now: float) -> list[Effect]:
        for transfer in self._transfers:
            if file == transfer.part:
                return transfer.loaded(offset, data, now=now)
        unpacking = self._unpacking.get(file)
        return [] if unpacking is None else unpacking.loaded(data)

    def _synced(self, file: str, size: int, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for transfer in self._transfers:
            if file in (transfer.part, transfer.wanted.name):
                effects += transfer.synced(file, size, now=now)
        for unpacking in self._unpacking.values():
            effects += unpacking.synced(file)
        return effects

    def _failed(self, file: str, error: int, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for transfer in self._transfers:
            if file in (transfer.part, transfer.wanted.name):
                effects += transfer.failed(error, now=now)
        for unpacking in self._unpacking.values():
            effects += unpacking.failed(file, error)
        return effects

    # sessions of the device

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        following = self._following.get(session)
        if following is None:
            return []
        effects = following.received(data, now=now)
        self._forget(following)
        return effects + self._keep(now)

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        following = self._following.pop(session, None)
        if following is None:
            return []
        effects = following.closed(error)
        self._delivered += following.results
        return effects

    def _forget(self, following: Following) -> None:
        if following.left:
            self._delivered += following.results
            self._following.pop(following.number, None)

    # time

    def deadline(self) -> float | None:
        times = [one.deadline() for one in self._transfers]
        times += [one.deadline() for one in self._following.values()]
        return min((at for at in times if at is not None), default=None)

    def timeout(self, *, now: float) -> list[Effect]:
        """The deadline has come."""
        effects: list[Effect] = []
        for transfer in self._transfers:
            effects += transfer.timeout(now=now)
        for following in tuple(self._following.values()):
            effects += following.timeout(now=now)
            self._forget(following)
        return effects + self._settle(now)

    def end(self, *, now: float) -> Mapping[str, object]:
        return self._state(now)

    # what follows from a happening

    def _settle(self, now: float) -> list[Effect]:
        """Give places to downloads that wait for one, report those that are over, and keep the state."""
        effects: list[Effect] = []
        if not self._ready:
            return effects
        for transfer in self._transfers:
            effects += self._over(transfer)
        free = self._settings.parallel - sum(transfer.busy for transfer in self._transfers)
        for transfer in self._transfers:
            match transfer.stage:
                case Waiting(at) if free > 0 and at <= now:
                    effects += transfer.start(now=now)
                    free -= transfer.busy
        return effects + self._keep(now)

    def _keep(self, now: float) -> list[Effect]:
        """The state, if a later process would have to know it."""
        marks = [transfer.mark for transfer in self._transfers]
        unpackings = [one.row() for one in self._unpacking.values()]
        changed = (marks, sorted(self._told), unpackings, self._ends())
        if changed == self._kept:
            return []
        self._kept = changed
        return [Keep(self._state(now))]

    def _ends(self) -> dict[str, object]:
        found = {str(number): one.kept() for number, one in self._following.items()}
        return {number: row for number, row in found.items() if row is not None}

    def _state(self, now: float) -> dict[str, object]:
        """For the device, and for a later process."""
        rows: dict[str, object] = {}
        for transfer in self._transfers:
            name = transfer.wanted.name
            row: dict[str, object] = {**transfer.kept(now), "told": name in self._told}
            if (unpacking := self._unpacking.get(name)) is not None:
                row["decoded"] = unpacking.kept()
            rows[name] = row
        return {RESULT: self._result(), _STATE: rows, _FOLLOWING: self._ends()}

    def _result(self) -> dict[str, JSON]:
        result: dict[str, JSON] = {}
        if self._settings.ports:
            running = [result for one in self._following.values() for result in one.results]
            result["delivered"] = [dict(row) for row in (*self._delivered, *running)][-MAX_DELIVERED:]
        if not self._transfers:
            return result
        result["downloads"] = [self._row(transfer) for transfer in self._transfers]
        result[PROGRESS] = {
            "received": sum(transfer.have for transfer in self._transfers),
            "expected": sum(transfer.total or 0 for transfer in self._transfers),
        }
        result[FILES] = [list(row) for row in self._files()]
        if all(self._finished(transfer) for transfer in self._transfers):
            reasons = [one.stage.reason for one in self._transfers if isinstance(one.stage, Failed)]
            if len(reasons) == len(self._transfers):
                result[FAILED] = reasons[0]
            else:
                result[DONE] = True
                if problem := self._partly():
                    result[PROBLEM] = problem
        return result

    def _partly(self) -> str:
        """The first part of a finished order that has failed, and why; empty if all went well."""
        for transfer in self._transfers:
            name = transfer.wanted.name
            if isinstance(transfer.stage, Failed):
                return f"{name}: {transfer.stage.reason}"
            unpacking = self._unpacking.get(name)
            if unpacking is not None and isinstance(unpacking.state, Broken):
                return f"{name} is not decoded: {unpacking.state.reason}"
        return ""

    def _files(self) -> list[tuple[str, int, str]]:
        """Finished files: names, bytes, SHA-256 if it is known."""
        found: list[tuple[str, int, str]] = []
        for transfer in self._transfers:
            if isinstance(transfer.stage, Stored):
                found.append((transfer.wanted.name, transfer.have, transfer.sha256))
                unpacking = self._unpacking.get(transfer.wanted.name)
                found += [] if unpacking is None else unpacking.files()
        return found

    def _finished(self, transfer: Transfer) -> bool:
        match transfer.stage:
            case Failed():
                return True
            case Stored():
                unpacking = self._unpacking.get(transfer.wanted.name)
                return self._settings.decode is None or (unpacking is not None and unpacking.finished)
        return False

    def _row(self, transfer: Transfer) -> dict[str, JSON]:
        unpacking = self._unpacking.get(transfer.wanted.name)
        return transfer.row() | ({} if unpacking is None else {"decoded": unpacking.row()})

    def _over(self, transfer: Transfer) -> list[Effect]:
        """Reports, once, and the unpacking that follows."""
        name = transfer.wanted.name
        match transfer.stage:
            case Failed() if name not in self._told:
                self._told.add(name)
                return self._tell("download_failed", transfer.event())
            case Stored():
                effects: list[Effect] = []
                if name not in self._told:
                    self._told.add(name)
                    effects += self._tell("delivered", transfer.event())
                if self._settings.decode is not None and name not in self._unpacking:
                    unpacking = Unpacking(name, transfer.have, self._settings.decode)
                    self._unpacking[name] = unpacking
                    effects += unpacking.begin()
                if (unpacked := self._unpacking.get(name)) is not None:
                    effects += unpacked.report(self._tell)
                return effects
        return []

    def _tell(self, kind: str, detail: Mapping[str, JSON]) -> list[Effect]:
        """An event, if the device wishes events; `wake` is for those that page it."""
        if self._settings.deliver == STATUS:
            return []
        return [Tell(kind, None, {**detail, "wake": self._settings.deliver == AT_ONCE})]


def _row(state: Mapping[str, object], key: str, name: str) -> object:
    rows = state.get(key)
    return rows.get(name) if isinstance(rows, dict) else None
