"""The RADIUS client (RFC 2865): fetches profiles from policy servers for the role (features R3, C9).

A stand-in fetches its associations with devices likewise, and gets them directly.

Both ways a Message-Authenticator is required (RFC 3579 section 3.2): an answer without one, or with a wrong one, or with
a wrong response authenticator, is counted and otherwise as if it had never come. A silent server is asked again, then
the next one is; it is called dead for a while. Nothing here waits in the event loop. The content of a profile is for the
role, its encoding for `profile_attributes`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address
from secrets import token_bytes
from typing import Any, TypeVar, cast

from pyrad.packet import AccessAccept, AccessReject, AuthPacket, PacketError

from locum.node.clock import boot_seconds
from locum.node.coap.learnt_associations import AssociationRefused, AssociationUnavailable, Grant
from locum.node.config.policy_settings import PolicyServer, PolicySettings
from locum.node.config.settings import Address
from locum.node.events import EventStream
from locum.node.host.unlearnt_paths import learn_no_path_mtu
from locum.node.performer import Handler
from locum.node.policy.profile_attributes import (
    ProfileError,
    dictionary,
    fetched_entries,
    grant_of,
    profile_of,
)
from locum.node.policy.push_requests import Itself
from locum.node.policy.pushes import PushServer
from locum.roles.actions import Event
from locum.roles.profile import ProfileChange
from locum.roles.profile_requests import (
    AnswerPush,
    EntriesFetched,
    FetchProfile,
    ProfileEvent,
    ProfileFetched,
    ProfileRefused,
    ProfileUnavailable,
)

T = TypeVar("T")

log = logging.getLogger("locum.radius")
_CALL_CHECK = "Call-Check"  # RFC 2865 section 5.6: a look-up of the name, without a login
_IDENTIFIERS = 256  # one byte
_MESSAGE_AUTHENTICATOR = 80


class ServerSilent(Exception):
    """No authentic answer came; the text is the reason, or the server."""


class _Refused(Exception):
    """An Access-Reject, with the server's message."""


