"""Joins roles and CoAP: `Ask` and its answer, requests that come in and their `Answer`. Knows numbers, not meanings.

aiocoap is imported when the node has an association at all: a home agent starts without it.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from locum.node.events import EventStream
from locum.node.performer import Hand
from locum.node.settings import ControlAssociation, Settings
from locum.node.store import Store
from locum.roles import actions as do
from locum.roles.actions import Event

if TYPE_CHECKING:
    from locum.node.coap import CoapEndPoint

log = logging.getLogger("locum.exchanges")
_PATIENCE = 90.0  # seconds a role may take to answer a request
_SERVED = {"634": ("mnps",), "618": ("mobile_node", "mnps")}  # roles that answer, the first that is here


class Exchanges:
    """The CoAP exchanges of one node."""

    def __init__(
        self, settings: Settings, store: Store, events: EventStream, feed: Callable[[str, Event], None]
    ) -> None:
        """`feed` gives an event to a role."""
        self._settings, self._store, self._events, self._feed = settings, store, events, feed
        self._coap: CoapEndPoint | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Bind the control address. Raises OSError in one clear line."""
        control = self._settings.control
        if control is None or not control.associations:
            return
        from locum.node.coap import CoapEndPoint

        self._coap = CoapEndPoint(control, self._store, self._asked, self._events.count)
        try:
            await self._coap.open()
        except OSError as problem:
            raise OSError(
                problem.errno,
                f"{self._settings.file}: [control] address: {control.address} port {control.port}: "
                f"{problem.strerror or problem}",
            ) from None

    async def close(self) -> None:
        """End everything that is under way."""
        for task in tuple(self._asking):
            task.cancel()
        for future in self._waiting.values():
            future.cancel()
        if self._coap is not None:
            await self._coap.close()

    def link_lost(self, link: str) -> None:
        """Connections by a link of the mobile node are dead; the next request opens a new one."""
        mobile = self._settings.mobile_node
        if self._coap is not None and mobile is not None and link in mobile.links:
            self._coap.drop_connections()

    def hands(self, role: str) -> Mapping[type, Hand]:
        """What performs each kind of action for this role."""
        return {do.Ask: lambda action: self._ask(role, action), do.Answer: self._answer}

    def _ask(self, role: str, action: do.Ask) -> None:
        task = asyncio.get_running_loop().create_task(self._exchange(role, action))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _exchange(self, role: str, action: do.Ask) -> None:
        if self._coap is None:
            self._feed(role, do.NoAnswer(action.request, "this node has no [control] associations"))
            return
        from locum.node.coap import AskFailed

        try:
            body = await self._coap.ask(
                action.peer, action.path, action.body, action.timeout, bulk=action.bulk
            )
        except AskFailed as problem:
            self._feed(role, do.NoAnswer(action.request, str(problem)))
        else:
            self._feed(role, do.Answered(action.request, body))

    async def _asked(self, path: str, body: bytes, association: ControlAssociation) -> bytes:
        role = next((each for each in _SERVED[path] if each in self._settings.roles), None)
        if role is None:
            self._events.count(f"request-{path}-not-served")
            return b""
        number = next(self._numbers)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._feed(role, do.Asked(number, path, body, association.peer, association.home_addresses))
            async with asyncio.timeout(_PATIENCE):
                return await future
        finally:
            self._waiting.pop(number, None)

    def _answer(self, action: do.Answer) -> None:
        future = self._waiting.get(action.exchange)
        if future is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(action.body)
