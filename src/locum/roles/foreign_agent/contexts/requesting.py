"""The requesting side of the context transfer (622, 624): asks other access nodes, and acts on their answers (C4, C5).

Registrations say when: a device that comes has its context fetched, one that is about to move has it pushed. This module
must not know requests of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.registration import Registration
from locum.roles.actions import Action, Answered, Count, Emit, NoAnswer
from locum.roles.foreign_agent.contexts.in_flight import Mobile, Waiting
from locum.roles.foreign_agent.contexts.kept import KeptContexts
from locum.roles.foreign_agent.contexts.requests import (
    FIRST_REQUEST,
    GIVE_UP,
    ContextRequestKind,
    Exchange,
    word,
)
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.mobile_ipv4.transfer_instructions import Instruction
from locum.wire.control.context import (
    Acknowledgement622,
    BlockStatus,
    Context624,
    ContextBlock,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
)
from locum.wire.control.context_blocks import BlockKind
from locum.wire.errors import WireError


class Requesting:
    """Requests about the contexts in `kept`; up to `short_lifetime` seconds a registration takes no packets along."""

    def __init__(self, kept: KeptContexts, short_lifetime: int) -> None:
        self._kept = kept
        self._visitors, self._book, self._flights = kept.visitors, kept.book, kept.flights
        self._memberships, self._requests = kept.memberships, kept.trigger_requests
        self._short_lifetime = short_lifetime
        self._wall_ahead = 0.0

    def stepped(self, ahead: float) -> None:
        """The wall clock is `ahead` seconds ahead of the steady one."""
        self._wall_ahead = ahead

    # Registrations (603) ------------------------------------------------------------------------------------------------

    def relayed(self, registration: Registration, named: Instruction | None, *, now: float) -> list[Action]:
        """Ask for the context of a new device while its request is on the way to a known home agent (602)."""
        home_address = registration.home_address
        if named is None or named.towards or named.stand_in or not registration.lifetime:
            return []
        if self._kept.mobile_of(home_address) is not None or not self._kept.known(
            named.access_node, home_address
        ):
            return []
        six = next((prefix.prefix for prefix in registration.options.prefixes if prefix.length == 128), None)
        return self._flights.herald(Mobile(home_address, registration.home_agent, six), now=now)

    def arriving(self, visitor: Visitor, said: Instruction | None, *, now: float) -> list[Action]:
        """Before it is on the list: its packets from the old access node precede newer ones."""
        named = self._fetchable(visitor, said)
        if named is None or not self._onward(visitor, named).follows:
            return []
        if (
            visitor.next_hop is not None
        ):  # nothing waits for a stand-in: this host has no route to the home address
            return self._flights.accept(_mobile(visitor), named.access_node, now=now)
        return self._flights.arrive(_mobile(visitor), named.access_node, now=now)

    def registered(self, visitor: Visitor, said: Instruction | None, *, now: float) -> list[Action]:
        """Act on a visitor now listed: deliver held packets, fetch its context."""
        home_address, named = visitor.home_address, self._fetchable(visitor, said)
        actions: list[Action] = []
        if visitor.next_hop is None and self._kept.enabled:
            actions += self._book.registered(home_address, self._milliseconds(now))
            self._kept.moved.discard(home_address)
        self._kept.stays(home_address)
        actions += self._flights.returned(home_address)
        if named is None:
            actions += self._flights.open(home_address) + self._memberships.refresh()
            if said is not None and not self._kept.known(said.access_node, home_address):
                actions.append(Count("context-peer-unknown"))
            return actions
        onward = self._onward(visitor, named)
        if not onward.follows:
            actions += self._flights.open(home_address)
        return actions + self.begin(
            ContextRequestKind.FETCH,
            _mobile(visitor),
            named.access_node,
            self._milliseconds(now),
            onward,
            now,
        )

    def pushing(
        self, visitor: Visitor, said: Instruction | None, replies: Sequence[Action], *, now: float
    ) -> list[Action] | None:
        """Push the context if the device names its next access node; `replies` go after success or failure.

        None: it does not, and the replies are the caller's.
        """
        named = said
        if (
            named is None
            or not named.towards
            or not self._kept.known(named.access_node, visitor.home_address)
        ):
            return None
        onward, mobile = self._onward(visitor, named), _mobile(visitor)
        again = self._requests.pushed_again(mobile, named.access_node, tuple(replies))
        if again is not None:
            return again
        return self.begin(
            ContextRequestKind.PUSH,
            mobile,
            named.access_node,
            self._milliseconds(now),
            onward,
            now,
            replies=tuple(replies),
        )

    def left(self, visitor: Visitor, named: Instruction | None, *, now: float) -> list[Action]:
        """The device deregisters. A stand-in that names its access node sends the context back."""
        if named is None or not self._kept.known(named.access_node, visitor.home_address):
            return []
        onward = Onward.NOTHING
        if named.stand_in:
            onward = Onward.SHARED if named.ruled else Onward.TAKEN
        registered = self._milliseconds(now)
        return self.begin(
            ContextRequestKind.PUSH, _mobile(visitor), named.access_node, registered, onward, now
        )

    def _fetchable(self, visitor: Visitor, named: Instruction | None) -> Instruction | None:
        if named is None or named.towards or not self._kept.known(named.access_node, visitor.home_address):
            return None
        pushed = self._flights.incoming(visitor.home_address) == named.access_node
        return None if pushed and self._flights.waiting(visitor.home_address) is Waiting.EXPECTED else named

    def _onward(self, visitor: Visitor, named: Instruction) -> Onward:
        """Packets follow when all of them are to be elsewhere: not before a very short lifetime, nor for some flows."""
        if visitor.lifetime <= self._short_lifetime:
            return Onward.NOTHING
        if named.ruled:
            return Onward.SHARED
        return Onward.TAKEN if named.stand_in else Onward.MOVED

    def _milliseconds(self, now: float) -> int:
        """Since 1970, by the wall clock: other access nodes compare it with theirs."""
        return int((now + self._wall_ahead) * 1000)

    # Requests -----------------------------------------------------------------------------------------------------------

    def begin(
        self,
        kind: ContextRequestKind,
        mobile: Mobile,
        peer: IPv4Address,
        registered: int,
        onward: Onward,
        now: float,
        replies: tuple[Action, ...] = (),
    ) -> list[Action]:
        """Ask; `registered` is in milliseconds since 1970, `now` in steady seconds."""
        exchange = Exchange(kind, mobile, peer, registered, onward, now + GIVE_UP, now, replies=replies)
        return self._requests.begin(exchange, now)

    # Answers ------------------------------------------------------------------------------------------------------------

    def answered(self, event: Answered | NoAnswer, *, now: float) -> list[Action] | None:
        """Act on the answer to one of these requests; None for an answer to another part's."""
        if event.request < FIRST_REQUEST:
            return None
        exchange = self._requests.get(event.request)
        if exchange is None:
            return []
        if isinstance(event, NoAnswer):
            return self._unanswered(event.request, exchange, now)
        try:
            if exchange.kind is ContextRequestKind.PUSH:
                return self._pushed(event.request, exchange, decode_acknowledgement_622(event.body), now)
            return self._fetched(event.request, exchange, decode_624(event.body), now)
        except WireError:
            actions = [Count("context-malformed"), *self._requests.end(event.request)]
            return actions + self._flights.open(exchange.mobile.home_address)

    def _unanswered(self, number: int, exchange: Exchange, now: float) -> list[Action]:
        """The device stops waiting; only the context is requested again."""
        home_address = exchange.mobile.home_address
        actions: list[Action] = [Count("context-unanswered"), *exchange.replies]
        actions += self._flights.open(home_address) if exchange.kind is ContextRequestKind.FETCH else []
        if self._requests.again(number, now):
            return actions
        detail: dict[str, JSON] = {"peer": str(exchange.peer), "errand": exchange.kind.value}
        return [*actions, Emit("context-given-up", None, home_address, None, detail)]

    def _fetched(self, number: int, exchange: Exchange, answer: Context624, now: float) -> list[Action]:
        home_address = exchange.mobile.home_address
        actions = self._requests.end(number)
        if answer.home_address != home_address:
            return [*actions, Count("context-malformed"), *self._flights.open(home_address)]
        if answer.status is ContextStatus.STALE and exchange.onward is Onward.MOVED:
            return actions + self._lost(exchange, answer.registered)
        if answer.status is not ContextStatus.OK:
            refused = Count(f"context-{word(answer.status)}")
            return [*actions, refused, *self._flights.open(home_address)]
        if exchange.kind is ContextRequestKind.CLAIM:
            return actions
        statuses, kept = self._book.take(home_address, 0, _without_visit(answer))
        if BlockStatus.ABSENT in statuses.values() and not exchange.whole:
            return actions + self._requests.ask(replace(exchange, whole=True), now)
        self._requests.agreed(home_address, exchange.peer, self._book.versions(home_address))
        return [
            *actions,
            *kept,
            *self._visitors.refresh(home_address),
            *self._memberships.refresh(),
            *self._flights.open(home_address),
            self._emit("context-received", "624", exchange, statuses),
            *self._kept.tell_stand_in(home_address, home_address in self._visitors),
        ]

    def _pushed(
        self, number: int, exchange: Exchange, answer: Acknowledgement622, now: float
    ) -> list[Action]:
        home_address = exchange.mobile.home_address
        actions = self._requests.end(number)
        if answer.status is ContextStatus.STALE and exchange.onward is Onward.MOVED:
            return actions + self._lost(exchange, answer.registered)
        if answer.status is not ContextStatus.OK or answer.home_address != home_address:
            return [*actions, Count(f"context-{word(answer.status)}")]
        if BlockStatus.ABSENT in answer.statuses.values() and not exchange.whole:
            return actions + self._requests.ask(replace(exchange, whole=True, replies=()), now)
        self._requests.agreed(home_address, exchange.peer, exchange.sent)
        if exchange.onward.follows:
            if exchange.onward is Onward.MOVED:
                self._kept.moved.add(home_address)
            actions += self._flights.depart(exchange.mobile, exchange.peer, now=now)
        if exchange.onward is not Onward.NOTHING:
            actions += self._kept.tell_stand_in(home_address, home_address in self._visitors)
        told = self._emit("context-transferred", "622", exchange, answer.statuses)
        return [*actions, *self._memberships.refresh(), told]

    def _lost(self, exchange: Exchange, registered: int) -> list[Action]:
        """The other one knows of a later registration: the device is its visitor, not ours."""
        home_address = exchange.mobile.home_address
        context = self._book.get(home_address)
        if context is not None and registered <= context.registered:
            return [Count("context-stale"), *self._flights.open(home_address)]
        detail: dict[str, JSON] = {"by": str(exchange.peer)}
        return [
            Emit("visitor-claimed", None, home_address, None, detail),
            *self._flights.forget(home_address),
            *self._visitors.dismiss(home_address),
        ]

    @staticmethod
    def _emit(kind: str, message: str, exchange: Exchange, statuses: Mapping[int, BlockStatus]) -> Emit:
        known = set(BlockKind)
        named: dict[str, JSON] = {
            BlockKind(number).name.lower() if number in known else str(number): word(status)
            for number, status in statuses.items()
        }
        detail: dict[str, JSON] = {"peer": str(exchange.peer), "blocks": named}
        return Emit(kind, message, exchange.mobile.home_address, None, detail)


def _mobile(visitor: Visitor) -> Mobile:
    return Mobile(visitor.home_address, visitor.home_agent, visitor.home_address_v6)


def _without_visit(answer: Context624) -> list[ContextBlock]:
    """The context without the block of the registration, which is better known here."""
    return [block for block in answer.blocks if block.kind != BlockKind.VISITOR]
