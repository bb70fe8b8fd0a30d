"""The network paging routine 1128 (Fig. 11; P1, P4, P11): one page in progress for a device, until an outcome is known.

A page is asked for by a packet, by an event or by a command. It goes to the access node where the device was last (1170),
again and later each time while there is no answer, and is given up after a time; a device that has answered gets time to
register. Further reasons for a page that come meanwhile are folded into it. It must not know who asks, nor what becomes of
held packets: `concluded` gets each outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeAlias

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.paging import PageForwarding
from locum.roles.actions import Action, Answered, Ask, Count, Emit, NoAnswer
from locum.roles.paging.limits import MOST_BUDGETS, Budgets, PageLimits
from locum.roles.timers import Deadlines
from locum.wire.control.paging.cause import Cause, CommandCause, EventCause, PacketCause
from locum.wire.control.paging.outcome import PAGE_BYTES, AnsweredBy, Outcome, PageAnswer, decode_page_answer
from locum.wire.control.paging.page import PATH, Page1170, encode_1170
from locum.wire.control.paging.provision import NO_PROVISION, Provision
from locum.wire.control.paging.way import Way
from locum.wire.errors import WireError
from locum.wire.flow import Flow

FIRST_TRY: Final = 4.0  # seconds that the access node tries before it answers; doubled with each attempt
MARGIN: Final = 3.0  # seconds more for its answer
RETRY_FIRST: Final = 0.5  # seconds after an attempt that failed
RETRY_MAX: Final = 8.0
FIRST_REQUEST: Final = 1 << 33  # above the numbers of a role's other requests
MOST_PAGES: Final = 65_536  # in progress at once
LAST_ENDED: Final = 256  # outcomes for users

# Outcomes of an attempt after which another one may end better
_PASSING = (Outcome.NO_ANSWER, Outcome.UNKNOWN, Outcome.BUSY)

Requester: TypeAlias = int  # an exchange of the role's, to be answered with the outcome


@dataclass(frozen=True, slots=True)
class Located:
    """Place at which a device can be paged: its access node and, where that is known, the way to reach it there."""

    access_node: Addr
    way: Way | None = None
    provision: Provision = NO_PROVISION
    call: bytes = b""  # signed for the device
    beside: tuple[Action, ...] = ()  # they go out at the same time as the page


@dataclass(frozen=True, slots=True)
class Delayed:
    """The page goes out later: `actions` find out where, or prepare its way. `resume` goes on, or the time does."""

    actions: tuple[Action, ...]
    seconds: float


@dataclass(slots=True)
class PageInProgress:
    """One page. `answered_by` is set once the device, or its access node for it, has answered."""

    identifier: bytes
    home_address: Addr
    cause: Cause
    begun: float  # steady seconds
    give_up: float
    attempt: int = 0
    to: Addr | None = None
    request: int | None = None  # that waits for an answer
    folded: int = 0  # further reasons
    answered_by: AnsweredBy | None = None
    last: Outcome = Outcome.NO_ANSWER
    text: str = ""
    delayed: bool = False
    requesters: list[tuple[Requester, bytes]] = field(default_factory=list)
    forwarding: PageForwarding | None = None  # that its requester wants


@dataclass(frozen=True, slots=True)
class PageEnded:
    """The outcome of a page."""

    page: PageInProgress
    outcome: Outcome
    at: float
    text: str = ""
    limited: float = 0.0  # seconds until the limits allow a page; the page did not begin


Concluded = Callable[[PageEnded], list[Action]]


class PagingRoutine:
    """All pages of one home agent. `locate` finds a device at each attempt anew; `concluded` handles each outcome."""

    def __init__(
        self,
        limits: PageLimits,
        randomness: Randomness,
        locate: Callable[[PageInProgress, float], Located | Delayed | None],
        concluded: Concluded,
        genuine: Callable[[PageInProgress, PageAnswer], bool] = lambda _page, _answer: True,
    ) -> None:
        """`genuine` is false for an answer that a device did not give."""
        self._limits, self._randomness = limits, randomness
        self._locate, self._concluded, self._genuine = locate, concluded, genuine
        self._pages: dict[Addr, PageInProgress] = {}
        self._asked: dict[int, Addr] = {}
        self._numbers = count(FIRST_REQUEST)
        self._due: Deadlines[Addr] = Deadlines()
        self._budgets: Budgets[Addr] = Budgets(limits, MOST_BUDGETS)
        self.ended: dict[Addr, PageEnded] = {}  # the last one of each device, LAST_ENDED in all
        self.reached: Callable[[PageInProgress, float], list[Action]] = lambda _page, _now: []  # by an answer

    # In ----------------------------------------------------------------------------------------------------------

    def page(
        self,
        home_address: Addr,
        cause: Cause,
        *,
        now: float,
        requester: tuple[Requester, bytes] | None = None,
        forwarding: PageForwarding | None = None,
    ) -> list[Action]:
        """Page the device, or fold this reason into the page that is in progress.

        `requester` is an exchange, and the identifier that its answer has.
        """
        page = self._pages.get(home_address)
        if page is not None:
            page.folded += 1
            if requester is not None:
                page.requesters.append(requester)
            return [Count("page-folded")]
        identifier = self._randomness.getrandbits(8 * PAGE_BYTES).to_bytes(PAGE_BYTES, "big")
        page = PageInProgress(identifier, home_address, cause, now, now + self._limits.seconds)
        page.forwarding = forwarding
        if requester is not None:
            page.requesters.append(requester)
        if wait := self._refused(page, now):
            return self._conclude(PageEnded(page, Outcome.BUSY, now, "too many pages", limited=wait))
        self._pages[home_address] = page
        return self._attempt(page, now)

    def resume(self, home_address: Addr, *, now: float) -> list[Action]:
        """Go on with a page that was delayed."""
        page = self._pages.get(home_address)
        if page is None or not page.delayed:
            return []
        return self._attempt(page, now)

    def registered(self, home_address: Addr, *, now: float) -> list[Action]:
        """The device has registered in full: it is reached, whoever has told it."""
        page = self._pages.get(home_address)
        return [] if page is None else self._end(page, Outcome.REACHED, now)

    def withdrawn(self, home_address: Addr, *, now: float) -> list[Action]:
        """The device is served no more."""
        page = self._pages.get(home_address)
        return [] if page is None else self._end(page, Outcome.UNKNOWN, now, "it is not served any more")

    def happened(self, event: Answered | NoAnswer, *, now: float) -> list[Action] | None:
        """The answer of an access node; None: it is another's."""
        if event.request < FIRST_REQUEST:
            return None
        home_address = self._asked.pop(event.request, None)
        page = None if home_address is None else self._pages.get(home_address)
        if page is None or page.request != event.request:
            return [Count("page-answer-late")]
        page.request = None
        if isinstance(event, NoAnswer):
            page.last, page.text = Outcome.NO_ANSWER, f"the access node: {event.reason}"
            return [Count("page-unanswered"), *self._later(page, now)]
        try:
            answer = decode_page_answer(event.body)
        except WireError as error:
            page.last, page.text = Outcome.NO_ANSWER, "the access node's answer cannot be read"
            return [Count(f"page-{error.reason}"), *self._later(page, now)]
        if answer.page != page.identifier:
            page.last, page.text = Outcome.NO_ANSWER, "the access node answered another page"
            return [Count("page-mismatch"), *self._later(page, now)]
        # One that does not say who has answered is the device's, or it is none.
        by_device = answer.answered_by is AnsweredBy.MOBILE_NODE
        by_device |= answer.answered_by is None and answer.outcome is Outcome.REACHED
        if by_device and not self._genuine(page, answer):
            page.last, page.text = Outcome.NO_ANSWER, "the answer is not the device's"
            return [Count("page-answer-not-authentic"), *self._later(page, now)]
        return self._answered(page, answer, now)

    def timeout(self, *, now: float) -> list[Action]:
        """Attempts that are due, and pages that are given up."""
        actions: list[Action] = []
        for home_address in self._due.due(now):
            page = self._pages[home_address]
            if now >= page.give_up:
                text = "it has answered, and did not register" if page.answered_by is not None else page.text
                outcome = Outcome.NO_ANSWER if page.answered_by is not None else page.last
                actions += self._end(page, outcome, now, text)
            else:
                actions += self._attempt(page, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def in_progress(self, home_address: Addr) -> PageInProgress | None:
        """The page of this device."""
        return self._pages.get(home_address)

    def pages(self) -> tuple[PageInProgress, ...]:
        """All pages in progress."""
        return tuple(self._pages.values())

    # Course ------------------------------------------------------------------------------------------------------

    def _refused(self, page: PageInProgress, now: float) -> float:
        """Seconds until the limits allow this page; 0: now, and it is counted. A command is always allowed."""
        if isinstance(page.cause, CommandCause):
            return 0.0
        if len(self._pages) >= MOST_PAGES:
            return RETRY_MAX
        return self._budgets.take(page.home_address, _rule(page.cause), now)

    def _attempt(self, page: PageInProgress, now: float) -> list[Action]:
        page.delayed = False
        located = self._locate(page, now)
        if isinstance(located, Delayed):
            page.delayed = True
            self._due.set(page.home_address, min(now + located.seconds, page.give_up))
            return [*located.actions]
        if located is None:
            page.last, page.text = Outcome.UNKNOWN, "no access node of it is known"
            return self._end(page, Outcome.UNKNOWN, now, page.text)
        cycle = 0.0 if located.way is None else located.way.cycle / 1000  # seconds; two slots are among them
        tries = min(max(FIRST_TRY * 2**page.attempt, 2 * cycle), max(page.give_up - now, 1.0))
        page.attempt += 1
        page.to, page.request = located.access_node, next(self._numbers)
        self._asked[page.request] = page.home_address
        # The answer or its absence comes first: the node gives the request up after its timeout.
        self._due.cancel(page.home_address)
        seconds = max(1, int(tries))
        message = Page1170(
            page.identifier,
            page.home_address,
            page.cause,
            seconds,
            located.way,
            located.provision,
            located.call,
        )
        detail: dict[str, JSON] = {"to": str(page.to), "attempt": page.attempt, **cause_detail(page.cause)}
        return [
            *located.beside,
            Ask(page.request, page.to, PATH, encode_1170(message), seconds + MARGIN),
            Emit("sent", PATH, page.home_address, _flow(page.cause), detail),
        ]

    def _answered(self, page: PageInProgress, answer: PageAnswer, now: float) -> list[Action]:
        if answer.outcome in _PASSING:
            page.last, page.text = answer.outcome, answer.text
            return [Count(f"page-{word(answer.outcome)}"), *self._later(page, now)]
        if answer.outcome is not Outcome.REACHED:
            return self._end(page, Outcome.REFUSED, now, answer.text or word(answer.outcome))
        page.answered_by = answer.answered_by or AnsweredBy.MOBILE_NODE
        page.give_up = now + self._limits.wake_seconds
        self._due.set(page.home_address, page.give_up)
        by = {AnsweredBy.MOBILE_NODE: "mn", AnsweredBy.ACCESS_NODE: "an"}[page.answered_by]
        answered = Emit("page-answered", PATH, page.home_address, None, {"by": by, "from": str(page.to)})
        return [answered, *self.reached(page, now)]

    def _later(self, page: PageInProgress, now: float) -> list[Action]:
        """Another attempt after a while, or the end."""
        at = now + min(RETRY_MAX, RETRY_FIRST * 2 ** min(page.attempt - 1, 8))
        if at >= page.give_up:
            return self._end(page, page.last, now, page.text)
        self._due.set(page.home_address, at)
        return []

    def _end(self, page: PageInProgress, outcome: Outcome, now: float, text: str = "") -> list[Action]:
        del self._pages[page.home_address]
        self._due.cancel(page.home_address)
        if page.request is not None:
            self._asked.pop(page.request, None)
            page.request = None
        self._budgets.ended(page.home_address, _rule(page.cause), now)
        return self._conclude(PageEnded(page, outcome, now, text))

    def _conclude(self, ended: PageEnded) -> list[Action]:
        """The outcome is always reported, that of a page which did not begin too."""
        page = ended.page
        self.ended.pop(page.home_address, None)
        self.ended[page.home_address] = ended
        if len(self.ended) > LAST_ENDED:
            del self.ended[next(iter(self.ended))]
        detail: dict[str, JSON] = {
            "outcome": "limited" if ended.limited else word(ended.outcome),
            "seconds": round(ended.at - page.begun, 3),
            "attempts": page.attempt,
            "folded": page.folded,
            **cause_detail(page.cause),
        }
        if ended.text:
            detail["reason"] = ended.text
        return [
            Emit("page-ended", PATH, page.home_address, _flow(page.cause), detail),
            *self._concluded(ended),
        ]


def word(outcome: Outcome) -> str:
    """An outcome as events and commands have it."""
    return outcome.name.lower().replace("_", "-")


def cause_detail(cause: Cause) -> dict[str, JSON]:
    """The cause as events and commands have it."""
    match cause:
        case PacketCause():
            return {"cause": "packet", "rule": cause.rule}
        case EventCause():
            return {"cause": "event", "app": cause.app, "event": cause.kind}
        case CommandCause():
            return {"cause": "command"}


def _rule(cause: Cause) -> int | None:
    return cause.rule if isinstance(cause, PacketCause) else None


def _flow(cause: Cause) -> Flow | None:
    return cause.flow if isinstance(cause, PacketCause) else None
