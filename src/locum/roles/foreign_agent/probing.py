"""Notices that a visitor does not answer any more, and asks its stand-in to take over until it does (C11).

A foreign agent may ask a visitor by unicast ARP for its home address (RFC 5944 section 4.6), and every visitor has one
of IPv4. A lost visitor stays on the visitor list until its registration runs out; it is probed on, and the stand-in is
asked to release as soon as it answers or registers. It must not know how a probe is sent, nor what a stand-in is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, Literal

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Emit, Event, Forget, NoAnswer, Persist, Probe, ProbeAnswered
from locum.roles.foreign_agent.configuration import ProbingConfiguration
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.parts import Part
from locum.roles.state_table import StateTable
from locum.roles.timers import Deadlines
from locum.roles.trigger_requests import TriggerRequest, TriggerRequests
from locum.wire.control.answer import Status
from locum.wire.control.trigger import Operation, Reason, Trigger

TABLE: Final = "lost"


@dataclass(frozen=True, slots=True)
class Answering:
    """It is there, as far as is known; so many probes in a row had no answer, the last one included."""

    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """The stand-in has been asked to take over."""

    since: float  # steady seconds


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """It does not answer here, but its stand-in reaches it: another node's visitor, until it answers here."""


State = Answering | Lost | Elsewhere

