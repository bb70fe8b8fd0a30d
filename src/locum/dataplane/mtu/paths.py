"""MTUs of the paths to the far ends of tunnels: believed for a while each, per destination, in the kernel's table.

An MTU comes from ICMP errors about packets that this host sent (`path_mtu` judges them), or from probes. Entries outlive the daemon, and
the program does not look at one whose time is over.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.kernel.network import boot_time
from locum.dataplane.kernel.settings import NARROW, Uses
from locum.dataplane.layout import maps
from locum.dataplane.mtu.path_mtu import Quote, Verdict, candidates, judge, matches, read_quote
from locum.dataplane.ration import Ration
from locum.dataplane.state import ForwardingState
from locum.dataplane.tunnel_ends import TunnelEnds
from locum.roles.action_values.addresses import Addr

PATH_MTU_AGE = 600.0  # seconds; RFC 1191 section 6.3 and net.ipv4.route.mtu_expires
MOST_PATHS = 4096
NOWHERE = ip_address("::")
LONGEST = 0xFFFF  # bytes of an outer packet
# For each destination: errors that are believed, and looks at the translations.
ERRORS_PER_SECOND, BURST = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result for an ICMP error about a packet to `destination`; `mtu` in bytes, if it is believed."""

    verdict: Verdict
    destination: Addr
    mtu: int = 0


class _Tables(Protocol):
    state: ForwardingState
    ends: TunnelEnds


@dataclass(slots=True)
class Paths:
    """The table of path MTUs. `tell` is called with a destination and its new MTU."""

    table: Map
    uses: Uses
    tables: _Tables
    tell: Callable[[Addr, int], None] = lambda _destination, _mtu: None
    counters: Counter[Verdict] = field(default_factory=Counter)
    _known: dict[Addr, tuple[int, float]] = field(default_factory=dict)  # MTU, seconds since boot of its end
    _believed: Ration[Addr] = field(default_factory=lambda: Ration(ERRORS_PER_SECOND, BURST))
    _looks: Ration[Addr] = field(default_factory=lambda: Ration(ERRORS_PER_SECOND, BURST))

    def __post_init__(self) -> None:
        for key, value in self.table.items():  # of an earlier daemon
            until, mtu, _ = maps.PATH.unpack(value)
            self._known[maps.address_of(key)] = (mtu, until / 1e9)
        self.uses.set(NARROW, bool(self._known))

    def limit(self, destination: Addr) -> int | None:
        """The believed MTU of the path, in bytes; None: that of the route."""
        known = self._known.get(destination)
        return known[0] if known is not None and known[1] > boot_time() else None

    def narrow(self) -> dict[Addr, int]:
        """The believed MTUs by destination, in bytes."""
        at = boot_time()
        return {end: mtu for end, (mtu, until) in self._known.items() if until > at}

    def learn(self, destination: Addr, mtu: int) -> None:
        """Believe this MTU for PATH_MTU_AGE, and tell of it."""
        self.keep(destination, mtu)
        self.tell(destination, mtu)

    def keep(self, destination: Addr, mtu: int) -> None:
        """Believe this MTU for PATH_MTU_AGE."""
        if len(self._known) >= MOST_PATHS:
            self.expire()
        while len(self._known) >= MOST_PATHS:
            self._forget(next(iter(self._known)))
        until = boot_time() + PATH_MTU_AGE
        self._known.pop(destination, None)
        self._known[destination] = (mtu, until)
        key = maps.address(destination)
        self.table.put(key, maps.path(key, mtu, int(until * 1e9)))
        self.uses.set(NARROW, True)

    def forget(self, destination: Addr) -> None:
        """The path is as wide as its route says."""
        if destination in self._known:
            self._forget(destination)
        if not self._known:
            self.uses.set(NARROW, False)

    def expire(self) -> None:
        """Forget the MTUs whose time is over."""
        at = boot_time()
        for destination in [end for end, known in self._known.items() if known[1] <= at]:
            self._forget(destination)
        if not self._known:
            self.uses.set(NARROW, False)

    def _forget(self, destination: Addr) -> None:
        del self._known[destination]
        self.table.delete(maps.address(destination))

    def judge(self, data: bytes, mtu: int) -> Judgement:
        """Judge an ICMP error that quotes `data`, and learn from it."""
        found = self._judge(data, mtu)
        self.counters[found.verdict] += 1
        if found.verdict is Verdict.BELIEVED:
            self.learn(found.destination, found.mtu)
        return found

    def _judge(self, data: bytes, mtu: int) -> Judgement:
        """Only errors about packets that may be ours are rationed: those about others cost a look into tables."""
        quote = read_quote(data)
        if quote is None:
            return Judgement(Verdict.MALFORMED, NOWHERE)
        ours = self._is_ours(quote)
        if ours is None:
            return Judgement(Verdict.TOO_MANY, quote.destination)
        sent = self.limit(quote.destination) or LONGEST
        verdict, believed = judge(quote, mtu, ours, sent)
        if verdict is Verdict.BELIEVED and not self._believed.take(quote.destination, boot_time()):
            return Judgement(Verdict.TOO_MANY, quote.destination)
        return Judgement(verdict, quote.destination, believed)

    def _is_ours(self, quote: Quote) -> bool | None:
        """True if this host may have sent the packet: by its inner addresses if they are quoted.

        None: not known, for there were too many such errors.
        """
        state, ends = self.tables.state, self.tables.ends
        if quote.source not in state.endpoints:
            return False
        if quote.inner is None:
            return ends.leads(quote.destination, quote.shape)
        if any(matches(quote, tunnel) for tunnel in candidates(state, quote.inner)):
            return True
        if not state.translations or not ends.leads(quote.destination, quote.shape):
            return False
        if not self._looks.take(quote.destination, boot_time()):
            return None
        # A packet to a home address is translated before it enters the tunnel (R12).
        _, interface_address = quote.inner
        return any(
            (translation.tunnel, translation.interface_address) == (quote.destination, interface_address)
            for translation in state.translations.values()
        )
