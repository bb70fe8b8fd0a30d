"""The way out of one application proxy: sockets at the home addresses, names, and its files' room (A4-A11).

`made` is the one function that makes a socket of a proxy. It is bound to a home address, which is local here only for packets that
come in (AnyIP), and carries the proxy's mark: the data plane lets packets reach it that are of no session.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Protocol

from locum.dataplane.layout.maps import MARK_PROXY
from locum.node import words
from locum.node.apps.awake.leads import Leads, bind, port_part
from locum.node.apps.decoding import decoded
from locum.node.apps.emitting import Policy
from locum.node.apps.process import Answer
from locum.node.config.settings import AppLimits
from locum.roles.action_values.addresses import Addr
from locum.roles.app_network import MAX_HOST_NAME, TCP, UDP
from locum.sessions.tcp import repair
from locum.wire.control import Flow

MAX_NUMBER = 0xFFFF
"""Of a proxy: the lower half of its mark. 0 is of connections that a device takes over."""
BACKLOG = 512
"""Connections that the kernel accepts before the proxy does."""
MAX_ADDRESSES = 8
"""Of one name, that are tried."""
LOOKING = 20.0
"""Seconds for a name."""
_LOOKUPS = 4  # names that are looked up at once for all proxies
_NOWHERE = "it cannot be reached from a home address"

Handed = Callable[[socket.socket, str, bytes], None]
"""Gets a connection that the device takes over, the label of the program there, and the bytes that are unread; it owns the socket."""


class Ports(Protocol):
    """Ports of devices that proxies take: their held listeners stand back meanwhile."""

    def lend(self, address: Addr, port: int) -> None:
        """A proxy listens at this TCP port."""

    def give_back(self, address: Addr, port: int) -> None:
        """It does not any more."""


class NoPorts:
    """Of devices whose listeners are not held."""

    def lend(self, address: Addr, port: int) -> None:
        """Do nothing."""

    def give_back(self, address: Addr, port: int) -> None:
        """Do nothing."""


def reset(sock: socket.socket, label: str, unread: bytes) -> None:
    """End a connection that nobody takes over."""
    repair.disconnect(sock)
    sock.close()


@dataclass(slots=True, eq=False)
class Outlet:
    """One proxy's, as `locum.node.apps.process` wants it. `number` is unique among the proxies that run."""

    homes: Sequence[Addr]
    number: int
    directory: Path
    limits: AppLimits
    ports: Ports = field(default_factory=NoPorts)
    policy: Policy = field(default_factory=Policy)
    handed: Handed = reset
    is_local: Callable[[Addr], bool] = lambda _address: False  # of this host
    handover: bytes = b""
    leads: Leads | None = None  # while the device may be awake
    _lent: set[tuple[Addr, int]] = field(default_factory=set)
    _decoding: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def arguments(self) -> Sequence[str]:
        """For the process."""
        trust = self.limits.trust
        return (str(self.directory), str(self.limits.disk), "" if trust is None else str(trust))

    def ask(self, *question: object) -> Awaitable[Answer]:
        """Answer a question of the process. Raises ValueError for one that it has not."""
        match question:
            case ["connect", str(host), int(port), int(attempt)]:
                return self._connect(host, port, attempt)
            case ["listen", int(port), int(protocol)]:
                return self._listen(port, protocol)
            case ["unlisten", int(port), int(protocol)]:
                return self._unlisten(port, protocol)
            case ["resolve", str(host)]:
                return self._resolve(host)
            case ["decode", str(form), int(most), source, target]:
                return self._decode(form, min(most, self.limits.disk), source, target)
            case _:
                raise ValueError(f"there is no such question: {str(question)[:80]}")

    def hand(self, descriptor: int, label: str, unread: bytes) -> None:
        """A connection for the device. Raises ValueError for what is no connection of this proxy."""
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise ValueError("what it hands over is no socket") from None
        mark = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
        inet = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        if not inet or mark != MARK_PROXY | self.number:
            sock.close()
            raise ValueError("what it hands over is no connection of its own")
        sock.setblocking(False)
        # It is no proxy's from here on: `silence` ends those of this one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROXY)
        self.policy.disown(sock)
        self.handed(sock, label, unread)

    def close(self) -> None:
        """The process has ended, and its listeners with it."""
        for address, port in self._lent:
            self.ports.give_back(address, port)
        self._lent.clear()
        self.policy.close()

    def made(self, home: Addr, kind: socket.SocketKind) -> socket.socket:
        """A non-blocking socket for this home address, to be bound there. Raises OSError."""
        v4 = isinstance(home, IPv4Address)
        sock = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, kind | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            if v4:
                sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, repair.IPV6_TRANSPARENT, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROXY | self.number)
            if kind == socket.SOCK_STREAM:
                # Sessions of the same port live here as well. Accepted connections inherit both.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.policy.own(sock)
        except OSError:
            sock.close()
            raise
        return sock

    # questions

    async def _decode(self, form: str, most: int, source: object, target: object) -> Answer:
        async with self._decoding:  # one file of a proxy at a time: those of others have their turns
            return Answer(await decoded(form, most, source, target))

    async def _connect(self, host: str, port: int, attempt: int) -> Answer:
        """A socket that connects; the address, and whether the host has more."""
        try:
            addresses = await self._addresses(host)
            if not 0 < port <= 0xFFFF:
                raise OSError(errno.EINVAL, "there is no such port")
            if not 0 <= attempt < len(addresses):
                raise OSError(errno.EHOSTUNREACH, "there are no more addresses")
            address = addresses[attempt]
            self.policy.check(TCP, address, port)
            sock = self.made(self._home(address), socket.SOCK_STREAM)
        except OSError as problem:
            return Answer([words.reason(problem)])
        try:
            await self._bind(sock, address, port)
            code = sock.connect_ex((str(address), port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError as problem:
            sock.close()
            return Answer([words.reason(problem)])
        return Answer(["", str(address), attempt + 1 < len(addresses)], [sock])

    async def _bind(self, sock: socket.socket, address: Addr, port: int) -> None:
        """Give it a port of the home address to which packets of the peer come. Raises OSError."""
        home = self._home(address)
        if self.leads is None:
            sock.bind((str(home), 0))
            return
        bind(sock, home)
        await self.leads.lead(
            self.handover, self.number, Flow(TCP, home, sock.getsockname()[1], address, port)
        )

    async def _listen(self, port: int, protocol: int) -> Answer:
        """A socket for each home address."""
        made: list[socket.socket] = []
        try:
            if protocol not in (TCP, UDP) or not 0 < port <= 0xFFFF:
                raise OSError(errno.EINVAL, "there is no such port")
            for home in self.homes:
                if protocol == TCP and (home, port) not in self._lent:
                    self.ports.lend(home, port)
                    self._lent.add((home, port))
                sock = self.made(home, socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM)
                made.append(sock)
                sock.bind((str(home), port))
                if protocol == TCP:
                    sock.listen(BACKLOG)
                if self.leads is not None:
                    await self.leads.lead(self.handover, self.number, port_part(home, protocol, port))
        except OSError as problem:
            for sock in made:
                sock.close()
            await self._unlisten(port, protocol)
            return Answer([words.reason(problem)])
        return Answer([""], made)

    async def _unlisten(self, port: int, protocol: int) -> Answer:
        for home in self.homes:
            if protocol == TCP and (home, port) in self._lent:
                self._lent.discard((home, port))
                self.ports.give_back(home, port)
            if self.leads is not None:
                self.leads.drop(self.handover, port_part(home, protocol, port))
        return Answer([""])

    async def _resolve(self, host: str) -> Answer:
        try:
            return Answer(["", [str(address) for address in await self._addresses(host)]])
        except OSError as problem:
            return Answer([words.reason(problem)])

    def _is_here(self, address: Addr) -> bool:
        """True for the device and for this host, whose services mean others by the stand-in's addresses."""
        return address in self.homes or self.is_local(address)

    def _home(self, address: Addr) -> Addr:
        return next(home for home in self.homes if home.version == address.version)

    async def _addresses(self, host: str) -> list[Addr]:
        """Those that a packet of a home address may go to. Raises OSError."""
        versions = {home.version for home in self.homes}
        found = [address for address in await _lookup(host) if address.version in versions]
        usable = [address for address in found if _is_peer(address) and not self._is_here(address)]
        if not usable:
            raise OSError(errno.EHOSTUNREACH, _NOWHERE)
        return usable[:MAX_ADDRESSES]


def _is_peer(address: Addr) -> bool:
    """False for an address whose meaning ends at the stand-in or at a link of it."""
    local = address.is_loopback or address.is_link_local or address.is_unspecified
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    return not (local or mapped or address.is_multicast) and str(address) != "255.255.255.255"


@cache
def _lookups() -> ThreadPoolExecutor:
    """Threads of their own: slow names of proxies keep nobody else from work."""
    return ThreadPoolExecutor(_LOOKUPS, "names")


async def _lookup(host: str) -> list[Addr]:
    """The addresses of a name, or the address that it is. Raises OSError."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    if not 0 < len(host) <= MAX_HOST_NAME or "\0" in host:
        raise OSError(errno.EINVAL, f"a name has 1 to {MAX_HOST_NAME} characters")
    try:
        found = await asyncio.wait_for(
            asyncio.get_running_loop().run_in_executor(_lookups(), _resolve, host), LOOKING
        )
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"{host}: no answer about the name") from None
    except UnicodeError:
        raise OSError(errno.EINVAL, f"{host[:80]!r} is no name") from None
    except socket.gaierror as problem:
        raise OSError(errno.EHOSTUNREACH, f"{host}: {problem.strerror}") from None
    return list(dict.fromkeys(found))


def _resolve(host: str) -> list[Addr]:
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ip_address(address[0].split("%")[0]) for *_, address in answers if isinstance(address[0], str)]


def number_besides(used: Mapping[int, object], last: int) -> int:
    """The next number that no proxy has. Raises OSError if there is none."""
    for step in range(1, MAX_NUMBER + 1):
        number = (last + step - 1) % MAX_NUMBER + 1
        if number not in used:
            return number
    raise OSError(errno.EAGAIN, f"there are {MAX_NUMBER} proxies with a network")
