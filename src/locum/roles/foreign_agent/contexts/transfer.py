"""Context transfer between access nodes, 622 and 624 (C4, C5, C7; RFC 4067): the machine of a foreign agent.

A mobile node, or its stand-in, names another access node in its registration. When the home agent has accepted that,
the context is fetched from there, or pushed there if the device is about to move; what still reaches the wrong access
node follows by the tunnel 620. A peer that does not answer is asked again every 2 s and given up after 15 s; meanwhile
the device is served without. Which of two access nodes a device belongs to is settled by when its last registration
was accepted. It must not know sockets, links or the kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeGuard

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import (
    Action,
    Answer,
    Answered,
    Asked,
    Count,
    Emit,
    Event,
    NoAnswer,
    WallClockStepped,
)
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.context import Context
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile, Waiting
from locum.roles.foreign_agent.contexts.membership import Memberships
from locum.roles.foreign_agent.contexts.requests import (
    FIRST_REQUEST,
    GIVE_UP,
    ContextErrands,
    Errand,
    Exchange,
)
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.roles.transfer_instruction import Instruction, instruction
from locum.wire.control.context import (
    Acknowledgement622,
    BlockStatus,
    Context624,
    ContextBlock,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
    decode_request_622,
    encode_624,
    encode_acknowledgement_622,
)
from locum.wire.control.context_blocks import BlockKind, VisitorBlock
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import Ipv6PrefixRequest
from locum.wire.mobile_ip.registration import RegistrationRequest

KEEP = 1800.0  # seconds that a context is kept for a device that is nobody's visitor here (C7)
AFTERWARDS = (
    10.0  # seconds after a registration has run out in which a stand-in's access node may ask for its context
)

Notice = Callable[[Addr, IPv4Address, bool], list[Action]]


class ContextTransfer(Part):
    """`access_nodes` are the others, each with the home addresses that it may speak for (none named: all)."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        access_nodes: Mapping[Addr, frozenset[Addr]],
        visitors: VisitorList,
        book: ContextBook,
        flights: InFlight,
        memberships: Memberships,
        notice: Notice,
        short_lifetime: int,
    ) -> None:
        self._care_of_address = care_of_address
        self._access_nodes = dict(access_nodes)
        self._visitors, self._book, self._flights = visitors, book, flights
        self._memberships = memberships
        self._notice = notice
        self._short_lifetime = short_lifetime
        self._wall_ahead = 0.0  # seconds that the wall clock is ahead of `now`
        self._errands = ContextErrands(book, self._current)
        self._kept: Deadlines[IPv4Address] = Deadlines()
        self._moved: set[IPv4Address] = set()  # visitors that are on their way to another access node
        visitors.dismissed.append(self._dismissed)
        flights.ended.append(self._followed)

    @property
    def enabled(self) -> bool:
        """Whether there is any other access node to talk to."""
        return bool(self._access_nodes)

    # Registrations (603) ------------------------------------------------------------------------------------------------

    def relayed(self, request: RegistrationRequest, *, now: float) -> list[Action]:
        """A request is on its way to a home agent that we know, for somebody who is not here yet (602)."""
        home_address, named = request.home_address, instruction(request)
        if named is None or named.towards or named.stand_in or not request.lifetime:
            return []
        if self._mobile_of(home_address) is not None or not self._known(named.access_node, home_address):
            return []
        prefixes = [each for each in request.all(Ipv6PrefixRequest) if each.prefix_length == 128]
        six = prefixes[0].prefix if prefixes else None
        return self._flights.herald(Mobile(home_address, request.home_agent, six), now=now)

    def arriving(self, visitor: Visitor, said: Instruction | None, *, now: float) -> list[Action]:
        """Before it is on the list: what reaches it by the old access node is to be in front of what is newer."""
        named = self._fetchable(visitor, said)
        if named is None or not self._onward(visitor, named).follows:
            return []
        if (
            visitor.next_hop is not None
        ):  # nothing waits for a stand-in: this host has no route to the home address
            return self._flights.accept(_mobile(visitor), named.access_node, now=now)
        return self._flights.arrive(_mobile(visitor), named.access_node, now=now)

    def registered(self, visitor: Visitor, said: Instruction | None, *, now: float) -> list[Action]:
        """It is on the list, and its forwarding stands: what has waited is delivered, its context is asked for."""
        home_address, named = visitor.home_address, self._fetchable(visitor, said)
        actions: list[Action] = []
        if visitor.next_hop is None and self.enabled:
            actions += self._book.registered(home_address, self._milliseconds(now))
            self._moved.discard(home_address)
        self._kept.cancel(home_address)
        actions += self._flights.returned(home_address)
        if named is None:
            actions += self._flights.open(home_address) + self._memberships.refresh()
            if said is not None and not self._known(said.access_node, home_address):
                actions.append(Count("context-peer-unknown"))
            return actions
        onward = self._onward(visitor, named)
        if not onward.follows:
            actions += self._flights.open(home_address)
        return actions + self._begin(
            Errand.FETCH, _mobile(visitor), named.access_node, self._milliseconds(now), onward, now
        )

    def pushing(
        self, visitor: Visitor, said: Instruction | None, replies: Sequence[Action], *, now: float
    ) -> list[Action] | None:
        """If the device says where it will move to: push its context; `replies` go once that is done or hopeless.

        None: it does not, and the replies are the caller's.
        """
        named = said
        if named is None or not named.towards or not self._known(named.access_node, visitor.home_address):
            return None
        onward, mobile = self._onward(visitor, named), _mobile(visitor)
        again = self._errands.pushed_again(mobile, named.access_node, tuple(replies))
        if again is not None:
            return again
        return self._begin(
            Errand.PUSH,
            mobile,
            named.access_node,
            self._milliseconds(now),
            onward,
            now,
            replies=tuple(replies),
        )

    def left(self, visitor: Visitor, named: Instruction | None, *, now: float) -> list[Action]:
        """It deregisters. A stand-in that says where the device is sends the context back there, changes included."""
        if named is None or not self._known(named.access_node, visitor.home_address):
            return []
        onward = Onward.NOTHING
        if named.stand_in:
            onward = Onward.SHARED if named.ruled else Onward.TAKEN
        registered = self._milliseconds(now)
        return self._begin(Errand.PUSH, _mobile(visitor), named.access_node, registered, onward, now)

    def _fetchable(self, visitor: Visitor, named: Instruction | None) -> Instruction | None:
        if named is None or named.towards or not self._known(named.access_node, visitor.home_address):
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

    def _known(self, peer: Addr, home_address: Addr) -> TypeGuard[IPv4Address]:
        """Whether that access node may speak for that home address, and is another one than this."""
        allowed = self._access_nodes.get(peer) if isinstance(peer, IPv4Address) else None
        return (
            allowed is not None and peer != self._care_of_address and (not allowed or home_address in allowed)
        )

    # Errands ------------------------------------------------------------------------------------------------------------

    def _begin(
        self,
        errand: Errand,
        mobile: Mobile,
        peer: IPv4Address,
        registered: int,
        onward: Onward,
        now: float,
        replies: tuple[Action, ...] = (),
    ) -> list[Action]:
        exchange = Exchange(errand, mobile, peer, registered, onward, now + GIVE_UP, now, replies=replies)
        return self._errands.begin(exchange, now)

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again; forget contexts that were kept long enough, or that nothing needs any more."""
        actions = self._errands.timeout(now=now)
        for home_address in tuple(self._kept.due(now)):
            actions += self._forget(home_address)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = (self._errands.deadline(), self._kept.next())
        return min((at for at in times if at is not None), default=None)

    # Answers ------------------------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Requests of other access nodes, answers to ours, and a step of the wall clock; None for anything else."""
        match event:
            case Asked(path="622" | "624"):
                return self._asked(event, now)
            case Answered() | NoAnswer():
                return self._answered(event, now)
            case WallClockStepped(ahead):
                self._wall_ahead = ahead
                return []
        return None

    def _answered(self, event: Answered | NoAnswer, now: float) -> list[Action] | None:
        if event.request < FIRST_REQUEST:
            return None
        exchange = self._errands.get(event.request)
        if exchange is None:
            return []
        if isinstance(event, NoAnswer):
            return self._unanswered(event.request, exchange, now)
        try:
            if exchange.errand is Errand.PUSH:
                return self._pushed(event.request, exchange, decode_acknowledgement_622(event.body), now)
            return self._fetched(event.request, exchange, decode_624(event.body), now)
        except WireError:
            actions = [Count("context-malformed"), *self._errands.end(event.request)]
            return actions + self._flights.open(exchange.mobile.home_address)

    def _unanswered(self, number: int, exchange: Exchange, now: float) -> list[Action]:
        """The device does not wait for what may never come: only the context is asked for again."""
        home_address = exchange.mobile.home_address
        actions: list[Action] = [Count("context-unanswered"), *exchange.replies]
        actions += self._flights.open(home_address) if exchange.errand is Errand.FETCH else []
        if self._errands.again(number, now):
            return actions
        detail: dict[str, JSON] = {"peer": str(exchange.peer), "errand": exchange.errand.value}
        return [*actions, Emit("context-given-up", None, home_address, None, detail)]

    def _fetched(self, number: int, exchange: Exchange, answer: Context624, now: float) -> list[Action]:
        home_address = exchange.mobile.home_address
        actions = self._errands.end(number)
        if answer.home_address != home_address:
            return [*actions, Count("context-malformed"), *self._flights.open(home_address)]
        if answer.status is ContextStatus.STALE and exchange.onward is Onward.MOVED:
            return actions + self._lost(exchange, answer.registered)
        if answer.status is not ContextStatus.OK:
            refused = Count(f"context-{_word(answer.status)}")
            return [*actions, refused, *self._flights.open(home_address)]
        if exchange.errand is Errand.CLAIM:
            return actions
        statuses, kept = self._book.take(home_address, 0, _without_visit(answer))
        if BlockStatus.ABSENT in statuses.values() and not exchange.whole:
            return actions + self._errands.ask(replace(exchange, whole=True), now)
        self._errands.agreed(home_address, exchange.peer, self._book.versions(home_address))
        return [
            *actions,
            *kept,
            *self._visitors.refresh(home_address),
            *self._memberships.refresh(),
            *self._flights.open(home_address),
            self._emit("context-received", "624", exchange, statuses),
            *self._responsible(home_address, home_address in self._visitors),
        ]

    def _pushed(
        self, number: int, exchange: Exchange, answer: Acknowledgement622, now: float
    ) -> list[Action]:
        home_address = exchange.mobile.home_address
        actions = self._errands.end(number)
        if answer.status is ContextStatus.STALE and exchange.onward is Onward.MOVED:
            return actions + self._lost(exchange, answer.registered)
        if answer.status is not ContextStatus.OK or answer.home_address != home_address:
            return [*actions, Count(f"context-{_word(answer.status)}")]
        if BlockStatus.ABSENT in answer.statuses.values() and not exchange.whole:
            return actions + self._errands.ask(replace(exchange, whole=True, replies=()), now)
        self._errands.agreed(home_address, exchange.peer, exchange.sent)
        if exchange.onward.follows:
            if exchange.onward is Onward.MOVED:
                self._moved.add(home_address)
            actions += self._flights.depart(exchange.mobile, exchange.peer, now=now)
        if exchange.onward is not Onward.NOTHING:
            actions += self._responsible(home_address, home_address in self._visitors)
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

    def _responsible(self, home_address: IPv4Address, responsible: bool) -> list[Action]:
        """618'' to a stand-in after 622 and 624."""
        served = self._visitors.get(home_address) or self._visitors.static(home_address)
        if served is None or served.next_hop is None:
            return []
        return self._notice(served.next_hop, home_address, responsible)

    def _told(self, home_address: IPv4Address, onward: Onward, responsible: bool) -> list[Action]:
        """618 after 622 and 624, to a device that is here while a stand-in takes or gives back.

        One that moves has heard it with its 604, and hears it on no link that it has left.
        """
        visitor = self._visitors.get(home_address)
        if onward not in (Onward.TAKEN, Onward.SHARED) or visitor is None or visitor.next_hop is not None:
            return []
        if self._flights.waiting(home_address) is Waiting.STRANDED:
            return []  # its link is down
        return self._notice(home_address, home_address, responsible)

    # Requests of others -------------------------------------------------------------------------------------------------

    def _asked(self, event: Asked, now: float) -> list[Action]:
        """622 that asks, or 624 that comes unasked."""
        peer = event.peer
        try:
            if event.path == "622":
                answer, actions = self._give(decode_request_622(event.body), peer, now)
                return [*actions, Answer(event.exchange, encode_624(answer))]
            acknowledgement, actions = self._accept(decode_624(event.body), peer, now)
            return [*actions, Answer(event.exchange, encode_acknowledgement_622(acknowledgement))]
        except WireError as error:
            counted = Count(f"context-{error.reason}")
            nobody = self._care_of_address
            body = (
                encode_624(Context624(ContextStatus.MALFORMED, nobody))
                if event.path == "622"
                else encode_acknowledgement_622(Acknowledgement622(ContextStatus.MALFORMED, nobody))
            )
            return [counted, Answer(event.exchange, body)]

    def _give(self, request: ContextRequest622, peer: Addr, now: float) -> tuple[Context624, list[Action]]:
        home_address = request.home_address
        if not isinstance(home_address, IPv4Address) or not self._known(peer, home_address):
            return _no_context(ContextStatus.NOT_AUTHORISED, home_address)
        context = self._current(home_address, now)
        mobile = self._mobile_of(home_address)
        if context is None or mobile is None:
            return _no_context(ContextStatus.UNKNOWN_MOBILE, home_address)
        if request.onward is Onward.MOVED and request.registered < context.registered:
            return _no_context(ContextStatus.STALE, home_address, context.registered)
        blocks, statuses = self._book.give(context, request.wants, request.known)
        answer = Context624(
            ContextStatus.OK, home_address, context.registered, blocks, statuses, request.onward
        )
        actions: list[Action] = [
            Emit("sent", "624", home_address, None, {"to": str(peer), "blocks": len(blocks)})
        ]
        if request.wants:
            self._errands.agreed(home_address, peer, self._book.versions(home_address))
        if request.onward.follows:
            actions += self._hand_over(mobile, peer, request, now)
        elif request.onward is Onward.SHARED:
            actions += self._told(home_address, Onward.SHARED, True)  # it keeps all other flows
        return answer, actions

    def _hand_over(
        self, mobile: Mobile, peer: IPv4Address, request: ContextRequest622, now: float
    ) -> list[Action]:
        """What still arrives follows; who has been followed before is told that it goes on from there."""
        home_address = mobile.home_address
        before = self._flights.outgoing(home_address)
        visitor = self._visitors.get(home_address)
        stranded = self._flights.waiting(home_address) is not None
        if request.onward is Onward.TAKEN and visitor is not None and not stranded:
            # The device hears: what was sent before the home agent switched is for it, as all that its stand-in says.
            return [*self._told(home_address, Onward.TAKEN, False), *self._responsible(home_address, False)]
        actions = self._flights.depart(mobile, peer, now=now)
        actions += self._responsible(home_address, False)
        if request.onward is Onward.MOVED:
            actions += self._book.registered(home_address, request.registered)
            if visitor is not None and visitor.next_hop is None:
                actions += self._visitors.dismiss(home_address)
        if before is not None and before != peer:
            actions += self._begin(Errand.CLAIM, mobile, before, request.registered, request.onward, now)
        return actions + self._memberships.refresh()

    def _accept(self, pushed: Context624, peer: Addr, now: float) -> tuple[Acknowledgement622, list[Action]]:
        home_address = pushed.home_address
        if not isinstance(home_address, IPv4Address) or not self._known(peer, home_address):
            return _not_acknowledged(ContextStatus.NOT_AUTHORISED, home_address)
        visitor, context = self._visitors.get(home_address), self._book.get(home_address)
        moved = pushed.onward is Onward.MOVED
        if moved and visitor is not None and context is not None and context.registered > pushed.registered:
            return _not_acknowledged(ContextStatus.STALE, home_address, context.registered)
        if pushed.onward is Onward.TAKEN and visitor is None:
            return _not_acknowledged(ContextStatus.UNKNOWN_MOBILE, home_address)  # it has moved on meanwhile
        if context is None and len(self._book.all()) >= 2 * self._visitors.most:
            return _not_acknowledged(ContextStatus.FULL, home_address)
        kind = int(BlockKind.VISITOR)
        statuses, actions = self._book.take(home_address, pushed.registered if moved else 0, pushed.blocks)
        mobile = self._mobile_of(home_address)
        if pushed.onward.follows and mobile is None:
            # half a context: without its home agent nothing can be done for it, and nothing may follow
            status = ContextStatus.OK if statuses.get(kind) is BlockStatus.ABSENT else ContextStatus.MALFORMED
            return Acknowledgement622(status, home_address, 0, statuses), actions
        self._errands.agreed(home_address, peer, self._book.versions(home_address))
        if mobile is not None:
            actions += self._follow(mobile, peer, pushed.onward, now)
        if visitor is None and self._visitors.static(home_address) is None:
            self._kept.set(home_address, now + KEEP)
        actions += [*self._visitors.refresh(home_address), *self._memberships.refresh()]
        detail: dict[str, JSON] = {"from": str(peer), "blocks": len(pushed.blocks)}
        actions.append(Emit("context-received", "624", home_address, None, detail))
        return Acknowledgement622(ContextStatus.OK, home_address, pushed.registered, statuses), actions

    def _follow(self, mobile: Mobile, peer: IPv4Address, onward: Onward, now: float) -> list[Action]:
        """Packets will come by way of `peer`: to who is here, or to wait for the device."""
        home_address = mobile.home_address
        if not onward.follows:
            return self._told(home_address, onward, True)
        visitor = self._visitors.get(home_address)
        stays = visitor is not None and (onward is Onward.TAKEN or visitor.next_hop is not None)
        if stays or self._visitors.static(home_address) is not None:
            told = [*self._told(home_address, onward, True), *self._responsible(home_address, True)]
            return [*self._flights.accept(mobile, peer, now=now), *told]
        return [*self._flights.expect(mobile, peer, now=now), *self._visitors.dismiss(home_address)]

    def rows(self, *, now: float) -> list[dict[str, JSON]]:
        """For people: contexts with their blocks' versions, tunnels and what waits."""
        rows: list[dict[str, JSON]] = []
        for context in self._book.all():
            home_address = context.home_address
            flight = self._flights.flights().get(home_address)
            blocks: dict[str, JSON] = {
                kind.name.lower(): each.version for kind, each in context.blocks.items()
            }
            served = "visitor" if home_address in self._visitors else "kept"
            if served == "kept" and self._visitors.static(home_address) is not None:
                served = "preconfigured"
            waiting = None if flight is None or flight.waiting is None else flight.waiting.value
            rows.append(
                {
                    "home_address": str(home_address),
                    "state": served,
                    "registered": context.registered / 1000 or None,
                    "blocks": blocks,
                    "forwarded_to": None
                    if flight is None or flight.outgoing is None
                    else str(flight.outgoing.peer),
                    "forwarded_from": None
                    if flight is None or flight.incoming is None
                    else str(flight.incoming.peer),
                    "waiting": waiting,
                    "transferring": [each.errand.value for each in self._errands.under_way(home_address)],
                }
            )
        return rows

    # What is kept -------------------------------------------------------------------------------------------------------

    def _mobile_of(self, home_address: IPv4Address) -> Mobile | None:
        served = self._visitors.get(home_address) or self._visitors.static(home_address)
        if served is not None:
            return Mobile(home_address, served.home_agent, served.home_address_v6)
        flight = self._flights.flights().get(home_address)
        if flight is not None:
            return flight.mobile
        visit = self._book.visit(home_address)
        return None if visit is None else Mobile(home_address, visit.home_agent, visit.home_address_v6)

    def _current(self, home_address: IPv4Address, now: float) -> Context | None:
        """The context with what its registration says now; None for a device that nothing is known of."""
        visitor = self._visitors.get(home_address)
        if visitor is not None and visitor.next_hop is None:
            left = max(0, min(0xFFFF, int(visitor.expires_at - now)))
            block = VisitorBlock(visitor.home_agent, visitor.flags, left, visitor.home_address_v6)
            self._book.note(home_address, block)
        context = self._book.get(home_address)
        if context is None and self._visitors.static(home_address) is not None:
            return Context(home_address)
        return context

    def _dismissed(self, visitor: Visitor) -> list[Action]:
        """It is off the list: what waits for it goes, and its context unless somebody may still ask for it.

        Whose registration has run out may be taken over just then: its context, and what is in flight, follow.
        """
        home_address = visitor.home_address
        actions: list[Action] = []
        if self._flights.waiting(home_address) is not Waiting.EXPECTED:
            actions += self._flights.forget(home_address)
        actions += self._memberships.refresh()
        if self._visitors.static(home_address) is not None or self._book.get(home_address) is None:
            return actions
        if not self.enabled:
            return actions + self._book.drop(home_address)
        if visitor.next_hop is None and self._book.visit(home_address) is None:
            visit = VisitorBlock(visitor.home_agent, visitor.flags, 0, visitor.home_address_v6)
            actions += self._book.note(home_address, visit)
        self._kept.set(home_address, visitor.expires_at + AFTERWARDS)  # the caller's time is not known here
        return actions

    def _followed(self, home_address: IPv4Address) -> list[Action]:
        """Nothing follows it any more: whoever moved on in good order is off the list, too."""
        if home_address not in self._moved:
            return []
        self._moved.discard(home_address)
        return self._visitors.dismiss(home_address)

    def _forget(self, home_address: IPv4Address) -> list[Action]:
        if home_address in self._visitors:
            return []
        self._errands.forget(home_address)
        return [*self._book.drop(home_address), *self._memberships.refresh()]

    def _milliseconds(self, now: float) -> int:
        """Since 1970, by the wall clock: other access nodes compare it with theirs."""
        return int((now + self._wall_ahead) * 1000)

    @staticmethod
    def _emit(kind: str, message: str, exchange: Exchange, statuses: Mapping[int, BlockStatus]) -> Emit:
        known = set(BlockKind)
        named: dict[str, JSON] = {
            BlockKind(number).name.lower() if number in known else str(number): _word(status)
            for number, status in statuses.items()
        }
        detail: dict[str, JSON] = {"peer": str(exchange.peer), "blocks": named}
        return Emit(kind, message, exchange.mobile.home_address, None, detail)


def _mobile(visitor: Visitor) -> Mobile:
    return Mobile(visitor.home_address, visitor.home_agent, visitor.home_address_v6)


def _word(status: ContextStatus | BlockStatus) -> str:
    return status.name.lower().replace("_", "-")


def _without_visit(answer: Context624) -> list[ContextBlock]:
    """What the device's registration here says is known better here."""
    return [each for each in answer.blocks if each.kind != BlockKind.VISITOR]


def _no_context(
    status: ContextStatus, home_address: Addr, registered: int = 0
) -> tuple[Context624, list[Action]]:
    return Context624(status, home_address, registered), [Count(f"context-{_word(status)}")]


def _not_acknowledged(
    status: ContextStatus, home_address: Addr, registered: int = 0
) -> tuple[Acknowledgement622, list[Action]]:
    return Acknowledgement622(status, home_address, registered), [Count(f"context-{_word(status)}")]