Change = Literal["register", "probe", "answer", "lose", "come back", "found elsewhere", "leave"]
STATES: StateTable[Change] = StateTable(
    "A visitor that is probed",
    "A visitor of a foreign agent, from its registration until it leaves. One that does not answer is lost.",
    {
        None: {"register": Answering},
        Answering: {
            "register": Answering,
            "probe": Answering,
            "answer": Answering,
            "lose": Lost,
            "leave": None,
        },
        Lost: {"come back": Answering, "found elsewhere": Elsewhere, "leave": None},
        Elsewhere: {"register": Answering, "answer": Answering, "leave": None},
    },
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A visitor and how it stands with it."""

    visitor: Visitor
    state: State

    def at(self, change: Change, state: State) -> "Watched":
        """Return it in the state that follows this change."""
        return replace(self, state=STATES.change(self.state, change, state))


class Probing(Part):
    """The probes of one foreign agent."""

    def __init__(
        self,
        configuration: ProbingConfiguration,
        visitor: Callable[[IPv4Address], Visitor | None],
        visitors: Callable[[], Iterable[Visitor]],
        care_of_address: IPv4Address,
    ) -> None:
        """`visitor` finds the visitor with a home address, as long as it is one; `visitors` lists all of them.

        `care_of_address` is the access node's.
        """
        self.configuration = configuration
        self._care_of_address = care_of_address
        self._visitor, self._visitors = visitor, visitors
        self._watched: dict[IPv4Address, Watched] = {}
        self._down: set[str] = set()
        self._probes: Deadlines[IPv4Address] = Deadlines()
        self._trigger_requests = TriggerRequests(self._concluded)

    # Events of the foreign agent ----------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the visitors of an earlier run; those that were lost are, until they answer."""
        lost = {row.key: row for row in rows if row.table == TABLE}
        again: list[Visitor] = []
        for visitor in self._visitors():
            key = str(visitor.home_address)
            self._watch(visitor, now)
            if key in lost and visitor.home_address in self._watched:
                del lost[key]
                again.append(visitor)
        actions: list[Action] = [Forget(TABLE, key) for key in lost]
        for visitor in again:  # the stand-in may not have got the request
            actions += self._lose(self._watched[visitor.home_address], "restarted", now)
        return actions

    def registered(self, visitor: Visitor, *, now: float) -> list[Action]:
        """It has registered here just now, so it is there."""
        if visitor.next_hop is not None:
            return []  # a stand-in that receives for the home address; it is not the device
        actions = self._back(visitor.home_address, "registered")
        if visitor.lifetime > self.configuration.short_lifetime:
            self._watch(visitor, now)
        else:
            self._leave(visitor.home_address)
        return actions

    def deregistered(self, home_address: IPv4Address) -> list[Action]:
        """The device has deregistered itself."""
        actions = self._back(home_address, "deregistered")
        self._leave(home_address)
        return actions

    def over(self, home_address: IPv4Address) -> list[Action]:
        """The visit has ended: expired or moved. A takeover by a stand-in goes on."""
        watched = self._watched.get(home_address)
        self._leave(home_address)
        if watched is None or not isinstance(watched.state, Lost):
            return []
        self._trigger_requests.drop(home_address)
        return [Forget(TABLE, str(home_address))]

    def link_down(self, link: str, *, now: float) -> list[Action]:
        """Declare all visitors of the link lost at once, without probes."""
        self._down.add(link)
        here = [watched for watched in self._watched.values() if watched.visitor.link == link]
        actions: list[Action] = []
        for watched in here:
            if isinstance(watched.state, Answering):
                actions += self._lose(watched, "link-down", now)
        return actions

    def link_up(self, link: str, *, now: float) -> None:
        """Ask at once."""
        self._down.discard(link)
        for home_address, watched in self._watched.items():
            if watched.visitor.link == link:
                self._probes.set(home_address, now)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers to probes and triggers; None: it is about something else."""
        match event:
            case ProbeAnswered():
                return self._answered(event)
            case Answered() | NoAnswer():
                return self._trigger_requests.happened(event, now=now)
        return None

    def timeout(self, *, now: float) -> list[Action]:
        """Probes that are due, visitors that have missed too many of them, triggers to be repeated."""
        actions = self._trigger_requests.timeout(now=now)
        for home_address in tuple(self._probes.due(now)):
            actions += self._probe(home_address, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = (self._trigger_requests.deadline(), self._probes.next())
        return min((at for at in times if at is not None), default=None)

    def lost(self) -> frozenset[IPv4Address]:
        """Home addresses of visitors that do not answer."""
        return frozenset(key for key, watched in self._watched.items() if isinstance(watched.state, Lost))

    # Probes ------------------------------------------------------------------------------------------------------

    def _watch(self, visitor: Visitor, now: float) -> None:
        if self.configuration.interval <= 0 or visitor.link_layer is None:
            return
        before = self._watched.get(visitor.home_address)
        answering = STATES.change(None if before is None else before.state, "register", Answering())
        self._watched[visitor.home_address] = Watched(visitor, answering)
        self._probes.set(visitor.home_address, now + self.configuration.interval)

    def _leave(self, home_address: IPv4Address) -> None:
        if (watched := self._watched.pop(home_address, None)) is not None:
            STATES.change(watched.state, "leave", None)
        self._probes.cancel(home_address)

    def _probe(self, home_address: IPv4Address, now: float) -> list[Action]:
        if self._visitor(home_address) is None:
            return self.over(home_address)
        watched = self._watched[home_address]
        visitor, state = watched.visitor, watched.state
        actions: list[Action] = []
        if isinstance(state, Answering):
            if state.unanswered >= self.configuration.misses:
                actions += self._lose(watched, "no-answer", now)
            else:
                self._watched[home_address] = watched.at("probe", Answering(state.unanswered + 1))
        self._probes.set(home_address, now + self.configuration.interval)
        if visitor.link in self._down:
            return actions
        assert visitor.link_layer is not None
        return [*actions, Probe(visitor.link, home_address, visitor.link_layer)]

    def _answered(self, event: ProbeAnswered) -> list[Action]:
        """Accept answers from the registered link-layer address only."""
        watched = self._watched.get(event.address) if isinstance(event.address, IPv4Address) else None
        if watched is None:
            return []
        visitor = watched.visitor
        if (visitor.link, visitor.link_layer) != (event.link, event.link_layer):
            return []
        actions = self._back(visitor.home_address, "answers")
        self._watched[visitor.home_address] = self._watched[visitor.home_address].at("answer", Answering())
        return actions

    # Lost and back -----------------------------------------------------------------------------------------------

    def _lose(self, watched: Watched, why: str, now: float) -> list[Action]:
        visitor = watched.visitor
        home_address = visitor.home_address
        self._watched[home_address] = watched.at("lose", Lost(now))
        detail: dict[str, JSON] = {"link": visitor.link, "why": why}
        return [
            Persist(TABLE, str(home_address), {"since": now}),
            Emit("visitor-lost", None, home_address, None, detail),
            *self._trigger_requests.ask_one(
                _trigger(Operation.TAKE, visitor, Reason.LOST, self._care_of_address),
                self.configuration.stand_ins,
            ),
        ]

    def _back(self, home_address: IPv4Address, how: str) -> list[Action]:
        watched = self._watched.get(home_address)
        if watched is None or not isinstance(watched.state, Lost):
            return []
        self._watched[home_address] = watched.at("come back", Answering())
        release = _trigger(Operation.RELEASE, watched.visitor, Reason.BACK)
        return [
            Forget(TABLE, str(home_address)),
            Emit("visitor-back", None, home_address, None, {"link": watched.visitor.link, "how": how}),
            # Every one of them: one that was asked and did not answer in time may have taken over all the same.
            *self._trigger_requests.ask_all(release, self.configuration.stand_ins),
        ]

    def _concluded(self, trigger_request: TriggerRequest, status: Status | None) -> list[Action]:
        """Conclude from a stand-in's answer that it reaches the device: it is another node's visitor now."""
        home_address = trigger_request.home_address
        watched = self._watched.get(home_address) if isinstance(home_address, IPv4Address) else None
        if watched is None or status is not Status.WRONG_STATE or not isinstance(watched.state, Lost):
            return []
        self._watched[watched.visitor.home_address] = watched.at("found elsewhere", Elsewhere())
        return [
            Forget(TABLE, str(home_address)),
            Emit("visitor-elsewhere", None, home_address, None, {"link": watched.visitor.link}),
        ]


def _trigger(
    operation: Operation, visitor: Visitor, reason: Reason, access_node: IPv4Address | None = None
) -> Trigger:
    homes: tuple[Addr, ...] = (visitor.home_address,)
    if visitor.home_address_v6 is not None:
        homes = (*homes, visitor.home_address_v6)
    return Trigger(operation, homes, reason=reason, access_node=access_node)
