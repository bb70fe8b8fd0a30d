"""The switch by the stand-in's own registration: its handovers' targets, and waiting requests (R4).

A prepare is answered, and a finish goes on, once the handovers' targets are in force at the home agent. Links do not reorder:
the 632 reaches the device behind everything that was sent to it before, and 604'' reaches the stand-in likewise.
It must not know messages of registration, nor a handover's purpose.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Selector
from locum.roles.actions import Action, Answer, Count, Emit
from locum.roles.mnps.giving_back import GivingBack
from locum.roles.mnps.handover import Holding, Releasing, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart
from locum.roles.mnps.registration import MAX_FLOWS, Part, Standing, StandInRegistration
from locum.roles.mnps.replies_632 import Replies
from locum.wire.control import Status
from locum.wire.takes import Takes

PREPARE_PATIENCE = 6.0  # seconds; a device waits 8 s for the answer to a prepare
RELEASE_PATIENCE = 20.0  # seconds; it waits 60 s for the answer to a finish

# Targets of home addresses because of triggers: how much, and which packets
Triggers = Callable[[Iterable[Addr]], tuple[Takes | None, tuple[Selector, ...]]]


@dataclass(frozen=True, slots=True)
class _Preparing:
    """Answers that are given when the home agent has switched."""

    answers: tuple[Answer, ...]
    give_up_at: float  # steady seconds


class Switching(WaitingPart):
    """Of the handovers of `holdings` that are to be switched by `registration`; without one there are none."""

    def __init__(
        self,
        holdings: Holdings,
        replies: Replies,
        giving_back: GivingBack,
        registration: StandInRegistration | None,
    ) -> None:
        self._holdings = holdings
        self._replies = replies
        self._giving_back = giving_back
        self._registration = registration
        self._preparing: dict[bytes, _Preparing] = {}
        self.triggered: Triggers = lambda _home_addresses: (None, ())
        self.led: Callable[[Iterable[Addr]], tuple[Part, ...]] = lambda _home_addresses: ()  # for proxies
        self.device_at: Callable[[Iterable[Addr]], Addr | None] = lambda _home_addresses: None

    def refusal(self, home_addresses: Iterable[Addr], takes: Takes, flows: int) -> Status | None:
        """Reason why these home addresses cannot be registered for so many more flows; None if they can."""
        listed = tuple(home_addresses)
        if self._standing(listed) is None:
            return Status.REFUSED
        there = len(self._wanted(listed)[1])
        return Status.LIMIT if takes is Takes.RULED and there + flows > MAX_FLOWS else None

    def want(self, taken: TakenOver, now: float) -> list[Action]:
        """Set the target of this home address after any change of this handover."""
        if taken.switch is None:
            return []
        over = None if self._holdings.get(taken.identifier) else self._preparing.pop(taken.identifier, None)
        unanswered = [
            self._replies.answer(answer.exchange, Status.UNKNOWN_HANDOVER, taken.identifier)
            for answer in (() if over is None else over.answers)
        ]
        return [*self.want_for(taken.home_addresses, now), *unanswered]

    def want_for(self, home_addresses: Iterable[Addr], now: float) -> list[Action]:
        """Set the common target of this home address's handovers and triggers."""
        listed = tuple(home_addresses)
        standing = self._standing(listed)
        if standing is None:
            return []
        takes, parts, access_node = self._wanted(listed)
        return standing.want(takes, parts, access_node, now)

    def prepared(self, taken: TakenOver, answer: Answer, now: float) -> list[Action]:
        """The answer to a prepare, now or when the home agent has switched."""
        standing = self._standing(taken.home_addresses)
        if taken.switch is None or standing is None or standing.holds:
            return [answer]
        waiting = self._preparing.get(taken.identifier, _Preparing((), now + PREPARE_PATIENCE))
        self._preparing[taken.identifier] = _Preparing((*waiting.answers, answer), waiting.give_up_at)
        return []

    def release(self, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        """A finish: the home agent is to send elsewhere, then the sockets are stopped."""
        if isinstance(taken.state, Releasing):
            exchanges = (*taken.state.exchanges, exchange)
            self._holdings.keep(taken.at("release", Releasing(exchanges, taken.state.give_up_at)))
            return []
        self._holdings.keep(taken.at("release", Releasing((exchange,), now + RELEASE_PATIENCE)))
        return self.want(taken, now)

    def follow(self, *, now: float) -> list[Action]:
        """Answer requests whose target is in force, or was refused."""
        actions: list[Action] = []
        for taken in self._holdings.switching():
            standing = self._standing(taken.home_addresses) if taken.switch is not None else None
            if standing is None:
                continue
            if standing.holds:
                actions += self._go_on(taken)
            elif standing.refused is not None:
                actions += self._fail(
                    taken, f"the home agent or access node refused with {standing.refused}", now
                )
        return actions

    def timeout(self, *, now: float) -> list[Action]:
        """The registration got no answer."""
        actions: list[Action] = []
        for taken in self._holdings.switching():
            at = self._give_up_at(taken)
            if at is not None and at <= now:
                actions += self._fail(taken, "the registration was not answered", now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = (self._give_up_at(handover) for handover in self._holdings.switching())
        return min((at for at in times if at is not None), default=None)

    def _give_up_at(self, taken: TakenOver) -> float | None:
        if isinstance(taken.state, Releasing):
            return taken.state.give_up_at
        waiting = self._preparing.get(taken.identifier)
        return None if waiting is None else waiting.give_up_at

    def _go_on(self, taken: TakenOver) -> list[Action]:
        if isinstance(taken.state, Releasing):
            return self._giving_back.stop(taken, taken.state.exchanges)
        waiting = self._preparing.pop(taken.identifier, None)
        return [] if waiting is None else list(waiting.answers)

    def _fail(self, taken: TakenOver, reason: str, now: float) -> list[Action]:
        """A prepare is refused and forgotten; a finish may be asked again, and the sessions go on here meanwhile."""
        if isinstance(taken.state, Releasing):
            back = taken.at("not released", Holding())
            self._holdings.keep(back)
            busy = [
                self._replies.answer(exchange, Status.BUSY, taken.identifier)
                for exchange in taken.state.exchanges
            ]
            return [*self.want(back, now), *busy]
        waiting = self._preparing.pop(taken.identifier, None)
        if waiting is None:
            return []
        answers = [
            self._replies.answer(answer.exchange, Status.REFUSED, taken.identifier)
            for answer in waiting.answers
        ]
        detail = {"reason": reason}
        return [
            Count("takeover-not-registered"),
            Emit("switch-failed", "601''", taken.home_addresses[0], None, detail),
            *self._holdings.end(taken),
            *self.want(taken, now),
            *answers,
        ]

    def _standing(self, home_addresses: Iterable[Addr]) -> Standing | None:
        return None if self._registration is None else self._registration.standing(home_addresses)

    def _wanted(self, home_addresses: Sequence[Addr]) -> tuple[Takes | None, tuple[Part, ...], Addr | None]:
        """All packets if one of them wants all, else those of the flows and selectors; none without any."""
        asked, selectors = self.triggered(home_addresses)
        wanting = [
            taken
            for taken in self._holdings.of(home_addresses)
            if taken.switch is not None and taken.wants_packets
        ]
        access_node = next((taken.access_node for taken in reversed(wanting) if taken.access_node), None)
        access_node = access_node or self.device_at(home_addresses)
        if asked is Takes.ALL or any(taken.switch is Takes.ALL for taken in wanting):
            return Takes.ALL, (), access_node
        flows = tuple(flow for taken in wanting for flow in taken.flows)
        parts = (*flows, *self.led(home_addresses), *selectors)
        return (Takes.RULED if wanting or asked else None), parts, access_node
