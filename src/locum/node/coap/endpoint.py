"""The CoAP end point of a node: 634, 632, 618 and triggers under OSCORE, over UDP and TCP (RFC 8323).

`ask` sends a request and returns the body of the answer; requests that come in are given to one handler together with
the association that sent them. CoAP retransmits, deduplicates and cuts into blocks; no caller does. It must not
know the meaning of a body.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import aiocoap
from aiocoap import error, resource

from locum.node.coap.aiocoap_adapter import ConnectionClient, add_transports
from locum.node.coap.oscore import BulkAddress, ProtectedRequests, ProtectedSite, StoredContext
from locum.node.coap.served import SERVED
from locum.node.config.settings import Address, ControlAssociation, ControlSettings
from locum.node.host.early_bind import bind_early
from locum.node.host.unlearnt_paths import learn_no_path_mtu
from locum.node.tables import HostTable, StoreError

if TYPE_CHECKING:
    from locum.node.coap.learnt_associations import LearntAssociations
    from locum.node.tables import HostStore

Handler = Callable[[str, bytes, ControlAssociation], Awaitable[bytes]]


class AskFailed(Exception):
    """No answer, or an error as the answer; the text is the reason."""


class _Message(resource.Resource):  # type: ignore[misc]
    """The resource of one message number."""

    def __init__(self, path: str, handler: Handler) -> None:
        super().__init__()
        self._path, self._handler = path, handler

    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        association: ControlAssociation = request.remote.security_context.association
        body = await self._handler(self._path, request.payload, association)
        return aiocoap.Message(code=aiocoap.CHANGED, payload=body)


def _reason(problem: Exception) -> str:
    """Reason why a request got no answer, for users; aiocoap's own text names its classes."""
    match problem:
        case error.ResolutionError():
            return "there is no way to it from here"
        case error.LibraryShutdown():
            return "this node is stopping"
        case error.NetworkError() if isinstance(problem.__cause__, OSError):
            return _words(problem.__cause__)
        case error.NetworkError() if problem.args:
            return str(problem.args[0])
    return str(problem) or type(problem).__name__


def _words(problem: OSError) -> str:
    """aiocoap puts a remark of its own in the place of the system's text."""
    if problem.errno == errno.ECONNREFUSED:
        return "no daemon answers on its control port"
    return os.strerror(problem.errno) if problem.errno else str(problem)


