"""Pages that the paging classifier asks for (P16): a packet to a stand-in, and a 1172 to the device's home agent.

The data plane reports few packets of a rule. One request of a device is in progress at once, and the same limits hold as at
a home agent. It must not know how packets are matched, nor what a page does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.paging import PageAsked
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, NoAnswer
from locum.roles.paging.limits import Budgets, PageLimits
from locum.roles.paging.routine import word
from locum.roles.parts import Part
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.outcome import PAGE_BYTES, Outcome, decode_page_answer
from locum.wire.control.paging.page_request import PATH, PageRequest1172, encode_1172
from locum.wire.errors import WireError

APP: Final = "classifier"
FIRST_REQUEST: Final = 1 << 61  # up to the double, apart from other parts of a foreign agent
PATIENCE: Final = 85.0  # seconds: a home agent answers when the page has ended
MOST_ASKED: Final = 4096  # devices at once
MOST_BUDGETS: Final = 16_384  # devices whose pages are counted; fewer than a home agent has
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


@dataclass(frozen=True, slots=True)
class Classified:
    """The device whose classifier has such a rule: its IPv4 home address, its home agent, and the rule's own number."""

    home_address: IPv4Address
    home_agent: IPv4Address
    rule: int


@dataclass(slots=True)
class _Request:
    """A request in progress."""

    number: int
    page: bytes
    classified: Classified
    begun: float  # steady seconds
    folded: int = 0


class ClassifierPages(Part):
    """Requests of one access node. `classified` finds the device and rule of a report; None: no classifier has that rule."""

    def __init__(
        self,
        classified: Callable[[Addr, int], Classified | None],
        randomness: Randomness,
        limits: PageLimits | None = None,
    ) -> None:
        self._classified, self._randomness = classified, randomness
        self._requests: dict[IPv4Address, _Request] = {}
        self._asked: dict[int, IPv4Address] = {}
        self._budgets: Budgets[IPv4Address] = Budgets(limits or PageLimits(), MOST_BUDGETS)
        self._numbers = count(FIRST_REQUEST)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Reports of packets, and answers of home agents."""
        if isinstance(event, PageAsked):
            return self._reported(event, now)
        if isinstance(event, Answered | NoAnswer) and FIRST_REQUEST <= event.request < 2 * FIRST_REQUEST:
            return self._answered(event, now)
        return None

    def _reported(self, event: PageAsked, now: float) -> list[Action]:
        found = self._classified(event.home_address, event.rule)
        if found is None:
            return [Count("classifier-page-late")]  # the filter has changed since
        request = self._requests.get(found.home_address)
        if request is not None:
            request.folded += 1 + event.further
            return [Count("classifier-page-folded", 1 + event.further)]
        if len(self._requests) >= MOST_ASKED:
            return [Count("classifier-page-limited")]
        if self._budgets.take(found.home_address, found.rule, now) > 0:
            return [Count("classifier-page-limited")]
        return self._ask(event, found, now)

    def _ask(self, event: PageAsked, found: Classified, now: float) -> list[Action]:
        page = self._randomness.getrandbits(8 * PAGE_BYTES).to_bytes(PAGE_BYTES, "big")
        number = next(self._numbers)
        self._requests[found.home_address] = _Request(number, page, found, now)
        self._asked[number] = found.home_address
        flow = event.flow
        protocol = _PROTOCOLS.get(flow.protocol, str(flow.protocol))
        detail: dict[str, object] = {
            "rule": found.rule,
            "protocol": flow.protocol,
            "source": str(flow.peer),
            "source_port": flow.peer_port,
            "destination": str(flow.local),
            "destination_port": flow.local_port,
            "length": event.length,
        }
        happened = ApplicationEvent(APP, f"rule-{found.rule}-{protocol}", detail)
        body = encode_1172(PageRequest1172(page, found.home_address, happened))
        said: dict[str, JSON] = {"to": str(found.home_agent), "rule": found.rule}
        return [
            Ask(number, found.home_agent, PATH, body, PATIENCE),
            Emit("sent", PATH, found.home_address, flow, said),
        ]

    def _answered(self, event: Answered | NoAnswer, now: float) -> list[Action]:
        home_address = self._asked.pop(event.request, None)
        if home_address is None:
            return []
        request = self._requests.pop(home_address)
        self._budgets.ended(home_address, request.classified.rule, now)
        if isinstance(event, NoAnswer):
            return [
                Count("classifier-page-unanswered"),
                self._ended(request, "unanswered", event.reason, now),
            ]
        try:
            answer = decode_page_answer(event.body)
        except WireError as error:
            said = self._ended(request, "unanswered", "the home agent's answer cannot be read", now)
            return [Count(f"classifier-page-{error.reason}"), said]
        if answer.page != request.page:
            said = self._ended(request, "unanswered", "the home agent answered another page", now)
            return [Count("classifier-page-mismatch"), said]
        counted: list[Action] = []
        if answer.outcome is not Outcome.REACHED:
            counted.append(Count(f"classifier-page-{word(answer.outcome)}"))
        return [*counted, self._ended(request, word(answer.outcome), answer.text, now)]

    def _ended(self, request: _Request, outcome: str, reason: str, now: float) -> Emit:
        detail: dict[str, JSON] = {
            "outcome": outcome,
            "rule": request.classified.rule,
            "seconds": round(now - request.begun, 3),
            "folded": request.folded,
        }
        if reason:
            detail["reason"] = reason
        return Emit("classifier-page-ended", PATH, request.classified.home_address, None, detail)
