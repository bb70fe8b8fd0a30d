"""Direct pages of a stand-in (1172A, P5): event and state to the device by its access node, and its directions back.

One page of a device is in progress; further ones wait. It goes to the access node where the device is, again and later each time
while there is no answer. The device goes on sleeping with new directions, or wakes. A page that has failed becomes one by the
home agent (1172): no event is lost. It must not know the event table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.apps import AppTold
from locum.roles.action_values.paging import PageForwarding
from locum.roles.actions import (
    Action,
    Answered,
    Ask,
    Asked,
    Count,
    Emit,
    Event,
    NoAnswer,
    Persist,
    WallClockStepped,
)
from locum.roles.location.asking import LocationQueries
from locum.roles.mnps.configuration import MOST_SECONDS, StandInConfiguration
from locum.roles.mnps.handover import Prepared
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.paging import direct_page_rows as rows_of
from locum.roles.mnps.paging.page_redirects import PageRedirects
from locum.roles.mnps.parts import WaitingPart
from locum.roles.paging.direct_calls import Unsealable, fitted, read_answer, write_call
from locum.roles.paging.events import Firing
from locum.roles.paging.limits import MOST_BUDGETS, Budgets
from locum.roles.parts import Parts, readable
from locum.roles.timers import Deadlines
from locum.security.replay import difference, next_identification, ntp64
from locum.security.sealing import NONCE_BYTES
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage
from locum.wire.control.paging.direct_page import (
    PATH,
    Decision,
    DirectDecision,
    Directions,
    DirectPage1172A,
    decode_1172a_answer,
    encode_1172a,
)
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.outcome import PAGE_BYTES, AnsweredBy, Outcome, PageAnswer
from locum.wire.control.paging.redirect import ToDevice
from locum.wire.control.paging.way import Way
from locum.wire.errors import WireError
from locum.wire.takes import Takes

FIRST_REQUEST: Final = 3 << 57
LAST_REQUEST: Final = (7 << 56) - 1
"""Numbers of these requests. The part comes before others that take every number above one of theirs."""
FIRST_TRY: Final = 4.0  # seconds that the access node tries before it answers; doubled with each attempt
MARGIN: Final = 3.0  # seconds more for its answer
RETRY_FIRST: Final = 0.5  # seconds after an attempt that failed
RETRY_MAX: Final = 8.0
LIMITED_LEAST: Final = 0.5  # seconds until limits are looked at again
BELIEVED: Final = 60
"""Seconds that a device lets the time of a call be off."""
MOST_STATES: Final = 4096
"""States of proxies that are kept; beyond, the oldest is forgotten."""

_PASSING = (Outcome.NO_ANSWER, Outcome.UNKNOWN, Outcome.BUSY)  # after which another attempt may end better


@dataclass(slots=True)
class DirectPage:
    """One page in progress."""

    identifier: bytes
    home_address: Addr
    firing: Firing
    call: bytes  # sealed for the device
    identification: int
    begun: float  # steady seconds
    give_up: float
    attempt: int = 0
    to: Addr | None = None
    care_of: Addr | None = None  # there
    looking: bool = False  # for its access node
    request: int | None = None  # that waits for an answer
    waking: bool = False  # the device has said so
    last: Outcome = Outcome.NO_ANSWER
    text: str = ""


class DirectPages(WaitingPart):
    """All direct pages of one stand-in; `device_at` is the access node that a trigger has named."""

    def __init__(
        self,
        configuration: StandInConfiguration,
        holdings: Holdings,
        device_at: Callable[[Iterable[Addr]], Addr | None],
        randomness: Randomness,
    ) -> None:
        self._keys, self._limits = configuration.sealing, configuration.pages
        self._holdings, self._device_at, self._randomness = holdings, device_at, randomness
        self._queries = LocationQueries(configuration.location_server, self._located)
        self._forwards = configuration.page_forwarding is PageForwarding.AFTER
        self._redirects = PageRedirects(lambda homes: self.home_agent(homes))
        self._parts = Parts(self._queries, self._redirects)
        self._pages: dict[Addr, DirectPage] = {}
        self._queues: dict[Addr, dict[int, Firing]] = {}  # by device and entry
        self._asked: dict[int, Addr] = {}
        self._due: Deadlines[Addr] = Deadlines()
        self._budgets: Budgets[Addr] = Budgets(self._limits, MOST_BUDGETS)
        self._states: dict[tuple[bytes, str], Mapping[str, object] | None] = {}
        self._maybe_awake: set[Addr] = set()
        self._numbers = count(FIRST_REQUEST)
        self._ahead = 0.0
        self._last: int | None = None  # identification
        self.directed: Callable[[Addr, Directions, float], list[Action]] = lambda _home, _new, _now: []
        """Puts directions of a device into its event table."""
        self.fall_back: Callable[[Addr, Firing, float], list[Action]] = lambda _home, _firing, _now: []
        """Pages by the home agent (1172)."""
        self.asleep: Callable[[Addr], bool] = self._stands_in
        self.home_agent: Callable[[Sequence[Addr]], Addr | None] = lambda _homes: configuration.home_agent
        """The home agent of a device; None: it is not known."""

    # In ----------------------------------------------------------------------------------------------------------

    def page(self, home_address: Addr, firing: Firing, *, now: float) -> list[Action]:
        """Page the device for a firing, or let that wait for the page in progress; firings of one entry are counted together."""
        home = self._device(home_address)
        queue = self._queues.setdefault(home, {})
        held = queue.get(firing.entry.identifier)
        if held is not None:
            firing = Firing(
                firing.entry, firing.actions, firing.events, held.count + firing.count, firing.late
            )
        queue[firing.entry.identifier] = firing
        # Firings that are only counted are written when their number has doubled: a flood costs few writes.
        doubled = held is None or held.count.bit_length() != firing.count.bit_length()
        kept = [rows_of.persist(home, firing)] if doubled else []
        if home in self._pages or held is not None:
            return [*kept, Count("direct-page-folded")]
        return [*kept, *self._next(home, now)]

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Begin the pages of an earlier run again."""
        actions = self._parts.restore(rows, now=now)
        found, refused = readable(rows, rows_of.TABLE, lambda row: rows_of.read(row.value))
        for _row, (home_address, firing) in found:
            self._queues.setdefault(home_address, {})[firing.entry.identifier] = firing
            self._due.set(home_address, now)
        return [*actions, *refused]

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers of access nodes and of the location server; None: others need the event."""
        match event:
            case WallClockStepped(ahead):
                self._ahead = ahead
            case AppTold():
                self._states.pop((event.handover, event.app), None)
                self._states[event.handover, event.app] = event.state
                if len(self._states) > MOST_STATES:
                    del self._states[next(iter(self._states))]
            case Asked(path="634"):
                self._maybe_awake |= self._pages.keys() & {*event.authorised}
            case Answered(request) | NoAnswer(request) if FIRST_REQUEST <= request <= LAST_REQUEST:
                return self._answered(event, now)
        return self._parts.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Attempts that are due, pages that are given up, and firings that a limit held back."""
        actions = self._parts.timeout(now=now)
        for home in self._due.due(now):
            page = self._pages.get(home)
            if page is None:
                actions += self._next(home, now)
            elif not self.asleep(home):
                actions += self._end(page, "reached", now)
            elif now < page.give_up:
                actions += self._look(page, now)
            else:
                text = "it has answered, and did not wake" if page.waking else page.text
                actions += self._fail(page, Outcome.NO_ANSWER if page.waking else page.last, now, text)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = [at for at in (self._parts.deadline(), self._due.next()) if at is not None]
        return min(times, default=None)

    def follow(self, *, now: float) -> list[Action]:
        """End the pages of devices that are back."""
        actions: list[Action] = []
        for home in tuple(self._maybe_awake):
            page = self._pages.get(home)
            if page is None:
                self._maybe_awake.discard(home)
            elif not self.asleep(home):
                actions += self._end(page, "reached", now)
        return actions

    def pages(self) -> tuple[DirectPage, ...]:
        """All pages in progress."""
        return tuple(self._pages.values())

    # The course of a page ----------------------------------------------------------------------------------------

    def _next(self, home: Addr, now: float) -> list[Action]:
        """Begin the page of the firing that has waited longest, if the limits allow one."""
        queue = self._queues.get(home)
        if not queue:
            self._queues.pop(home, None)
            return []
        firing = next(iter(queue.values()))
        page = self._page(home, firing, now)
        if not self.asleep(home):
            return self._end(page, "reached", now)
        keys = self._keys.get(home)
        if keys is None or not isinstance(home, IPv4Address):
            text = "there is no association for a direct page with this device"
            return self._fail(page, Outcome.NOT_AUTHORISED, now, text)
        if wait := self._limited(home, now):
            self._due.set(home, now + max(wait, LIMITED_LEAST))
            return [Count("direct-page-limited")]
        del queue[firing.entry.identifier]
        event = firing.events[-1]
        content = fitted(event, firing.entry.identifier, firing.count, self._state(home, event.app))
        nonce = self._random(NONCE_BYTES)
        page.call = write_call(content, page.identifier, home, page.identification, keys.own, nonce)
        self._pages[home] = page
        return self._look(page, now)

    def _page(self, home: Addr, firing: Firing, now: float) -> DirectPage:
        wall = now + self._ahead
        if self._last is not None and difference(self._last, ntp64(wall)) > BELIEVED << 32:
            self._last = None  # the clock was set back: no device has believed what was so far ahead
        self._last = next_identification(wall, self._last)
        seconds = min(self._limits.seconds, MOST_SECONDS)
        return DirectPage(self._random(PAGE_BYTES), home, firing, b"", self._last, now, now + seconds)

    def _look(self, page: DirectPage, now: float) -> list[Action]:
        """Ask where the device is now."""
        self._due.cancel(page.home_address)
        page.looking = True
        return self._queries.ask(page.home_address, now=now)

    def _located(self, home: Addr, location: Location1212 | None, now: float) -> list[Action]:
        """The location server's answer; a trigger may have told the access node as well."""
        page = self._pages.get(home)
        if page is None or not page.looking:
            return []
        page.looking = False
        access_node = None if location is None else location.access_node
        way = None if location is None else location.way
        if access_node is None:
            access_node, way = self._device_at((home,)), None
        if access_node is None:
            return self._fail(page, Outcome.UNKNOWN, now, "no access node of it is known")
        known = location is not None and location.access_node == access_node
        page.care_of = location.care_of if known and location is not None else None
        return self._ask(page, access_node, way, now)

    def _ask(self, page: DirectPage, access_node: Addr, way: Way | None, now: float) -> list[Action]:
        tries = max(1, int(min(FIRST_TRY * 2**page.attempt, page.give_up - now)))
        page.attempt += 1
        page.to, page.request = access_node, next(self._numbers)
        self._asked[page.request] = page.home_address
        message = DirectPage1172A(page.identifier, page.home_address, tries, page.call, way)
        event = page.firing.events[-1]
        detail: dict[str, JSON] = {
            "to": str(access_node),
            "attempt": page.attempt,
            "entry": page.firing.entry.identifier,
            "app": event.app,
            "event": event.kind,
        }
        return [
            Ask(page.request, access_node, PATH, encode_1172a(message), tries + MARGIN),
            Emit("sent", "1172A", page.home_address, None, detail),
        ]

    def _answered(self, event: Answered | NoAnswer, now: float) -> list[Action]:
        home = self._asked.pop(event.request, None)
        page = None if home is None else self._pages.get(home)
        if page is None or page.request != event.request:
            return [Count("direct-page-answer-late")]
        page.request = None
        if isinstance(event, NoAnswer):
            return self._later(page, f"the access node: {event.reason}", "direct-page-unanswered", now)
        try:
            answer = decode_1172a_answer(event.body)
        except WireError as error:
            text = "the access node's answer cannot be read"
            return self._later(page, text, f"direct-page-{error.reason}", now)
        if answer.page != page.identifier:
            return self._later(page, "the access node answered another page", "direct-page-mismatch", now)
        if answer.outcome in _PASSING:
            page.last = answer.outcome
            return self._later(page, answer.text, f"direct-page-{_word(answer.outcome)}", now)
        if answer.outcome is not Outcome.REACHED:
            return self._fail(page, answer.outcome, now, answer.text)
        if answer.answered_by is AnsweredBy.ACCESS_NODE:
            return self._waking(page, "an", now)
        decision = self._decision(page, answer)
        if decision is None:
            text = "the answer is not the device's"
            return self._later(page, text, "direct-page-answer-not-authentic", now)
        if decision.decision is Decision.WAKING:
            return self._waking(page, "mn", now)
        directed = self.directed(page.home_address, decision.directions, now)
        return [*directed, *self._end(page, "directed", now, directions=decision.directions)]

    def _decision(self, page: DirectPage, answer: PageAnswer) -> DirectDecision | None:
        """The device's decision about this very call; None: it has not made the answer."""
        try:
            message = DirectMessage.decode(answer.proof)
            decision = read_answer(message, self._keys[page.home_address].peer)
        except (WireError, Unsealable):
            return None
        said = (message.kind, message.page, message.home_address, message.identification)
        asked = (DirectKind.ANSWER, page.identifier, page.home_address, page.identification)
        return decision if said == asked else None

    def _waking(self, page: DirectPage, by: str, now: float) -> list[Action]:
        detail: dict[str, JSON] = {"by": by, "from": str(page.to)}
        told = Emit("page-answered", "1172A", page.home_address, None, detail)
        if not self.asleep(page.home_address):
            return [told, *self._end(page, "reached", now)]
        page.waking, page.give_up = True, now + self._limits.wake_seconds
        self._due.set(page.home_address, page.give_up)
        return [told, *self._forward(page, now)]

    def _forward(self, page: DirectPage, now: float) -> list[Action]:
        """Packets that page the device may go to its access node from now on (1210)."""
        care_of = page.care_of if isinstance(page.care_of, IPv4Address) else page.to
        if not self._forwards or page.to is None or care_of is None:
            return []
        home = page.home_address
        others = (it for taken in self._holdings.of((home,)) for it in taken.home_addresses)
        homes = tuple(dict.fromkeys((home, *others)))
        return self._redirects.begin(homes, ToDevice(page.to, care_of), page.identifier, now=now)

    def _later(self, page: DirectPage, text: str, counter: str, now: float) -> list[Action]:
        """Another attempt after a while, or the end; the device may be elsewhere."""
        page.text = text
        self._queries.forget(page.home_address)
        at = now + min(RETRY_MAX, RETRY_FIRST * 2 ** min(page.attempt - 1, 8))
        if at >= page.give_up:
            return [Count(counter), *self._fail(page, page.last, now, text)]
        self._due.set(page.home_address, at)
        return [Count(counter)]

    # Outcomes ----------------------------------------------------------------------------------------------------

    def _end(
        self, page: DirectPage, outcome: str, now: float, *, directions: Directions | None = None
    ) -> list[Action]:
        """The device knows of the event. If it is awake, it knows of those that wait as well."""
        home = page.home_address
        actions = [_ended(page, outcome, now, directions=directions), *self._over(page)]
        if outcome == "reached":
            self._redirects.over(home)
            queue = self._queues.pop(home, {})
            self._due.cancel(home)
            return [*actions, *(rows_of.forget(home, entry) for entry in queue)]
        return [*actions, *self._next(home, now)]

    def _fail(self, page: DirectPage, outcome: Outcome, now: float, text: str) -> list[Action]:
        """The home agent pages instead, for the firings that wait too."""
        home: Addr = page.home_address
        over, waiting = self._over(page), self._queues.pop(home, {})
        self._due.cancel(home)
        waiting.setdefault(page.firing.entry.identifier, page.firing)
        restored = self._redirects.end(home, now=now)
        instead = [action for firing in waiting.values() for action in self.fall_back(home, firing, now)]
        gone = [rows_of.forget(home, entry) for entry in waiting]
        return [_ended(page, _word(outcome), now, text=text), *restored, *instead, *over, *gone]

    def _over(self, page: DirectPage) -> list[Action]:
        """Forget the page, and its row unless the entry has fired again."""
        home, entry = page.home_address, page.firing.entry.identifier
        self._pages.pop(home, None)
        self._maybe_awake.discard(home)
        self._due.cancel(home)
        if page.request is not None:
            self._asked.pop(page.request, None)
            page.request = None
        return [] if entry in self._queues.get(home, {}) else [rows_of.forget(home, entry)]

    # Facts -------------------------------------------------------------------------------------------------------

    def _device(self, home_address: Addr) -> Addr:
        """The IPv4 home address of the same device, by which it is called."""
        known = (home for taken in self._holdings.of((home_address,)) for home in taken.home_addresses)
        return next((home for home in known if home.version == 4), home_address)

    def _stands_in(self, home: Addr) -> bool:
        """True if the device has handed everything over and is not back: a wake that has begun may be called off."""
        return any(
            not isinstance(taken.state, Prepared) and taken.switch is not Takes.RULED
            for taken in self._holdings.of((home,))
        )

    def _state(self, home: Addr, app: str) -> Mapping[str, object] | None:
        """The state that this proxy of the device kept last; None: it is too long for a call."""
        for taken in self._holdings.of((home,)):
            if (taken.identifier, app) in self._states:
                return self._states[taken.identifier, app]
        return {}

    def _limited(self, home: Addr, now: float) -> float:
        """Seconds until the limits allow a page of this device; 0: now, and it is counted."""
        return self._budgets.take(home, None, now)

    def _random(self, size: int) -> bytes:
        return self._randomness.getrandbits(8 * size).to_bytes(size, "big")


def _ended(
    page: DirectPage, outcome: str, now: float, *, text: str = "", directions: Directions | None = None
) -> Emit:
    event = page.firing.events[-1]
    detail: dict[str, JSON] = {
        "outcome": outcome,
        "seconds": round(now - page.begun, 3),
        "attempts": page.attempt,
        "entry": page.firing.entry.identifier,
        "app": event.app,
        "event": event.kind,
        "count": page.firing.count,
    }
    if text:
        detail["reason"] = text
    if directions is not None:
        detail["entries"], detail["rules"] = len(directions.entries), len(directions.rules)
        detail["information"] = len(directions.information)
    return Emit("direct-page-ended", "1172A", page.home_address, None, detail)


def _word(outcome: Outcome) -> str:
    return outcome.name.lower().replace("_", "-")
