"""Context transfer between access nodes, 622 and 624 (C4, C5, C7; RFC 4067): the machine of a foreign agent.

A mobile node, or its stand-in, names another access node in its registration. When the home agent has accepted that,
the context is fetched from there, or pushed there if the device is about to move; packets that still reach the wrong access
node follows by the tunnel 620. A peer that does not answer is asked again every 2 s and given up after 15 s; meanwhile
the device is served without. Which of two access nodes a device belongs to is settled by when its last registration
was accepted. It must not know sockets, links or the kernel.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Asked, Event, NoAnswer, Persist, WallClockStepped
from locum.roles.foreign_agent.contexts.answering import Answering
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.in_flight import InFlight
from locum.roles.foreign_agent.contexts.kept import KeptContexts, Notice
from locum.roles.foreign_agent.contexts.membership import Memberships
from locum.roles.foreign_agent.contexts.requesting import Requesting
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part, Parts


class ContextTransfer(Part):
    """`access_nodes` are the others, each with the home addresses that it may speak for (none named: all)."""

    def __init__(
        self,
        care_of_address: IPv4Address,
        access_nodes: Mapping[Addr, frozenset[Addr]],
        visitors: VisitorList,
        book: ContextBook,
        flights: InFlight,
        memberships: Memberships,
        notice: Notice,
        short_lifetime: int,
    ) -> None:
        self._visitors, self._book, self._flights = visitors, book, flights
        kept = KeptContexts(care_of_address, access_nodes, visitors, book, flights, memberships, notice)
        self.enabled = kept.enabled
        self._requests = kept.trigger_requests
        self.requesting = Requesting(kept, short_lifetime)
        self._answering = Answering(kept, self.requesting.begin)
        self._parts = Parts(kept.trigger_requests, kept)

    @property
    def asked(self) -> int:
        """How many requests for contexts are under way."""
        return len(self._requests)

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; the book has restored the contexts before."""
        return self._parts.restore(rows, now=now)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Requests of other access nodes, answers to ours, and a step of the wall clock; None for anything else."""
        match event:
            case Asked(path="622" | "624"):
                return self._answering.asked(event, now=now)
            case Answered() | NoAnswer():
                return self.requesting.answered(event, now=now)
            case WallClockStepped(ahead):
                self.requesting.stepped(ahead)
                return []
        return self._parts.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again; forget contexts that were kept long enough."""
        return self._parts.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._parts.deadline()

    def rows(self, *, now: float) -> list[dict[str, JSON]]:
        """For users: contexts with their blocks' versions, tunnels and held packets."""
        rows: list[dict[str, JSON]] = []
        for context in self._book.all():
            home_address = context.home_address
            flight = self._flights.flights().get(home_address)
            blocks: dict[str, JSON] = {
                kind.name.lower(): block.version for kind, block in context.blocks.items()
            }
            served = "visitor" if home_address in self._visitors else "kept"
            if served == "kept" and self._visitors.static(home_address) is not None:
                served = "preconfigured"
            waiting = None if flight is None or flight.waiting is None else flight.waiting.value
            rows.append(
                {
                    "home_address": str(home_address),
                    "state": served,
                    "registered": context.registered / 1000 or None,
                    "blocks": blocks,
                    "forwarded_to": None
                    if flight is None or flight.outgoing is None
                    else str(flight.outgoing.peer),
                    "forwarded_from": None
                    if flight is None or flight.incoming is None
                    else str(flight.incoming.peer),
                    "waiting": waiting,
                    "transferring": [
                        exchange.kind.value for exchange in self._requests.under_way(home_address)
                    ],
                }
            )
        return rows
