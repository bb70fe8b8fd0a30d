"""The CoAP transports of a node, as subclasses of those of aiocoap 0.4.17.

aiocoap has no public way to give it bound sockets, to bound what strangers hold open, or to choose the local address of
a connection. This file alone uses private names of aiocoap, so an upgrade of the library is checked here; each
docstring says which names it uses and why. Associations and requests are not known here.
"""

import asyncio
import contextlib
import errno
import socket
import sys
from collections import Counter
from collections.abc import Callable
from logging import Logger
from typing import Any

import aiocoap
from aiocoap import error
from aiocoap.messagemanager import MessageManager
from aiocoap.transports.tcp import TCPClient, TcpConnection, TCPServer, _extract_message_size
from aiocoap.transports.udp6 import MessageInterfaceUDP6

from locum.node.config.settings import Address

Count = Callable[[str], None]

_ERROR = (socket.IPPROTO_IPV6, 25)  # IPV6_RECVERR; a sock_extended_err begins with the error's number
_MOST_CONNECTIONS = 128  # accepted TCP connections at one time; past it the oldest unproven one goes
_HANDSHAKE_SECONDS = 10.0  # within which a connection has to show an association of ours
OUTSTANDING = 32  # requests to one peer; its replay window has 64
ACK_SECONDS = 0.02  # in which an answer can come with the acknowledgement
_USER_TIMEOUT = 8000  # ms without acknowledgement after which TCP gives a connection up


class DatagramTransport(MessageInterfaceUDP6):  # type: ignore[misc]
    """CoAP over UDP whose answers take the host's routes.

    The link by which a request came says nothing when a tunnel ended here, so it is cleared in the packet information.
    """

    @classmethod
    async def listen(cls, channel: socket.socket, manager: Any, log: Logger, count: Count) -> Any:
        """The transport on a bound socket.

        aiocoap 0.4.17 binds sockets itself in every public constructor; `_create_transport_endpoint` takes one.
        """
        self = await cls._create_transport_endpoint(channel, manager, log, asyncio.get_running_loop())
        self._count = count
        side_by_side(manager)
        return self

    def datagram_msg_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
        """Give a datagram to aiocoap; one with a string option that is not UTF-8 is counted and dropped."""
        here = [(level, kind, value[:16] + bytes(4)) for level, kind, value in ancdata]
        try:
            super().datagram_msg_received(data, here, flags, address)
        except UnicodeDecodeError:  # aiocoap 0.4.17 counts on UTF-8
            self._count("control-unreadable")

    def datagram_errqueue_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
        """Give an ICMP error to aiocoap, which ends the exchanges with that peer.

        One about the MTU of the path is dropped and counted: messages leave in fragments, so it ends no exchange.
        """
        for level, kind, value in ancdata:
            if (level, kind) == _ERROR and int.from_bytes(value[:4], sys.byteorder) == errno.EMSGSIZE:
                self._count("control-path-mtu")
                return
        super().datagram_errqueue_received(data, ancdata, flags, address)


