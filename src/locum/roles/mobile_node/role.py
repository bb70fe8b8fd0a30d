"""The device that falls asleep and wakes: a mobile node with its handovers (Fig. 6; `locum sleep`, `locum wake`).

It joins registration (registrant.py), handing_over.py and taking_back.py behind the shape of a role. It must not know
how any of their actions is performed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.registration import RefusalReason
from locum.roles.action_values.sessions import SessionsFound, Thaw
from locum.roles.actions import Action, Asked, Count, Emit, Event, ForwardPacket, Persist
from locum.roles.app_results import datagrams
from locum.roles.flow_rows import TABLE
from locum.roles.flow_selectors import PRIORITY
from locum.roles.mobile_ipv4.page_calls import is_experimental
from locum.roles.mobile_node.abandoning import Abandoning
from locum.roles.mobile_node.awake_orders import AwakeOrders
from locum.roles.mobile_node.departing import Choice, Departure, choose
from locum.roles.mobile_node.handing_over import FallingAsleep
from locum.roles.mobile_node.handing_over_states import NotSlept, Slept
from locum.roles.mobile_node.handover import Handover, OwnStandIn, Stage, StandInDialogue
from locum.roles.mobile_node.lost_handovers import lost, outlived
from locum.roles.mobile_node.notices import notified
from locum.roles.mobile_node.orders import OwnOrders
from locum.roles.mobile_node.own_location import OwnLocation
from locum.roles.mobile_node.own_rules import OwnRules
from locum.roles.mobile_node.paging.calls import Calls
from locum.roles.mobile_node.paging.configuration import NO_PAGING, PagingConfiguration
from locum.roles.mobile_node.paging.own_paging import OwnPaging
from locum.roles.mobile_node.paging.own_way import OwnWay
from locum.roles.mobile_node.paging.received_events import ReceivedEvents
from locum.roles.mobile_node.paging.wishes import Wish
from locum.roles.mobile_node.partial_handovers import NotPossible, PartialHandovers, stand_in_named
from locum.roles.mobile_node.release_after_return import Returning
from locum.roles.mobile_node.selection import Selection
from locum.roles.mobile_node.states import TABLE as SLEEP
from locum.roles.mobile_node.states import ComingUp, Down, GoingDown, SendingBack, SleepEvent, SleepState, Up
from locum.roles.mobile_node.wake.states import GivenUp, StillAsleep
from locum.roles.mobile_node.wake.taking_back import Waking
from locum.roles.parts import Parts, readable
from locum.roles.registrant.attachment import RegistrationTarget
from locum.roles.registrant.registrant import RegistrationClient
from locum.roles.rules import KeptRule, RuleRefused
from locum.roles.session_report import Fate, Report, counted
from locum.roles.session_words import RESTARTED, SECOND_SLEEP
from locum.wire.control import Cancel, Flow
from locum.wire.takes import Takes


class SleepingNode:
    """A mobile node with its stand-ins, the one for sleep first (without any it only registers)."""

    def __init__(
        self,
        mobile: RegistrationClient,
        stand_ins: Sequence[OwnStandIn],
        randomness: Randomness,
        paging: PagingConfiguration = NO_PAGING,
    ) -> None:
        self.mobile = mobile
        self.stand_ins = tuple(stand_ins)
        self.state: SleepState = Up()
        self.partial_handovers = PartialHandovers(mobile, self.stand_ins, count(1), randomness)
        self._randomness = randomness
        self._returning = Returning(stand_in.address for stand_in in self.stand_ins)
        self.slept, self.woken = Report(), Report()  # of the last sleep and of the last wake
        self._arrivals: list[bytes] = []  # packets for programs, once it is awake
        self.untold: Report | None = None  # of sessions that a restart ended, until a command reads it
        self.abandoning = Abandoning(self._dialogue)
        self.calls = Calls(mobile, lambda: self._may_wake, lambda now: self.wake(now=now), randomness)
        self.rules = OwnRules()
        mobile.ride(self.rules)
        self.orders = OwnOrders(mobile.configuration.apps, lambda: self._home_address)
        self.awake_orders = AwakeOrders(
            self.orders, self.partial_handovers, mobile, self.stand_ins, lambda: isinstance(self.state, Up)
        )
        self.way = OwnWay(lambda: mobile.configuration)
        self._location, self.events = OwnLocation(mobile, self.way.way), ReceivedEvents()
        unfinished, given = self.orders.unfinished, self.partial_handovers.places
        self.paging = OwnPaging(mobile, self.stand_ins, unfinished, paging, self.way.way, given)
        self._parts = Parts(
            self.way,
            self.paging,
            self.calls,
            self._location,
            self.events,
            self.awake_orders,
            self.rules,
            self.orders,
            self._returning,
            self.abandoning,
        )

    # Commands ----------------------------------------------------------------------------------------------------

    def sleep(
        self,
        *,
        now: float,
        wake_after: float | None = None,
        configuration: Mapping[str, object] | None = None,
        to: str | None = None,
        until: Wish | None = None,
    ) -> list[Action]:
        """Hand over all sessions here; wake after `wake_after` seconds asleep, or `until`. Raises NotPossible or WishRefused."""
        stand_in = self.stand_in(to)
        match self.state:
            case Up():
                if not self.partial_handovers.only_comes:
                    raise NotPossible("sessions are on their way; wait until they have arrived")
                if (other := self.partial_handovers.coming_elsewhere(stand_in.address)) is not None:
                    raise NotPossible(
                        f"sessions are still coming from {other}, whose programs have to read first; "
                        "sleep there, or give them up with `locum wake --abandon`"
                    )
                told = self.paging.leaving(stand_in.address, now=now, until=until)
                self.calls.woken_by = None
                self._enter("sleep", SendingBack(stand_in, wake_after, configuration or {}))
                told += [Emit("falling-asleep", None, self._home_address), *self.orders.ask_again(now=now)]
                return [*told, *self._advance(self.partial_handovers.send_back(now=now), now)]
            case ComingUp(machine=waking):
                return self._advance(waking.call_off(now=now), now)
            case SendingBack() | GoingDown():
                raise NotPossible("already falling asleep")
        raise NotPossible("already asleep")

    def would_sleep(self, found: SessionsFound, *, to: str | None = None) -> Choice:
        """Sessions of these that would be handed over now, and those that would stay. Raises NotPossible."""
        if not isinstance(self.state, Up):
            raise NotPossible("not while asleep, or on the way to sleep or back")
        return choose(self._departure(self.stand_in(to), {}), self.mobile.configuration.home_addresses, found)

    def _departure(self, stand_in: OwnStandIn, configuration: Mapping[str, object]) -> Departure:
        return Departure(
            stand_in.address,
            switch=Takes.ALL if stand_in.registers else None,
            elsewhere=self.partial_handovers.flows(),
            others=self.partial_handovers.at(stand_in.address),
            configuration=configuration,
            announcing=self.paging,
            brief=self.paging.has_rules,
        )

    def stand_in(self, name: str | None = None) -> OwnStandIn:
        """By its name or address; the first without. Raises NotPossible."""
        return stand_in_named(self.stand_ins, name)

    def give(self, selection: Selection, *, now: float, to: str | None = None) -> list[Action]:
        """Hand some sessions over, with all of their programs, and stay awake (R19). Raises NotPossible."""
        stand_in = self.stand_in(to)
        if not isinstance(self.state, Up):
            raise NotPossible("not while asleep, or on the way to sleep or back")
        return self._advance(
            self.partial_handovers.give(selection, stand_in, elsewhere=(), stays=self._stays), now
        )

    def hurry_orders(self, *, now: float) -> list[Action]:
        """Begin orders that wait for an awake device, and ask about those that run."""
        return self._advance(self.awake_orders.hurry(now=now), now)

    def end_order(self, name: str, *, now: float) -> list[Action]:
        """Take an order back from its stand-in, if it runs there while the device is awake."""
        self.awake_orders.end(name)
        return self._advance([], now)

    def take(self, selection: Selection, *, now: float) -> list[Action]:
        """Take given sessions back. Raises NotPossible."""
        if not isinstance(self.state, Up):
            raise NotPossible("not while asleep, or on the way to sleep or back")
        return self._advance(self.partial_handovers.take(selection, now=now), now)

    def wake(self, *, now: float) -> list[Action]:
        """Take the sessions back; while falling asleep, turn back. Raises NotPossible."""
        match self.state:
            case Down(handover):
                return self._advance(self._wake(handover, uncertain=False, now=now), now)
            case SendingBack() | GoingDown():
                return self.cancel(now=now)
            case ComingUp():
                raise NotPossible("already waking")
        raise NotPossible("already awake")

    def abandon(self, *, now: float) -> list[Action]:
        """Abandon sessions at the stand-in: resets at both ends, programs run. Raises NotPossible."""
        match self.state:
            case Down(handover):
                machine = Waking(self.mobile, self._dialogue(handover), handover)
                self._enter("abandon", ComingUp(machine))
                self.woken = machine.report
                return self._advance(machine.abandon(now=now), now)
            case ComingUp(machine=waking):
                return self._advance(waking.abandon(now=now), now)
            case SendingBack() | GoingDown():
                raise NotPossible("still falling asleep; interrupt the command, or wait until it has ended")
        return self._advance(self.partial_handovers.abandon(now=now), now)

    def cancel(self, *, now: float) -> list[Action]:
        """Turn back from any state; no action if no movement is under way."""
        if isinstance(self.state, SendingBack):
            self._enter("cancel", Up("cancelled"))
            return self._advance([], now)
        if not self.partial_handovers.idle:
            return self._advance(self.partial_handovers.undo("cancelled", now=now), now)
        match self.state:
            case GoingDown(machine, wake_after):
                if machine.cancel(now=now):
                    return self._advance(machine.undo("cancelled", now=now), now)
                self._enter("cancel", GoingDown(machine, wake_after, turn_back=True))
            case ComingUp(machine=waking):
                return self._advance(waking.call_off(now=now), now)
        return []

    def move(self, to: str, *, now: float) -> list[Action]:
        """Change the access node in good order. Raises CannotMove."""
        return self._advance(self.mobile.move(to, now=now), now)

    def add_rule(self, rule: KeptRule, *, now: float) -> tuple[KeptRule, list[Action]]:
        """Register a flow rule (R6); the rule as it is asked for. Raises RuleRefused."""
        self._can_register()
        own, homes = self.mobile.routing.binding, self.mobile.configuration.home_addresses
        made = self.rules.add(rule, homes, own, self.partial_handovers.flows())
        return made, self._advance(self.mobile.set_target(RegistrationTarget.ORDINARY, now=now), now)

    def remove_rule(self, identifier: int, *, now: float) -> tuple[KeptRule, list[Action]]:
        """Take a flow rule of this device back; the rule as it was. Raises RuleRefused."""
        self._can_register()
        return self.rules.remove(identifier), self._advance(
            self.mobile.set_target(RegistrationTarget.ORDINARY, now=now), now
        )

    def _stays(self, flow: Flow) -> str | None:
        rule = self.rules.keeps(flow, self.mobile.routing.binding)
        if rule is None:
            return None
        return (
            f"rule {rule.identifier} comes before what stand-ins are given: it keeps {flow} here, or drops it; remove it, "
            f"or give it a priority above {PRIORITY}"
        )

    def _can_register(self) -> None:
        if not isinstance(self.state, Up) or self.mobile.registered is None:
            raise RuleRefused(RefusalReason.PROHIBITED, "only while awake and registered")

    def leave(self, *, now: float) -> list[Action]:
        """The run ends: a device that is up deregisters; one that sleeps stays as it is, for the next run."""
        return self._advance(self.mobile.leave(now=now), now) if isinstance(self.state, Up) else []

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; a pending handover is brought to a safe end."""
        actions = self.mobile.restore(rows, now=now) + self._parts.restore(rows, now=now)
        found, unreadable = readable(rows, TABLE, lambda row: Handover.from_row(row.key, row.value))
        actions += unreadable
        slept = False
        for _row, handover in found:
            if handover.stage is Stage.ABANDONED:
                actions += self.abandoning.begin(handover)
                continue
            if slept and not handover.given:
                thaw: list[Action] = [Thaw(handover.processes)] if handover.processes else []
                actions += [Count("second-sleep"), *self._lost(handover, SECOND_SLEEP, thaw)]
                continue
            slept = slept or not handover.given
            if outlived(handover, self.mobile.configuration.boot):
                actions += self._restarted(handover, now)
            else:
                actions += (
                    self.partial_handovers.restore(handover)
                    if handover.given
                    else self._restore(handover, now)
                )
        if isinstance(self.state, Up):
            actions += self.orders.awake(now=now)
        return self._advance(actions + self.partial_handovers.resume(now=now), now)

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """Registration replies, advertisements, and calls of a page."""
        if is_experimental(message):
            return self.calls.receive(message, source, now=now)
        return self._advance(self.mobile.receive(message, source, now=now), now)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Links, answers, results of session actions, and 618."""
        if isinstance(event, Asked):
            return notified(event, self.mobile.configuration.home_addresses, self._returning)
        if (actions := self._parts.happened(event, now=now)) is not None:
            return self._advance(actions, now)
        movers = (self.mobile, self.partial_handovers, *self._machine)
        return self._advance([action for mover in movers for action in mover.happened(event, now=now)], now)

    def timeout(self, *, now: float) -> list[Action]:
        """Handle everything that is due."""
        actions = [action for node in self._timed for action in node.timeout(now=now)]
        match self.state:
            case Down(handover) if handover.wake_at is not None and handover.wake_at <= now:
                actions += self._wake(handover, uncertain=False, now=now)
        return self._advance(actions, now)

    def deadline(self) -> float | None:
        """Steady seconds of whatever comes first."""
        times = [node.deadline() for node in self._timed]
        if isinstance(self.state, Down):
            times.append(self.state.handover.wake_at)
        return min((at for at in times if at is not None), default=None)

    @property
    def _may_wake(self) -> bool:
        return isinstance(self.state, Down | SendingBack | GoingDown)

    @property
    def _machine(self) -> tuple[FallingAsleep | Waking, ...]:
        """The sleep or the wake that is under way, if one is."""
        return (self.state.machine,) if isinstance(self.state, GoingDown | ComingUp) else ()

    @property
    def _timed(self) -> tuple[RegistrationClient | PartialHandovers | Parts | FallingAsleep | Waking, ...]:
        """Everything that has deadlines, in the order in which it is called."""
        return (self.mobile, self.partial_handovers, self._parts, *self._machine)

    # Transitions -------------------------------------------------------------------------------------------------

    @property
    def stranded(self) -> bool:
        """Programs run although their sessions are away: a wake waits for the network or the stand-in."""
        machines = (self.partial_handovers.moving, *self._machine)
        return any(isinstance(machine, Waking) and machine.stranded for machine in machines)

    @property
    def _home_address(self) -> Addr:
        return self.mobile.configuration.home_address

    def _advance(self, actions: list[Action], now: float) -> list[Action]:
        """Pass outcomes of the registration on, and follow machines that have ended, until nothing moves."""
        while True:
            outcomes, self.mobile.outcomes = self.mobile.outcomes, []
            for outcome in outcomes:
                self._location.outcome(outcome)
                self.paging.outcome(outcome)
                actions = actions + self.partial_handovers.outcome(outcome, now=now)
                actions = actions + self._returning.outcome(outcome, self.mobile.configuration.home_addresses)
                for machine in self._machine:
                    actions = actions + machine.outcome(outcome, now=now)
            followed = self._follow(now)
            if followed is None and not self.mobile.outcomes:
                return actions
            actions = actions + (followed or [])

    def _follow(self, now: float) -> list[Action] | None:
        """The next state of a machine that has ended; None while it has not."""
        if (given := self.partial_handovers.follow(now)) is not None:
            listed, self.partial_handovers.abandoned = self.partial_handovers.abandoned, []
            back = self.partial_handovers.send_back(now=now) if isinstance(self.state, SendingBack) else []
            return [
                *given,
                *back,
                *(action for handover in listed for action in self.abandoning.begin(handover)),
            ]
        match self.state:
            case Up() if self.partial_handovers.rests:
                return self.partial_handovers.retake(now=now)
            case Up():
                return self.awake_orders.step(now)
            case SendingBack() if self.partial_handovers.settled and self.paging.may_go:
                return self._fall_asleep(self.state, now)
            case GoingDown(machine) if machine.may_go_on:
                return machine.go_on(now=now)
            case GoingDown(machine, wake_after, turn_back) if machine.result is not None:
                told = self._ordered(machine, now)
                return [*told, *self._slept(machine.result, wake_after, turn_back, now)]
            case ComingUp(machine=waking) if waking.result is not None:
                return self._woken(waking, now)
        return None

    def _enter(self, event: SleepEvent, state: SleepState) -> None:
        self.state = SLEEP.change(self.state, event, state)
        self.way.entered(state)
        self._location.entered(state)
        self.paging.entered(state)

    def _fall_asleep(self, asked: SendingBack, now: float) -> list[Action]:
        departure = self._departure(asked.stand_in, asked.configuration or self.orders.configuration())
        if not asked.configuration:
            departure = replace(departure, application=self.orders.application(), orders=self.orders.names())
            self.orders.leaving = departure.orders
        dialogue = self.partial_handovers.dialogue(asked.stand_in.address)
        machine = FallingAsleep(self.mobile, dialogue, departure, self._randomness)
        self._enter("nothing is coming", GoingDown(machine, asked.wake_after))
        self.slept = machine.report
        return machine.start()

    def _ordered(self, machine: FallingAsleep, now: float) -> list[Action]:
        """Orders of an attempt that has ended: those that the stand-in refused have failed, the others may run."""
        self.orders.leaving = frozenset()
        actions = self.orders.refused(machine.refused_orders, now=now)
        stand_in = machine.handover.stand_in
        if isinstance(machine.result, NotSlept) or stand_in is None:
            return actions
        return [*actions, *self.orders.went(machine.orders, stand_in, now=now)]

    def _slept(self, result: object, wake_after: float | None, turn_back: bool, now: float) -> list[Action]:
        match result:
            case Slept(handover):
                wake_at = None if wake_after is None else now + wake_after
                asleep = replace(handover, stage=Stage.ASLEEP, wake_at=wake_at)
                self._enter("slept", Down(asleep))
                counts = {"sessions": len(asleep.sessions), "stayed": self.slept.counts()[Fate.STAYED]}
                actions: list[Action] = [
                    asleep.persist(),
                    Emit("asleep", "632", self._home_address, None, {**counts}),
                ]
                return actions + (self._wake(asleep, uncertain=False, now=now) if turn_back else [])
            case NotSlept(reason):
                self._enter("failed", Up(reason))
                return [Emit("sleep-failed", "634", self._home_address, None, {"reason": reason})]
        assert isinstance(self.state, GoingDown)
        uncertain = self.state.machine.handover
        failed = Emit(
            "sleep-failed", "634", self._home_address, None, {"reason": "the stand-in's answer is missing"}
        )
        return [failed, *self._wake(uncertain, uncertain=True, now=now)]

    def _woken(self, waking: Waking, now: float) -> list[Action]:
        match waking.result:
            case StillAsleep(handover):
                self._enter("still asleep", Down(handover))
                return [Emit("asleep", "632", self._home_address, None, {"sessions": len(handover.sessions)})]
            case GivenUp(handover):
                self._enter("awake", Up("the sessions were given up"))
                ended = Emit("awake", None, self._home_address, None, {"lost": len(handover.sessions)})
                return [ended, *self.orders.awake(now=now), *self.abandoning.begin(handover)]
        rest = waking.result.rest if waking.result is not None else None
        lost = waking.result.lost if waking.result is not None else 0
        self._enter("awake", Up(f"{counted(lost)} lost" if lost else None))
        detail: dict[str, JSON] = {"lost": lost, "coming": 0 if rest is None else len(rest.sessions)}
        awake = [Emit("awake", "632", self._home_address, None, detail), *self.orders.awake(now=now)]
        awake += map(ForwardPacket, self._arrivals)
        self._arrivals = []
        if rest is None:
            return awake
        return [*awake, *self.partial_handovers.accept(rest, waking.report, now=now)]

    def _wake(self, handover: Handover, *, uncertain: bool, now: float) -> list[Action]:
        machine = Waking(self.mobile, self._dialogue(handover), handover, uncertain=uncertain)
        stand_in = handover.stand_in or self.stand_in().address
        machine.returned = lambda application, at: self._returned(application, stand_in, at)
        self._enter("take back", ComingUp(machine))
        self.woken = machine.report
        return [Emit("waking", None, self._home_address), *machine.start(now=now)]

    def _returned(self, application: Mapping[str, object], stand_in: Addr, now: float) -> list[Action]:
        """States of proxies are there. Datagrams for programs wait until their answers find a way."""
        self._arrivals = datagrams(application, self._home_address) or self._arrivals
        events = self.events.returned(application, stand_in, self._home_address)
        return [*self.orders.returned(application, stand_in, now=now), *events]

    def _restore(self, handover: Handover, now: float) -> list[Action]:
        match handover.stage:
            case Stage.PREPARING:
                return [
                    *self._dialogue(handover).ask(Cancel(handover.identifier)),
                    handover.forget(),
                    *self.mobile.set_target(RegistrationTarget.ORDINARY, now=now),
                ]
            case Stage.ASLEEP:
                self._enter("restore asleep", Down(handover))
                return handover.still()
            case Stage.RETURNED:
                machine = Waking(self.mobile, self._dialogue(handover), handover)
                self._enter("restore awake", ComingUp(machine))
                ordinary = (
                    self.mobile.set_target(RegistrationTarget.ORDINARY, now=now)
                    if self.mobile.target is not RegistrationTarget.ORDINARY
                    else []
                )
                thaw: list[Action] = [Thaw(handover.processes)] if handover.processes else []
                return [*ordinary, *thaw, *machine.closing.tell_again()]
        uncertain = handover.stage is Stage.LEAVING
        return [*handover.still(), *self._wake(handover, uncertain=uncertain, now=now)]

    def _restarted(self, handover: Handover, now: float) -> list[Action]:
        """The sockets are gone: no process is touched, and the stand-in resets its copies."""
        if not handover.given:
            self._enter("host restarted", Up(f"{counted(len(handover.sessions))} lost: {RESTARTED}"))
        ordinary = self.mobile.target is RegistrationTarget.ORDINARY
        target = [] if ordinary else self.mobile.set_target(RegistrationTarget.ORDINARY, now=now)
        return self._lost(handover, RESTARTED, target)

    def _lost(self, handover: Handover, reason: str, also: list[Action]) -> list[Action]:
        """Report all sessions as lost, and have the stand-in reset its copies; `also` comes before that request."""
        self.untold = self.woken
        ended, actions = lost(handover, reason, self.woken, self._home_address)
        return [*actions, *also, *self.abandoning.begin(ended)]

    def _dialogue(self, handover: Handover) -> StandInDialogue:
        address = handover.stand_in or self.stand_in().address
        return self.partial_handovers.dialogue(address)
