"""OSCORE security contexts (RFC 8613) that live in the node's store, and the gate in front of the CoAP server.

Sequence numbers and replay windows are kept by `StoredNumbers`. The replay window is committed before a request is
acted on, so that a request is taken at most once over all restarts. The secret of an association and its store live
and die together.

A message without a valid context gets an empty 4.01 at most: never more bytes than were sent, never a reason. While the
store cannot be written nothing is acted upon, and an answer under the context is not possible either: it would take the
request's nonce, which a replay after a restart could take once more. The answer then is an empty 5.03.
"""

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TYPE_CHECKING, Any

import aiocoap
from aiocoap import error, interfaces, oscore
from aiocoap.pipe import IterablePipe, Pipe, error_to_message, run_driving_pipe
from aiocoap.transports.oscore import OSCOREAddress

from locum.node.coap.sequence_numbers import StoredNumbers
from locum.node.config.settings import Address, ControlAssociation
from locum.node.tables import StoreError
from locum.wire.control import MAX_BODY

if TYPE_CHECKING:
    from locum.node.tables import HostStore


class StoredContext(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc]
    """The security context of one association, with its numbers in the store.

    AEAD is A128GCM: AES-CCM as OSCORE uses it ends at 64 KiB, and session state is larger.
    """

    alg_aead = oscore.algorithms["A128GCM"]
    hashfun = oscore.hashfunctions["sha256"]
    id_context = None
    echo_recovery = None  # the window is never lost, so it need not be recovered (B.1.2)

    def __init__(
        self, association: ControlAssociation, store: "HostStore", rows: dict[str, dict[str, Any]]
    ) -> None:
        """`rows` are those of the table CONTROL_NUMBERS, as the node found them when it started."""
        self.numbers = StoredNumbers(association.key, store, rows)
        self._set_association(association)

    def _set_association(self, association: ControlAssociation) -> None:
        self.association = association
        self.sender_id, self.recipient_id = association.sender_id, association.recipient_id
        self.derive_keys(association.salt, association.secret)

    def changed_to(self, association: ControlAssociation) -> "StoredContext":
        """The context of an association with the same key (ids and peer), which goes on with the numbers of this one.

        If the secret is the same, it is this one, and exchanges under way have the new rights. Otherwise they end under
        the secret under which they began.
        """
        assert association.key == self.association.key
        if (association.secret, association.salt) == (self.association.secret, self.association.salt):
            self.association = association
            return self
        changed = copy(self)
        changed._set_association(association)
        return changed

    @property
    def recipient_replay_window(self) -> oscore.ReplayWindow:
        return self.numbers.window

    @property
    def sender_sequence_number(self) -> int:
        """The next number to send under; aiocoap takes it and adds one."""
        return self.numbers.next

    @sender_sequence_number.setter
    def sender_sequence_number(self, value: int) -> None:
        self.numbers.next = value

    async def ready(self) -> None:
        """Wait until there is a sequence number to send under; at once unless the disk is slow. Raises StoreError."""
        await self.numbers.ready()

    def post_seqnoincrease(self) -> None:
        """Keep the reservation ahead of use. Raises RuntimeError without a wait for `ready`."""
        self.numbers.keep_ahead()


class BulkAddress(OSCOREAddress):  # type: ignore[misc]
    """A remote under OSCORE whose block size is that of the transport below: over TCP BERT blocks (RFC 8323)."""

    @property
    def maximum_payload_size(self) -> int:
        return int(self.underlying_address.maximum_payload_size)

    @property
    def maximum_block_size_exp(self) -> int:
        return int(self.underlying_address.maximum_block_size_exp)

    @maximum_block_size_exp.setter
    def maximum_block_size_exp(self, value: int) -> None:
        """aiocoap lowers the size of a response's remote; the one below decides here."""


class ProtectedRequests(interfaces.RequestProvider):  # type: ignore[misc]
    """Sends requests whose remote is a `BulkAddress`: protect, send below, unprotect.

    Unlike aiocoap's own transport it gives responses a `BulkAddress` too, so that blocks stay large from the second on.
    """

    def __init__(self, wire: aiocoap.Context) -> None:
        self._wire = wire
        self._wanted: dict[asyncio.Task[None], Pipe] = {}  # requests with a waiting caller

    async def fill_or_recognize_remote(self, message: aiocoap.Message) -> bool:
        return isinstance(message.remote, BulkAddress)

    def request(self, request: Pipe) -> None:
        task = asyncio.get_running_loop().create_task(self._request(request))
        self._wanted[task] = request
        task.add_done_callback(self._finished)
        request.on_interest_end(lambda: self._given_up(task))

    def _given_up(self, task: "asyncio.Task[None]") -> None:
        """End the request below, as no caller waits for it any more."""
        if self._wanted.pop(task, None) is not None:
            task.cancel()

    def _finished(self, task: "asyncio.Task[None]") -> None:
        request = self._wanted.pop(task, None)
        problem = error.LibraryShutdown() if task.cancelled() else task.exception()
        if request is not None and problem is not None:
            request.add_exception(problem)

    async def _request(self, request: Pipe) -> None:
        message = request.request
        context = message.remote.security_context
        await context.ready()
        protected, identifiers = context.protect(message)
        protected.remote = message.remote.underlying_address
        response = await self._wire.request(protected, handle_blockwise=False).response
        if response.opt.oscore is None:
            unwritable = response.code == aiocoap.SERVICE_UNAVAILABLE
            raise StoreOfPeerUnwritable(response) if unwritable else AnsweredUnprotected(response)
        plain, _ = context.unprotect(response, identifiers)
        plain.remote = BulkAddress(context, response.remote)
        request.add_response(plain, is_last=True)

    async def shutdown(self) -> None:
        tasks = tuple(self._wanted)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class AnsweredUnprotected(error.Error):  # type: ignore[misc]
    """The peer refused our security context: it has another secret, or another identity for us."""

    def __init__(self, response: aiocoap.Message) -> None:
        super().__init__(f"refused our association ({response.code}); compare secrets, ids and addresses")


