"""The mobile node proxy server, stand-in side of 634 and 632 (source text 504''; C2, C3, C9, C10, A12).

Requests of authorised devices in, answers and orders to the sessions out. Every request may come twice and is answered
alike. It must not know CoAP, sockets, the spool or the kernel.
"""

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.flows import OfferService
from locum.roles.action_values.forwarding import LocalEndpoint
from locum.roles.action_values.listeners import AcceptedEnded, ConnectionAccepted
from locum.roles.action_values.sessions import (
    Fetched,
    Measured,
    NotPerformed,
    Restored,
    RestoreSessions,
)
from locum.roles.action_values.sessions import Stopped as SessionsStopped
from locum.roles.actions import (
    Action,
    Answer,
    Asked,
    Count,
    Emit,
    Event,
    Persist,
)
from locum.roles.forwarding import NOTHING, changes
from locum.roles.mnps.attending import AppCheck, Attending, refuse_all
from locum.roles.mnps.configuration import StandInConfiguration as StandInConfiguration
from locum.roles.mnps.giving_back import GivingBack
from locum.roles.mnps.giving_up import GivingUp
from locum.roles.mnps.handed import HandedConnections
from locum.roles.mnps.handover import (
    Holding,
    Prepared,
    Releasing,
    Restoring,
    Stopped,
    Stopping,
    TakenOver,
)
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.keeping import Keeping
from locum.roles.mnps.leading import Leading
from locum.roles.mnps.listening import Listening
from locum.roles.mnps.ordering import Ordering
from locum.roles.mnps.paging.direct_pages import DirectPages
from locum.roles.mnps.paging.event_tables import EventTables
from locum.roles.mnps.parts import WaitingParts
from locum.roles.mnps.quotas import Quotas
from locum.roles.mnps.registration import StandInRegistration
from locum.roles.mnps.replies_632 import Replies
from locum.roles.mnps.switching import Switching
from locum.roles.mnps.taking_over import TakingOver
from locum.roles.mnps.triggering import Triggering
from locum.roles.session_words import GIVEN_UP
from locum.wire.control import (
    Abandon,
    Cancel,
    Done,
    Fetch,
    Finish,
    Reclaim,
    Request634,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_618,
    decode_634,
)
from locum.wire.errors import WireError

DROPPED = "it was dropped at the stand-in, by order"
NOT_STOPPED = "the stand-in could not take its last state"