class ServerPort(asyncio.DatagramProtocol):
    """The socket to one server, and its pending requests."""

    def __init__(self, server: PolicyServer, count: Callable[[str], None]) -> None:
        self.server = server
        self.dead_until = 0.0  # seconds since boot
        self._count = count
        self._transport: asyncio.DatagramTransport | None = None
        self._asked: dict[int, tuple[Any, asyncio.Future[Any]]] = {}
        self._next = token_bytes(1)[0]

    def __str__(self) -> str:
        return f"{self.server.address} port {self.server.port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """An answer, from the server's address at least: the socket is connected."""
        asked = self._asked.get(data[1]) if len(data) > 1 else None
        if asked is None:
            self._count("radius-unexpected")
            return
        request, answered = asked
        try:
            answer = request.CreateReply(packet=data)
        except PacketError:
            self._count("radius-malformed")
            return
        # Keys are encrypted with it (RFC 2868 section 3.5)
        answer.request_authenticator = request.authenticator
        if answer.message_authenticator is None:
            self._count("radius-no-message-authenticator")
        elif not request.VerifyReply(answer, enforce_ma=True):
            self._count("radius-not-authentic")
        elif not answered.done():
            answered.set_result(answer)

    def error_received(self, exc: Exception) -> None:
        """ICMP error: the port is closed, so end the wait for answers."""
        for _, answered in tuple(self._asked.values()):
            if not answered.done():
                answered.set_exception(ServerSilent(f"{self}: {exc}"))

    async def ask(self, make: Callable[[int], Any], timeout: float, retries: int) -> Any:
        """The authentic answer to `make(identifier)`, a request packet. Raises ServerSilent.

        Retransmissions are the same packet (RFC 5080 section 2.2.2), each after twice the time of the last.
        """
        identifier = self._free_identifier()
        request = make(identifier)
        message = request.RequestPacket()
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[identifier] = request, answered
        try:
            for attempt in range(1 + retries):
                if self._transport is None or self._transport.is_closing():
                    raise ServerSilent(f"{self}: there is no socket")
                self._transport.sendto(message)
                done, _ = await asyncio.wait([answered], timeout=timeout * 2**attempt)
                if done:
                    return answered.result()
        finally:
            del self._asked[identifier]
            answered.cancel()
        raise ServerSilent(f"{self} does not answer")

    def _free_identifier(self) -> int:
        for _ in range(_IDENTIFIERS):
            self._next = (self._next + 1) % _IDENTIFIERS
            if self._next not in self._asked:
                return self._next
        raise ServerSilent(f"{self} owes {_IDENTIFIERS} answers")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class RadiusClient:
    """All policy servers of one node. `feed` gives an event to a role."""

    def __init__(
        self,
        settings: PolicySettings,
        address: IPv4Address | None,
        events: EventStream,
        feed: Callable[[str, Event], None],
        roles: Sequence[str] = (),
    ) -> None:
        """`address` is this node's own (NAS-IP-Address, and where requests come from); None: the kernel chooses.

        `roles` of this node get what the servers push.
        """
        self._settings, self._address, self._events, self._feed = settings, address, events, feed
        self._dictionary = dictionary(settings.dictionary)
        self._ports = [ServerPort(server, events.count) for server in settings.servers]
        self._fetching: set[asyncio.Task[None]] = set()
        self._pushes: PushServer | None = None
        if settings.changes is not None:
            itself = Itself(settings.nas_identifier, address)
            self._pushes = PushServer(settings.changes, self._dictionary, itself, roles, events, feed)

    async def open(self) -> None:
        """A socket for each server. Raises OSError in one clear line."""
        loop = asyncio.get_running_loop()
        own = None if self._address is None else (str(self._address), 0)
        for port in self._ports:
            where = (str(port.server.address), port.server.port)
            try:
                transport, _ = await loop.create_datagram_endpoint(
                    partial(_same, port), local_addr=own, remote_addr=where
                )
            except OSError as problem:
                text = f"[policy]: cannot ask {port} from {self._address}: {problem.strerror or problem}"
                raise OSError(problem.errno, text) from None
            learn_no_path_mtu(transport.get_extra_info("socket"))

    async def begin(self) -> None:
        """Take what the servers push; the roles are there. Raises OSError in one clear line."""
        if self._pushes is not None:
            await self._pushes.open()

    async def close(self) -> None:
        """End all pending requests."""
        if self._pushes is not None:
            self._pushes.close()
        for task in tuple(self._fetching):
            task.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)
        for port in self._ports:
            port.close()

    def handlers(self, role: str) -> Mapping[type, Handler]:
        """Handlers for each kind of action of this role."""
        return {
            FetchProfile: lambda action: self._begin(role, action),
            AnswerPush: lambda action: self._answer_push(role, action),
        }

    def _answer_push(self, role: str, action: AnswerPush) -> None:
        if self._pushes is not None:
            self._pushes.answered(role, action)

    def _begin(self, role: str, action: FetchProfile) -> None:
        task = asyncio.get_running_loop().create_task(self._fetch(role, action))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def _fetch(self, role: str, action: FetchProfile) -> None:
        try:
            event = await self._event(action)
        except Exception as problem:
            self._events.count("internal-error")
            log.exception("a profile could not be fetched")
            event = ProfileUnavailable(action.request, str(problem) or repr(problem))
        self._feed(role, event)

    async def _event(self, action: FetchProfile) -> ProfileEvent:
        user = _user(action)
        try:
            return ProfileFetched(action.request, await self._asked(user, profile_of))
        except _Refused as refused:
            return ProfileRefused(action.request, str(refused))
        except ServerSilent as silent:
            return ProfileUnavailable(action.request, str(silent))

    async def association(self, stand_in: Address, home_address: IPv4Address) -> Grant:
        """The association between a home address and the stand-in with that address of control messages (C9).

        Raises AssociationRefused, AssociationUnavailable.
        """

        def read(answer: Any) -> tuple[Grant | None, ProfileChange | None]:
            return grant_of(answer, stand_in, home_address), fetched_entries(answer)

        try:
            grant, change = await self._asked(str(home_address), read)
        except _Refused as refused:
            raise AssociationRefused(str(refused)) from None
        except ServerSilent as silent:
            raise AssociationUnavailable(str(silent)) from None
        if grant is None:
            raise AssociationRefused(f"the profile has no Locum-Control with the address {stand_in}")
        if change is not None:
            self._feed("mnps", EntriesFetched(home_address, change))
        return grant

    async def _asked(self, user: str, read: Callable[[Any], T]) -> T:
        """Result of `read` for the Access-Accept of this user. Raises _Refused, ServerSilent."""
        answer = await self._ask(user)
        if answer.code == AccessReject:
            said = answer.get("Reply-Message", ["refused"])
            raise _Refused(" ".join(str(action) for action in said))
        if answer.code != AccessAccept:
            self._events.count("radius-unexpected")
            raise ServerSilent(f"the server answered with code {answer.code}")
        try:
            return read(answer)
        except ProfileError as problem:
            self._events.count("profile-malformed")
            self._events.emit("profile-malformed", detail={"user": user, "reason": str(problem)})
            raise ServerSilent(f"malformed profile: {problem}") from None

    async def _ask(self, user: str) -> Any:
        """The first authentic answer of any server, those that are not dead first. Raises ServerSilent."""
        now = boot_seconds()
        silent = ServerSilent("no server")
        for port in sorted(self._ports, key=lambda port: port.dead_until > now):
            try:
                answer = await port.ask(
                    partial(self._request, user, port.server.secret),
                    self._settings.timeout,
                    self._settings.retries,
                )
            except ServerSilent as problem:
                silent = problem
                self._dead(port, str(problem))
                continue
            if port.dead_until:
                port.dead_until = 0.0
                self._events.emit("policy-server-back", detail={"server": str(port)})
            return answer
        raise silent

    def _dead(self, port: ServerPort, reason: str) -> None:
        self._events.count("policy-server-silent")
        if not port.dead_until:
            self._events.emit("policy-server-dead", detail={"server": str(port), "reason": reason})
        port.dead_until = boot_seconds() + self._settings.dead_time

    def _request(self, user: str, secret: bytes, identifier: int) -> Any:
        request = AuthPacket(
            id=identifier, secret=secret, authenticator=token_bytes(16), dict=self._dictionary
        )
        request.add_message_authenticator()
        request["User-Name"] = user
        request["NAS-Identifier"] = self._settings.nas_identifier
        request["Service-Type"] = _CALL_CHECK
        if self._address is not None:
            request["NAS-IP-Address"] = str(self._address)
        return request


def _same(port: ServerPort) -> ServerPort:
    return port


def _user(action: FetchProfile) -> str:
    return action.nai if action.nai is not None else str(action.home_address)
