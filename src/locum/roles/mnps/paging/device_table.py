"""The event table of one device at its stand-in, with the events stored for it, and their rows (P3).

It must not know messages, pages nor other devices.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Count, Forget, Persist, Table
from locum.roles.paging.events import MAX_BRIEF, NO_PROGRESS, EventTable, Progress
from locum.roles.paging.sent import latest
from locum.roles.paging.stored_events import MAX_STORED_BYTES, StoredEvent, StoredEvents
from locum.wire import cbor
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import ActionKind, Entry
from locum.wire.control.paging.event_table import (
    MAX_TABLE,
    EventTable1206,
    Operation,
    decode_1206,
    encode_1206,
)
from locum.wire.control.paging.status import StatusAnswer, decode_status_answer, encode_status_answer

TABLE: Final[Table] = "event"
_LONG: Final = 16 << 10  # bytes of one event in a row, with room to spare


@dataclass(slots=True)
class DeviceTable:
    """The first home address is the device's name here."""

    home_addresses: tuple[Addr, ...]
    table: EventTable = field(default_factory=EventTable)
    stored: StoredEvents = field(default_factory=StoredEvents)
    rows: set[int] = field(default_factory=set)  # entries whose progress has a row
    version: int | None = None  # of the entries that the policy server has pushed (P7)
    size: int = 0  # bytes that it may take, as counted by `size_of`

    @property
    def key(self) -> Addr:
        """The device."""
        return self.home_addresses[0]

    @property
    def empty(self) -> bool:
        """True if nothing is left but the time of the last change, by which a late one is known."""
        return not self.table.entries and not self.table.rules and not self.stored

    def persist(self, answer: StatusAnswer) -> Persist:
        """The row of the table, with the answer to the last change."""
        body = encode_1206(self.table.content(self.home_addresses))
        row: dict[str, JSON] = {"table": body.hex(), "answer": encode_status_answer(answer).hex()}
        return Persist(TABLE, str(self.key), row)

    def early(self, change: EventTable1206, wall: float) -> bool:
        """True if the sender's clock is ahead. The time of a last change that is ahead itself counts no more: a clock was wrong."""
        most = latest(wall)
        if self.table.sent > most:
            self.table.forget_sent()
        return change.sent > most

    def too_long(self, change: EventTable1206) -> bool:
        """True if the table would not be readable in its row."""
        if change.operation is not Operation.PUT:
            return False
        content = self.table.content(self.home_addresses)
        entries = {entry.identifier: entry for entry in (*content.entries, *change.entries)}
        whole = replace(
            content,
            entries=tuple(entries.values()),
            information=change.information or content.information,
            rules=change.rules or content.rules,
        )
        return len(encode_1206(whole)) > MAX_TABLE

    def measure(self) -> int:
        """Count the size anew; returns by how much it has grown."""
        before, self.size = self.size, size_of(self.table.entries, self.table.content(self.home_addresses))
        return self.size - before

    def persist_pushed(self) -> Persist:
        """The row of the policy server's entries, and their version."""
        pushed = EventTable1206(self.home_addresses, Operation.REPLACE, 0, self.table.pushed)
        row: dict[str, JSON] = {"version": self.version, "entries": encode_1206(pushed).hex()}
        return Persist(TABLE, f"{self.key} policy", row)

    def recall_pushed(self, row: Mapping[str, JSON]) -> None:
        """Take the policy server's entries from a row of our own. Raises ValueError, KeyError or WireError."""
        version, entries = row["version"], decode_1206(bytes.fromhex(str(row["entries"]))).entries
        if not isinstance(version, int) or not self.table.push(entries):
            raise ValueError("not entries of a policy server")
        self.version = version

    def persist_progress(self) -> list[Action]:
        """Rows of the entries whose progress has changed since the last time."""
        actions: list[Action] = []
        for number in sorted(self.table.touched):
            progress = self.table.progress(number)
            if progress != NO_PROGRESS:
                self.rows.add(number)
                actions.append(Persist(TABLE, f"{self.key} entry {number}", progress_row(progress)))
            elif number in self.rows:
                self.rows.discard(number)
                actions.append(Forget(TABLE, f"{self.key} entry {number}"))
        self.table.touched.clear()
        return actions

    def store(self, entry: int, event: ApplicationEvent, at: int) -> list[Action]:
        """Keep an event for the device."""
        written, gone = self.stored.add(entry, event, at)
        actions: list[Action] = [Forget(TABLE, self._stored_key(stored)) for stored in gone]
        if gone:
            actions.append(Count("stored-events-lost", sum(stored.count for stored in gone)))
        if written is not None:
            actions.append(Persist(TABLE, self._stored_key(written), written.to_row()))
        return actions

    def forget(self) -> list[Action]:
        """Remove the rows of an empty table."""
        policy = () if self.version is None else (f"{self.key} policy",)
        names = (str(self.key), *policy, *(f"{self.key} entry {number}" for number in sorted(self.rows)))
        return [Forget(TABLE, name) for name in names]

    def given(self) -> list[Action]:
        """The device has the stored events."""
        return [Forget(TABLE, self._stored_key(stored)) for stored in self.stored.given()]

    def _stored_key(self, stored: StoredEvent) -> str:
        return f"{self.key} stored {stored.number}"


