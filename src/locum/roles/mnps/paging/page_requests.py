"""Pages that a stand-in's event tables ask the home agent for (1172, P4): one for each device, until it is reached or back.

Direct pages that have failed come here too. A request without an answer is
repeated, and so is a page with another outcome than "reached", less and less often: the event is never lost. Further events
join the page that waits. It must not know tables, nor when a device sleeps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.actions import (
    Action,
    Answered,
    Ask,
    Count,
    Emit,
    Event,
    Forget,
    NoAnswer,
    Persist,
    Table,
)
from locum.roles.timers import Deadlines
from locum.wire import cbor
from locum.wire.control.paging.cause import MAX_DETAIL, ApplicationEvent
from locum.wire.control.paging.outcome import PAGE_BYTES, Outcome, decode_page_answer
from locum.wire.control.paging.page_request import PATH, Order, PageRequest1172, encode_1172
from locum.wire.errors import WireError

TABLE: Final[Table] = "event"
FIRST_REQUEST: Final = (1 << 58) + (1 << 56)
"""Of the numbers of requests; those of the rules are below these."""
LAST_REQUEST: Final = (1 << 58) + (1 << 57) - 1
ANSWER_TIMEOUT: Final = 75.0
"""Seconds; the answer comes when the page has ended. A repeated request joins the page that goes on."""
RETRY_FIRST, RETRY_MAX = 2.0, 300.0
"""Seconds after which a home agent that has not answered is asked again: the first, doubled up to the last."""
AGAIN_FIRST, AGAIN_MAX = 60.0, 3600.0
"""The same after a page with another outcome."""
SETTLING: Final = 10.0
"""Seconds that a new page waits after one that has reached the device: it is on its way back then."""


@dataclass(slots=True)
class WaitingPage:
    """The page of one device. `events`: how many it stands for; `event` is the first."""

    identifier: bytes
    home_addresses: tuple[Addr, ...]
    entry: int
    event: ApplicationEvent
    since: float  # steady seconds
    order: Order | None = None
    events: int = 1
    attempts: int = 0
    unanswered: int = 0  # attempts in a row
    failed: int = 0  # outcomes other than "reached"
    request: int | None = None
    last: str = ""  # outcome of the last attempt, for users

    @property
    def key(self) -> Addr:
        """The device."""
        return self.home_addresses[0]

    def persist(self) -> Persist:
        """The row."""
        row: dict[str, JSON] = {
            "page": self.identifier.hex(),
            "home_addresses": [str(home) for home in self.home_addresses],
            "entry": self.entry,
            "event": cbor.encode(self.event.to_cbor()).hex(),
            "since": self.since,
            "order": None if self.order is None else int(self.order),
            "events": self.events,
            "failed": self.failed,
        }
        return Persist(TABLE, page_key(self.key), row)

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "WaitingPage":
        """The page in a row of our own; raises ValueError, KeyError, TypeError or WireError for anything else."""
        homes, since, order = row["home_addresses"], row["since"], row["order"]
        if not isinstance(homes, list | tuple) or not homes or not isinstance(since, int | float):
            raise ValueError("a page has home_addresses and since")
        body = cbor.decode(bytes.fromhex(str(row["event"])), limit=MAX_DETAIL + 1024, field="row")
        return cls(
            bytes.fromhex(str(row["page"])),
            tuple(ip_address(str(home)) for home in homes),
            int(str(row["entry"])),
            ApplicationEvent.from_cbor(body, "row"),
            float(since),
            None if order is None else Order(int(str(order))),
            int(str(row["events"])),
            failed=int(str(row["failed"])),
        )


def page_key(device: Addr) -> str:
    """Key of the row of a device's page."""
    return f"{device} page"


