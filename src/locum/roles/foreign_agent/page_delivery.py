"""Pages at an access node: a call to the device, again until it answers (P1, P11, P13).

The home agent has signed the call (1170), or a stand-in has sealed it (1172A), and the device answers likewise: the access node
passes both on, and can make neither. Ways to reach the device are in `ways`. It must not know how a message gets on a link.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from locum.roles.action_values.addresses import JSON, Addr, Source
from locum.roles.action_values.page_calls import CallDecision
from locum.roles.actions import Action, Answer, Asked, Count, Emit, Event, WallClockStepped
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.ways.kinds import ways
from locum.roles.foreign_agent.ways.reach import CARD_BYTES, EVERYBODY, Reach, WayKind
from locum.roles.foreign_agent.ways.settings import NO_WAYS, WaysConfiguration
from locum.roles.mobile_ipv4.page_calls import read_call_answer
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.paging.cause import EventCause
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage, is_direct
from locum.wire.control.paging.direct_page import PATH as DIRECT
from locum.wire.control.paging.direct_page import DirectPage1172A, decode_1172a
from locum.wire.control.paging.outcome import NO_PAGE, AnsweredBy, Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page import PATH, Page1170, decode_1170
from locum.wire.control.paging.way import Way
from locum.wire.errors import WireError

NUMBERS: Final = {PATH: "1170", DIRECT: "1172A"}
"""Paths of pages, and the numbers of these messages."""
SEALED: Final = EventCause("sealed", "sealed")
"""Cause of a direct page, as far as an access node knows it."""
MOST_CALLS: Final = 4096  # pages at once
MOST_KNOWN: Final = 16_384  # devices that were visitors; beyond, the one that left first is forgotten


AnyPage: TypeAlias = Page1170 | DirectPage1172A


@dataclass(slots=True)
class Call:
    """A page in progress. `answered`: the access node has answered for the device already."""

    page: AnyPage
    exchange: int
    kind: WayKind
    reach: Reach
    known: bool  # the device was, or is, a visitor
    answered: bool = False
    told: bool = False  # the event `calling` was emitted

    @property
    def number(self) -> str:
        """Number of the message."""
        return NUMBERS[DIRECT if isinstance(self.page, DirectPage1172A) else PATH]


class PageDelivery(Part):
    """Pages of one access node. `visitor` finds the visitor with a home address; `links` are the access links."""

    def __init__(
        self,
        links: Sequence[str],
        visitor: Callable[[Addr], Visitor | None],
        *,
        answers: bool = False,
        reaching: WaysConfiguration = NO_WAYS,
    ) -> None:
        """With `answers` the access node answers for devices that it knows, once it has called them (P11)."""
        self._links, self._visitor, self._answers = links, visitor, answers
        self._reaching, self._ways = reaching, ways(reaching)
        self._ahead = 0.0  # seconds that the wall clock is ahead of steady seconds
        self._calls: dict[IPv4Address, Call] = {}
        self._due: Deadlines[IPv4Address] = Deadlines()
        self._known: dict[
            IPv4Address, tuple[str, bytes]
        ] = {}  # link and link-layer address of those that left

    def left(self, visitor: Visitor) -> list[Action]:
        """A visit has ended: a sleeping device is mostly where it was."""
        if visitor.next_hop is None and visitor.link_layer is not None:
            self._known.pop(visitor.home_address, None)
            self._known[visitor.home_address] = visitor.link, visitor.link_layer
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return []

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A page of a home agent or a stand-in, or something that a way waits for; None: it is about something else."""
        if isinstance(event, WallClockStepped):
            self._stepped(event.ahead, now)
            return None
        if not isinstance(event, Asked):
            return self._by_way(event, now)
        if event.path not in NUMBERS:
            return None
        try:
            page: AnyPage = (decode_1170 if event.path == PATH else decode_1172a)(event.body)
        except WireError as error:
            refused = _answer(event.exchange, NO_PAGE, Outcome.MALFORMED)
            return [Count(f"{event.path}-{error.reason}"), refused]
        call = self._begun(page, event, now)
        if isinstance(call, Call):
            assert isinstance(page.home_address, IPv4Address)
            self._calls[page.home_address] = call
            return self._call(page.home_address, now)
        outcome, text = call
        counted = Count(f"page-{outcome.name.lower().replace('_', '-')}")
        return [counted, _answer(event.exchange, page.page, outcome, text=text)]

    def _begun(self, page: AnyPage, event: Asked, now: float) -> Call | tuple[Outcome, str]:
        """The call of a page, or the outcome of one that is refused."""
        home_address = page.home_address
        if home_address not in event.authorised:
            return Outcome.NOT_AUTHORISED, "the association is not for this home address"
        if not isinstance(home_address, IPv4Address):
            return Outcome.UNKNOWN, "devices are called by their IPv4 home address"
        way = self._way(page.way, home_address)
        kind = self._ways.get(way.name)
        if kind is None:
            return Outcome.REFUSED, f"this access node has no way {way.name!r}"
        places, known = self._places(way, home_address)
        cause = page.cause if isinstance(page, Page1170) else SEALED
        reach = Reach(page.page, home_address, page.call, cause, tuple(places), way, now + page.seconds)
        if (refusal := kind.refusal(reach)) is not None:
            return Outcome.REFUSED, refusal
        if home_address in self._calls or len(self._calls) >= MOST_CALLS:
            return Outcome.BUSY, "another page is in progress"
        return Call(page, event.exchange, kind, reach, known)

    def _way(self, asked: Way | None, home_address: IPv4Address) -> Way:
        """The page's own way, else the configured one, else the access link."""
        configured = self._reaching.devices.get(home_address)
        if asked is None:
            return configured or Way(self._reaching.default)
        if configured is not None and not asked.link_address and configured.name == asked.name:
            return replace(asked, link_address=configured.link_address)
        return asked

    def _stepped(self, ahead: float, now: float) -> None:
        """The wall clock was set: every slot is at another time."""
        self._ahead = ahead
        for home_address, call in self._calls.items():
            if call.reach.planned is not None:
                call.reach.planned = None
                self._due.set(home_address, now)

    def _by_way(self, event: Event, now: float) -> list[Action] | None:
        for kind in self._ways.values():
            resolved = kind.happened(event, now=now)
            if resolved is None:
                continue
            actions = resolved.actions
            for page, home_address, outcome, text in resolved.outcomes:
                call = self._calls.get(home_address)
                if call is not None and call.page.page == page:
                    actions = [*actions, *self._end(call, outcome, by=AnsweredBy.ACCESS_NODE, text=text)]
            for home_address in resolved.due:
                if home_address in self._calls:
                    actions = [*actions, *self._call(home_address, now)]
            return actions
        return None

    def heard(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A device's answer to a call."""
        if is_direct(message):
            return self._heard_direct(message)
        try:
            answer = read_call_answer(message)
        except WireError as error:
            return [Count(f"call-answer-{error.reason}")]
        call = self._calls.get(answer.home_address)
        if call is None or call.page.page != answer.page or isinstance(call.page, DirectPage1172A):
            return [Count("call-answer-late")]
        outcome = Outcome.REFUSED if answer.decision is CallDecision.REFUSED else Outcome.REACHED
        return self._end(call, outcome, by=AnsweredBy.MOBILE_NODE, proof=message)

    def _heard_direct(self, message: bytes) -> list[Action]:
        """The answer to a stand-in's call: its content is for the stand-in alone."""
        try:
            answer = DirectMessage.decode(message)
        except WireError as error:
            return [Count(f"call-answer-{error.reason}")]
        if answer.kind is not DirectKind.ANSWER:
            return [Count("call-answer-not-an-answer")]
        call = self._calls.get(answer.home_address)
        if call is None or call.page.page != answer.page or isinstance(call.page, Page1170):
            return [Count("call-answer-late")]
        return self._end(call, Outcome.REACHED, by=AnsweredBy.MOBILE_NODE, proof=message)

    def timeout(self, *, now: float) -> list[Action]:
        """Call again, or give up."""
        actions: list[Action] = []
        for home_address in self._due.due(now):
            call = self._calls[home_address]
            if now >= call.reach.until:
                actions += self._end(call, Outcome.NO_ANSWER, text="the device does not answer")
            else:
                actions += self._call(home_address, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _call(self, home_address: IPv4Address, now: float) -> list[Action]:
        call = self._calls[home_address]
        attempt = call.kind.attempt(call.reach, now=now, ahead=self._ahead)
        actions = [*attempt.actions]
        self._due.set(home_address, min(attempt.at, call.reach.until))
        if call.told or not call.reach.sent:
            return actions
        call.told = True
        detail: dict[str, JSON] = {
            "page": call.page.page.hex(),
            "links": [link for link, _ in call.reach.places],
            "known": call.known,
            "way": call.reach.way.name,
        }
        actions.append(Emit("calling", call.number, home_address, None, detail))
        # A decision about a stand-in's call depends on its content: nobody answers in the place of the device.
        if self._answers and call.known and isinstance(call.page, Page1170):
            call.answered = True
            by = AnsweredBy.ACCESS_NODE
            actions.append(_answer(call.exchange, call.page.page, Outcome.REACHED, by=by))
        return actions

    def _places(self, way: Way, home_address: IPv4Address) -> tuple[list[tuple[str, bytes]], bool]:
        """Links and link-layer addresses, and whether the device is known there; else everybody on every link."""
        visitor = self._visitor(home_address)
        if visitor is not None and visitor.next_hop is None and visitor.link_layer is not None:
            return [(visitor.link, visitor.link_layer)], True
        if (known := self._known.get(home_address)) is not None:
            return [known], True
        link_layer = way.link_address if len(way.link_address) == CARD_BYTES else EVERYBODY
        return [(link, link_layer) for link in self._links], False

    def _end(
        self,
        call: Call,
        outcome: Outcome,
        *,
        by: AnsweredBy | None = None,
        text: str = "",
        proof: bytes = b"",
    ) -> list[Action]:
        home_address = call.page.home_address
        assert isinstance(home_address, IPv4Address)
        del self._calls[home_address]
        self._due.cancel(home_address)
        detail: dict[str, JSON] = {
            "page": call.page.page.hex(),
            "outcome": outcome.name.lower().replace("_", "-"),
            "calls": call.reach.sent,
        }
        ended = [*call.kind.ended(call.reach), Emit("called", call.number, home_address, None, detail)]
        if call.answered:
            return ended
        return [*ended, _answer(call.exchange, call.page.page, outcome, by=by, text=text, proof=proof)]


def _answer(
    exchange: int,
    page: bytes,
    outcome: Outcome,
    *,
    by: AnsweredBy | None = None,
    text: str = "",
    proof: bytes = b"",
) -> Answer:
    return Answer(exchange, encode_page_answer(PageAnswer(page, outcome, by, text, proof)))
