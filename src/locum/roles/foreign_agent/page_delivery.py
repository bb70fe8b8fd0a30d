"""Pages at an access node: a call to the device on its access link, again until it answers (P1, P11, P13).

The home agent has signed the call (1170), and the device signs the answer for its home agent: the access node passes both on.
It must not know how a message gets on a link.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Source
from locum.roles.action_values.page_calls import CallDecision
from locum.roles.actions import Action, Answer, Asked, Count, Emit, Event, SendRegistration
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.mobile_ipv4.page_calls import read_call_answer
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.paging.outcome import NO_PAGE, AnsweredBy, Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page import PATH, Page1170, decode_1170
from locum.wire.errors import WireError

WAY: Final = "link"  # name of this way to reach a device
REPEAT_FIRST: Final = 0.25  # seconds between two calls; doubled each time
REPEAT_MAX: Final = 2.0
MOST_CALLS: Final = 4096  # pages at once
MOST_KNOWN: Final = 16_384  # devices that were visitors; beyond, the one that left first is forgotten
EVERYBODY: Final = b"\xff" * 6  # link-layer address


@dataclass(slots=True)
class Call:
    """A page in progress. `answered`: the access node has answered for the device already."""

    page: Page1170
    exchange: int
    until: float  # steady seconds
    wait: float = REPEAT_FIRST
    sent: int = 0
    answered: bool = False


class PageDelivery(Part):
    """Pages of one access node. `visitor` finds the visitor with a home address; `links` are the access links."""

    def __init__(
        self,
        links: Sequence[str],
        visitor: Callable[[Addr], Visitor | None],
        *,
        answers: bool = False,
    ) -> None:
        """With `answers` the access node answers for devices that it knows, once it has called them (P11)."""
        self._links, self._visitor, self._answers = links, visitor, answers
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
        """A page of a home agent; None: it is about something else."""
        if not isinstance(event, Asked) or event.path != PATH:
            return None
        try:
            page = decode_1170(event.body)
        except WireError as error:
            return [Count(f"1170-{error.reason}"), _answer(event.exchange, NO_PAGE, Outcome.MALFORMED)]
        refusal = self._refusal(page, event)
        if refusal is not None:
            outcome, text = refusal
            counted = Count(f"page-{outcome.name.lower().replace('_', '-')}")
            return [counted, _answer(event.exchange, page.page, outcome, text=text)]
        assert isinstance(page.home_address, IPv4Address)
        self._calls[page.home_address] = Call(page, event.exchange, now + page.seconds)
        return self._call(page.home_address, now)

    def _refusal(self, page: Page1170, event: Asked) -> tuple[Outcome, str] | None:
        if page.home_address not in event.authorised:
            return Outcome.NOT_AUTHORISED, "the association is not for this home address"
        if not isinstance(page.home_address, IPv4Address):
            return Outcome.UNKNOWN, "devices are called by their IPv4 home address"
        if page.way is not None and page.way.name != WAY:
            return Outcome.REFUSED, f"this access node has no way {page.way.name!r}"
        if not page.call:
            return Outcome.REFUSED, "the page has no signed call"
        if page.home_address in self._calls or len(self._calls) >= MOST_CALLS:
            return Outcome.BUSY, "another page is in progress"
        return None

    def heard(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A device's answer to a call."""
        try:
            answer = read_call_answer(message)
        except WireError as error:
            return [Count(f"call-answer-{error.reason}")]
        call = self._calls.get(answer.home_address)
        if call is None or call.page.page != answer.page:
            return [Count("call-answer-late")]
        outcome = Outcome.REFUSED if answer.decision is CallDecision.REFUSED else Outcome.REACHED
        return self._end(call, outcome, by=AnsweredBy.MOBILE_NODE, proof=message)

    def timeout(self, *, now: float) -> list[Action]:
        """Call again, or give up."""
        actions: list[Action] = []
        for home_address in self._due.due(now):
            call = self._calls[home_address]
            if now >= call.until:
                actions += self._end(
                    call, Outcome.NO_ANSWER, text="the device does not answer on the access link"
                )
            else:
                actions += self._call(home_address, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _call(self, home_address: IPv4Address, now: float) -> list[Action]:
        call = self._calls[home_address]
        places, known = self._places(call.page, home_address)
        actions: list[Action] = [
            SendRegistration(call.page.call, home_address, link=link, link_layer=link_layer)
            for link, link_layer in places
        ]
        call.sent += 1
        self._due.set(home_address, min(now + call.wait, call.until))
        call.wait = min(2 * call.wait, REPEAT_MAX)
        if call.sent == 1:
            detail: dict[str, JSON] = {
                "page": call.page.page.hex(),
                "links": [link for link, _ in places],
                "known": known,
            }
            actions.append(Emit("calling", PATH, home_address, None, detail))
            if self._answers and known:
                call.answered = True
                by = AnsweredBy.ACCESS_NODE
                actions.append(_answer(call.exchange, call.page.page, Outcome.REACHED, by=by))
        return actions

    def _places(self, page: Page1170, home_address: IPv4Address) -> tuple[list[tuple[str, bytes]], bool]:
        """Links and link-layer addresses, and whether the device is known there; else everybody on every link."""
        visitor = self._visitor(home_address)
        if visitor is not None and visitor.next_hop is None and visitor.link_layer is not None:
            return [(visitor.link, visitor.link_layer)], True
        if (known := self._known.get(home_address)) is not None:
            return [known], True
        link_layer = EVERYBODY
        if page.way is not None and len(page.way.link_address) == len(EVERYBODY):
            link_layer = page.way.link_address
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
            "calls": call.sent,
        }
        ended: list[Action] = [Emit("called", PATH, home_address, None, detail)]
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
