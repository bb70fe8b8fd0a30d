"""Emission filters of proxies (R20): the rules of an order and those of the stand-in's own configuration, in the kernel.

Both have to permit a packet, and none goes to services of the stand-in's own host. Where the kernel cannot filter, a proxy with
rules gets no socket.
"""

import errno
import logging
import socket
from dataclasses import dataclass

from locum.dataplane.emitting.emission import EmissionFilter
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.emission import Permit, permitted

log = logging.getLogger("locum.apps")
Rules = tuple[Permit, ...] | None
"""None: everything may leave."""


@dataclass(slots=True, eq=False)
class Policy:
    """The packets that one proxy may send. `number` None: all."""

    rules: tuple[tuple[Permit, ...], ...] = ()
    kernel: EmissionFilter | None = None
    number: int | None = None

    def check(self, protocol: int, address: Addr, port: int) -> None:
        """Raise OSError with a reason for users if no packet may go to this receiver."""
        if not all(permitted(rules, protocol, address, port) for rules in self.rules):
            name = {6: "tcp", 17: "udp"}.get(protocol, str(protocol))
            raise OSError(errno.EACCES, f"the emission filter does not permit {name} {address} {port}")

    def own(self, sock: socket.socket) -> None:
        """From now on the kernel lets out what the rules permit. Raises OSError."""
        if self.kernel is not None and self.number is not None:
            try:
                self.kernel.own(sock.fileno(), self.number)
            except DataPlaneError as problem:
                raise OSError(errno.EPERM, f"emission filter: {problem}") from problem

    def disown(self, sock: socket.socket) -> None:
        """The socket is the proxy's no more."""
        if self.kernel is not None and self.number is not None:
            self.kernel.disown(sock.fileno())

    def counts(self) -> tuple[int, int]:
        """Packets that have left and packets that were refused; zeros without rules."""
        return (0, 0) if self.kernel is None or self.number is None else self.kernel.counts(self.number)

    def close(self) -> None:
        """Nothing of the proxy may leave any more."""
        if self.kernel is not None and self.number is not None:
            self.kernel.remove(self.number)
            self.number = None


class Emitting:
    """The filters of one stand-in. `own` are the rules of its configuration, for all proxies.

    With `local` they may reach this host's own addresses.
    """

    def __init__(self, own: Rules = None, *, local: bool = False) -> None:
        self.own, self._local = own, local
        self._kernel: EmissionFilter | None = None
        self._all: int | None = None  # the policy of `own`

    def may(self, rules: Rules, protocol: int, address: Addr, port: int) -> bool:
        """True if a proxy with these rules may send to this receiver."""
        return all(permitted(some, protocol, address, port) for some in (rules, self.own) if some is not None)

    def policy(self, rules: Rules) -> Policy:
        """One of a proxy that starts. Raises OSError."""
        chosen = tuple(some for some in (rules, self.own) if some is not None)
        try:
            if self._kernel is None:
                self._kernel = EmissionFilter()
            if self._all is None and self.own is not None:
                self._all = self._kernel.add(self.own, local=True)
            return Policy(chosen, self._kernel, self._kernel.add(rules, self._all, local=self._local))
        except DataPlaneError as problem:
            if chosen:
                raise OSError(errno.EPERM, f"emission filter: {problem}") from problem
            log.warning("nothing keeps proxies from services of this host: %s", problem)
            return Policy()

    def close(self) -> None:
        """All proxies have ended."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = self._all = None
