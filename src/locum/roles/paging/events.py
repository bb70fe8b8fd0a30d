"""The event table of one device at its stand-in (P3, P15): events in, what is to be done out.

Time is an argument: steady seconds, and the minute of the day in UTC for quiet hours. It must not know how a page is sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from locum.roles.paging.matching import matches
from locum.wire import cbor
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import MAX_ENTRIES, MINUTES, ActionKind, Entry, EntryAction
from locum.wire.control.paging.event_table import EventTable1206, Operation
from locum.wire.control.paging.rules import Address, AgentRule
from locum.wire.control.paging.status import ItemStatus, PagingStatus, StatusAnswer

FIRST_PUSHED = 0xF000
"""The first identifier of entries that a policy server has pushed; a device's own are below (P7)."""
PAGING = (ActionKind.PAGE, ActionKind.PAGE_DIRECT)
"""Actions that limits hold back; the others are never late."""
MAX_BRIEF = 1024
"""Bytes of an event that waits, as CBOR; a longer one waits without its detail."""

NOTED_AGAIN = 1.0
"""Seconds after which a matched event of a combination is written once more, if it has come again."""


def brief(event: ApplicationEvent) -> ApplicationEvent:
    """The event as it is kept: many may wait, for many devices."""
    long = len(cbor.encode(event.to_cbor())) > MAX_BRIEF
    return ApplicationEvent(event.app, event.kind) if long else event


@dataclass(frozen=True, slots=True)
class Firing:
    """An entry that has matched: what is to be done, and the events that made it so, the last one last.

    `count` is more than 1 if a limit held events back; `late` then says that the page comes when the limit ends.
    """

    entry: Entry
    actions: tuple[EntryAction, ...]
    events: tuple[ApplicationEvent, ...]
    count: int = 1
    late: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """State of an entry that outlasts a run: events of a combination, and a page that a limit holds back."""

    matched: tuple[tuple[int, float, ApplicationEvent], ...] = ()  # place of the pattern, steady seconds
    paged_at: float | None = None
    waiting: tuple[ApplicationEvent, ...] = ()
    count: int = 0
    due: float | None = None


NO_PROGRESS = Progress()


@dataclass(slots=True)
class _Kept:
    """State of one entry."""

    entry: Entry
    matched: dict[int, tuple[float, ApplicationEvent]] = field(
        default_factory=dict
    )  # by place of the pattern
    paged_at: float | None = None  # steady seconds of its last page
    waiting: tuple[ApplicationEvent, ...] = ()  # of the page that a limit holds back
    count: int = 0  # events since the last page
    due: float | None = None  # steady seconds at which the limit is looked at again
    noted: float = -inf  # steady seconds at which matched events were written last