class StoreOfPeerUnwritable(error.Error):  # type: ignore[misc]
    """The peer takes no request now, because it cannot write down that it has taken it."""

    def __init__(self, response: aiocoap.Message) -> None:
        super().__init__(f"its store cannot be written ({response.code}); is its disk full?")


def remote_address(remote: Any) -> Address | None:
    """The IP address of an aiocoap remote, without mapping and zone; None if it has none."""
    from ipaddress import IPv6Address, ip_address

    host = str(remote.hostinfo)
    if host.startswith("["):
        host = host[1 : host.index("]")]
    elif host.count(":") == 1:
        host = host.split(":")[0]
    try:
        address = ip_address(host.split("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


_UNKNOWN = "control-no-association"


def _identifier(request: aiocoap.Message) -> bytes:
    """The sender's identifier in a request. Raises NotAProtectedMessage, ProtectionInvalid, ValueError or IndexError."""
    return bytes(oscore.verify_start(request).get(oscore.COSE_KID, b""))


class ProtectedSite(interfaces.Resource):  # type: ignore[misc]
    """Lets a request through to `inner` only under a context of ours, from that association's peer, once."""

    def __init__(
        self,
        inner: interfaces.Resource,
        find: Callable[[bytes], StoredContext | None],
        learn: Callable[[Address | None, bytes], Awaitable[bool]],
        store: "HostStore",
        count: Callable[[str], None],
        log: Any,
        unwritable: Callable[[str], None],
    ) -> None:
        """`find` gives the context of an identifier; `learn` is true if one can be obtained.

        `unwritable` is called once with the reason why the store takes no writes, until it does again.
        """
        self._inner, self._find, self._learn = inner, find, learn
        self._store, self._count, self._log = store, count, log
        self._unwritable, self._told = unwritable, False

    async def render(self, request: aiocoap.Message) -> aiocoap.Message:
        raise error.Unauthorized

    async def needs_blockwise_assembly(self, request: aiocoap.Message) -> bool:
        return False

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Unprotect, commit the replay window, run the resource, protect its response."""
        try:
            await self._admit(pipe)
        except StoreError as problem:
            self._count("control-unwritable")
            if not self._told:
                self._told = True
                self._unwritable(str(problem))
            pipe.add_response(aiocoap.Message(code=aiocoap.SERVICE_UNAVAILABLE), is_last=True)

    async def _admit(self, pipe: Pipe) -> None:
        request = pipe.request
        opened = self._open(request)
        if opened == _UNKNOWN and await self._learn(remote_address(request.remote), _identifier(request)):
            opened = self._open(request)
        if isinstance(opened, str):
            self._count(opened)
            if request.mtype is None or request.mtype == aiocoap.CON:
                pipe.add_response(aiocoap.Message(code=aiocoap.UNAUTHORIZED), is_last=True)
            return
        context, plain, identifiers = opened
        request.remote.proven = True
        if plain.opt.block1 is not None and plain.opt.block1.start + len(plain.payload) > MAX_BODY:
            self._count("control-oversized")
            refusal, _ = context.protect(aiocoap.Message(code=aiocoap.REQUEST_ENTITY_TOO_LARGE), identifiers)
            pipe.add_response(refusal, is_last=True)
            return
        await self._store.durable()
        self._told = False
        plain.remote = BulkAddress(context, request.remote)
        inner_pipe = IterablePipe(plain)
        run_driving_pipe(
            error_to_message(inner_pipe, self._log), self._inner.render_to_pipe(inner_pipe), name="634"
        )
        async for event in inner_pipe:
            if event.exception is not None:
                self._count("control-failed")
                response = aiocoap.Message(code=aiocoap.INTERNAL_SERVER_ERROR)
            else:
                response = event.message
            protected, _ = context.protect(response, identifiers)
            pipe.add_response(protected, is_last=True)
            break

    def _open(self, request: aiocoap.Message) -> tuple[StoredContext, aiocoap.Message, Any] | str:
        """The context, plain request and request identifiers, or the reason why not."""
        if request.code != aiocoap.POST:
            return "control-unprotected"
        try:
            context = self._find(_identifier(request))
            if context is None:
                return _UNKNOWN
            if remote_address(request.remote) != context.association.peer:
                return "control-wrong-peer"
            plain, identifiers = context.unprotect(request)
        except oscore.NotAProtectedMessage:
            return "control-unprotected"
        except oscore.ReplayError:
            return "control-replayed"
        except (oscore.ProtectionInvalid, error.Error, ValueError, IndexError):
            return "control-forged"
        return context, plain, identifiers
