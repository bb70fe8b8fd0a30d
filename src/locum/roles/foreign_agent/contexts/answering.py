"""The answering side of the context transfer (622, 624): gives contexts away, and takes those that are pushed (C4, C5).

This module must not know registrations, nor what this access node asks itself.
"""

from collections.abc import Callable
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answer, Asked, Count, Emit
from locum.roles.foreign_agent.contexts.in_flight import Mobile
from locum.roles.foreign_agent.contexts.kept import KEEP, KeptContexts
from locum.roles.foreign_agent.contexts.requests import ContextRequestKind, word
from locum.wire.control.context import (
    Acknowledgement622,
    BlockStatus,
    Context624,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_request_622,
    encode_624,
    encode_acknowledgement_622,
)
from locum.wire.control.context_blocks import BlockKind
from locum.wire.errors import WireError

Begin = Callable[[ContextRequestKind, Mobile, IPv4Address, int, Onward, float], list[Action]]


class Answering:
    """Answers about the contexts in `kept`; `begin` starts forwarding to a device's new access node."""

    def __init__(self, kept: KeptContexts, begin: Begin) -> None:
        self._kept, self._begin = kept, begin
        self._visitors, self._book, self._flights = kept.visitors, kept.book, kept.flights
        self._memberships, self._requests = kept.memberships, kept.trigger_requests

    def asked(self, event: Asked, *, now: float) -> list[Action]:
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
            nobody = self._kept.care_of_address
            body = (
                encode_624(Context624(ContextStatus.MALFORMED, nobody))
                if event.path == "622"
                else encode_acknowledgement_622(Acknowledgement622(ContextStatus.MALFORMED, nobody))
            )
            return [counted, Answer(event.exchange, body)]

    def _give(self, request: ContextRequest622, peer: Addr, now: float) -> tuple[Context624, list[Action]]:
        home_address = request.home_address
        if not isinstance(home_address, IPv4Address) or not self._kept.known(peer, home_address):
            return _no_context(ContextStatus.NOT_AUTHORISED, home_address)
        context = self._kept.current(home_address, now)
        mobile = self._kept.mobile_of(home_address)
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
            self._requests.agreed(home_address, peer, self._book.versions(home_address))
        if request.onward.follows:
            actions += self._hand_over(mobile, peer, request, now)
        elif request.onward is Onward.SHARED:
            actions += self._kept.tell_device(home_address, Onward.SHARED, True)  # it keeps all other flows
        return answer, actions

    def _hand_over(
        self, mobile: Mobile, peer: IPv4Address, request: ContextRequest622, now: float
    ) -> list[Action]:
        """Forward late packets to the new access node; earlier access nodes are told of it."""
        home_address = mobile.home_address
        before = self._flights.outgoing(home_address)
        visitor = self._visitors.get(home_address)
        stranded = self._flights.waiting(home_address) is not None
        if request.onward is Onward.TAKEN and visitor is not None and not stranded:
            # The device is reachable: packets sent before the home agent switched are for it, as are its stand-in's.
            return [
                *self._kept.tell_device(home_address, Onward.TAKEN, False),
                *self._kept.tell_stand_in(home_address, False),
            ]
        actions = self._flights.depart(mobile, peer, now=now)
        actions += self._kept.tell_stand_in(home_address, False)
        if request.onward is Onward.MOVED:
            actions += self._book.registered(home_address, request.registered)
            if visitor is not None and visitor.next_hop is None:
                actions += self._visitors.dismiss(home_address)
        if before is not None and before != peer:
            actions += self._begin(
                ContextRequestKind.CLAIM, mobile, before, request.registered, request.onward, now
            )
        return actions + self._memberships.refresh()

    def _accept(self, pushed: Context624, peer: Addr, now: float) -> tuple[Acknowledgement622, list[Action]]:
        home_address = pushed.home_address
        if not isinstance(home_address, IPv4Address) or not self._kept.known(peer, home_address):
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
        mobile = self._kept.mobile_of(home_address)
        if pushed.onward.follows and mobile is None:
            # half a context: without its home agent nothing can be done for it, and nothing may follow
            status = ContextStatus.OK if statuses.get(kind) is BlockStatus.ABSENT else ContextStatus.MALFORMED
            return Acknowledgement622(status, home_address, 0, statuses), actions
        self._requests.agreed(home_address, peer, self._book.versions(home_address))
        if mobile is not None:
            actions += self._follow(mobile, peer, pushed.onward, now)
        if visitor is None and self._visitors.static(home_address) is None:
            self._kept.keep(home_address, until=now + KEEP)
        actions += [*self._visitors.refresh(home_address), *self._memberships.refresh()]
        detail: dict[str, JSON] = {"from": str(peer), "blocks": len(pushed.blocks)}
        actions.append(Emit("context-received", "624", home_address, None, detail))
        return Acknowledgement622(ContextStatus.OK, home_address, pushed.registered, statuses), actions

    def _follow(self, mobile: Mobile, peer: IPv4Address, onward: Onward, now: float) -> list[Action]:
        """Packets will come from `peer`: deliver them to a visitor, or hold them for the device."""
        home_address = mobile.home_address
        if not onward.follows:
            return self._kept.tell_device(home_address, onward, True)
        visitor = self._visitors.get(home_address)
        stays = visitor is not None and (onward is Onward.TAKEN or visitor.next_hop is not None)
        if stays or self._visitors.static(home_address) is not None:
            told = [
                *self._kept.tell_device(home_address, onward, True),
                *self._kept.tell_stand_in(home_address, True),
            ]
            return [*self._flights.accept(mobile, peer, now=now), *told]
        return [*self._flights.expect(mobile, peer, now=now), *self._visitors.dismiss(home_address)]


def _no_context(
    status: ContextStatus, home_address: Addr, registered: int = 0
) -> tuple[Context624, list[Action]]:
    return Context624(status, home_address, registered), [Count(f"context-{word(status)}")]


def _not_acknowledged(
    status: ContextStatus, home_address: Addr, registered: int = 0
) -> tuple[Acknowledgement622, list[Action]]:
    return Acknowledgement622(status, home_address, registered), [Count(f"context-{word(status)}")]