class EventTable:
    """The entries of one device, with their limits."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self._information: Mapping[str, object] = {}
        self._offset = 0
        self._rules: tuple[AgentRule, ...] = ()
        self._sent = -1
        self._answer = StatusAnswer(PagingStatus.OK)
        self.touched: set[int] = set()
        """Entries whose progress has changed since the reader has emptied this; also those that are gone."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In the order of their identifiers."""
        return tuple(self._kept[number].entry for number in sorted(self._kept))

    @property
    def pushed(self) -> tuple[Entry, ...]:
        """The entries of the policy server (P7)."""
        return tuple(entry for entry in self.entries if entry.identifier >= FIRST_PUSHED)

    @property
    def rules(self) -> tuple[AgentRule, ...]:
        """Rules for the second paging information that came with the table (1208)."""
        return self._rules

    @property
    def sent(self) -> int:
        """Time of the last change, by its sender: milliseconds since 1970; -1 before the first."""
        return self._sent

    @property
    def answer(self) -> StatusAnswer:
        """The answer to the last change."""
        return self._answer

    def forget_sent(self) -> None:
        """The clock of the last change was wrong: any message is later."""
        self._sent = -1

    @property
    def offset(self) -> int:
        """Minutes that the device's clock is ahead of UTC."""
        return self._offset

    @property
    def information(self) -> Mapping[str, object]:
        """Names and scalars that the device left."""
        return self._information

    def names_app(self, app: str) -> bool:
        """True if a pattern is about this app by its very name."""
        return any(pattern.app == app for kept in self._kept.values() for pattern in kept.entry.patterns)

    def progress(self, number: int) -> Progress:
        """The progress of an entry, or of one that is not there."""
        kept = self._kept.get(number)
        if kept is None:
            return NO_PROGRESS
        matched = tuple((place, at, event) for place, (at, event) in sorted(kept.matched.items()))
        return Progress(matched, kept.paged_at, kept.waiting, kept.count, kept.due)

    def recall(self, number: int, progress: Progress) -> None:
        """Continue an entry where an earlier run was; ignored if it is not there."""
        kept = self._kept.get(number)
        if kept is not None:
            places = range(len(kept.entry.patterns))
            kept.matched = {place: (at, event) for place, at, event in progress.matched if place in places}
            kept.paged_at, kept.waiting = progress.paged_at, progress.waiting
            kept.count, kept.due = progress.count, progress.due

    def awake(self) -> None:
        """The device is back: no page waits for it, and combinations begin anew."""
        for number, kept in self._kept.items():
            if kept.matched or kept.due is not None:
                kept.matched, kept.waiting, kept.due, kept.count = {}, (), None, 0
                self.touched.add(number)

    def look_again(self, now: float) -> None:
        """The wall clock was set: quiet hours may have ended."""
        for kept in self._kept.values():
            if kept.due is not None:
                kept.due = now

    def content(self, home_addresses: tuple[Address, ...]) -> EventTable1206:
        """The whole table as a message that makes it again."""
        return EventTable1206(
            home_addresses,
            Operation.REPLACE,
            max(self._sent, 0),
            tuple(entry for entry in self.entries if entry.identifier < FIRST_PUSHED),
            (),
            self._information,
            self._offset,
            self._rules,
        )

    # Changes -----------------------------------------------------------------------------------------------------

    def change(self, change: EventTable1206) -> StatusAnswer:
        """Change the table as a 1206 says. An older message is refused as stale; a doubled one has the same answer."""
        if change.sent < self._sent:
            return StatusAnswer(PagingStatus.STALE, "a later table is known")
        if change.sent > self._sent:
            self._answer = self._changed(change)
            self._sent = change.sent
        return self._answer

    def _changed(self, change: EventTable1206) -> StatusAnswer:
        match change.operation:
            case Operation.REMOVE:
                unknown = tuple(
                    ItemStatus(number, PagingStatus.UNKNOWN)
                    for number in change.removed
                    if number not in self._kept or number >= FIRST_PUSHED
                )
                self._keep(
                    {
                        number
                        for number in self._kept
                        if number not in set(change.removed) or number >= FIRST_PUSHED
                    }
                )
                return StatusAnswer(PagingStatus.OK, items=unknown)
            case Operation.REPLACE:
                named = {entry.identifier for entry in change.entries}
                self._keep(named | {entry.identifier for entry in self.pushed})
        whole = change.operation is Operation.REPLACE
        if whole or change.information:
            self._information = dict(change.information)
        if whole or change.rules:
            self._rules = change.rules
        if whole or change.offset:
            self._offset = change.offset
        own = tuple(entry for entry in change.entries if entry.identifier < FIRST_PUSHED)
        foreign = [
            ItemStatus(entry.identifier, PagingStatus.REFUSED, f"identifiers end at {FIRST_PUSHED - 1}")
            for entry in change.entries
            if entry.identifier >= FIRST_PUSHED
        ]
        return StatusAnswer(PagingStatus.OK, items=(*self._put(own), *foreign))

    def push(self, entries: tuple[Entry, ...]) -> bool:
        """Replace the entries of the policy server; False, and no change, if there is no room for these."""
        own = {number for number in self._kept if number < FIRST_PUSHED}
        if len(own) + len(entries) > MAX_ENTRIES:
            return False
        self._keep(own | {entry.identifier for entry in entries})
        self._put(entries)
        return True

    def _keep(self, numbers: set[int]) -> None:
        """Remove all other entries."""
        self.touched |= self._kept.keys() - numbers
        self._kept = {number: kept for number, kept in self._kept.items() if number in numbers}

    def _put(self, entries: tuple[Entry, ...]) -> list[ItemStatus]:
        """Entries that have no room. One that is the same as before keeps its limits, and a page that waits."""
        refused = []
        for entry in entries:
            held = self._kept.get(entry.identifier)
            if held is None and len(self._kept) >= MAX_ENTRIES:
                refused.append(ItemStatus(entry.identifier, PagingStatus.LIMIT))
            elif held is None or held.entry != entry:
                paged_at = None if held is None else held.paged_at
                self._kept[entry.identifier] = _Kept(entry, paged_at=paged_at)
                if held is not None:
                    self.touched.add(entry.identifier)
        return refused

    def answered(self, answer: StatusAnswer) -> None:
        """The last change was answered so; it is answered alike once more."""
        self._answer = answer

    # Events ------------------------------------------------------------------------------------------------------

    def happened(self, event: ApplicationEvent, *, now: float, minute: int) -> list[Firing]:
        """The entries that an event makes fire. `minute`: of the day in UTC, 0 to 1439."""
        fired = []
        for number in sorted(self._kept):
            kept = self._kept[number]
            events = self._matched(kept, event, now)
            if events:
                fired += self._fire(kept, events, now, minute)
        return fired

    def _matched(self, kept: _Kept, event: ApplicationEvent, now: float) -> tuple[ApplicationEvent, ...]:
        """The events that make the entry match, this one last; none if it does not."""
        entry = kept.entry
        places = [
            place
            for place, pattern in enumerate(entry.patterns)
            if matches(pattern, event, self._information)
        ]
        if not places:
            return ()
        if entry.within is None:
            return (event,)
        short = brief(event)
        if not kept.matched.keys() >= {*places} or now >= kept.noted + NOTED_AGAIN:
            self._note(kept, now)
        for place in places:
            kept.matched[place] = (now, short)
        recent = {
            place: (at, found) for place, (at, found) in kept.matched.items() if now - at <= entry.within
        }
        kept.matched = recent
        if len(recent) < len(entry.patterns):
            return ()
        kept.matched = {}
        self._note(kept, now)
        ordered = sorted(recent.items(), key=lambda item: (item[1][0], item[0]))
        others = [found for place, (_at, found) in ordered if place not in places]
        return (*others, event)

    def _note(self, kept: _Kept, now: float) -> None:
        """Have the matched events written. The same ones again are few writes, however many come."""
        kept.noted = now
        self.touched.add(kept.entry.identifier)

    def _fire(
        self, kept: _Kept, events: tuple[ApplicationEvent, ...], now: float, minute: int
    ) -> list[Firing]:
        entry = kept.entry
        at_once = tuple(action for action in entry.actions if action.kind not in PAGING)
        paging = tuple(action for action in entry.actions if action.kind in PAGING)
        kept.count += 1
        wait = self._wait(kept, now, minute) if paging else 0.0
        if wait and entry.limits.later:
            if kept.due is None:
                self.touched.add(entry.identifier)
            kept.waiting, kept.due = tuple(map(brief, events)), now + wait
        elif not wait:
            at_once = entry.actions
        if not at_once:
            return []
        if not wait:
            count = self._paged(kept, now) if paging else 1
            return [Firing(entry, at_once, events, count)]
        return [Firing(entry, at_once, events)]

    def timeout(self, *, now: float, minute: int) -> list[Firing]:
        """The pages whose limits have ended."""
        fired = []
        for number in sorted(self._kept):
            kept = self._kept[number]
            if kept.due is None or kept.due > now:
                continue
            wait = self._wait(kept, now, minute)
            if wait:  # another limit holds it back
                kept.due = now + wait
                continue
            events = kept.waiting
            paging = tuple(action for action in kept.entry.actions if action.kind in PAGING)
            fired.append(Firing(kept.entry, paging, events, self._paged(kept, now), late=True))
        return fired

    def deadline(self) -> float | None:
        """Steady seconds of the next `timeout`, or None."""
        return min((kept.due for kept in self._kept.values() if kept.due is not None), default=None)

    def _paged(self, kept: _Kept, now: float) -> int:
        """Count a page; return the number of events that it is for."""
        count, kept.count = kept.count, 0
        if kept.entry.limits.interval or kept.due is not None:
            self.touched.add(kept.entry.identifier)
        kept.paged_at, kept.waiting, kept.due = now, (), None
        return count

    def _wait(self, kept: _Kept, now: float, minute: int) -> float:
        """Seconds until the limits may allow a page; 0: now."""
        limits, wait = kept.entry.limits, 0.0
        if limits.interval and kept.paged_at is not None:
            wait = max(kept.paged_at + limits.interval - now, 0.0)
        local = (minute + self._offset) % MINUTES
        for first, last in limits.quiet:
            if (local - first) % MINUTES < (last - first) % MINUTES:
                wait = max(wait, (last - local) % MINUTES * 60.0)
        return wait
