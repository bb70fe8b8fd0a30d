"""Paging information of a device at its home agent (1204) and at its stand-in (1206): what there is, and when it is told.

It is told before the device is gone, and after each change. Rules are in force while the device has no full registration: it
falls asleep with a very short one (`has_rules`). A node that is silent holds a sleep up for PATIENCE seconds and no longer. This module must not know how packets or events are matched.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import AppOrder
from locum.roles.actions import (
    Action,
    Answered,
    Emit,
    Event,
    Forget,
    NoAnswer,
    Persist,
    WallClockStepped,
)
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.mobile_node.paging.configuration import PagingConfiguration
from locum.roles.mobile_node.paging.open_flows import OpenFlows
from locum.roles.mobile_node.paging.telling import TABLE, Telling, Told
from locum.roles.mobile_node.paging.wishes import MAX_WISHES, Wish
from locum.roles.mobile_node.states import ComingUp, Down, SendingBack, SleepState, Up
from locum.roles.parts import Part, Parts, readable
from locum.roles.registrant.attachment import Attachment, Outcome, RegistrationAccepted
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control import Flow
from locum.wire.control.paging.entry import MAX_ENTRIES, Entry
from locum.wire.control.paging.event_table import PATH as TABLE_PATH
from locum.wire.control.paging.event_table import EventTable1206, Operation
from locum.wire.control.paging.page_rules import PATH as RULES_PATH
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204
from locum.wire.control.paging.rules import PageAction, PageRule
from locum.wire.control.paging.status import MAX_ITEMS, MAX_LIFETIME
from locum.wire.control.paging.way import Way

FIRST_RULES, FIRST_TABLES, _END = 1 << 59, 1 << 60, 1 << 61
"""Numbers of requests with 1204 and with 1206. The part comes before others that have such numbers."""
PATIENCE = 3.0
"""Seconds that a sleep waits for the answers: CoAP has sent each message twice by then."""
_LEAST_RENEWAL = 60.0
"""Seconds after which a short lifetime is renewed, at the least; otherwise after half of it."""

UNHEARD = "it was sent, but no answer reaches a device that sleeps"


class WishRefused(Exception):
    """A wish that cannot be; the message is for users."""


@dataclass(frozen=True, slots=True)
class Standing:
    """State of one wish, for users: "in force", or the reason why it is not."""

    wish: Wish
    in_force: bool
    reason: str = ""


class OwnPaging(Part):
    """Of one device. `apps` are the proxies that the next sleep asks for, `given` the flows that were given before it."""

    def __init__(
        self,
        mobile: RegistrationClient,
        stand_ins: Sequence[OwnStandIn],
        apps: Callable[[], Iterable[AppOrder]],
        configuration: PagingConfiguration,
        way: Callable[[], Way | None] = lambda: None,
        given: Callable[[], Mapping[Flow, Addr]] = dict,
    ) -> None:
        self.configuration = configuration
        self.offset = configuration.offset or 0
        """Minutes that the device's clock is ahead of UTC."""
        self._mobile, self._apps, self._way = mobile, apps, way
        self._given = given
        self._open = OpenFlows(several=len(stand_ins) > 1)
        self._said: tuple[PageRule, ...] = ()  # the rules that were told last
        self._wishes: dict[int, Wish] = {}
        tables = count(FIRST_TABLES)

        def telling(path: str, peer: Callable[[], Addr], numbers: "count[int]") -> Telling:
            return Telling(path, peer, numbers, lambda: mobile.configuration.home_address)

        self.home_agent = telling(RULES_PATH, lambda: mobile.configuration.home_agent, count(FIRST_RULES))
        self.tables = {
            stand_in.address: telling(TABLE_PATH, lambda at=stand_in.address: at, tables)  # type: ignore[misc]
            for stand_in in stand_ins
        }
        self._parts = Parts(self.home_agent, *self.tables.values())
        self._place: Addr | None = next(iter(self.tables), None)
        self._asleep = False  # or about to be
        self._down = False
        self._attachment: Attachment | None = None  # of the last registration
        self._due = False
        self._renew_at: float | None = None
        self._wait_until: float | None = None
        self._silent = False  # a node has held this sleep up long enough
        self._ahead = 0.0

    # Wishes ------------------------------------------------------------------------------------------------------

    def all(self) -> Collection[Wish]:
        """Every wish, by number."""
        return [self._wishes[number] for number in sorted(self._wishes)]

    def standings(self) -> list[Standing]:
        """Every wish with its state."""
        return [self._standing(wish) for wish in self.all()]

    def add(self, wish: Wish, *, now: float) -> tuple[Wish, list[Action]]:
        """Keep it, and tell it at once; the wish with its number. Raises WishRefused."""
        made, kept = self._keep(wish)
        return made, [*kept, *self._changed(now)]

    def _keep(self, wish: Wish) -> tuple[Wish, list[Action]]:
        if (known := self._same(wish)) is not None and (wish.once or not known.once):
            raise WishRefused(f"wish {known.number} is the same")
        number = next((n for n in range(1, MAX_WISHES + 1) if n not in self._wishes), None)
        if number is None:
            raise WishRefused(f"there are {MAX_WISHES} wishes; remove one with `locum wake-on remove`")
        made = replace(wish, number=number)
        if made.entry is not None and not self.tables:
            raise WishRefused(
                "events come from proxies at a stand-in, and this device has none; set mnps in [mobile_node]"
            )
        self._wishes[number] = made
        if len(self._own_rules) > MAX_ITEMS or len(self._entries()) > MAX_ENTRIES:
            del self._wishes[number]
            raise WishRefused(
                f"a device has at most {MAX_ITEMS} page rules and {MAX_ENTRIES} entries of events"
            )
        added = Emit("wish-added", None, self._mobile.configuration.home_address, None, {"wish": made.text})
        return made, [Persist(TABLE, _key(number), made.to_row()), added]

    def remove(self, number: int, *, now: float) -> tuple[Wish, list[Action]]:
        """Forget it, and tell that at once. Raises WishRefused."""
        wish = self._wishes.pop(number, None)
        if wish is None:
            raise WishRefused(f"there is no wish {number}; `locum wake-on list` has all")
        gone = Emit("wish-removed", None, self._mobile.configuration.home_address, None, {"wish": wish.text})
        return wish, [Forget(TABLE, _key(number)), gone, *self._changed(now)]

    def _same(self, wish: Wish) -> Wish | None:
        """The wish that asks for the same, if there is one."""
        fresh = replace(wish, number=0, once=False)
        return next((known for known in self.all() if replace(known, number=0, once=False) == fresh), None)

    @property
    def settled(self) -> bool:
        """True while no answer is awaited, or about to be."""
        return not (self._due and self._reachable) and all(
            telling.state is not Told.ASKED for telling in self.tellings
        )

    @property
    def tellings(self) -> tuple[Telling, ...]:
        """To the home agent, and to each stand-in."""
        return (self.home_agent, *self.tables.values())

    # Sleep and wake ----------------------------------------------------------------------------------------------

    def leaving(self, stand_in: Addr, *, now: float, until: Wish | None = None) -> list[Action]:
        """The device is about to sleep at this stand-in: both nodes are told while their answers can arrive.

        `until` is a wish for this sleep. Raises WishRefused.
        """
        new = until is not None and self._same(until) is None
        kept = self._keep(replace(until, once=True))[1] if until is not None and new else []
        self._asleep, self._place = True, stand_in
        self._wait_until, self._silent = now + PATIENCE, False
        self._open.clear()
        for telling in self.tellings:
            telling.forget_said()  # it is told anew: a lifetime begins, and a node that has lost it gets it again
        return [*kept, *self._tell(now)]

    def go(
        self, flows: Collection[Flow], staying: Collection[Flow], stand_in: Addr, now: float
    ) -> list[Action]:
        """These connections go to the stand-in, and those stay: the home agent is told if that changes its rules."""
        self._open.go(flows, stand_in)
        self._open.stay(staying)
        if self._page_rules().rules == self._said:
            return []
        self._wait_until = None if self._silent else now + PATIENCE
        return self._tell(now)

    @property
    def open_problems(self) -> list[str]:
        """Sentences about open connections that may wake the device, for users."""
        return self._open.problems

    @property
    def may_go(self) -> bool:
        """True if the answers are there, or have been waited for long enough."""
        return self._wait_until is None or self.settled

    def entered(self, state: SleepState) -> None:
        """Handle a new state."""
        if isinstance(state, Up) and self._asleep:
            self._asleep, self._due = False, True
            self._open.clear()
        elif isinstance(state, Down | ComingUp) and not self._asleep:  # since an earlier run of the daemon
            self._asleep = True
            self._due = any(not telling.taken for telling in self.tellings)
        self._down = isinstance(state, Down)
        if isinstance(state, Down):
            self._place = state.handover.stand_in or self._place
            if self._place is not None:
                self._open.go(state.handover.flows, self._place)
        if not isinstance(state, SendingBack):
            self._wait_until = None

    def outcome(self, outcome: Outcome) -> None:
        """Handle an outcome of the registration: at a new place silent nodes may be reached."""
        if not isinstance(outcome, RegistrationAccepted) or not outcome.lifetime or self._asleep:
            return
        registered = self._mobile.registered
        place = None if registered is None else registered.attachment
        moved, self._attachment = place != self._attachment, place
        if moved and any(telling.state is Told.UNANSWERED for telling in self.tellings):
            self._due = True

    # As a part of the role ---------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Wishes of an earlier run, and nodes that were told something."""
        _found, actions = readable(rows, TABLE, self._restore)
        self._due = True
        return actions

    def _restore(self, row: Persist) -> None:
        kind, _, name = row.key.partition(" ")
        if kind == "wish":
            wish = Wish.from_row(int(name), row.value)
            self._wishes[wish.number] = wish
            return
        telling = {telling.key: telling for telling in self.tellings}[row.key]
        telling.restore_row(row)
        if telling is not self.home_agent:
            self._place = telling.peer

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers to what was told."""
        if isinstance(event, WallClockStepped):
            self._ahead = event.ahead  # of interest to others too
            return None
        if not isinstance(event, Answered | NoAnswer) or not FIRST_RULES <= event.request < _END:
            return None
        actions = self._parts.happened(event, now=now) or []  # a later message has taken its place
        granted = self.home_agent.granted
        if granted:
            self._renew_at = now + max(granted / 2, _LEAST_RENEWAL)
            self.home_agent.granted = None
        refusal, self.home_agent.refusal = self.home_agent.refusal, None
        if refusal is not None and self._open.refused(refusal):
            actions += self._tell(now)
        return actions

    def timeout(self, *, now: float) -> list[Action]:
        """Tell what is due."""
        actions = self._parts.timeout(now=now)
        if self._wait_until is not None and self._wait_until <= now:
            self._wait_until, self._silent = None, not self.settled
        if self._renew_at is not None and self._renew_at <= now:
            self._renew_at, self._due = None, True
            self.home_agent.forget_said()
        if not self._due or not self._reachable:
            return actions
        if not self._asleep:
            actions += self._drop_single(now)
        return [*actions, *self._tell(now)]

    def deadline(self) -> float | None:
        """Steady seconds; what is due is due as soon as the nodes can be reached."""
        if self._due and self._reachable:
            return 0.0
        times = (self._parts.deadline(), self._wait_until, self._renew_at)
        return min((at for at in times if at is not None), default=None)

    @property
    def has_rules(self) -> bool:
        """True if the device says something about its packets while it sleeps."""
        return bool(self._own_rules) or self.configuration.otherwise is not PageAction.AGENT

    # Content -----------------------------------------------------------------------------------------------------

    @property
    def _reachable(self) -> bool:
        """True if answers can come back: a device that is up is registered."""
        return self._asleep or self._mobile.registered is not None

    def _changed(self, now: float) -> list[Action]:
        if self._reachable:
            return self._tell(now)
        self._due = True
        return []

    def _drop_single(self, now: float) -> list[Action]:
        """Forget the wishes for one sleep: it is over."""
        over = [number for number, wish in self._wishes.items() if wish.once]
        for number in over:
            del self._wishes[number]
        return [Forget(TABLE, _key(number)) for number in over]

    def _tell(self, now: float) -> list[Action]:
        self._due = False
        at = round((now + self._ahead) * 1000)
        rules = self._page_rules()
        self._said = rules.rules
        if not self.has_rules:
            rules = replace(rules, lifetime=0)
        actions = self._told(self.home_agent, rules, self.has_rules, at, now)
        for place, telling in self.tables.items():
            here = place == self._place
            table = self._event_table() if here else EventTable1206(self._homes, Operation.REPLACE, 0)
            says = bool(table.entries or table.rules or table.information)
            actions += self._told(telling, table, says, at, now)
        return actions

    def _told(
        self, telling: Telling, message: PageRules1204 | EventTable1206, left: bool, at: int, now: float
    ) -> list[Action]:
        peers = self.configuration.peers
        if peers is not None and telling.peer not in peers:
            if left:
                telling.cannot()
            return []
        return telling.tell(message, left=left, at=at, now=now)

    @property
    def _homes(self) -> tuple[Addr, ...]:
        return self._mobile.configuration.home_addresses

    @property
    def _own_rules(self) -> tuple[PageRule, ...]:
        """Of the configuration, and of wishes."""
        wished = [rule for wish in self.all() if (rule := wish.rule) is not None]
        return (*self.configuration.rules, *wished)

    def _page_rules(self) -> PageRules1204:
        rules = self._own_rules
        return PageRules1204(
            self._homes,
            self._open.before(rules, self._given()) if self._asleep else rules,
            self.configuration.otherwise,
            MAX_LIFETIME,
            DeviceState.ASLEEP if self._down else DeviceState.AWAKE,
            0,
            self._way(),
            self.configuration.agent,
        )

    def _entries(self) -> tuple[Entry, ...]:
        apps = tuple(self._apps())
        wished = (entry for wish in self.all() for entry in wish.entries(apps))
        return (*self.configuration.entries, *wished)

    def entries_of(self, wish: Wish) -> tuple[Entry, ...]:
        """Entries of a wish in the table; none if there is no proxy that could emit its events."""
        return wish.entries(tuple(self._apps()))

    def _event_table(self) -> EventTable1206:
        entries, rules = self._entries()[:MAX_ENTRIES], self.configuration.agent_rules
        information: Mapping[str, object] = self.configuration.information
        offset = self.offset if any(entry.limits.quiet for entry in entries) else 0
        if not entries:
            information = {}
        return EventTable1206(self._homes, Operation.REPLACE, 0, entries, (), information, offset, rules)

    def _standing(self, wish: Wish) -> Standing:
        """A wish is in force if every node that it needs has taken all of it."""
        needed = [] if wish.rule is None else [self.home_agent]
        if wish.entry is not None:
            if not self.entries_of(wish):
                return Standing(wish, False, f"there is no proxy of the kind {wish.proxy}")
            needed += [self.tables[self._place]] if self._place in self.tables else []
        for telling in needed:
            for refusal in telling.refused:
                if wish.owns(refusal.item):
                    return Standing(wish, False, f"{telling.peer} has refused it: {refusal.reason}")
            if telling.state is Told.UNANSWERED and self._down:
                return Standing(wish, False, UNHEARD)
            if telling.state is not Told.TAKEN:
                return Standing(wish, False, telling.text or _WORDS[telling.state])
        return Standing(wish, True)


_WORDS: Mapping[Told, str] = {
    Told.NOTHING: "it has not been told yet",
    Told.ASKED: "no answer yet",
    Told.REFUSED: "refused",
    Told.UNANSWERED: "no answer",
    Told.NO_ASSOCIATION: "no association",
}


def _key(number: int) -> str:
    return f"wish {number}"
