"""Sessions that are at stand-ins while their device is awake (`locum give`, `locum take`; features R7, R19, C12; Fig. 10).

One hand-over after another: each give and each take is a machine of handing_over.py or wake/taking_back.py, and those that are
asked for meanwhile wait their turn. Sessions given together come back together. It must not know sleep.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import Freeze, Thaw
from locum.roles.actions import Action, Emit, Event
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.departing import Departure
from locum.roles.mobile_node.handing_over import FallingAsleep
from locum.roles.mobile_node.handing_over_states import NotSlept, Slept, Uncertain
from locum.roles.mobile_node.handover import Handover, OwnStandIn, Stage, StandInDialogue
from locum.roles.mobile_node.selection import NOTHING, Selection
from locum.roles.mobile_node.wake.coming import Coming
from locum.roles.mobile_node.wake.coming_states import Rests, Unsure
from locum.roles.mobile_node.wake.rest import Rest
from locum.roles.mobile_node.wake.states import Awake, GivenUp, StillAsleep
from locum.roles.mobile_node.wake.taking_back import Waking
from locum.roles.registrant.attachment import Outcome
from locum.roles.registrant.registrant import RegistrationClient
from locum.roles.session_report import Report, counted
from locum.wire.control import Cancel, Flow
from locum.wire.takes import Takes


class NotPossible(Exception):
    """The command does not fit the state; the message is for users."""


class PartialHandovers:
    """Sessions that one device has given, and those that are moving now."""

    def __init__(
        self,
        mobile: RegistrationClient,
        stand_ins: Collection[OwnStandIn],
        numbers: Iterator[int],
        randomness: Randomness,
    ) -> None:
        self.given = Report()  # of the last give
        self.last: str | None = None  # failure of the last give or take, for users
        self._mobile = mobile
        self._stand_ins = stand_ins
        self._numbers = numbers
        self._randomness = randomness
        self._given: dict[bytes, Handover] = {}
        self._machine: FallingAsleep | Waking | None = None
        self._waiting: deque[tuple[Handover, bool]] = deque()  # to be taken back; whether it is uncertain
        self._coming: dict[bytes, Coming] = {}
        self.abandoned: list[Handover] = []  # whose stand-ins are still to be told
        # An attempt to hand an order over has ended; states of one are back; one has come back, or is not there.
        self.order_went: Callable[[FallingAsleep, float], list[Action]] = lambda _machine, _now: []
        self.order_returned: Callable[[Mapping[str, object], Addr, float], list[Action]] = (
            lambda _application, _stand_in, _now: []
        )
        self.order_back: Callable[[str, float], list[Action]] = lambda _name, _now: []

    # Reading -----------------------------------------------------------------------------------------------------

    @property
    def handovers(self) -> tuple[Handover, ...]:
        """Those that rest at a stand-in."""
        return tuple(self._given.values())

    @property
    def moving(self) -> FallingAsleep | Waking | None:
        """The current movement."""
        return self._machine

    @property
    def idle(self) -> bool:
        """True if no session moves and none waits."""
        return self._machine is None and not self._waiting

    @property
    def coming(self) -> tuple[Coming, ...]:
        """Sessions that come back beside everything else, when their programs have read."""
        return tuple(self._coming.values())

    @property
    def rests(self) -> bool:
        """True if the rest of a wake was sent back for a sleep."""
        return any(handover.coming for handover in self._given.values())

    @property
    def only_comes(self) -> bool:
        """True if only the rest of earlier wakes moves, or an order."""
        moves = [handover.coming or bool(handover.order) for handover, _ in self._waiting]
        if self._machine is not None:
            handover = self._machine.handover
            moves.append(bool(handover.order) or (isinstance(self._machine, Waking) and handover.coming))
        return all(moves)

    @property
    def settled(self) -> bool:
        """Idle, and nothing comes."""
        return self.idle and not self._coming

    def orders(self) -> Mapping[str, Addr]:
        """Stand-ins of orders that are there, or on their way, while the device is awake."""
        listed = [*self._given.values(), *(handover for handover, _ in self._waiting)]
        listed += [] if self._machine is None else [self._machine.handover]
        return {handover.order: self._address(handover) for handover in listed if handover.order}

    def resting_orders(self) -> Mapping[str, Addr]:
        """Stand-ins of those that are there, and are not being taken back."""
        return {
            handover.order: self._address(handover) for handover in self._given.values() if handover.order
        }

    def flows(self) -> frozenset[Flow]:
        """Flows that are, or may be, at a stand-in."""
        return frozenset(self.places())

    def places(self) -> Mapping[Flow, Addr]:
        """Stand-ins of these flows."""
        listed = [*self._given.values(), *(handover for handover, _ in self._waiting)]
        listed += [coming.handover for coming in self._coming.values()]
        if self._machine is not None:
            listed.append(self._machine.handover)
        return {flow: self._address(handover) for handover in listed for flow in handover.flows}

    def at(self, stand_in: Addr) -> tuple[bytes, ...]:
        """Hand-overs with this stand-in, by their identifiers."""
        listed = [*self._given.values(), *(handover for handover, _ in self._waiting if handover.coming)]
        listed += [coming.handover for coming in self.coming]
        return tuple(handover.identifier for handover in listed if handover.stand_in == stand_in)

    def dialogue(self, stand_in: Addr) -> StandInDialogue:
        """For one machine with this stand-in."""
        return StandInDialogue(stand_in, self._mobile.configuration.home_address, self._numbers)

    # Commands ----------------------------------------------------------------------------------------------------

    def give(
        self,
        selection: Selection,
        stand_in: OwnStandIn,
        *,
        elsewhere: Iterable[Flow],
        stays: Callable[[Flow], str | None],
    ) -> list[Action]:
        """Hand these sessions over, stay awake; `stays` as in a Departure. Raises NotPossible."""
        if not self.idle:
            raise NotPossible("sessions are on their way already; wait until they have arrived")
        if not stand_in.registers:
            raise NotPossible(
                f'{stand_in.name} gets packets by the default care-of address, so all or none; set handover = "register"'
            )
        departure = Departure(
            stand_in.address,
            selection,
            Takes.RULED,
            True,
            self.flows() | frozenset(elsewhere),
            self.at(stand_in.address),
            stays=stays,
        )
        dialogue = self.dialogue(stand_in.address)
        self.last = None
        machine = FallingAsleep(self._mobile, dialogue, departure, self._randomness)
        self._machine, self.given = machine, machine.report
        detail: dict[str, JSON] = {"to": stand_in.name}
        return [Emit("giving", None, self._home_address, None, detail), *machine.start()]

    def begin_order(
        self,
        name: str,
        stand_in: OwnStandIn,
        configuration: Mapping[str, object],
        application: Mapping[str, object],
    ) -> list[Action]:
        """Have this order run at the stand-in while the device is awake; nothing else moves."""
        departure = Departure(
            stand_in.address,
            NOTHING,
            Takes.RULED,
            True,
            others=self.at(stand_in.address),
            configuration=configuration,
            application=application,
            orders=frozenset((name,)),
            order=name,
        )
        dialogue = self.dialogue(stand_in.address)
        machine = self._machine = FallingAsleep(self._mobile, dialogue, departure, self._randomness)
        return machine.start()

    def end_order(self, name: str, *, now: float) -> list[Action]:
        """Take this order back, with its state; nothing else moves."""
        back = [handover for handover in self._given.values() if handover.order == name]
        self._waiting.extend((handover, False) for handover in back)
        return self._next(now)

    def take(self, selection: Selection, *, now: float) -> list[Action]:
        """Take back every hand-over that has such a session. Raises NotPossible."""
        if not self.idle:
            raise NotPossible("sessions are on their way already; wait until they have arrived")
        meant = [
            handover
            for handover in self._given.values()
            if any(selection.takes(session.flow, session.pids) for session in handover.sessions)
        ]
        if not meant:
            raise NotPossible("no such session is with a stand-in")
        self.last = None
        self._waiting.extend((handover, False) for handover in meant)
        return self._next(now)

    def undo(self, reason: str, *, now: float) -> list[Action]:
        """Turn back, if that is still possible."""
        if isinstance(self._machine, FallingAsleep) and self._machine.cancel(now=now):
            return self._machine.undo(reason, now=now)
        return self._machine.call_off(now=now) if isinstance(self._machine, Waking) else []

    def abandon(self, *, now: float) -> list[Action]:
        """Abandon sessions that are being taken back, or are coming."""
        actions = self._machine.abandon(now=now) if isinstance(self._machine, Waking) else []
        return actions + [action for coming in self.coming for action in coming.abandon()]

    def accept(self, rest: Rest, report: Report, *, now: float) -> list[Action]:
        """The rest of a wake that has ended."""
        dialogue = self.dialogue(self._address(rest.handover))
        coming = Coming(dialogue, rest, self._home_address, report)
        self._coming[rest.handover.identifier] = coming
        return coming.start(now=now)

    def send_back(self, *, now: float) -> list[Action]:
        """Send coming sessions back to their stand-in."""
        return [action for coming in self.coming for action in coming.go_back(now=now)]

    def retake(self, *, now: float) -> list[Action]:
        """Take sessions again that were sent back for a sleep."""
        back = [handover for handover in self._given.values() if handover.coming]
        for handover in back:
            del self._given[handover.identifier]
        self._waiting.extend((handover, False) for handover in back)
        return self.resume(now=now)

    def coming_elsewhere(self, stand_in: Addr) -> Addr | None:
        """A stand-in, other than this one, from which sessions are coming."""
        listed = [*self._given.values(), *(handover for handover, _ in self._waiting)]
        listed += [coming.handover for coming in self._coming.values()]
        addresses = (handover.stand_in for handover in listed if handover.coming)
        return next((address for address in addresses if address not in (None, stand_in)), None)

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, handover: Handover) -> list[Action]:
        """Restore a row; a pending movement is completed once `resume` is called."""
        if handover.stage is Stage.PREPARING:
            asked = self.dialogue(self._address(handover)).ask(Cancel(handover.identifier))
            return [*asked, handover.forget()]
        if handover.stage is Stage.RETURNED:
            self._waiting.append((handover, False))
            return [Thaw(handover.processes)] if handover.processes else []
        if handover.stage is Stage.ASLEEP:
            self._given[handover.identifier] = handover
        else:
            self._waiting.append((handover, handover.stage is Stage.LEAVING))
        frozen = handover.processes and not handover.loose
        freeze: list[Action] = [Freeze(handover.processes)] if frozen else []
        return [*freeze, *set_flows(handover.flows, FlowVerdict.SUSPEND)]

    def resume(self, *, now: float) -> list[Action]:
        """Continue waiting movements."""
        return self._next(now) if self._machine is None else []

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Handle an event of the current movement, and of coming sessions."""
        actions = [] if self._machine is None else self._machine.happened(event, now=now)
        return actions + [action for coming in self.coming for action in coming.happened(event, now=now)]

    def outcome(self, outcome: Outcome, *, now: float) -> list[Action]:
        """Handle the registration's outcome."""
        return [] if self._machine is None else self._machine.outcome(outcome, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Handle everything that is due."""
        actions = [] if self._machine is None else self._machine.timeout(now=now)
        return actions + [action for coming in self.coming for action in coming.timeout(now=now)]

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = [coming.deadline() for coming in (self._machine, *self.coming) if coming is not None]
        return min((at for at in times if at is not None), default=None)

    def follow(self, now: float) -> list[Action] | None:
        """Follow up a movement that has ended; None while none has."""
        if (ended := next((coming for coming in self.coming if coming.result is not None), None)) is not None:
            return self._came(ended, now)
        machine = self._machine
        if machine is None or machine.result is None:
            return None
        self._machine = None
        if isinstance(machine, FallingAsleep):
            return self._departed(machine, now) + self._next(now)
        return self._returned(machine, now) + self._next(now)

    def _came(self, coming: Coming, now: float) -> list[Action]:
        """Coming sessions have arrived, or rest at the stand-in, or are to be taken from the beginning."""
        del self._coming[coming.handover.identifier]
        match coming.result:
            case Rests(handover):
                self._given[handover.identifier] = handover
            case Unsure(handover):
                self._waiting.append((handover, False))
                return self.resume(now=now)
            case GivenUp(handover):
                self.abandoned.append(handover)
        return []

    # Transitions -------------------------------------------------------------------------------------------------

    @property
    def _home_address(self) -> Addr:
        return self._mobile.configuration.home_address

    def _address(self, handover: Handover) -> Addr:
        assert handover.stand_in is not None  # every hand-over that was given names it
        return handover.stand_in

    def _departed(self, machine: FallingAsleep, now: float) -> list[Action]:
        if machine.handover.order:
            match machine.result:
                case Slept(handover):
                    self._given[handover.identifier] = handover
                case Uncertain(handover, _):
                    self._waiting.appendleft((handover, True))
            return self.order_went(machine, now)
        match machine.result:
            case Slept(handover):
                self._given[handover.identifier] = handover
                return [self._told("given", "632", handover)]
            case NotSlept(reason):
                self.last = reason
                return [Emit("give-failed", "634", self._home_address, None, {"reason": reason})]
            case Uncertain(handover, reason):
                self.last = reason
                self._waiting.appendleft((handover, True))
                return [Emit("give-failed", "634", self._home_address, None, {"reason": reason})]
        return []

    def _returned(self, machine: Waking, now: float) -> list[Action]:
        if machine.handover.order:
            if isinstance(machine.result, StillAsleep):
                self._given[machine.handover.identifier] = machine.result.handover
                return []
            if isinstance(machine.result, GivenUp):
                self.abandoned.append(machine.result.handover)
            return self.order_back(machine.handover.order, now)
        match machine.result:
            case Awake(lost, rest) if rest is not None:
                told = Emit(
                    "taken-back",
                    "632",
                    self._home_address,
                    None,
                    {"lost": lost, "coming": len(rest.sessions)},
                )
                return [told, *self.accept(rest, machine.report, now=now)]
            case StillAsleep(handover):
                self._given[handover.identifier] = handover
                return [self._told("given", "632", handover)]
            case GivenUp(handover):
                self.last = "the sessions were given up"
                self.abandoned.append(handover)
                return [self._told("taken-back", "634", handover)]
        lost = machine.result.lost if machine.result is not None else 0
        if lost:
            self.last = f"{counted(lost)} lost"
        return [Emit("taken-back", "632", self._home_address, None, {"lost": lost})]

    def _told(self, kind: str, message: str, handover: Handover) -> Emit:
        detail: dict[str, JSON] = {"to": str(handover.stand_in), "sessions": len(handover.sessions)}
        return Emit(kind, message, self._home_address, None, detail)

    def _next(self, now: float) -> list[Action]:
        """The next that waits to come back."""
        if not self._waiting:
            return []
        handover, uncertain = self._waiting.popleft()
        self._given.pop(handover.identifier, None)
        dialogue = self.dialogue(self._address(handover))
        machine = self._machine = Waking(self._mobile, dialogue, handover, uncertain=uncertain)
        if handover.order:
            stand_in = self._address(handover)
            machine.returned = lambda application, at: self.order_returned(application, stand_in, at)
        if handover.stage is Stage.RETURNED:
            return machine.closing.tell()
        told = [] if handover.order else [Emit("taking-back", None, self._home_address)]
        return [*told, *machine.start(now=now)]


def stand_in_named(stand_ins: Sequence[OwnStandIn], name: str | None) -> OwnStandIn:
    """By its name or address; the first without. Raises NotPossible."""
    if not stand_ins:
        raise NotPossible("this mobile node has no stand-in; set mnps in [mobile_node]")
    for stand_in in stand_ins:
        if name is None or name in (stand_in.name, str(stand_in.address)):
            return stand_in
    names = ", ".join(stand_in.name for stand_in in stand_ins)
    raise NotPossible(f"{name} is none of this mobile node's stand-ins: {names}")