class CoapEndPoint:
    """CoAP server and client of one node."""

    def __init__(
        self,
        settings: ControlSettings,
        store: "HostStore",
        handler: Handler,
        count: Callable[[str], None],
        learnt: "LearntAssociations | None" = None,
        unwritable: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """With `learnt`, associations that are not configured are learnt when a message comes under them (C9).

        `unwritable` is called when requests are refused because the store cannot be written.
        """
        self._settings, self._store, self._handler, self._count = settings, store, handler, count
        self._learnt, self._unwritable = learnt, unwritable
        self._numbers = store.rows(HostTable.CONTROL_NUMBERS)
        self._contexts: dict[str, StoredContext] = {}  # by the key of the association
        for association in settings.associations:
            self._context_of(association)
        self._context: aiocoap.Context | None = None
        self._client: ConnectionClient | None = None

    def _associations(self) -> list[ControlAssociation]:
        learnt = () if self._learnt is None else self._learnt.all()
        return [*self._settings.associations, *(peer.association for peer in learnt)]

    def _by_recipient(self, identifier: bytes) -> StoredContext | None:
        found = (
            association for association in self._associations() if association.recipient_id == identifier
        )
        return self._context_of(next(found, None))

    def _by_peer(self, peer: Address) -> StoredContext | None:
        return self._context_of(
            next((association for association in self._associations() if association.peer == peer), None)
        )

    def _context_of(self, association: ControlAssociation | None) -> StoredContext | None:
        """The context in use; one of an association that changed since goes on with its numbers."""
        if association is None:
            return None
        context = self._contexts.get(association.key)
        if context is None:
            context = StoredContext(association, self._store, self._numbers)
        elif context.association != association:
            context = context.changed_to(association)
        self._contexts[association.key] = context
        return context

    async def _learn(self, peer: Address | None, identifier: bytes) -> bool:
        """True if there is an association for that identifier now."""
        return self._learnt is not None and await self._learnt.learn(peer, identifier) is not None

    async def open(self) -> None:
        """Bind UDP and TCP on the control address. Raises OSError (busy port) or StoreError."""
        for context in self._contexts.values():
            await context.ready()
        log = logging.getLogger("locum.coap")
        log.setLevel(logging.CRITICAL)
        site = resource.Site()
        for path in SERVED:
            site.add_resource([path], _Message(path, self._handler))
        loop = asyncio.get_running_loop()
        context = aiocoap.Context(loop=loop, loggername="locum.coap")
        context.serversite = ProtectedSite(
            site, self._by_recipient, self._learn, self._store, self._count, log, self._unwritable
        )
        datagrams, connections = self._sockets()
        self._client = await add_transports(
            context, datagrams, connections, self._settings.address, log, self._count
        )
        self._protected = ProtectedRequests(context)
        context.request_interfaces.insert(0, self._protected)  # before those that would send plain
        self._context = context

    def _sockets(self) -> tuple[socket.socket, socket.socket]:
        address, port = self._settings.address, self._settings.port
        mapped = f"::ffff:{address}" if isinstance(address, IPv4Address) else str(address)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
        connections = socket.socket(family, socket.SOCK_STREAM)
        try:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            learn_no_path_mtu(datagrams)
            bind_early(datagrams, (mapped, port))
            connections.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bind_early(connections, (str(address), port))
            connections.listen(64)
            connections.setblocking(False)
            datagrams.setblocking(False)
        except OSError:
            datagrams.close()
            connections.close()
            raise
        return datagrams, connections

    async def ask(
        self, peer: Address, path: str, body: bytes, timeout: float, *, bulk: bool = False
    ) -> bytes:
        """The body of the peer's answer to a POST of `body`. Raises AskFailed; `timeout` in seconds."""
        assert self._context is not None
        try:
            context = self._by_peer(peer)
            if context is None:
                raise AskFailed(f"no association with {peer}")
            async with asyncio.timeout(timeout):
                response = await self._exchange(context, path, body, bulk)
        except TimeoutError:
            raise AskFailed(f"no answer from {peer} within {timeout:g} s") from None
        except StoreError as problem:  # ours
            raise AskFailed(f"{peer} was not asked: {problem}") from None
        except (error.Error, OSError) as problem:
            raise AskFailed(f"{peer}: {_reason(problem)}") from None
        if not response.code.is_successful():
            raise AskFailed(f"{peer} answered {response.code}")
        return bytes(response.payload)

    async def _exchange(self, context: StoredContext, path: str, body: bytes, bulk: bool) -> aiocoap.Message:
        library = self._context
        assert library is not None
        peer = context.association.peer
        host = f"[{peer}]" if peer.version == 6 else str(peer)
        # An empty message finds and, for TCP, opens the way; the one that is sent has no Uri-Host to give away.
        probe = aiocoap.Message(code=aiocoap.POST)
        probe.set_request_uri(
            f"coap{'+tcp' if bulk else ''}://{host}:{self._settings.port}", set_uri_host=False
        )
        probe.direction = aiocoap.message.Direction.OUTGOING
        interface = await library.find_remote_and_interface(probe)
        assert interface is not None
        if self._context is None:  # closed meanwhile
            raise error.LibraryShutdown
        message = aiocoap.Message(code=aiocoap.POST, payload=body, uri_path=[path])
        message.remote = BulkAddress(context, probe.remote)
        return await library.request(message).response

    def drop_connections(self) -> None:
        """Drop the TCP connections to peers: the path to them was lost."""
        if self._client is not None:
            self._client.drop_all()

    async def close(self) -> None:
        """Close everything; pending requests fail."""
        library, self._context = self._context, None
        if library is not None:
            # aiocoap ends all its parts at once, and raises errors for requests that are under way
            await self._protected.shutdown()
            self.drop_connections()
            await library.shutdown()
