"""The server for changes that policy servers push (RFC 5176; feature P7): requests in, events to roles, answers out.

A request that is known is answered as before, without another effect: it is remembered, with its answer, for as long as
its time is good. `push_requests.py` reads and checks, roles decide. It must not know what a profile is for.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count
from typing import Any, Final, TypeAlias, cast

from locum.node.clock import boot_seconds
from locum.node.config.policy_settings import PushSettings
from locum.node.events import EventStream
from locum.node.policy.push_requests import (
    CAUSES,
    ERROR_CAUSE,
    Dropped,
    ErrorCause,
    Itself,
    PushRequest,
    Refused,
    Times,
    authentic,
    check_time,
    echoed,
    request_of,
)
from locum.roles.actions import Event
from locum.roles.profile_requests import AnswerPush, DisconnectAsked, ProfilePushed, PushOutcome
from locum.security.radius import signed_answer
from locum.wire.radius import Attribute, Code, RadiusPacket

ROLES: Final = ("home_agent", "foreign_agent", "mnps")  # that have profiles, or event tables
PATIENCE: Final = 5.0  # seconds that roles may take to decide and to write
MOST_REMEMBERED: Final = 65_536
_ANSWERS: Final = {
    Code.COA_REQUEST: (Code.COA_ACK, Code.COA_NAK),
    Code.DISCONNECT_REQUEST: (Code.DISCONNECT_ACK, Code.DISCONNECT_NAK),
}
_ORDER: Final = tuple(PushOutcome)

Key: TypeAlias = tuple[IPv4Address, int, bytes]  # client, identifier, Request Authenticator
Place: TypeAlias = tuple[str, int]  # of the sender


@dataclass(slots=True)
class Remembered:
    """A request that was taken; `answer` is empty while roles decide."""

    until: float
    answer: bytes = b""


@dataclass(slots=True)
class UnderWay:
    """A request that roles have been given."""

    key: Key
    place: Place
    packet: RadiusPacket
    secret: bytes
    waiting: set[str]
    give_up: float
    answers: list[AnswerPush] = field(default_factory=list)


class Pushes:
    """Decides about datagrams. `feed` gives an event to a role, `send` a datagram to a place.

    Times are arguments: `now` is in seconds since boot, `wall` in seconds since 1970.
    """

    def __init__(
        self,
        settings: PushSettings,
        known: Any,
        itself: Itself,
        roles: Sequence[str],
        events: EventStream,
        feed: Callable[[str, Event], None],
        send: Callable[[bytes, Place], None],
        begun: float,
    ) -> None:
        """`begun` is when the daemon started, in seconds since boot: the wall clock may be set later."""
        self._settings, self._known, self._itself, self._roles = settings, known, itself, tuple(roles)
        self._events, self._feed, self._send, self._begun = events, feed, send, begun
        self._secrets = {client.address: client.secret for client in settings.clients}
        self._remembered: OrderedDict[Key, Remembered] = OrderedDict()
        self._under_way: dict[int, UnderWay] = {}
        self._numbers = count(1)

    def received(self, data: bytes, place: Place, *, now: float, wall: float) -> None:
        """One datagram."""
        self._forget(now)
        client = IPv4Address(place[0])
        secret = self._secrets.get(client)
        if secret is None:
            self._events.count("push-stranger")
            return
        try:
            whole, packet = authentic(data, secret)
            key = (client, packet.identifier, packet.authenticator)
            if (before := self._remembered.get(key)) is not None:
                self._again(before, place)
                return
            begun = wall - (now - self._begun)
            check_time(packet, Times(wall, begun, self._settings.window))
        except Dropped as dropped:
            self._events.count(f"push-{dropped}")
            return
        if len(self._remembered) >= MOST_REMEMBERED:
            self._events.count("push-too-many")
            return
        self._remembered[key] = Remembered(now + 2 * self._settings.window)
        number = next(self._numbers)
        request = UnderWay(key, place, packet, secret, set(self._roles), now + PATIENCE)
        self._under_way[number] = request
        try:
            wanted = request_of(packet, whole, self._known, self._itself)
        except Refused as refused:
            self._refuse(number, refused.cause, str(refused))
            return
        for role in self._roles:
            self._feed(role, _event(number, wanted))

    def answered(self, role: str, action: AnswerPush) -> None:
        """A role has decided, and its writes are in the store."""
        request = self._under_way.get(action.push)
        if request is None or role not in request.waiting:
            return
        request.waiting.discard(role)
        request.answers.append(action)
        if not request.waiting:
            self._conclude(action.push)

    def timeout(self, *, now: float) -> None:
        """Requests that roles have not decided about: their stores or the data plane failed."""
        for number, request in tuple(self._under_way.items()):
            if now >= request.give_up:
                self._refuse(number, ErrorCause.NO_RESOURCES, "the node could not do it in time")

    @property
    def under_way(self) -> bool:
        """True while roles decide."""
        return bool(self._under_way)

    def _again(self, before: Remembered, place: Place) -> None:
        if not before.answer:
            self._events.count("push-in-progress")
            return
        self._events.count("push-duplicate")
        self._send(before.answer, place)

    def _conclude(self, number: int) -> None:
        request = self._under_way[number]
        best = min(request.answers, key=lambda answer: _ORDER.index(answer.outcome))
        if best.outcome is not PushOutcome.DONE:
            self._refuse(number, CAUSES[best.outcome], best.text)
            return
        self._answer(number, _ANSWERS[Code(request.packet.code)][0], ())

    def _refuse(self, number: int, cause: ErrorCause, text: str) -> None:
        request = self._under_way[number]
        self._events.count(f"push-refused-{int(cause)}")
        detail = {"client": str(request.key[0]), "cause": int(cause), "reason": text}
        self._events.emit("push-refused", detail=detail)
        said = Attribute(ERROR_CAUSE, int(cause).to_bytes(4, "big"))
        self._answer(number, _ANSWERS[Code(request.packet.code)][1], (said,))

    def _answer(self, number: int, code: Code, said: tuple[Attribute, ...]) -> None:
        request = self._under_way.pop(number)
        attributes = (*said, *echoed(request.packet))
        answer = signed_answer(code, request.packet, attributes, request.secret)
        remembered = self._remembered.get(request.key)
        if remembered is not None:
            remembered.answer = answer
        self._send(answer, request.place)

    def _forget(self, now: float) -> None:
        """All live equally long, so the oldest are first."""
        while self._remembered:
            oldest = next(iter(self._remembered.values()))
            if oldest.until > now:
                return
            self._remembered.popitem(last=False)


def _event(number: int, wanted: PushRequest) -> ProfilePushed | DisconnectAsked:
    if wanted.change is None:
        return DisconnectAsked(number, wanted.session)
    return ProfilePushed(number, wanted.session, wanted.change)


class PushServer(asyncio.DatagramProtocol):
    """The socket of `Pushes`."""

    def __init__(
        self,
        settings: PushSettings,
        known: Any,
        itself: Itself,
        roles: Sequence[str],
        events: EventStream,
        feed: Callable[[str, Event], None],
    ) -> None:
        self._port, self._address = settings.port, itself.address
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        present = [role for role in ROLES if role in roles]
        self._pushes = Pushes(settings, known, itself, present, events, feed, self._send, boot_seconds())

    async def open(self) -> None:
        """Listen. Raises OSError in one clear line."""
        where = ("0.0.0.0" if self._address is None else str(self._address), self._port)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=where)
        except OSError as problem:
            text = f"[policy.changes]: {where[0]} port {where[1]}: {problem.strerror or problem}"
            raise OSError(problem.errno, text) from None

    def close(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def answered(self, role: str, action: AnswerPush) -> None:
        """A role has decided about a request."""
        self._pushes.answered(role, action)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._pushes.received(data, (addr[0], addr[1]), now=boot_seconds(), wall=time.time())
        self._watch()

    def _send(self, data: bytes, place: Place) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, place)

    def _watch(self) -> None:
        if self._timer is None and self._pushes.under_way:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE / 5, self._late)

    def _late(self) -> None:
        self._timer = None
        self._pushes.timeout(now=boot_seconds())
        self._watch()