@dataclass(slots=True)
class PageRequests:
    """Pages of all devices. `home_agent` gives that of a device, None: it is not known."""

    home_agent: Callable[[Sequence[Addr]], Addr | None]
    randomness: Randomness
    _pages: dict[Addr, WaitingPage] = field(default_factory=dict)
    _by_request: dict[int, Addr] = field(default_factory=dict)
    _due: Deadlines[Addr] = field(default_factory=Deadlines)
    _reached: dict[Addr, float] = field(default_factory=dict)  # steady seconds
    _numbers: "count[int]" = field(default_factory=lambda: count(FIRST_REQUEST))

    def get(self, device: Addr) -> WaitingPage | None:
        """The page that waits for this device."""
        return self._pages.get(device)

    def restore(self, row: Persist, *, now: float) -> None:
        """Take a page of an earlier run: it is asked for again. Raises as `WaitingPage.from_row`."""
        page = WaitingPage.from_row(row.value)
        self._pages[page.key] = page
        self._due.set(page.key, now)

    # Pages -------------------------------------------------------------------------------------------------------

    def page(
        self,
        home_addresses: tuple[Addr, ...],
        entry: int,
        event: ApplicationEvent,
        *,
        now: float,
        order: Order | None = None,
        events: int = 1,
    ) -> list[Action]:
        """Page the device for this event, or let the event join the page that waits."""
        device = home_addresses[0]
        page = self._pages.get(device)
        if page is not None:
            before, page.events = page.events, page.events + events
            doubled = before.bit_length() != page.events.bit_length()
            return [Count("page-joined", events), *([page.persist()] if doubled else [])]
        identifier = self.randomness.getrandbits(8 * PAGE_BYTES).to_bytes(PAGE_BYTES, "big")
        page = WaitingPage(identifier, home_addresses, entry, event, now, order, events)
        self._pages[device] = page
        settled = self._reached.pop(device, now - SETTLING) + SETTLING
        if settled > now:
            self._due.set(device, settled)
            return [page.persist()]
        return [page.persist(), *self._attempt(page, now)]

    def back(self, device: Addr) -> list[Action]:
        """The device is back: nothing waits for it any more."""
        self._reached.pop(device, None)
        page = self._pages.get(device)
        return [] if page is None else self._over(page, "back", "the device is back")

    def forget(self, device: Addr) -> list[Action]:
        """The device has no table any more."""
        page = self._pages.get(device)
        return [] if page is None else self._over(page, "withdrawn", "the entry was removed")

    def _attempt(self, page: WaitingPage, now: float) -> list[Action]:
        page.attempts += 1
        home_agent = self.home_agent(page.home_addresses)
        if home_agent is None:
            page.last = "no home agent"
            return [Count("page-no-home-agent"), *self._later(page, now)]
        page.request = next(self._numbers)
        self._by_request[page.request] = page.key
        self._due.cancel(page.key)
        body = encode_1172(PageRequest1172(page.identifier, page.key, page.event, page.order))
        return [
            Ask(page.request, home_agent, PATH, body, ANSWER_TIMEOUT),
            Emit("page-asked", PATH, page.key, None, self._detail(page) | {"to": str(home_agent)}),
        ]

    def _detail(self, page: WaitingPage) -> dict[str, JSON]:
        return {
            "page": page.identifier.hex(),
            "entry": page.entry,
            "app": page.event.app,
            "event": page.event.kind,
            "events": page.events,
            "attempt": page.attempts,
        }

    # Answers -----------------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The answer to a 1172, or that there is none; None for anything else."""
        if not isinstance(event, Answered | NoAnswer) or not FIRST_REQUEST <= event.request <= LAST_REQUEST:
            return None
        device = self._by_request.pop(event.request, None)
        page = None if device is None else self._pages.get(device)
        if page is None or page.request != event.request:
            return []  # the device is back
        page.request = None
        if isinstance(event, NoAnswer):
            page.last = event.reason
            return [Count("page-unanswered"), *self._unanswered(page, now)]
        try:
            answer = decode_page_answer(event.body)
        except WireError as error:
            page.last = "an answer that cannot be read"
            return [Count(f"page-answer-{error.reason}"), *self._unanswered(page, now)]
        if answer.page != page.identifier and answer.outcome is not Outcome.MALFORMED:
            page.last = "an answer to another page"
            return [Count("page-answer-unexpected"), *self._unanswered(page, now)]
        return self._outcome(page, answer.outcome, answer.text, now)

    def _unanswered(self, page: WaitingPage, now: float) -> list[Action]:
        self._due.set(page.key, now + _delay(page.unanswered, RETRY_FIRST, RETRY_MAX))
        page.unanswered += 1
        return []

    def _outcome(self, page: WaitingPage, outcome: Outcome, text: str, now: float) -> list[Action]:
        word = outcome.name.lower().replace("_", "-")
        page.last, page.unanswered = word, 0
        if outcome is Outcome.REACHED:
            self._settle(page.key, now)
            return self._over(page, word, text, now)
        later = self._later(page, now)
        detail = self._detail(page) | {"outcome": word, "reason": text, "again": round(self._wait(page), 1)}
        return [
            Count(f"page-{word}"),
            *later,
            page.persist(),
            Emit("page-outcome", PATH, page.key, None, detail),
        ]

    def _settle(self, device: Addr, now: float) -> None:
        """Note that the device is on its way back; the oldest come first, and are forgotten when they have settled."""
        self._reached.pop(device, None)
        self._reached[device] = now
        while self._reached[oldest := next(iter(self._reached))] + SETTLING <= now:
            del self._reached[oldest]

    def _later(self, page: WaitingPage, now: float) -> list[Action]:
        page.failed += 1
        self._due.set(page.key, now + self._wait(page))
        return []

    @staticmethod
    def _wait(page: WaitingPage) -> float:
        return _delay(page.failed - 1, AGAIN_FIRST, AGAIN_MAX)

    def _over(self, page: WaitingPage, outcome: str, text: str, now: float | None = None) -> list[Action]:
        del self._pages[page.key]
        self._due.cancel(page.key)
        if page.request is not None:
            self._by_request.pop(page.request, None)
        detail = self._detail(page) | {"outcome": outcome, "reason": text}
        if now is not None:
            detail["seconds"] = round(now - page.since, 3)
        return [
            Count(f"page-{outcome}"),
            Forget(TABLE, page_key(page.key)),
            Emit("page-outcome", PATH, page.key, None, detail),
        ]

    # Time --------------------------------------------------------------------------------------------------------

    def timeout(self, *, now: float) -> list[Action]:
        """Attempts that are due."""
        actions: list[Action] = []
        for device in self._due.due(now):
            page = self._pages.get(device)
            if page is None:
                continue
            actions += self._attempt(page, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()


def _delay(times: int, first: float, most: float) -> float:
    return float(min(first * 2 ** min(max(times, 0), 16), most))