class Exchanges(dict[tuple[Any, int], Any]):
    """The exchanges under way, by peer and message ID, with their number for each peer in `of`.

    aiocoap 0.4.17 adds them by key and removes them by `pop` with one argument.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[Any] = Counter()

    def __setitem__(self, key: tuple[Any, int], value: Any) -> None:
        if key not in self:
            self.of[key[0]] += 1
        super().__setitem__(key, value)

    def pop(self, key: tuple[Any, int]) -> Any:  # type: ignore[override]
        value = super().pop(key)
        self.of[key[0]] -= 1
        if not self.of[key[0]]:
            del self.of[key[0]]
        return value


class SideBySide(MessageManager):  # type: ignore[misc]
    """The message layer of CoAP with up to OUTSTANDING requests to one peer at a time (NSTART of RFC 7252 section 4.7).

    aiocoap 0.4.17 has one: the next request waits until the peer has acknowledged the one before, which takes the peer
    EMPTY_ACK_DELAY where the answer comes late, as that of a page does. It keeps requests in `_backlogs` of a peer as long as the
    peer is a key there, and calls `_continue_backlog` when an exchange of `_active_exchanges` ends.
    """

    def _outstanding(self, remote: Any) -> int:
        return int(self._active_exchanges.of[remote])

    def _process_request(self, request: aiocoap.Message) -> None:
        """Take a request, and acknowledge it after ACK_SECONDS; every message of aiocoap 0.4.17 has a tuning of its own."""
        request.transport_tuning.EMPTY_ACK_DELAY = ACK_SECONDS
        super()._process_request(request)

    def _add_exchange(self, message: aiocoap.Message, messageerror_monitor: Any) -> None:
        """Note a request that leaves; without its peer's key, the next one leaves too."""
        super()._add_exchange(message, messageerror_monitor)
        remote = message.remote
        if not self._backlogs.get(remote) and self._outstanding(remote) < OUTSTANDING:
            self._backlogs.pop(remote, None)

    def _continue_backlog(self, remote: Any) -> None:
        """Send requests that wait, as many as may be outstanding."""
        waiting = self._backlogs.get(remote, [])
        while waiting and self._outstanding(remote) < OUTSTANDING:
            self._send_initially(*waiting.pop(0))
        if not waiting and self._outstanding(remote) < OUTSTANDING:
            self._backlogs.pop(remote, None)

    def _retransmit(self, message: aiocoap.Message, timeout: float, retransmission_counter: int) -> None:
        """Repeat a message; at the end of its repetitions aiocoap deletes the peer's key."""
        if retransmission_counter >= message.transport_tuning.MAX_RETRANSMIT:
            self._backlogs.setdefault(message.remote, [])
        super()._retransmit(message, timeout, retransmission_counter)


def side_by_side(manager: Any) -> None:
    """Let the manager send requests to one peer side by side; `Context` of aiocoap 0.4.17 makes it itself."""
    assert type(manager) is MessageManager and manager._active_exchanges == {}
    manager.__class__, manager._active_exchanges = SideBySide, Exchanges()


class Connection(TcpConnection):  # type: ignore[misc]
    """A CoAP connection that ends without a message when the other side breaks the protocol.

    The protocol and its transport are one object with private state in aiocoap 0.4.17: `_transport` closes it, `_spool`
    has the bytes of an unfinished message, `_local_is_server` and `_ctx` say which pool it belongs to.
    """

    proven = False  # whether a request under an association of ours has come by it

    def __init__(self, ctx: Any, log: Logger, loop: Any, *, is_server: bool) -> None:
        super().__init__(ctx, log, loop, is_server=is_server)
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes of the message that has begun

    def data_received(self, data: bytes) -> None:
        """Collect the pieces of a long message and give them to aiocoap as one.

        aiocoap 0.4.17 copies all bytes that it has with every piece. `_extract_message_size` is the only reader of the
        length field.
        """
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        whole = b"".join(self._pieces)
        self._pieces.clear()
        try:
            super().data_received(whole)
        except UnicodeDecodeError:  # of an option that is a string: aiocoap counts on UTF-8
            self._abort_with(None)
            if self._local_is_server:
                self._ctx.unreadable()
            return
        length = _extract_message_size(self._spool)  # its bound was checked just now
        self._missing = sum(length) - len(self._spool) if length is not None else 0

    def connection_made(self, transport: Any) -> None:
        """Set the options of the socket, and tell the server about a connection that it accepted."""
        channel = transport.get_extra_info("socket")
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        super().connection_made(transport)
        if self._local_is_server:
            self._ctx.accepted(self)

    def _abort_with(self, abort_msg: aiocoap.Message | None) -> None:
        """Close without the message: aiocoap 0.4.17 sends one from here, with text about the fault, to strangers."""
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """Forget the connection at once; the peer may be out of reach."""
        if self._transport is not None:
            self._transport.abort()


