"""Requests of an access node about contexts (622, 624): repeated every 2 s, for 15 s (RFC 4067).

It must not know the effects of an answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address
from itertools import count

from locum.roles.action_values.addresses import JSON
from locum.roles.actions import Action, Ask, Emit
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.context import Context
from locum.roles.foreign_agent.contexts.in_flight import Mobile
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.context import (
    BlockStatus,
    Context624,
    ContextRequest622,
    ContextStatus,
    Onward,
    encode_624,
    encode_request_622,
)
from locum.wire.control.context_blocks import BlockKind

RETRY = 2.0  # seconds; RFC 4067 section 2.6: CT-Request-Retry
GIVE_UP = 15.0  # seconds; the same: CT-Max-Transfer-Time
FIRST_REQUEST = 1 << 40  # above the numbers of all other requests of a foreign agent, triggers among them


class ContextRequestKind(Enum):
    """Kind of a request to another access node."""

    FETCH = "fetch"  # 622: its context
    PUSH = "push"  # 624: take this one
    CLAIM = "claim"  # 622 without a wanted context: the device now belongs to another access node


@dataclass(frozen=True, slots=True)
class Exchange:
    """One pending context request."""

    kind: ContextRequestKind
    mobile: Mobile
    peer: IPv4Address
    registered: int  # milliseconds since 1970
    onward: Onward
    give_up_at: float  # steady seconds
    asked_at: float
    whole: bool = False  # nothing is left out because the peer is said to have it
    replies: tuple[Action, ...] = ()  # to the mobile node, once it can go
    sent: Mapping[int, int] = field(default_factory=dict)  # versions of pushed blocks


class ContextRequests(Part):
    """All pending requests; `current` gives the present state of a context."""

    def __init__(self, book: ContextBook, current: Callable[[IPv4Address, float], Context | None]) -> None:
        self._book, self._current = book, current
        self._exchanges: dict[int, Exchange] = {}
        self._retries: Deadlines[int] = Deadlines()
        self._told: dict[tuple[IPv4Address, IPv4Address], Mapping[int, int]] = {}
        self._numbers = count(FIRST_REQUEST)

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, number: int) -> Exchange | None:
        """The one with this request number."""
        return self._exchanges.get(number)

    def under_way(self, home_address: IPv4Address) -> list[Exchange]:
        """Those about one device."""
        return [
            exchange for exchange in self._exchanges.values() if exchange.mobile.home_address == home_address
        ]

    def begin(self, exchange: Exchange, now: float) -> list[Action]:
        """Send a request; other requests for the same device end, except notices."""
        actions: list[Action] = []
        if exchange.kind is not ContextRequestKind.CLAIM:
            for number, pending in tuple(self._exchanges.items()):
                same = pending.mobile.home_address == exchange.mobile.home_address
                if same and pending.kind is not ContextRequestKind.CLAIM:
                    actions += self.end(number)
        return actions + self.ask(exchange, now)

    def ask(self, exchange: Exchange, now: float) -> list[Action]:
        """Ask, perhaps once more."""
        number = next(self._numbers)
        path, body, sent = self._message(exchange, now)
        self._exchanges[number] = replace(exchange, asked_at=now, sent=sent)
        detail: dict[str, JSON] = {"to": str(exchange.peer), "errand": exchange.kind.value}
        return [
            Ask(number, exchange.peer, path, body, RETRY),
            Emit("sent", path, exchange.mobile.home_address, None, detail),
        ]

    def pushed_again(
        self, mobile: Mobile, peer: IPv4Address, replies: tuple[Action, ...]
    ) -> list[Action] | None:
        """The device repeats its announcement: return the immediate answer. None: no request is pending."""
        for number, exchange in self._exchanges.items():
            if (exchange.kind, exchange.mobile, exchange.peer) != (ContextRequestKind.PUSH, mobile, peer):
                continue
            if not exchange.replies:
                return list(replies)  # the peer has not answered; the device need not wait again
            self._exchanges[number] = replace(exchange, replies=replies)
            return []
        return None

    def end(self, number: int) -> list[Action]:
        """End a request; packets that the device waited for are released."""
        self._retries.cancel(number)
        return list(self._exchanges.pop(number).replies)

    def again(self, number: int, now: float) -> bool:
        """No answer: repeat later; False: it has ended."""
        exchange = self._exchanges[number]
        at = max(now, exchange.asked_at + RETRY)
        if at >= exchange.give_up_at:
            self.end(number)
            return False
        self._exchanges[number] = replace(exchange, replies=())
        self._retries.set(number, at)
        return True

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        actions: list[Action] = []
        for number in tuple(self._retries.due(now)):
            actions += self.ask(self._exchanges.pop(number), now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._retries.next()

    def agreed(self, home_address: IPv4Address, peer: IPv4Address, versions: Mapping[int, int]) -> None:
        """Note that the access node has these versions now; they need not be sent there again."""
        self._told[home_address, peer] = dict(versions)

    def forget(self, home_address: IPv4Address) -> None:
        """Drop the record of blocks that others have of this device."""
        for key in [told for told in self._told if told[0] == home_address]:
            del self._told[key]

    def _message(self, exchange: Exchange, now: float) -> tuple[str, bytes, Mapping[int, int]]:
        """Path, body, and the versions in it."""
        home_address = exchange.mobile.home_address
        if exchange.kind is ContextRequestKind.PUSH:
            known = {} if exchange.whole else self._told.get((home_address, exchange.peer), {})
            context = self._current(home_address, now) or Context(home_address)
            blocks, _ = self._book.give(context, context.blocks, known)
            pushed = Context624(
                ContextStatus.OK, home_address, exchange.registered, blocks, {}, exchange.onward
            )
            return "624", encode_624(pushed), {block.kind: block.version for block in blocks}
        wants = tuple(BlockKind) if exchange.kind is ContextRequestKind.FETCH else ()
        versions = {} if exchange.whole else self._book.versions(home_address)
        asked = ContextRequest622(home_address, exchange.registered, wants, versions, exchange.onward)
        return "622", encode_request_622(asked), {}


def word(status: ContextStatus | BlockStatus) -> str:
    """A status in counters and events."""
    return status.name.lower().replace("_", "-")
