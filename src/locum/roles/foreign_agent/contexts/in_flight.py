"""Packets in flight while a device changes its access node: the tunnel 620 in both directions (C5).

At the old access node packets of a home address go on to the new one; they wait while its link is down and no node has
asked for them. At the new one they wait until the device is there, and leave in order before anything newer. All of it
is bounded in time: a tunnel ends after `silence` seconds without a packet, waiting after `patience`. Who may open a
tunnel is decided elsewhere; this must not know messages.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import CountInFlight, DropHeld, InFlightCounted
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import (
    BindingEntry,
    ReleaseHeld,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action, Emit, Event
from locum.roles.foreign_agent.configuration import PATIENCE, SILENCE
from locum.roles.foreign_agent.visitor_list import VisitorList, Wanted
from locum.roles.forwarding import Forwarding, forwarding
from locum.roles.parts import Part
from locum.roles.state_table import StateTable
from locum.roles.timers import Deadlines

HERALD = 7.0  # seconds that they wait for the home agent's reply: as long as its request is remembered
SETTLING = 0.5  # seconds that newer packets wait for those that come by way of the old access node
LOOKS = 4  # at the counters of a tunnel within the silence that ends it


@dataclass(frozen=True, slots=True)
class Mobile:
    """Owner of the packets: the home addresses, and the home agent that sends them here."""

    home_address: IPv4Address
    home_agent: IPv4Address
    home_address_v6: IPv6Address | None = None

    @property
    def home_addresses(self) -> tuple[Addr, ...]:
        """Of both families."""
        if self.home_address_v6 is None:
            return (self.home_address,)
        return (self.home_address, self.home_address_v6)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a tunnel 620: the other access node, and the packet count at the last movement."""

    peer: IPv4Address
    moved_at: float  # steady seconds
    packets: int | None = None  # None: not counted yet


class Waiting(Enum):
    """Reason why packets of a home address are held here."""

    HERALDED = "heralded"  # it has asked to register here and says where it comes from
    EXPECTED = "expected"  # the device has not attached yet
    SETTLING = "settling"  # it has; packets from the old access node go first
    STRANDED = "stranded"  # its link is down
    CALLED = "called"  # it is paged, and has not answered yet
    OPENING = "opening"  # nothing waits any more, and nothing overtakes what has just left


Change = Literal[
    "herald", "call", "expect", "arrive", "strand", "open", "opened", "depart", "forget", "give up"
]
_SUPERSEDED: dict[Change, Waiting | None] = {
    "expect": Waiting.EXPECTED,
    "arrive": Waiting.SETTLING,
    "depart": None,
    "forget": None,
}
_WAITS = {**_SUPERSEDED, "open": Waiting.OPENING}
STATES: StateTable[Change] = StateTable(
    "Packets that wait at a foreign agent",
    "Packets of one device while it changes its access node, at the old one and at the new one.",
    {
        None: {
            **_SUPERSEDED,
            "herald": Waiting.HERALDED,
            "call": Waiting.CALLED,
            "strand": Waiting.STRANDED,
        },
        Waiting.HERALDED: {**_WAITS, "herald": Waiting.HERALDED, "give up": None},
        Waiting.CALLED: {**_WAITS, "call": Waiting.CALLED, "give up": None},
        Waiting.EXPECTED: {**_WAITS, "give up": None},
        Waiting.SETTLING: _WAITS,
        Waiting.STRANDED: {**_WAITS, "give up": None},
        Waiting.OPENING: {"opened": None},
    },
)


@dataclass(frozen=True, slots=True)
class Flight:
    """Packets in flight for one device."""

    mobile: Mobile
    outgoing: End | None = None
    incoming: End | None = None
    waiting: Waiting | None = None
    until: float = 0.0  # steady seconds at which waiting ends

    @property
    def over(self) -> bool:
        """True if no part of it is left."""
        return self.outgoing is None and self.incoming is None and self.waiting is None

    def at(self, change: Change, waiting: Waiting | None) -> "Flight":
        """Return it with packets that wait for this reason, or do not, after this change."""
        return replace(self, waiting=STATES.change(self.waiting, change, waiting))


