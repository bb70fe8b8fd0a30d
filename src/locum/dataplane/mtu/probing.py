"""Which paths of tunnels are probed, when, and from where to where; `search` has the state of one path.

The programs tell of large packets, at most every 20 seconds for one end of tunnels. Nothing else begins a round, so an end
without such packets costs no probe and no timer. Rounds are bounded: ROUNDS_AT_ONCE under way, ROUNDS_PER_SECOND begun, and
MOST_PROBED ends remembered, of which the one that was heard of longest ago makes room.

A probe has to come out of the tunnel like the packets that it stands for, and its answer has to find this host:

- towards a home address: an echo request of this host to it. Whoever has the home address answers.
- from a home address of this host: an echo request to the tunnel's end. The home agent answers.
- from a visitor's home address: an echo *reply* to this host, in the visitor's name, as access nodes speak for visitors.
  The tunnel's end sends it on to this host, like any packet of the visitor; nobody else has to know of it.

Times and randomness are handed in; it must not know sockets or clocks.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from locum.dataplane.mtu.path_mtu import LEAST, candidates
from locum.dataplane.mtu.search import Search, State
from locum.dataplane.ration import Ration
from locum.dataplane.state import ForwardingState, tunnels_of
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel

BASE = {4: 1200, 6: 1280}  # RFC 8899 section 5.1.2, and the least MTU of IPv6
MOST_PROBED = 4096
ROUNDS_AT_ONCE = 64
ROUNDS_PER_SECOND, BURST = 50.0, 50.0
COUNTERS = ("path-probes-sent", "path-probes-answered", "path-probes-not-sent", "path-probing-silent")
LATE = 10.0  # seconds; later answers are not known
OWN_ADDRESSES = 2  # that are tried, for the answer to one of them may not find its way


class Probe(NamedTuple):
    """A packet from `source` to `destination` in this tunnel; `size` bytes with outer headers, 0: as small as it can be."""

    tunnel: Tunnel
    source: Addr
    destination: Addr
    asks: bool  # an echo request; else an echo reply that comes back to this host
    size: int
    token: bytes


class Found(Protocol):
    """Takes the MTU of a path."""

    def __call__(self, end: Addr, mtu: int, *, of_route: bool) -> None: ...


class _Tables(Protocol):
    state: ForwardingState

    @property
    def own(self) -> frozenset[Addr]:
        """Addresses of the attached interfaces."""


@dataclass(slots=True)
class _Path:
    search: Search
    tunnel: Tunnel
    inner: tuple[Addr, Addr]  # of the latest large packet
    tried: int = 0  # rounds that nobody answered, for the choice of the own address
    tokens: dict[bytes, tuple[int, float]] = field(default_factory=dict)  # of the latest rounds: size, time


@dataclass(slots=True)
class Probing:
    """The probed paths by the end of their tunnel.

    `route_mtu` gives the MTU of the route to a tunnel's end, None: no route. `limit` gives the MTU that is believed,
    and `found` is called with the end and the MTU that probes found, also if it is as before; `of_route`: it is the
    route's.
    """

    tables: _Tables
    route_mtu: Callable[[Tunnel], int | None]
    limit: Callable[[Addr], int | None]
    found: Found
    token: Callable[[], bytes]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    _paths: dict[Addr, _Path] = field(default_factory=dict)  # heard of longest ago first
    _waiting: dict[Addr, None] = field(default_factory=dict)  # for a round to begin, longest first
    _under_way: dict[Addr, None] = field(default_factory=dict)
    _tokens: dict[bytes, Addr] = field(default_factory=dict)
    _rounds: Ration[None] = field(default_factory=lambda: Ration(ROUNDS_PER_SECOND, BURST))
    _not_before: float = 0.0

    # In

    def large(self, source: Addr, destination: Addr, now: float) -> None:
        """A large packet between these inner addresses went into its tunnels."""
        for tunnel in candidates(self.tables.state, (source, destination)):
            if tunnel.destination not in self.tables.state.endpoints:
                self._heard(tunnel, (source, destination), now)

    def _heard(self, tunnel: Tunnel, inner: tuple[Addr, Addr], now: float) -> None:
        end = tunnel.destination
        most = self.route_mtu(tunnel)
        if most is None or most < LEAST[end.version]:
            return
        path = self._paths.pop(end, None)
        if path is None:
            path = _Path(Search(LEAST[end.version], BASE[end.version]), tunnel, inner)
            self._make_room()
        self._paths[end] = path
        if path.search.wants:
            return
        path.tunnel, path.inner = tunnel, inner
        if path.search.heard(most, self.limit(end), now):
            self._waiting[end] = None
        elif path.search.state is State.DISABLED:
            self.counts["path-probing-silent"] += 1

    def told(self, end: Addr, mtu: int, now: float) -> None:
        """A router told of a narrower path, and is believed."""
        path = self._paths.get(end)
        if path is not None:
            path.search.told(mtu, now)
            self._next(end, path)

    def answered(self, token: bytes, now: float) -> None:
        """An answer with this token came; those that are not known are ignored."""
        end = self._tokens.pop(token, None)
        path = None if end is None else self._paths.get(end)
        if end is None or path is None:
            return
        self.counts["path-probes-answered"] += 1
        size, sent_at = path.tokens.pop(token)
        if path.search.answered(size, sent_at, now):
            self._conclude(end, path, now)

    # Out

    def take_due(self, now: float) -> list[Probe]:
        """End the rounds whose time is over; the probes to send now."""
        for end in [end for end in self._under_way if self._paths[end].search.ends <= now]:
            self._conclude(end, self._paths[end], now)
        due: list[Probe] = []
        while self._waiting and len(self._under_way) < ROUNDS_AT_ONCE:
            if not self._rounds.take(None, now):
                self._not_before = now + 1 / ROUNDS_PER_SECOND
                break
            end = next(iter(self._waiting))
            del self._waiting[end]
            due.extend(self._begin(end, self._paths[end], now))
        self.counts["path-probes-sent"] += len(due)
        return due

    def deadline(self) -> float | None:
        """When `take_due` has something to do; None: not before the next large packet, or answer."""
        times = [self._paths[end].search.ends for end in self._under_way]
        if self._waiting and len(self._under_way) < ROUNDS_AT_ONCE:
            times.append(self._not_before)
        return min(times, default=None)

    def states(self) -> dict[str, int]:
        """Numbers of paths by the state of their search."""
        states = Counter(path.search.state for path in self._paths.values())
        return {state.value: states[state] for state in State if states[state]}

    # Rounds

    def _begin(self, end: Addr, path: _Path, now: float) -> Iterator[Probe]:
        ends = self._ends_of(path)
        if ends is None:  # the tunnel is gone, or no address of ours is of the family
            self._forget(end)
            return
        for token in [token for token, (_, sent_at) in path.tokens.items() if sent_at < now - LATE]:
            self._drop(path, token)
        self._under_way[end] = None
        for size in path.search.begin(now):
            token = self.token()
            path.tokens[token] = size, now
            self._tokens[token] = end
            yield Probe(path.tunnel, *ends, size, token)

    def _conclude(self, end: Addr, path: _Path, now: float) -> None:
        search = path.search
        before, answers = search.limit, any(search.under_way.values())
        search.conclude(now)
        path.tried += not answers
        if answers and (search.limit, before) != (None, None):
            self.found(end, search.limit or search.most, of_route=search.limit is None)
        self._next(end, path)

    def _next(self, end: Addr, path: _Path) -> None:
        """After a round, or instead of it."""
        self._under_way.pop(end, None)
        self._waiting.pop(end, None)
        if path.search.wants:
            self._waiting[end] = None
        elif path.search.state is not State.DISABLED:  # answers may be later than was thought
            for token in list(path.tokens):
                self._drop(path, token)

    def _drop(self, path: _Path, token: bytes) -> None:
        path.tokens.pop(token, None)
        self._tokens.pop(token, None)

    def _make_room(self) -> None:
        while len(self._paths) >= MOST_PROBED:
            self._forget(next(iter(self._paths)))

    def _forget(self, end: Addr) -> None:
        path = self._paths.pop(end)
        self._under_way.pop(end, None)
        self._waiting.pop(end, None)
        for token in list(path.tokens):
            self._drop(path, token)

    # Ends of a probe

    def _ends_of(self, path: _Path) -> tuple[Addr, Addr, bool] | None:
        """(inner source, inner destination, whether it asks) of a probe; None: there is no such."""
        source, destination = path.inner
        state, tunnel = self.tables.state, path.tunnel
        for stage in (state.bindings, state.visited):
            entry = stage.get(destination)
            if entry is not None and tunnel in tunnels_of(entry):
                own = self._own(destination.version, tunnel)
                return (own[path.tried % len(own)], destination, True) if own else None
        for link, outbound in state.outbound.get(source, {}).items():
            if outbound.tunnel != tunnel:
                continue
            if link is None:
                home = self._home_here(source, tunnel)
                return None if home is None else (home, tunnel.destination, True)
            own = self._own(source.version, tunnel)[::-1]
            return (source, own[path.tried % len(own)], False) if own else None
        return None

    def _home_here(self, source: Addr, tunnel: Tunnel) -> Addr | None:
        """A home address of this host of the family of the tunnel's end, which has one address alone: this one if it may be."""
        end = tunnel.destination
        if source.version == end.version:
            return source
        for home, entries in self.tables.state.outbound.items():
            if home.version == end.version and None in entries and entries[None].tunnel == tunnel:
                return home
        return None

    def _own(self, version: int, tunnel: Tunnel) -> list[Addr]:
        """Own addresses to which an answer may come, that of our end of the tunnel last.

        A far end that has a tunnel back may not send answers to that address into it (RFC 2003 section 3.2).
        """
        usable = [
            own
            for own in self.tables.own
            if own.version == version and not own.is_link_local and not own.is_loopback
        ]
        usable.sort(
            key=lambda own: (own == tunnel.source, own not in self.tables.state.endpoints, own.packed)
        )
        return usable if len(usable) <= OWN_ADDRESSES else [*usable[: OWN_ADDRESSES - 1], usable[-1]]
