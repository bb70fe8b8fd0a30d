"""New connections to the ports of sleeping devices, at their stand-in: refused, left unanswered, or accepted and kept.

The data plane brings up each SYN to such a port. One that is accepted goes back into the kernel without the options that a
device's own kernel could not repeat, to a transparent listener of ours; the connection that results becomes a session.
A SYN past a bound is left unanswered: its peer tries again. It decides nothing about sessions.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from locum.roles import actions as do
from locum.roles.action_values.addresses import JSON, Addr
from locum.sessions.listening import accepting
from locum.sessions.record import SessionRecord
from locum.sessions.tcp import stand_in
from locum.sessions.tcp.errors import SessionError
from locum.wire.control import Listener, Policy
from locum.wire.errors import WireError
from locum.wire.ip.opening import Opening

log = logging.getLogger("locum.openings")
# SYNs to the ports of one home address that are answered; a flood starves no other address
MOST_PER_SECOND = 200
MOST_IN_ALL = 1000  # each second: a flood costs no more of this process
_BACKLOG = 128

Port = tuple[Addr, int]
Keep = Callable[[bytes, socket.socket, SessionRecord], None]  # handover; it owns the socket from then on


@dataclass(slots=True)
class _Port:
    handover: bytes
    listener: Listener
    opened: socket.socket | None = None  # None: refused, or it could not be opened


class _Rate:
    """A token bucket of one second."""

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        self._clock, self._most = clock, most
        self.left: float = most
        self.at = clock()

    def take(self) -> bool:
        now = self._clock()
        self.left = min(self._most, self.left + (now - self.at) * self._most)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Openings:
    """`inject` gives a packet to the data plane; `waiting` counts the accepted sessions of a handover's port."""

    def __init__(
        self,
        inject: Callable[[bytes], None],
        keep: Keep,
        waiting: Callable[[bytes, Addr, int], int],
        count: Callable[[str], None],
        emit: Callable[[do.Emit], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inject, self._keep, self._waiting, self._count, self._emit = inject, keep, waiting, count, emit
        self._ports: dict[Port, _Port] = {}
        self._lent: set[Port] = set()  # to proxies
        self._clock = clock
        self._rates: dict[Addr, _Rate] = {}  # of the home addresses whose ports are open
        self._rate = _Rate(clock, MOST_IN_ALL)

    def open(self, handover: bytes, listeners: Iterable[Listener]) -> None:
        """From now on; a port that cannot be opened is left unanswered, with an event."""
        for listener in listeners:
            port = self._ports[listener.address, listener.port] = _Port(handover, listener)
            self._rates.setdefault(listener.address, _Rate(self._clock, MOST_PER_SECOND))
            self._listen(port)

    def _listen(self, port: _Port) -> None:
        listener = port.listener
        if listener.policy is not Policy.ACCEPT or (listener.address, listener.port) in self._lent:
            return
        try:
            port.opened = accepting.listen(
                listener.address, listener.port, backlog=_BACKLOG, window=listener.window
            )
        except OSError as problem:
            detail: dict[str, JSON] = {"port": listener.port, "reason": problem.strerror or str(problem)}
            self._emit(do.Emit("listen-failed", None, listener.address, None, detail))
            return
        asyncio.get_running_loop().add_reader(port.opened, self._accept, port)

    def lend(self, address: Addr, port: int) -> None:
        """A proxy listens at this port of a device: new connections are its. Those that were accepted are kept."""
        self._lent.add((address, port))
        found = self._ports.get((address, port))
        if found is not None:
            self._stop(found)

    def give_back(self, address: Addr, port: int) -> None:
        """The proxy listens there no more."""
        self._lent.discard((address, port))
        found = self._ports.get((address, port))
        if found is not None:
            self._listen(found)

    def _stop(self, port: _Port) -> None:
        if port.opened is not None:
            asyncio.get_running_loop().remove_reader(port.opened)
            self._accept(port)
            port.opened.close()
            port.opened = None

    def close(self, handover: bytes | None = None) -> None:
        """Accept no more, for this handover or for all; connections that the kernel has accepted are kept."""
        for key, port in list(self._ports.items()):
            if handover is not None and port.handover != handover:
                continue
            del self._ports[key]
            self._stop(port)
        addresses = {address for address, _ in self._ports}
        self._rates = {address: rate for address, rate in self._rates.items() if address in addresses}

    def came(self, packet: bytes) -> None:
        """A SYN from the data plane."""
        try:
            opening = Opening.parse(packet)
        except WireError as error:
            self._count(f"opening-{error.reason}")
            return
        port = self._ports.get((opening.flow.local, opening.flow.local_port))
        if port is None:  # closed since
            self._count("opening-ignored")
        elif not (self._rates[opening.flow.local].take() and self._rate.take()):
            self._count("opening-too-many")
        elif port.listener.policy is Policy.REFUSE:
            self._refuse(opening)
        elif port.opened is None or self._full(port):
            self._count("opening-ignored")
        else:
            self._inject(opening.plain())

    def _full(self, port: _Port) -> bool:
        wanted = port.listener
        return self._waiting(port.handover, wanted.address, wanted.port) >= wanted.most

    def _refuse(self, opening: Opening) -> None:
        family = socket.AF_INET if opening.flow.local.version == 4 else socket.AF_INET6
        self._count("opening-refused")
        # It leaves as what our own sockets of the home address send; the data plane takes it into its tunnel.
        with suppress(OSError), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as channel:
            channel.sendto(opening.refusal(), (str(opening.flow.peer), 0))

    def _accept(self, port: _Port) -> None:
        assert port.opened is not None
        while True:
            try:
                found = accepting.accept(port.opened)
            except SessionError as problem:
                log.warning("%s", problem)
                continue
            except OSError as problem:  # no descriptors left: the next one tries again
                log.warning("port %d of %s: %s", port.listener.port, port.listener.address, problem)
                return
            if found is None:
                return
            if self._full(port):  # several were opening at once
                self._count("opening-ignored")
                stand_in.reset(found[0])
                continue
            self._keep(port.handover, *found)
