"""Event tables of a stand-in's devices: 1206 in, events in, actions out (P3, P4, P15).

A device or its access node changes the table of the device (1206). An event of one of its proxies, or a packet, that comes
while the device sleeps is compared with the table. It must not know how a page is sent, nor the course of a proxy.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.apps import AppTold
from locum.roles.action_values.event_tables import (
    PACKETS_A_SECOND,
    CorrespondentTold,
    PacketsSeen,
    TellCorrespondent,
    WatchPackets,
)
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.actions import (
    Action,
    Answer,
    Asked,
    Count,
    Emit,
    Event,
    Persist,
    WallClockStepped,
)
from locum.roles.mnps.configuration import StandInConfiguration
from locum.roles.mnps.handover import Prepared, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.paging.acting import LATE, Acting, Happened
from locum.roles.mnps.paging.agent_rules import NO_HOME_AGENT, AgentRules
from locum.roles.mnps.paging.device_table import (
    TABLE,
    DeviceTable,
    progress_from_row,
    size_of,
    table_from_row,
)
from locum.roles.mnps.paging.packets import PACKET, packet_event
from locum.roles.mnps.paging.page_requests import PageRequests
from locum.roles.mnps.paging.pushed_entries import PushedEntries
from locum.roles.mnps.paging.waiting_requests import WaitingRequests
from locum.roles.mnps.parts import WaitingPart
from locum.roles.mnps.registration import StandInRegistration
from locum.roles.paging.events import Firing
from locum.roles.paging.stored_events import EVENTS, StoredEvent
from locum.roles.parts import readable
from locum.roles.profile_requests import DisconnectAsked, EntriesFetched, ProfilePushed
from locum.roles.timers import Deadlines
from locum.wire.control.paging.cause import MAX_APP, MAX_KIND, ApplicationEvent, carried
from locum.wire.control.paging.direct_page import NO_DIRECTIONS, Directions
from locum.wire.control.paging.entry import MINUTES, ActionKind
from locum.wire.control.paging.event_table import PATH, EventTable1206, Operation, decode_1206
from locum.wire.control.paging.status import (
    ItemStatus,
    PagingStatus,
    StatusAnswer,
    encode_status_answer,
)
from locum.wire.errors import WireError
from locum.wire.takes import Takes

MAX_TABLES: Final = 16_384
"""Devices, those whose table was removed included: of these the oldest are forgotten."""
MAX_SIZE: Final = 256 << 20
"""Bytes that the tables of all devices may take, with all that waits for them."""
MAX_FALLING: Final = 64
"""Events of a device that is falling asleep; they are compared when it sleeps."""
NO_ROOM: Final = "the stand-in has no room for this table"


class EventTables(WaitingPart):
    """Tables of all devices that have one here."""

    def __init__(
        self,
        configuration: StandInConfiguration,
        holdings: Holdings,
        registration: StandInRegistration | None,
        randomness: Randomness,
        direct: Callable[[Addr, Firing, float], list[Action]],
        *,
        most: int = MAX_TABLES,
        most_bytes: int = MAX_SIZE,
    ) -> None:
        """`direct` pages a device by its access node (1172A)."""
        self._configuration, self._holdings, self._registration = configuration, holdings, registration
        self._most, self._most_bytes = most, most_bytes
        self._size = 0
        self._devices: dict[Addr, DeviceTable] = {}
        self._by_home: dict[Addr, Addr] = {}
        self._due: Deadlines[Addr] = Deadlines()
        self._waiting = WaitingRequests()
        self._forgotten: list[Action] = []  # rows of tables that gave way
        self._falling: dict[bytes, list[Happened]] = {}  # by handover
        self._watched: dict[Addr, tuple[Addr, ...]] = {}
        self._ahead = 0.0
        self.pages = PageRequests(self.home_agent, randomness)
        self._acting = Acting(self.pages)
        self._acting.direct = direct
        self.rules = AgentRules(self.home_agent, self._rules_answered)
        self._pushed = PushedEntries(self, configuration.home_prefixes)

    # Reading -----------------------------------------------------------------------------------------------------

    def all(self) -> list[DeviceTable]:
        """Tables that have an entry, a rule or a stored event, for users."""
        return [device for device in self._devices.values() if not device.empty]

    def of(self, home_addresses: Iterable[Addr]) -> DeviceTable | None:
        """The table of the device that has one of these home addresses."""
        for home in home_addresses:
            if (key := self._by_home.get(home)) is not None:
                return self._devices[key]
        return None

    def asleep(self, home_addresses: Iterable[Addr]) -> bool:
        """True if the device has handed everything over and has not come back (P14)."""
        return any(
            taken.switch is not Takes.RULED and not isinstance(taken.state, Prepared)
            for taken in self._holdings.of(home_addresses)
        )

    def application(self, taken: TakenOver) -> dict[str, object]:
        """Events for the device of a handover with which it slept, for the answer to its reclaim."""
        device = self.of(taken.home_addresses)
        if device is None or taken.switch is Takes.RULED or not device.stored:
            return {}
        return {EVENTS: [stored.to_cbor() for stored in device.stored.offer()]}

    def home_agent(self, home_addresses: Sequence[Addr]) -> Addr | None:
        """The home agent of a device; None: it is not known here."""
        standing = None if self._registration is None else self._registration.standing(home_addresses)
        if standing is not None:
            return standing.device.home_agent
        return self._configuration.home_agent or self._configuration.colocated_home_agent

    # Part of the role --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Go on with the tables of an earlier run, with all that waits in them."""
        own = sorted((row for row in rows if row.table == TABLE), key=lambda row: " " in row.key)
        _found, actions = readable(own, TABLE, lambda row: self._restore(row, now))  # tables first
        for device in self._devices.values():
            device.table.touched.clear()
            self._schedule(device)
        return actions + [action for device in self._devices.values() for action in self._watch(device)]

    def _restore(self, row: Persist, now: float) -> None:
        name, _, what = row.key.partition(" ")
        if not what:
            device = table_from_row(row.value)
            if str(device.key) != name or self.of(device.home_addresses) is not None:
                raise ValueError("a table is there already")
            self._add(device)
            return
        device = self._devices[ip_address(name)]
        kind, _, number = what.partition(" ")
        match kind:
            case "page":
                self.pages.restore(row, now=now)
            case "policy":
                device.recall_pushed(row.value)
                self._size += device.measure()
            case "rules":
                self.rules.restore(row, device.home_addresses, device.table.rules, now=now)
            case "entry":
                device.table.recall(int(number), progress_from_row(row.value))
                device.rows.add(int(number))
            case "stored":
                device.stored.put(StoredEvent.from_row(row.value))
            case _:
                raise ValueError("the row is of no known kind")

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Changes of tables, events, and answers of home agents."""
        match event:
            case Asked(path=path) if path == PATH:
                return self._asked(event, now)
            case ProfilePushed() | EntriesFetched() | DisconnectAsked():
                return self._pushed.happened(event)
            case AppTold():
                return self._told(event, now)
            case PacketsSeen():
                return self._seen(event, now)
            case CorrespondentTold():
                return self._acting.told(event)
            case NotPerformed(action=TellCorrespondent() as action):
                return self._acting.told(
                    CorrespondentTold(action.handover, action.app, action.flow, event.reason)
                )
            case NotPerformed(action=WatchPackets()):
                return [Count("packets-not-watched")]
            case WallClockStepped(ahead):
                self._clock(ahead, now)
                return None
        found = self.rules.happened(event, now=now)
        return self.pages.happened(event, now=now) if found is None else found

    def follow(self, *, now: float) -> list[Action]:
        """Events of devices that were falling asleep, and sleep now."""
        actions: list[Action] = []
        for handover in tuple(self._falling):
            taken = self._holdings.get(handover)
            if taken is not None and isinstance(taken.state, Prepared):
                continue
            waiting = self._falling.pop(handover)
            if taken is None:
                actions.append(Count("event-awake", len(waiting)))
                continue
            for happened in waiting:
                actions += self._compare(taken.home_addresses, happened, now)
        return actions

    def timeout(self, *, now: float) -> list[Action]:
        """Limits that have ended, pages and rules that are due, and devices that wait for an answer."""
        actions: list[Action] = []
        for key in self._due.due(now):
            device = self._devices.get(key)
            if device is not None:
                firings = device.table.timeout(now=now, minute=self._minute(now))
                self._schedule(device)
                actions += self._acting.fired(device, firings, LATE, now)
        for key in self._waiting.due(now):
            actions += self._answer_all(key)
        return [*actions, *self.rules.timeout(now=now), *self.pages.timeout(now=now)]

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = (self._due.next(), self._waiting.deadline(), self.rules.deadline(), self.pages.deadline())
        return min((at for at in times if at is not None), default=None)

    def ended(self, taken: TakenOver) -> list[Action]:
        """A handover ends: if the device slept with it, it is back, and nothing is to page it any more."""
        device = self.of(taken.home_addresses)
        if device is None or taken.switch is Takes.RULED or isinstance(taken.state, Prepared):
            return []
        if self.asleep(taken.home_addresses):
            return []
        device.table.awake()
        self._due.cancel(device.key)
        return [*device.persist_progress(), *self.pages.back(device.key)]

    def given(self, taken: TakenOver) -> list[Action]:
        """The device of this handover has the stored events."""
        device = self.of(taken.home_addresses)
        if device is None or taken.switch is Takes.RULED or not device.stored:
            return []
        given = device.given()
        told = Emit("events-given", "632", device.key, None, {"events": len(given)})
        return [*given, told] if given else []

    def _clock(self, ahead: float, now: float) -> None:
        moved, self._ahead = abs(ahead - self._ahead) > 1.0, ahead
        self.rules.ahead = self._acting.ahead = ahead
        if moved:
            for device in self._devices.values():
                device.table.look_again(now)
                self._schedule(device)

    # Tables ------------------------------------------------------------------------------------------------------

    def _asked(self, event: Asked, now: float) -> list[Action]:
        try:
            change = decode_1206(event.body)
        except WireError as error:
            return [Count(f"1206-{error.reason}"), _answer(event, PagingStatus.MALFORMED)]
        homes, prefixes = set(change.home_addresses), self._configuration.home_prefixes
        served = all(any(home in prefix for prefix in prefixes) for home in homes)
        if not homes <= set(event.authorised) or not served:
            return [Count("1206-not-authorised"), _answer(event, PagingStatus.NOT_AUTHORISED)]
        known = {self._by_home[home] for home in homes if home in self._by_home}
        if len(known) > 1 or any(not set(self._devices[key].home_addresses) <= homes for key in known):
            reason = "these are not the home addresses of one device, as its table has them"
            return [Count("1206-other-homes"), _answer(event, PagingStatus.REFUSED, reason)]
        device = self._devices[known.pop()] if known else DeviceTable(change.home_addresses)
        if device.early(change, now + self._ahead):
            return [Count("1206-future"), _answer(event, PagingStatus.REFUSED, "the sender's clock is ahead")]
        if change.sent <= device.table.sent:
            return self._again(device, event, change, now)
        if (refusal := self._refusal(device, change)) is not None:
            return [Count(f"1206-{refusal.name.lower()}"), _answer(event, refusal, NO_ROOM)]
        return self._change(device, change, event, now)

    def _again(self, device: DeviceTable, event: Asked, change: EventTable1206, now: float) -> list[Action]:
        """A message that is older than the last one, or that one once more."""
        answer = device.table.change(change)
        if answer.status is PagingStatus.STALE:
            return [Count("1206-stale"), _answer(event, answer.status, answer.text)]
        self._waiting.add(device.key, event.exchange, answer, change, now=now)
        return [] if self.rules.status(device.key) is None else self._answer_all(device.key)

    def _refusal(self, device: DeviceTable, change: EventTable1206) -> PagingStatus | None:
        """A reason why the change cannot be kept; everything is left as it was then."""
        if change.operation is Operation.REMOVE:
            return None
        if self._size - device.size + self._size_after(device, change) > self._most_bytes:
            return PagingStatus.LIMIT
        full = device.key not in self._devices and len(self._devices) >= self._most
        return PagingStatus.LIMIT if device.too_long(change) or (full and not self._make_room()) else None

    def _size_after(self, device: DeviceTable, change: EventTable1206) -> int:
        size = size_of(change.entries, change)
        return size if change.operation is Operation.REPLACE else device.size + size

    def _make_room(self) -> bool:
        """Forget the oldest device whose table was removed; False if there is none."""
        for device in self._devices.values():
            if device.empty and self.pages.get(device.key) is None:
                self._forgotten += self._remove(device)
                return True
        return False

    def directed(self, home_address: Addr, directions: Directions, now: float) -> list[Action]:
        """Directions of a device that was paged directly (P5): new entries, and information and rules in the place of others."""
        device = self.of((home_address,))
        if device is None:
            return [Count("directions-no-table")]
        # Later than the last change, and earlier than the next one of the device's own clock.
        change = EventTable1206(
            device.home_addresses,
            Operation.PUT,
            device.table.sent + 1,
            directions.entries,
            (),
            directions.information,
            0,
            directions.rules,
        )
        if (refusal := self._refusal(device, change)) is not None:
            return [Count(f"directions-{refusal.name.lower()}")]
        return [] if directions == NO_DIRECTIONS else self._change(device, change, None, now)

    def by_home_agent(self, home_address: Addr, firing: Firing, now: float) -> list[Action]:
        """A direct page has failed: page by the home agent, unless the device has removed its table."""
        device = self.of((home_address,))
        return [Count("page-no-table")] if device is None else self._acting.by_home_agent(device, firing, now)

    def _change(
        self, device: DeviceTable, change: EventTable1206, event: Asked | None, now: float
    ) -> list[Action]:
        answer = device.table.change(change)
        others = [home for home in change.home_addresses if home not in device.home_addresses]
        device.home_addresses = (*device.home_addresses, *others)
        self._by_home |= dict.fromkeys(others, device.key)
        effects = self.changed(device)
        answer = replace(answer, items=(*answer.items, *self._without_home_agent(device, change)))
        device.table.answered(answer)
        detail: dict[str, JSON] = {
            "operation": change.operation.name.lower(),
            "entries": len(device.table.entries),
            "rules": len(device.table.rules),
            "from": "1172A" if event is None else str(event.peer),
        }
        wanted = self.rules.want(device.home_addresses, device.table.rules, now=now)
        if event is not None:
            self._waiting.add(device.key, event.exchange, answer, change, now=now)
        waits = self.rules.status(device.key) is None
        return [
            *effects,
            device.persist(answer),
            Emit("table-changed", PATH, device.key, None, detail),
            *wanted,
            *([] if waits else self._answer_all(device.key)),
        ]

    def has_room(self, device: DeviceTable) -> bool:
        """True if the device has a table, or may have one."""
        full = len(self._devices) >= self._most or self._size >= self._most_bytes
        return device.key in self._devices or not full or self._make_room()

    def changed(self, device: DeviceTable) -> list[Action]:
        """The effects of other entries in a table."""
        if device.key not in self._devices:
            self._add(device)
        self._size += device.measure()
        self._schedule(device)
        gone = [] if device.table.entries else self.pages.forget(device.key)
        forgotten, self._forgotten = self._forgotten, []
        return [*forgotten, *device.persist_progress(), *self._watch(device), *gone]

    def _without_home_agent(self, device: DeviceTable, change: EventTable1206) -> tuple[ItemStatus, ...]:
        """Statuses of entries that page, where nobody could be asked for a page."""
        if self.home_agent(device.home_addresses) is not None:
            return ()
        return tuple(
            ItemStatus(entry.identifier, PagingStatus.UNKNOWN, NO_HOME_AGENT)
            for entry in change.entries
            if any(action.kind in (ActionKind.PAGE, ActionKind.PAGE_DIRECT) for action in entry.actions)
        )

    def _rules_answered(self, key: Addr, _answer: StatusAnswer) -> list[Action]:
        return self._answer_all(key)

    def _answer_all(self, key: Addr) -> list[Action]:
        """Answer everyone who has changed this table, with what the home agent says of the rules."""
        return self._waiting.answer(key, self.rules.status(key))

    def _add(self, device: DeviceTable) -> None:
        self._devices[device.key] = device
        self._by_home |= dict.fromkeys(device.home_addresses, device.key)
        self._size += device.size

    def _remove(self, device: DeviceTable) -> list[Action]:
        del self._devices[device.key]
        for home in device.home_addresses:
            del self._by_home[home]
        self._size -= device.size
        return device.forget()

    def _watch(self, device: DeviceTable) -> list[Action]:
        """Have packets reported if the table asks for them."""
        wanted = device.home_addresses if device.table.names_app(PACKET) else ()
        before = self._watched.get(device.key, ())
        if wanted == before:
            return []
        if not wanted:
            del self._watched[device.key]
            return [WatchPackets(before, 0)]
        self._watched[device.key] = wanted
        return [WatchPackets(wanted, PACKETS_A_SECOND)]

    def _schedule(self, device: DeviceTable) -> None:
        at = device.table.deadline()
        if at is None:
            self._due.cancel(device.key)
        else:
            self._due.set(device.key, at)

    # Events ------------------------------------------------------------------------------------------------------

    def _told(self, event: AppTold, now: float) -> list[Action]:
        taken = self._holdings.get(event.handover)
        if taken is None:
            return [Count("event-of-no-handover")]
        if self.of(taken.home_addresses) is None:
            return []
        name, kind = event.app[:MAX_APP], event.kind[:MAX_KIND]
        if not name or not kind:
            return [Count("event-unnamed")]
        detail = dict(event.detail)
        if event.flow is not None:
            detail.setdefault("peer", str(event.flow.peer))
            detail.setdefault("peer_port", event.flow.peer_port)
        found = carried(ApplicationEvent(name, kind, detail))
        return self._compare(taken.home_addresses, Happened(found, event.handover, event.flow), now)

    def _seen(self, event: PacketsSeen, now: float) -> list[Action]:
        actions: list[Action] = [Count("packet-events-limited", event.left_out)] if event.left_out else []
        for packet in event.packets:
            try:
                found = packet_event(packet)
            except WireError as error:
                actions.append(Count(f"packet-event-{error.reason}"))
                continue
            actions += self._compare(event.home_addresses, Happened(found), now)
        return actions

    def _compare(self, home_addresses: Sequence[Addr], happened: Happened, now: float) -> list[Action]:
        """Compare an event with the table of the device, if it sleeps (P14)."""
        device = self.of(home_addresses)
        if device is None:
            return []
        if not self.asleep(home_addresses):
            return self._of_an_awake(home_addresses, happened)
        firings = device.table.happened(happened.event, now=now, minute=self._minute(now))
        self._schedule(device)
        return self._acting.fired(device, firings, happened, now)

    def _of_an_awake(self, home_addresses: Sequence[Addr], happened: Happened) -> list[Action]:
        """An event of a device that is awake is the device's business; one that falls asleep may have missed it."""
        for taken in self._holdings.of(home_addresses):
            if taken.switch is not Takes.RULED:
                waiting = self._falling.setdefault(taken.identifier, [])
                if len(waiting) < MAX_FALLING:
                    waiting.append(happened)
                    return []
        return [Count("event-awake")]

    def _minute(self, now: float) -> int:
        return int((now + self._ahead) // 60) % MINUTES


def _answer(event: Asked, status: PagingStatus, text: str = "") -> Answer:
    return Answer(event.exchange, encode_status_answer(StatusAnswer(status, text)))