class InFlight(Part):
    """The tunnels of one access node; it has its say in the forwarding of the visitor list."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        visitors: VisitorList,
        silence: float = SILENCE,
        patience: float = PATIENCE,
    ) -> None:
        self._care_of_address = care_of_address
        self._visitors = visitors
        self._silence = silence
        self._patience = patience
        self._flights: dict[IPv4Address, Flight] = {}
        self._timers: Deadlines[IPv4Address] = Deadlines()  # waiting
        self._looks: Deadlines[IPv4Address] = Deadlines()  # at counters
        self.ended: list[
            Callable[[IPv4Address], list[Action]]
        ] = []  # called when nothing is sent on any more
        visitors.adjust(self._adjust)

    # Reading -----------------------------------------------------------------------------------------------------

    def flights(self) -> Mapping[IPv4Address, Flight]:
        """Flights by home address."""
        return self._flights

    def outgoing(self, home_address: Addr) -> IPv4Address | None:
        """The access node that packets of this home address go on to."""
        flight = self._flights.get(home_address) if isinstance(home_address, IPv4Address) else None
        return None if flight is None or flight.outgoing is None else flight.outgoing.peer

    def incoming(self, home_address: IPv4Address) -> IPv4Address | None:
        """The access node that they come from."""
        flight = self._flights.get(home_address)
        return None if flight is None or flight.incoming is None else flight.incoming.peer

    def waiting(self, home_address: IPv4Address) -> Waiting | None:
        """Reason why packets are held, None if they are not."""
        flight = self._flights.get(home_address)
        return None if flight is None else flight.waiting

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = (self._timers.next(), self._looks.next())
        return min((at for at in times if at is not None), default=None)

    # At the old access node ----------------------------------------------------------------------------------------

    def depart(self, mobile: Mobile, peer: IPv4Address, *, now: float) -> list[Action]:
        """Forward this device's packets to `peer` from now on, held ones first."""
        flight = self._flight(mobile)
        held = flight.waiting is not None
        changed = replace(flight.at("depart", None), mobile=mobile, outgoing=End(peer, now))
        actions = self._set(changed)
        self._look_soon(mobile.home_address, now)
        if held:
            actions += [ReleaseHeld(home_address) for home_address in mobile.home_addresses]
        return [*actions, self._emit("in-flight-begins", mobile, peer, "out")]

    def strand(self, mobile: Mobile, *, now: float) -> list[Action]:
        """Its link is down: packets wait for the link, or for an access node that asks for them."""
        flight = self._flight(mobile)
        if flight.outgoing is not None or flight.waiting is not None:
            return []
        return self._wait(flight.at("strand", Waiting.STRANDED), now + self._patience)

    def mend(self, home_address: IPv4Address) -> list[Action]:
        """Its link is up again."""
        return self.open(home_address) if self.waiting(home_address) is Waiting.STRANDED else []

    # At the new access node ----------------------------------------------------------------------------------------

    def herald(self, mobile: Mobile, *, now: float) -> list[Action]:
        """The device asks to register, perhaps again: hold packets that the home agent sends before its reply arrives."""
        flight = self._flights.get(mobile.home_address, Flight(mobile))
        if not flight.over and flight.waiting is not Waiting.HERALDED:
            return []
        return self._wait(replace(flight, mobile=mobile).at("herald", Waiting.HERALDED), now + HERALD)

    def call(self, mobile: Mobile, until: float) -> list[Action]:
        """The device is paged, and its packets come before it: hold them. Nothing if they wait or go on already."""
        flight = self._flight(mobile)
        if flight.outgoing is not None or flight.waiting not in (None, Waiting.CALLED):
            return []
        return self._wait(replace(flight, mobile=mobile).at("call", Waiting.CALLED), until)

    def call_off(self, home_address: IPv4Address) -> list[Action]:
        """The page has ended without it: drop what waits for its answer."""
        flight = self._flights.get(home_address)
        return [] if flight is None or flight.waiting is not Waiting.CALLED else self._waited(flight)

    def expect(self, mobile: Mobile, peer: IPv4Address, *, now: float) -> list[Action]:
        """The device will come, and its packets come before it, from `peer`: hold them."""
        flight = replace(self._flight(mobile), mobile=mobile, outgoing=None, incoming=End(peer, now))
        self._look_soon(mobile.home_address, now)
        return [
            *self._wait(flight.at("expect", Waiting.EXPECTED), now + self._patience),
            self._emit("in-flight-begins", mobile, peer, "in"),
        ]

    def arrive(self, mobile: Mobile, peer: IPv4Address, *, now: float) -> list[Action]:
        """The device is here and its packets are being asked for from `peer`: newer ones wait for a moment."""
        flight = replace(self._flight(mobile), mobile=mobile, outgoing=None, incoming=End(peer, now))
        self._look_soon(mobile.home_address, now)
        return [
            *self._wait(flight.at("arrive", Waiting.SETTLING), now + SETTLING),
            self._emit("in-flight-begins", mobile, peer, "in"),
        ]

    def accept(self, mobile: Mobile, peer: IPv4Address, *, now: float) -> list[Action]:
        """Accept packets from `peer` for a home address that is served here already, without holding."""
        flight = replace(self._flight(mobile), mobile=mobile, outgoing=None, incoming=End(peer, now))
        self._look_soon(mobile.home_address, now)
        return [*self._set(flight), self._emit("in-flight-begins", mobile, peer, "in")]

    def open(self, home_address: IPv4Address) -> list[Action]:
        """Deliver from now on: held packets first, then those that arrived meanwhile, then directly.

        As long as something waits nothing may go by the short way of an acceptance with a link: all goes by the
        host's route, behind each other.
        """
        flight = self._flights.get(home_address)
        if flight is None or flight.waiting in (None, Waiting.OPENING):
            return []
        homes = flight.mobile.home_addresses
        self._timers.cancel(home_address)
        actions = self._visitors.refresh(home_address)  # the device's link and neighbour, if it is new here
        actions += [ReleaseHeld(home, ahead=True) for home in homes]
        actions += self._set(flight.at("open", Waiting.OPENING))
        actions += [ReleaseHeld(home) for home in homes]
        return actions + self._set(self._flights[home_address].at("opened", None))

    def returned(self, home_address: IPv4Address) -> list[Action]:
        """The device is here again: stop forwarding to other access nodes."""
        flight = self._flights.get(home_address)
        if flight is None or flight.outgoing is None:
            return []
        peer = flight.outgoing.peer
        return [
            *self._set(replace(flight, outgoing=None)),
            self._emit("in-flight-ended", flight.mobile, peer, "out", why="returned"),
        ]

    def forget(self, home_address: IPv4Address) -> list[Action]:
        """The device is not served here any more: drop held packets."""
        flight = self._flights.get(home_address)
        if flight is None or flight.outgoing is not None:
            return []
        return self._set(
            replace(flight.at("forget", None), incoming=None), dropped=flight.waiting is not None
        )

    # Time ----------------------------------------------------------------------------------------------------------

    def timeout(self, *, now: float) -> list[Action]:
        """Waiting that has lasted too long, and looks at the counters."""
        actions: list[Action] = []
        for home_address in self._timers.due(now):
            actions += self._waited(self._flights[home_address])
        for home_address in tuple(self._looks.due(now)):
            actions += self._look(self._flights[home_address], now)
        return actions

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The count of a tunnel; the tunnel ends when the count was the same for long enough."""
        return self._counted(event, now) if isinstance(event, InFlightCounted) else None

    def _counted(self, event: InFlightCounted, now: float) -> list[Action]:
        flight = (
            self._flights.get(event.home_address) if isinstance(event.home_address, IPv4Address) else None
        )
        if flight is None:
            return []
        end = flight.incoming if event.incoming else flight.outgoing
        if end is None or end.peer != event.peer:
            return []
        if end.packets != event.packets:
            moved = (
                End(end.peer, now, event.packets)
                if end.packets is not None
                else replace(end, packets=event.packets)
            )
            self._flights[flight.mobile.home_address] = (
                replace(flight, incoming=moved) if event.incoming else replace(flight, outgoing=moved)
            )
            return []
        if now - end.moved_at < self._silence or flight.waiting is not None:
            return []
        ended = replace(flight, incoming=None) if event.incoming else replace(flight, outgoing=None)
        which = "in" if event.incoming else "out"
        told = self._emit(
            "in-flight-ended", flight.mobile, end.peer, which, why="silence", packets=event.packets
        )
        actions = [*self._set(ended), told]
        for number in self.ended if not event.incoming else ():
            actions += number(flight.mobile.home_address)
        return actions

    def _waited(self, flight: Flight) -> list[Action]:
        """The time of holding is over: drop the packets, unless they only waited for older ones."""
        home_address = flight.mobile.home_address
        if flight.waiting is Waiting.SETTLING:
            return self.open(home_address)
        gone = flight.at("give up", None)
        if flight.waiting is Waiting.EXPECTED:
            gone = replace(gone, incoming=None)
        reason = flight.waiting.value if flight.waiting is not None else ""
        told = Emit("in-flight-dropped", "620", home_address, None, {"why": reason})
        return [*self._set(gone, dropped=True), told]

    def _look(self, flight: Flight, now: float) -> list[Action]:
        homes = flight.mobile.home_addresses
        self._look_soon(flight.mobile.home_address, now)
        actions: list[Action] = []
        for end, incoming in ((flight.incoming, True), (flight.outgoing, False)):
            if end is not None:
                actions.append(CountInFlight(homes, end.peer, incoming))
        return actions

    def _look_soon(self, home_address: IPv4Address, now: float) -> None:
        self._looks.set(home_address, now + self._silence / LOOKS)

    # State -----------------------------------------------------------------------------------------------------------

    def _flight(self, mobile: Mobile) -> Flight:
        return self._flights.get(mobile.home_address) or Flight(mobile)

    def _wait(self, flight: Flight, until: float) -> list[Action]:
        self._timers.set(flight.mobile.home_address, until)
        return self._set(replace(flight, until=until))

    def _set(self, flight: Flight, *, dropped: bool = False) -> list[Action]:
        home_address = flight.mobile.home_address
        if flight.waiting is None:
            self._timers.cancel(home_address)
        if flight.over:
            self._flights.pop(home_address, None)
            self._looks.cancel(home_address)
        else:
            self._flights[home_address] = flight
        drops: list[Action] = (
            [DropHeld(home_address) for home_address in flight.mobile.home_addresses] if dropped else []
        )
        return self._visitors.refresh(home_address) + drops

    def _adjust(self, wanted: Wanted) -> Forwarding:
        flight = self._flights.get(wanted.home_address)
        if flight is None:
            return wanted.forwarding
        if flight.outgoing is not None:
            tunnel = Tunnel(self._care_of_address, flight.outgoing.peer)
            return self._indirect(wanted.forwarding, flight, Verdict.ENCAPSULATE, (tunnel,))
        if flight.waiting is Waiting.OPENING:
            return self._indirect(wanted.forwarding, flight, None)
        if flight.waiting is not None:
            return self._indirect(wanted.forwarding, flight, Verdict.HOLD)
        return self._direct(wanted.forwarding, flight)

    def _direct(self, base: Forwarding, flight: Flight) -> Forwarding:
        """Deliver packets of the tunnel like those of the home agent."""
        if flight.incoming is None:
            return base
        peer, agent = flight.incoming.peer, flight.mobile.home_agent
        more = [
            replace(acceptance, outer_source=peer)
            for acceptance in base.acceptances.values()
            if acceptance.outer_source == agent
        ]
        return replace(base, acceptances={**base.acceptances, **_keyed(more)})

    def _indirect(
        self, base: Forwarding, flight: Flight, verdict: Verdict | None, tunnels: tuple[Tunnel, ...] = ()
    ) -> Forwarding:
        """Look up packets out of tunnels here, to hold or forward them; the device's own leave as before.

        While newer packets settle, those that come by the tunnel are delivered at once.
        """
        homes = flight.mobile.home_addresses
        accepted = {
            key: acceptance if acceptance.link is None else replace(acceptance, by_route=True)
            for key, acceptance in base.acceptances.items()
        }
        sources = [flight.mobile.home_agent]
        if flight.incoming is not None:
            sources.append(flight.incoming.peer)
        looked_up = _keyed(
            TunnelAcceptance(source, home, Side.TO_HOME_ADDRESS) for source in sources for home in homes
        )
        accepted = looked_up | accepted
        if flight.waiting is Waiting.SETTLING:
            direct = self._direct(base, flight).acceptances
            accepted |= {
                key: acceptance for key, acceptance in direct.items() if key[0] != flight.mobile.home_agent
            }
        entries = (
            {}
            if verdict is None
            else {home: BindingEntry(home, verdict, tunnels, at=Stage.VISITED) for home in homes}
        )
        return replace(base, acceptances=accepted, bindings={**base.bindings, **entries})

    @staticmethod
    def _emit(kind: str, mobile: Mobile, peer: IPv4Address, way: str, **detail: str | int) -> Emit:
        return Emit(kind, "620", mobile.home_address, None, {"peer": str(peer), "way": way, **detail})


def _keyed(acceptances: Iterable[TunnelAcceptance]) -> dict[tuple[Addr, Addr, Side], TunnelAcceptance]:
    return dict(forwarding(*acceptances).acceptances)