class StandIn:
    """One stand-in and the handovers it serves."""

    def __init__(
        self, configuration: StandInConfiguration, randomness: Randomness, check_app: AppCheck = refuse_all
    ) -> None:
        """`check_app` says why a proxy that a device orders cannot run here."""
        self.configuration = configuration
        self._holdings = Holdings(configuration.address, self._tunnelling_home_agent)
        self._replies = Replies(configuration.access_node)
        self._giving_back = GivingBack(self._holdings, self._replies, configuration.quota.held_seconds)
        registers = configuration.registration
        self.registration = None if registers is None else StandInRegistration(registers, randomness)
        self._switching = Switching(self._holdings, self._replies, self._giving_back, self.registration)
        self._listening = Listening(self._holdings, configuration.max_sessions, configuration.quota.sessions)
        self._giving_up = GivingUp(self._holdings, self._replies, self._giving_back, self._switching.want)
        self._quotas = Quotas(configuration.quota, self._holdings, self._giving_up)
        self._attending = Attending(self._holdings, check_app)
        self._attending.paused = self._giving_back.apps_paused
        self._attending.unpaused = self._giving_back.busy
        self._giving_back.pause_apps = self._attending.pause
        self.taking_over = TakingOver(
            configuration,
            self._holdings,
            self._replies,
            self._switching,
            self._listening,
            self._giving_up,
            self._quotas,
            self._attending,
        )
        self.triggering = Triggering(
            configuration.address, self.registration, self._switching.want_for, self._holdings.settle
        )
        self._leading = Leading(self._holdings, self.registration, self._switching.want_for)
        kept = Keeping(
            self._holdings,
            self._giving_back,
            self._giving_up,
            self._switching,
            self._listening,
            configuration.quota.held_seconds,
        )
        self.direct_pages = DirectPages(configuration, self._holdings, self.triggering.device_at, randomness)
        self.event_tables = EventTables(
            configuration,
            self._holdings,
            self.registration,
            randomness,
            lambda home, firing, now: self.direct_pages.page(home, firing, now=now),
        )
        self.direct_pages.directed = self.event_tables.directed
        self.direct_pages.fall_back = self.event_tables.by_home_agent
        self.direct_pages.home_agent = self.event_tables.home_agent
        self._replies.events = self.event_tables.application
        self._parts = WaitingParts(
            self.direct_pages,  # first: they listen to events that concern others as well
            self.event_tables,
            *(() if self.registration is None else (self.registration,)),
            self._quotas,
            self._switching,
            self._listening,
            kept,
            self._attending,
            Ordering(self._holdings, self._attending, configuration.home_prefixes),
            HandedConnections(self._holdings, configuration.max_sessions, configuration.quota.sessions),
            self.triggering,
            self._leading,
        )
        self._switching.led = self._leading.of
        self._switching.triggered = self.triggering.wanted
        self._switching.device_at = self.triggering.device_at
        self._holdings.also_guarded = self.triggering.guarded
        self._holdings.ended = self._ended

    def _ended(self, taken: TakenOver) -> list[Action]:
        return [
            *self._listening.end(taken),
            *self._attending.end(taken),
            *self._leading.ended(taken),
            *self.event_tables.ended(taken),
        ]

    @property
    def _colocated(self) -> bool:
        """True if tunnels end at the stand-in itself."""
        registers = self.configuration.registration
        return self.configuration.colocated_home_agent is not None or (
            registers is not None and registers.colocated
        )

    def _tunnelling_home_agent(self, home_address: Addr) -> IPv4Address | None:
        """Home agent that tunnels this home address's packets to the stand-in itself; None: none does."""
        registers = self.configuration.registration
        standing = None if self.registration is None else self.registration.standing((home_address,))
        if standing is None or registers is None or not registers.colocated:
            return self.configuration.colocated_home_agent
        return standing.device.home_agent

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; the node has taken held sockets back from their holder before."""
        actions = changes(NOTHING, self.configuration.forwarding())
        actions += [OfferService(*service) for service in self.configuration.services]
        if self._colocated:
            actions.append(LocalEndpoint(self.configuration.address))
        return actions + self._parts.restore(rows, now=now)

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """Advertisements of its agents, and replies to its own registrations."""
        if self.registration is None:
            return [Count("message-unexpected")]
        return self.registration.receive(message, source, now=now) + self._parts.follow(now=now)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Requests of devices and access nodes, and results of session actions."""
        return self._happened(event, now) + self._parts.follow(now=now)

    def _happened(self, event: Event, now: float) -> list[Action]:
        if (actions := self._parts.happened(event, now=now)) is not None:
            return actions
        match event:
            case Asked(path="634"):
                return self._asked(event, now)
            case Asked(path="618"):
                return self._noticed(event)
            case Asked():
                return [Count("request-unknown"), self._replies.answer(event.exchange, Status.MALFORMED)]
            case Restored():
                return self.taking_over.restored(event)
            case ConnectionAccepted():
                self._quotas.used(event.handover)
                return self._listening.accepted(event)
            case AcceptedEnded(handover, sessions):
                taken = self._holdings.get(handover)
                if taken is None or not isinstance(taken.state, Holding):
                    return []
                return self._giving_up.some(taken, sessions, GIVEN_UP, "session-lost")
            case Measured():
                return self._giving_back.measured(event)
            case Fetched():
                return self._giving_back.fetch_done(event)
            case SessionsStopped():
                return [*self._not_stopped(event), *self._giving_back.stopped(event, now)]
            case NotPerformed():
                return self._not_performed(event.action, event.reason)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Handle everything that is due."""
        return self._parts.timeout(now=now) + self._parts.follow(now=now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._parts.deadline()

    def handovers(self) -> Collection[TakenOver]:
        """Handovers held here, for users."""
        return self._holdings.all()

    def drop(self, sessions: Iterable[tuple[bytes, int]], *, now: float) -> list[Action]:
        """End these sessions (handover, number) by command: peers are reset, devices are told."""
        by_handover: dict[bytes, set[int]] = {}
        for handover, number in sessions:
            by_handover.setdefault(handover, set()).add(number)
        actions: list[Action] = []
        for handover, numbers in by_handover.items():
            if (taken := self._holdings.get(handover)) is not None:
                actions += self._giving_up.some(taken, numbers, DROPPED, "session-dropped")
        return actions + self._parts.follow(now=now)

    # Requests ----------------------------------------------------------------------------------------------------

    def _asked(self, event: Asked, now: float) -> list[Action]:
        try:
            request = decode_634(event.body)
        except WireError as error:
            return [Count(f"takeover-{error.reason}"), self._replies.answer(event.exchange, Status.MALFORMED)]
        if isinstance(request, TakeoverPrepare):
            return self.taking_over.prepare(request, event, now)
        taken = self._find(request)
        if taken is None:
            return [self._unknown(request, event)]
        if not set(taken.home_addresses) <= set(event.authorised):
            return [
                Count("takeover-not-authorised"),
                self._replies.answer(event.exchange, Status.NOT_AUTHORISED, request.handover),
            ]
        match request:
            case TakeoverTransfer():
                return self.taking_over.transfer(request, taken, event.exchange, now)
            case Reclaim():
                self._quotas.used(taken.identifier)
                answered = self._giving_back.reclaim(taken, event.exchange, now)
                return [*self._listening.pause(taken, now), *answered]
            case Fetch():
                return self._giving_back.fetch(request, taken, event.exchange, now)
            case Finish():
                return self._finish(taken, event.exchange, now)
            case Done():
                return self._done(request, taken, event.exchange, now)
            case Cancel():
                return self._cancel(taken, event.exchange, now)
            case Abandon():
                return self._giving_up.abandon(request, taken, event.exchange, now)

    def _find(self, request: Request634) -> TakenOver | None:
        if request.handover is not None:
            return self._holdings.get(request.handover)
        return next(iter(self._holdings.of(request.home_addresses)), None)

    def _unknown(self, request: Request634, event: Asked) -> Answer:
        """A cancel may overtake its prepare, which was lost and is sent again: that is too late then."""
        over = isinstance(request, Done | Cancel | Abandon) and self._holdings.is_over(request.handover)
        if isinstance(request, Cancel | Abandon) and event.authorised:
            self._holdings.remember(request.handover)
        return self._replies.answer(
            event.exchange, Status.OK if over else Status.UNKNOWN_HANDOVER, request.handover
        )

    def _not_performed(self, action: object, reason: str) -> list[Action]:
        """The node could not do it (a full disk): back to where the device can go on, or ask again."""
        if isinstance(action, RestoreSessions):
            return self.taking_over.not_restored(action, reason)
        return self._giving_back.not_performed(action)

    def _not_stopped(self, event: SessionsStopped) -> list[Action]:
        """Reset sessions without a final state: they cannot go back."""
        taken = self._holdings.get(event.handover)
        if taken is None or not isinstance(taken.state, Stopping):
            return []
        stopped = {final.session for final in event.finals}
        failed = [session.session for session in taken.held if session.session not in stopped]
        return self._giving_up.some(taken, failed, NOT_STOPPED, "session-lost")

    def _finish(self, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        """Step 4. Where the stand-in has registered, the packets are turned away first, and then it stops."""
        closed = self._listening.pause(taken, now)
        if isinstance(taken.state, Holding) and taken.unannounced:
            closed += self._giving_up.unannounced(taken)
            taken = self._holdings.get(taken.identifier) or taken
        if taken.switch is not None and isinstance(taken.state, Holding | Releasing):
            return [*closed, *self._switching.release(taken, exchange, now)]
        return [*closed, *self._giving_back.finish(taken, exchange)]

    def _done(self, request: Done, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        """Step 5. Live sessions do not end by a message: the device has to take their final state first."""
        if request.sessions and isinstance(taken.state, Holding | Stopped):
            return self._giving_up.done(request, taken, exchange)
        if isinstance(taken.state, Restoring | Releasing | Stopping) or (
            isinstance(taken.state, Holding) and taken.held
        ):
            return [self._replies.wrong(exchange, taken)]
        answer = self._replies.answer(exchange, Status.OK, taken.identifier)
        given = self.event_tables.given(taken)
        return [*given, *self._giving_up.end(taken, now), answer, self._replies.sent("done", taken, None)]

    def _cancel(self, taken: TakenOver, exchange: int, now: float) -> list[Action]:
        match taken.state:
            case Restoring() | Releasing() | Stopping():
                return [self._replies.answer(exchange, Status.BUSY, taken.identifier)]
            case Prepared():
                return [
                    *self._giving_up.end(taken, now),
                    self._replies.answer(exchange, Status.OK, taken.identifier),
                ]
            case Holding():
                answer = self._replies.answer(exchange, Status.OK, taken.identifier)
                return [*self._listening.begin(taken), answer]
        resumed = self._giving_back.resume(taken)
        return [
            *resumed,
            *self._listening.begin(taken.at("resume", Holding())),
            *self._switching.want(taken, now),
            self._replies.answer(exchange, Status.OK, taken.identifier),
        ]

    def _noticed(self, event: Asked) -> list[Action]:
        """618'' (C6): the access node names the receiver of packets; the handover does not depend on it."""
        try:
            notice = decode_618(event.body)
        except WireError as error:
            return [Count(f"notice-{error.reason}"), self._replies.answer(event.exchange, Status.MALFORMED)]
        if not any(notice.home_address in prefix for prefix in self.configuration.home_prefixes):
            return [Count("notice-foreign"), self._replies.answer(event.exchange, Status.NOT_AUTHORISED)]
        if notice.home_address not in event.authorised:
            return [
                Count("notice-not-authorised"),
                self._replies.answer(event.exchange, Status.NOT_AUTHORISED),
            ]
        detail: dict[str, JSON] = {"responsible": notice.responsible, "node": str(notice.node)}
        return [
            self._replies.answer(event.exchange, Status.OK),
            Emit("notified", "618", notice.home_address, None, detail),
        ]
