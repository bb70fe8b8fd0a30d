"""Joins roles and CoAP: `Ask` and its answer, requests that come in and their `Answer`. Knows numbers, not meanings.

aiocoap is imported when the node has an association at all: a home agent starts without it.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from locum.node.clock import boot_seconds
from locum.node.coap.served import SERVED
from locum.node.config.settings import Address, ControlAssociation, Settings
from locum.node.events import EventStream
from locum.node.performer import Handler
from locum.node.tables import HostStore
from locum.roles import actions as do
from locum.roles.action_values.locations import LocationTold, TellLocation
from locum.roles.actions import Event

if TYPE_CHECKING:
    from locum.node.coap.endpoint import CoapEndPoint
    from locum.node.coap.learnt_associations import LearntAssociations

log = logging.getLogger("locum.exchanges")
_PATIENCE = 90.0  # seconds a role may take to answer a request


@dataclass(slots=True)
class Conversation:
    """Messages exchanged with one peer since the start. `last_heard` is seconds since boot."""

    last_heard: float | None = None
    asked: int = 0  # our requests
    failed: int = 0  # of them: no answer, or an error
    received: int = 0  # the peer's requests


class NoReply(Exception):
    """No answer, or an error as the answer; the text is the reason."""


class Exchanges:
    """The CoAP exchanges of one node."""

    def __init__(
        self,
        settings: Settings,
        store: HostStore,
        events: EventStream,
        feed: Callable[[str, Event], None],
        learnt: "LearntAssociations | None" = None,
    ) -> None:
        """`feed` gives an event to a role; `learnt` are associations that are not in the configuration."""
        self._settings, self._store, self._events, self._feed = settings, store, events, feed
        self._learnt = learnt
        self._coap: CoapEndPoint | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._begun = asyncio.Event()
        self._turns: dict[tuple[Address, str], asyncio.Lock] = {}
        control = settings.control
        self._conversations = {
            association.peer: Conversation() for association in (control.associations if control else ())
        }

    async def open(self) -> None:
        """Bind the control address. Raises OSError or StoreError in one clear line."""
        control = self._settings.control
        if control is None or not (control.associations or self._learnt is not None):
            return
        from locum.node.coap.endpoint import CoapEndPoint

        self._coap = CoapEndPoint(
            control, self._store, self._asked, self._events.count, self._learnt, self._store_unwritable
        )
        try:
            await self._coap.open()
        except OSError as problem:
            raise OSError(
                problem.errno,
                f"{self._settings.file}: [control] address: {control.address} port {control.port}: "
                f"{problem.strerror or problem}",
            ) from None

    def _store_unwritable(self, reason: str) -> None:
        self._events.emit("store-unwritable", detail={"reason": reason})

    def begin(self) -> None:
        """Give the roles the requests received since `open`, and all later ones."""
        self._begun.set()

    async def close(self) -> None:
        """End all pending exchanges."""
        for task in tuple(self._asking):
            task.cancel()
        for future in self._waiting.values():
            future.cancel()
        if self._coap is not None:
            await self._coap.close()

    def link_lost(self, link: str) -> None:
        """Connections by a link of the mobile node are dead; the next request opens a new one."""
        mobile = self._settings.mobile_node
        if self._coap is not None and mobile is not None and link in mobile.configuration.links:
            self._coap.drop_connections()

    def handlers(self, role: str) -> Mapping[type, Handler]:
        """Handlers for each kind of action of this role."""
        return {
            do.Ask: lambda action: self._ask(role, action),
            do.Answer: self._answer,
            TellLocation: self._tell_location,
        }

    def _tell_location(self, action: TellLocation) -> None:
        asyncio.get_running_loop().call_soon(self._feed, "location", LocationTold(action.location))

    def _ask(self, role: str, action: do.Ask) -> None:
        task = asyncio.get_running_loop().create_task(self._exchange(role, action))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _exchange(self, role: str, action: do.Ask) -> None:
        try:
            body = await self.ask(action.peer, action.path, action.body, action.timeout, bulk=action.bulk)
        except NoReply as problem:
            self._feed(role, do.NoAnswer(action.request, str(problem)))
        else:
            self._feed(role, do.Answered(action.request, body))

    async def ask_alone(self, peer: Address, path: str, body: bytes, timeout: float) -> bytes:
        """The same with large bodies, one after the other: block-wise transfers of one path would mix (RFC 7959 section 2.5).

        `timeout` counts from the turn of this one.
        """
        async with self._turns.setdefault((peer, path), asyncio.Lock()):
            return await self.ask(peer, path, body, timeout, bulk=True)

    async def ask(
        self, peer: Address, path: str, body: bytes, timeout: float, *, bulk: bool = False
    ) -> bytes:
        """The body of the peer's answer within `timeout` seconds. Raises NoReply."""
        control = self._settings.control
        if control is not None and peer == control.address:
            return await self._ask_own_role(peer, path, body, timeout)
        if self._coap is None:
            raise NoReply("this node has no [control] associations")
        from locum.node.coap.endpoint import AskFailed

        conversation = self._conversations.setdefault(peer, Conversation())
        conversation.asked += 1
        try:
            answer = await self._coap.ask(peer, path, body, timeout, bulk=bulk)
        except AskFailed as problem:
            conversation.failed += 1
            raise NoReply(str(problem)) from None
        conversation.last_heard = boot_seconds()
        return answer

    async def _ask_own_role(self, address: Address, path: str, body: bytes, timeout: float) -> bytes:
        """The answer of another role of this host, at its own address. Raises NoReply."""
        own = ControlAssociation(address, b"", b"", b"", b"", ())
        try:
            async with asyncio.timeout(timeout):
                return await self._asked(path, body, own)
        except TimeoutError:
            raise NoReply("no answer of the role on this host") from None

    async def ask_here(
        self, path: str, body: bytes, own: Address, home_addresses: tuple[Address, ...]
    ) -> bytes:
        """Answer of a role of this node to a local request, which may ask for everything."""
        return await self._asked(
            path, body, ControlAssociation(own, b"", b"", b"", b"", home_addresses, True)
        )

    def associations(self) -> list[ControlAssociation]:
        """Those of the configuration, and those that were learnt."""
        control = self._settings.control
        learnt = () if self._learnt is None else self._learnt.all()
        return [*(control.associations if control else ()), *(peer.association for peer in learnt)]

    def conversation(self, peer: Address) -> Conversation:
        """Messages exchanged with a peer."""
        return self._conversations.get(peer) or Conversation()

    async def _asked(self, path: str, body: bytes, association: ControlAssociation) -> bytes:
        conversation = self._conversations.setdefault(association.peer, Conversation())
        conversation.received += 1
        conversation.last_heard = boot_seconds()
        role = next((role_name for role_name in SERVED[path] if role_name in self._settings.roles), None)
        if role is None:
            self._events.count(f"request-{path}-not-served")
            return b""
        await self._begun.wait()
        number = next(self._numbers)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._feed(
                role,
                do.Asked(
                    number,
                    path,
                    body,
                    association.peer,
                    association.home_addresses,
                    association.may_trigger,
                ),
            )
            async with asyncio.timeout(_PATIENCE):
                return await future
        finally:
            self._waiting.pop(number, None)

    def _answer(self, action: do.Answer) -> None:
        future = self._waiting.get(action.exchange)
        if future is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(action.body)