def table_from_row(row: Mapping[str, JSON]) -> DeviceTable:
    """The table in a row of our own. Raises ValueError, KeyError, TypeError or WireError for anything else."""
    content = decode_1206(bytes.fromhex(str(row["table"])))
    answer = decode_status_answer(bytes.fromhex(str(row["answer"])))
    device = DeviceTable(content.home_addresses)
    device.table.change(content)
    device.table.answered(answer)
    device.size = size_of(device.table.entries, content)
    return device


def progress_row(progress: Progress) -> Mapping[str, JSON]:
    """The row of an entry's progress."""
    return {
        "matched": [[place, at, _event_row(event)] for place, at, event in progress.matched],
        "paged_at": progress.paged_at,
        "waiting": [_event_row(event) for event in progress.waiting],
        "count": progress.count,
        "due": progress.due,
    }


def progress_from_row(row: Mapping[str, JSON]) -> Progress:
    """The progress in a row of our own. Raises ValueError, KeyError, TypeError or WireError for anything else."""
    matched, waiting = row["matched"], row["waiting"]
    if not isinstance(matched, list | tuple) or not isinstance(waiting, list | tuple):
        raise ValueError("matched and waiting are lists")
    found = []
    for item in matched:
        if not isinstance(item, list | tuple) or len(item) != 3 or not isinstance(item[0], int):
            raise ValueError("a matched event has place, time and event")
        found.append((item[0], _seconds(item[1]), _event(item[2])))
    paged_at, due = row["paged_at"], row["due"]
    return Progress(
        tuple(found),
        None if paged_at is None else _seconds(paged_at),
        tuple(_event(item) for item in waiting),
        int(str(row["count"])),
        None if due is None else _seconds(due),
    )


def size_of(entries: Iterable[Entry], change: EventTable1206) -> int:
    """Bytes that a table may take with all that waits for it, by which tables of all devices are bounded."""
    size = len(encode_1206(change))
    stores = False
    for entry in entries:
        patterns = len(entry.patterns)
        size += MAX_BRIEF * (1 if entry.within is None else 2 * patterns)
        stores |= any(action.kind is ActionKind.STORE for action in entry.actions)
    return size + (MAX_STORED_BYTES if stores else 0)


def _event_row(event: ApplicationEvent) -> JSON:
    return cbor.encode(event.to_cbor()).hex()


def _event(row: JSON) -> ApplicationEvent:
    return ApplicationEvent.from_cbor(cbor.decode(bytes.fromhex(str(row)), limit=_LONG, field="row"), "row")


def _seconds(value: JSON) -> float:
    if not isinstance(value, int | float):
        raise ValueError("a time is a number")
    return float(value)