class ConnectionServer(TCPServer):  # type: ignore[misc]
    """CoAP over TCP on a bound socket, with a bound on the connections that strangers can hold open."""

    _order: dict[Connection, None]  # oldest first

    @classmethod
    async def listen(cls, channel: socket.socket, manager: Any, log: Logger, count: Count) -> Any:
        """The server on a listening socket.

        `create_server` of aiocoap 0.4.17 binds a socket itself and makes connections of its own class; therefore
        `_tokenmanager` and `_pool` are filled here as it does.
        """
        self = cls()
        loop = asyncio.get_running_loop()
        self._tokenmanager, self.log, self._count = manager, log, count
        self._order = {}

        def connection() -> Connection:
            made = Connection(self, log, loop, is_server=True)
            self._pool.add(made)
            return made

        self.server = await loop.create_server(connection, sock=channel)
        return self

    def accepted(self, connection: Connection) -> None:
        """Count a new connection, drop the oldest unproven one past the bound, and this one unless it proves itself."""
        self._order[connection] = None
        if len(self._pool) > _MOST_CONNECTIONS:
            self._count("control-connections")
            oldest = next((candidate for candidate in self._order if not candidate.proven), connection)
            oldest.drop()

        def check() -> None:
            if not connection.proven and connection in self._pool:
                self._count("control-silent")
                connection.drop()

        asyncio.get_running_loop().call_later(_HANDSHAKE_SECONDS, check)

    def unreadable(self) -> None:
        """Count bytes of a stranger that are not CoAP."""
        self._count("control-unreadable")

    def _evict_from_pool(self, connection: Connection) -> None:
        """Forget an ended connection; aiocoap 0.4.17 calls this alone when one ends."""
        self._order.pop(connection, None)
        super()._evict_from_pool(connection)


class ConnectionClient(TCPClient):  # type: ignore[misc]
    """CoAP over TCP from one local address; connections are kept by peer until they break or are dropped."""

    local: Address

    @classmethod
    async def connect_from(cls, local: Address, manager: Any, log: Logger) -> Any:
        """The client whose connections come from `local`."""
        self = await cls.create_client_transport(manager, log, asyncio.get_running_loop())
        self.local = local
        return self

    async def _spawn_protocol(self, message: aiocoap.Message) -> Any:
        """The connection to the peer of a message. Raises NetworkError.

        aiocoap 0.4.17 connects here from any local address, with connections of its own class. `_pool` has the open
        ones, `_default_port` the port of a peer that names none.
        """
        peer = message.unresolved_remote
        if peer in self._pool:
            return self._pool[peer]
        host, port = aiocoap.util.hostportsplit(peer)
        try:
            _, protocol = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self, self.log, self.loop, is_server=False),
                host,
                port or self._default_port,
                local_addr=(str(self.local), 0),
            )
        except OSError as problem:
            raise error.NetworkError(f"no connection: {problem.strerror or problem}") from None
        self._pool[peer] = protocol
        return protocol

    def drop_all(self) -> None:
        """Drop every connection; `_pool` of aiocoap 0.4.17 is the only list of them."""
        for connection in tuple(self._pool.values()):
            connection.drop()
        self._pool.clear()


async def add_transports(
    context: aiocoap.Context,
    datagrams: socket.socket,
    connections: socket.socket,
    local: Address,
    log: Logger,
    count: Count,
) -> ConnectionClient:
    """Give a context its three transports: UDP and TCP on bound sockets, and TCP from `local`, which is returned.

    `Context` of aiocoap 0.4.17 takes transports of its own by name only; `_append_tokenmanaged_transport` and
    `_append_tokenmanaged_messagemanaged_transport` are the calls that it makes for each of them.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(connections.close)
        await context._append_tokenmanaged_messagemanaged_transport(
            lambda manager: DatagramTransport.listen(datagrams, manager, log, count)
        )
        await context._append_tokenmanaged_transport(
            lambda manager: ConnectionServer.listen(connections, manager, log, count)
        )
        await context._append_tokenmanaged_transport(
            lambda manager: ConnectionClient.connect_from(local, manager, log)
        )
        undo.pop_all()
    client = context.request_interfaces[-1].token_interface
    assert isinstance(client, ConnectionClient)
    return client
