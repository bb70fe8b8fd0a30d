"""Forwarding of packets that page a device, to its access node or to an agent (1210, P10): asked for, in force, and ended.

A change towards the device is in force once the access node has answered that it holds the packets until the device listens.
Home agents ask access nodes, stand-ins ask the home agent. It must not know the course of a page.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.locations import TellLocation
from locum.roles.actions import (
    Action,
    Answer,
    Answered,
    Ask,
    Asked,
    Count,
    Emit,
    Event,
    NoAnswer,
    WallClockStepped,
)
from locum.roles.home_agent.device_location import LOCATED
from locum.roles.home_agent.forwarding_choice import Redirect
from locum.roles.home_agent.registry import Home
from locum.roles.parts import Part
from locum.roles.rules import DEFAULT
from locum.roles.timers import Deadlines
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.redirect import (
    PATH,
    Destination,
    Redirect1210,
    ToAgent,
    ToDevice,
    ToPaging,
    decode_1210,
    encode_1210,
)
from locum.wire.control.paging.rules import Address
from locum.wire.control.paging.status import (
    PagingStatus,
    StatusAnswer,
    decode_status_answer,
    encode_status_answer,
)
from locum.wire.errors import WireError

FIRST_REQUEST: Final = 1 << 36  # above the numbers of pages
LAST_REQUEST: Final = (1 << 37) - 1
ASK_SECONDS: Final = 3.0  # for the access node's answer
HOLD_SECONDS: Final = 60.0  # of a change that a stand-in wants; its packets are held no longer
MOST_SENDERS: Final = 65_536  # whose last message is remembered; beyond, the oldest is forgotten

Then = Callable[[StatusAnswer, float], list[Action]]
"""Called once with the result of a change."""


@dataclass(slots=True)
class Redirection:
    """A change towards a device. `request`: the access node has still to answer."""

    access_node: Addr
    care_of: IPv4Address
    page: bytes | None
    request: int | None = None
    in_force: bool = False
    then: list[Then] = field(default_factory=list)


@dataclass(slots=True)
class _Heard:
    """The last message of one sender about one device, and its answer; None: it has none yet."""

    message: Redirect1210
    answer: StatusAnswer | None = None
    waiting: list[int] = field(default_factory=list)  # exchanges of the same message once more


class Redirections(Part):
    """The changes of one home agent at `address`. `redirect` changes the forwarding; None: it has no room."""

    def __init__(
        self,
        address: IPv4Address,
        find: Callable[[Addr], Home | None],
        redirect: Callable[[Home, Redirect | None], list[Action] | None],
        *,
        located: bool = False,
    ) -> None:
        """With `located` a location server of this host is told of the places of devices."""
        self._address, self._find, self._redirect, self._located = address, find, redirect, located
        self._changes: dict[IPv4Address, Redirection] = {}
        self._asked: dict[int, IPv4Address | None] = {}  # None: the answer does not matter
        self._numbers = count(FIRST_REQUEST)
        self._due: Deadlines[IPv4Address] = Deadlines()
        self._heard: dict[tuple[Addr, IPv4Address], _Heard] = {}
        self._ahead = 0.0  # seconds that the wall clock is ahead of steady seconds
        self._sent = 0  # the last one, in milliseconds

    # Reading -----------------------------------------------------------------------------------------------------

    def of(self, home_address: IPv4Address) -> Redirection | None:
        """The change towards this device."""
        return self._changes.get(home_address)

    def suits(self, home: Home, access_node: Addr, care_of: Addr | None) -> bool:
        """True if packets that page the device can go to this place, where no stand-in gets those that it has taken over."""
        if not isinstance(care_of, IPv4Address) or access_node == self._address:
            return False
        taken = [one.seen_at for stand_in in home.stand_ins for one in stand_in.binding.care_of]
        return care_of not in (home.registered().default, *taken)

    # Changes -----------------------------------------------------------------------------------------------------

    def begin(
        self,
        home: Home,
        access_node: Addr,
        care_of: IPv4Address,
        then: Then,
        *,
        page: bytes | None,
        now: float,
        until: float | None = None,
    ) -> list[Action]:
        """Ask the access node to hold the device's packets; they go there once it does. `then` gets the result.

        The change ends at `until` (steady seconds), or when it is ended.
        """
        home_address = home.mobile.home_address
        held, actions = self._changes.get(home_address), []
        if held is not None and (held.access_node, held.care_of) != (access_node, care_of):
            actions += self.end(home, now=now)
            held = None
        if held is None:
            held = self._changes[home_address] = Redirection(access_node, care_of, page)
        if held.request is not None:
            self._asked.pop(held.request, None)
        held.page, held.request = page, next(self._numbers)
        held.then.append(then)
        self._asked[held.request] = home_address
        if until is not None:
            self._due.set(home_address, until)
        else:
            self._due.cancel(home_address)
        return [*actions, *self._ask(held.request, home, held, ToDevice(access_node, care_of), now)]

    def end(self, home: Home, *, now: float, text: str = "the change has ended") -> list[Action]:
        """Packets page the device again; those that its access node holds are dropped there."""
        held = self._changes.get(home.mobile.home_address)
        if held is None:
            return []
        restored = (self._redirect(home, None) or []) if held.in_force else []
        actions = [*restored, *self._forget(home, held, now, text)]
        return [*actions, *self._ask(self._unheeded(), home, held, ToPaging(), now)]

    def registered(self, home: Home, *, now: float) -> list[Action]:
        """The device has registered in full: its binding has the packets. Another access node has nothing to wait for."""
        held = self._changes.get(home.mobile.home_address)
        if held is None:
            return []
        asked = held.request is not None  # it may begin to hold behind the registration
        actions = self._forget(home, held, now, "it has registered", to="binding")
        if home.binding.access_node == held.care_of and not asked:
            return actions
        return [*actions, *self._ask(self._unheeded(), home, held, ToPaging(), now)]

    def withdrawn(self, home: Home, *, now: float) -> list[Action]:
        """The device is served no more."""
        held = self._changes.get(home.mobile.home_address)
        if held is None:
            return []
        actions = self._forget(home, held, now, "it is not served any more")
        return [*actions, *self._ask(self._unheeded(), home, held, ToPaging(), now)]

    def located(self, home: Home) -> list[Action]:
        """The device is where its packets go: for the location server of this host (P6)."""
        held = self._changes.get(home.mobile.home_address)
        if held is None or not held.in_force or not self._located:
            return []
        node, care_of = held.access_node, held.care_of
        asleep = DeviceState.ASLEEP
        found = Location1212(_homes(home), LOCATED, 0, access_node=node, care_of=care_of, state=asleep)
        return [TellLocation(found)]

    def _forget(
        self, home: Home, held: Redirection, now: float, text: str, *, to: str = "paging"
    ) -> list[Action]:
        home_address = home.mobile.home_address
        del self._changes[home_address]
        self._due.cancel(home_address)
        if held.request is not None:
            self._asked.pop(held.request, None)
        actions = self._tell(held, StatusAnswer(PagingStatus.REFUSED, text), now)
        if not held.in_force:
            return actions
        detail: dict[str, JSON] = {"to": to, "reason": text}
        return [Emit("forwarding-changed", PATH, home_address, None, detail), *actions]

    @staticmethod
    def _tell(held: Redirection, answer: StatusAnswer, now: float) -> list[Action]:
        then, held.then = held.then, []
        return [action for one in then for action in one(answer, now)]

    def _unheeded(self) -> int:
        number = next(self._numbers)
        self._asked[number] = None
        return number

    def _ask(self, number: int, home: Home, held: Redirection, to: Destination, now: float) -> list[Action]:
        self._sent = max(self._sent + 1, round((now + self._ahead) * 1000))
        message = Redirect1210(_homes(home), to, self._sent, held.page, self._address)
        detail: dict[str, JSON] = {"to": str(held.access_node), "destination": _word(to)}
        return [
            Ask(number, held.access_node, PATH, encode_1210(message), ASK_SECONDS),
            Emit("sent", PATH, home.mobile.home_address, None, detail),
        ]

    # In ----------------------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers of access nodes, and changes that stand-ins want; None for anything else."""
        match event:
            case WallClockStepped(ahead):
                self._ahead = ahead
            case Answered() | NoAnswer() if FIRST_REQUEST <= event.request <= LAST_REQUEST:
                return self._answered(event, now)
            case Asked(path="1210"):
                return self._wanted(event, now)
        return None

    def timeout(self, *, now: float) -> list[Action]:
        """End the changes whose time is over."""
        actions: list[Action] = []
        for home_address in self._due.due(now):
            home = self._find(home_address)
            if home is not None:
                actions += self.end(home, now=now, text="its time is over")
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _answered(self, event: Answered | NoAnswer, now: float) -> list[Action]:
        if event.request not in self._asked:
            return [Count("redirect-answer-late")]
        home_address = self._asked.pop(event.request)
        answer, counted = _read(event)
        if home_address is None:
            return counted
        held, home = self._changes[home_address], self._find(home_address)
        held.request = None
        if home is None:
            return counted
        if answer.status is not PagingStatus.OK:
            return [*counted, *self._refused(home, held, answer, now)]
        changed = self._redirect(home, held.care_of)
        if changed is None:
            full = StatusAnswer(PagingStatus.LIMIT, "no room in the data plane")
            return [Count("redirect-no-room"), *self._refused(home, held, full, now)]
        if not held.in_force:
            held.in_force = True
            page = None if held.page is None else held.page.hex()
            detail: dict[str, JSON] = {"to": str(held.care_of), "page": page}
            changed = [*changed, Emit("forwarding-changed", PATH, home_address, None, detail)]
        return [*changed, *self._tell(held, answer, now)]

    def _refused(self, home: Home, held: Redirection, answer: StatusAnswer, now: float) -> list[Action]:
        """Packets wait here. An access node whose answer was lost may hold some, and hears that it is over."""
        told = self._tell(held, answer, now)
        if self._changes.get(home.mobile.home_address) is not held:
            return told
        return [*self.end(home, now=now, text=answer.text or "the access node refuses"), *told]

    # Of stand-ins ------------------------------------------------------------------------------------------------

    def _wanted(self, event: Asked, now: float) -> list[Action]:
        try:
            message = decode_1210(event.body)
        except WireError as error:
            malformed = StatusAnswer(PagingStatus.MALFORMED, str(error))
            return [Count(f"1210-{error.reason}"), _answer(event.exchange, malformed)]
        homes = [self._find(address) for address in message.home_addresses]
        home = homes[0]
        if not set(message.home_addresses) <= set(event.authorised) or not event.may_trigger:
            text = "the association is not for these home addresses, or may not trigger"
            refusal = StatusAnswer(PagingStatus.NOT_AUTHORISED, text)
            return [Count("1210-not-authorised"), _answer(event.exchange, refusal)]
        if home is None or any(other is not home for other in homes):
            unknown = StatusAnswer(
                PagingStatus.UNKNOWN, "these are not the home addresses of one device here"
            )
            return [Count("1210-unknown"), _answer(event.exchange, unknown)]
        key = event.peer, home.mobile.home_address
        last = self._heard.get(key)
        if last is not None and message == last.message:
            if last.answer is not None:
                return [_answer(event.exchange, last.answer)]
            last.waiting.append(event.exchange)
            return []
        if last is not None and message.sent <= last.message.sent:
            stale = StatusAnswer(PagingStatus.STALE, "a later message is known")
            return [Count("1210-stale"), _answer(event.exchange, stale)]
        heard = _Heard(message, waiting=[event.exchange])
        self._heard.pop(key, None)
        self._heard[key] = heard
        if len(self._heard) > MOST_SENDERS:
            del self._heard[next(iter(self._heard))]
        return self._change(home, message, heard, now)

    def _change(self, home: Home, message: Redirect1210, heard: _Heard, now: float) -> list[Action]:
        def done(answer: StatusAnswer, _now: float) -> list[Action]:
            heard.answer = answer
            waiting, heard.waiting = heard.waiting, []
            return [_answer(exchange, answer) for exchange in waiting]

        if not home.asleep(now):
            return done(StatusAnswer(PagingStatus.OK, "the device is awake, and has its packets"), now)
        match message.to:
            case ToPaging():
                ended = [*self.end(home, now=now), *(self._redirect(home, None) or [])]
                return [*ended, *done(StatusAnswer(PagingStatus.OK), now)]
            case ToAgent(agent):
                return self._to_agent(home, agent, done, now)
            case ToDevice(access_node, care_of):
                if not isinstance(care_of, IPv4Address) or not self.suits(home, access_node, care_of):
                    text = "that care-of address is not one of an access node, or a stand-in has it"
                    return [Count("1210-refused"), *done(StatusAnswer(PagingStatus.REFUSED, text), now)]

                def settled(answer: StatusAnswer, at: float) -> list[Action]:
                    told = self.located(home) if answer.status is PagingStatus.OK else []
                    return [*told, *done(answer, at)]

                until = now + HOLD_SECONDS
                return self.begin(
                    home, access_node, care_of, settled, page=message.page, now=now, until=until
                )

    def _to_agent(self, home: Home, agent: Address, done: Then, now: float) -> list[Action]:
        mobile = home.mobile
        names = [
            stand_in.name
            for stand_in in home.stand_ins
            if stand_in.stand_in is not None
            and agent in (stand_in.stand_in.address, stand_in.stand_in.address_v6)
            and stand_in.binding.care_of
        ]
        if not names and agent in (mobile.stand_in, mobile.stand_in_v6) and home.registered().default:
            names = [DEFAULT]
        if not names:
            text = f"{agent} is no agent of the device here"
            return [Count("1210-unknown"), *done(StatusAnswer(PagingStatus.UNKNOWN, text), now)]
        ended = self.end(home, now=now)
        changed = self._redirect(home, names[0])
        if changed is None:
            full = StatusAnswer(PagingStatus.LIMIT, "no room in the data plane")
            return [*ended, Count("redirect-no-room"), *done(full, now)]
        detail: dict[str, JSON] = {"to": names[0], "page": None}
        told = Emit("forwarding-changed", PATH, mobile.home_address, None, detail)
        return [*ended, *changed, told, *done(StatusAnswer(PagingStatus.OK), now)]


def _read(event: Answered | NoAnswer) -> tuple[StatusAnswer, list[Action]]:
    """The answer of an access node, and the reason that is counted if it is not OK."""
    if isinstance(event, NoAnswer):
        refused = StatusAnswer(PagingStatus.REFUSED, f"the access node: {event.reason}")
        return refused, [Count("redirect-unanswered")]
    try:
        answer = decode_status_answer(event.body)
    except WireError as error:
        refused = StatusAnswer(PagingStatus.REFUSED, "the access node's answer cannot be read")
        return refused, [Count(f"redirect-{error.reason}")]
    if answer.status is PagingStatus.OK:
        return answer, []
    return answer, [Count(f"redirect-{answer.status.name.lower().replace('_', '-')}")]


def _homes(home: Home) -> tuple[Address, ...]:
    mobile = home.mobile
    if mobile.home_address_v6 is None:
        return (mobile.home_address,)
    return (mobile.home_address, mobile.home_address_v6)


def _word(to: Destination) -> str:
    return {ToDevice: "device", ToAgent: "agent", ToPaging: "paging"}[type(to)]


def _answer(exchange: int, answer: StatusAnswer) -> Answer:
    return Answer(exchange, encode_status_answer(answer))
