"""Pages of a home agent's devices (P1, P4, P11, P17): what asks for a page, where it goes, and what its outcome does.

Packets that a flow rule holds (`PageTriggered`), requests of stand-ins (1172) and commands are causes. With fast paging (P10)
the packets go to the access node before, with or after the page. It must not know the course of a page, which is
`roles/paging/routine.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import Addr, Randomness
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.page_calls import CallDecision, CallReason, PageCall
from locum.roles.action_values.paging import DropPaged, PageForwarding, PageTriggered, ReleasePaged
from locum.roles.actions import Action, Answer, Answered, Asked, Count, Event, NoAnswer, WallClockStepped
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.forwarding_choice import Redirect
from locum.roles.home_agent.paging.brought import Brought
from locum.roles.home_agent.paging.places import Place, Places
from locum.roles.home_agent.paging.redirections import ASK_SECONDS, Redirections
from locum.roles.home_agent.profile_homes import KnownHome
from locum.roles.home_agent.registry import Home
from locum.roles.mobile_ipv4.page_calls import read_call_answer, write_call
from locum.roles.paging.routine import Delayed, Located, PageEnded, PageInProgress, PagingRoutine
from locum.roles.parts import Part, Parts
from locum.security.association import Replay
from locum.security.replay import difference, next_identification
from locum.wire.control.paging.cause import Cause, CommandCause, EventCause, PacketCause
from locum.wire.control.paging.outcome import (
    NO_PAGE,
    AnsweredBy,
    Outcome,
    PageAnswer,
    encode_page_answer,
)
from locum.wire.control.paging.page_request import PATH as REQUEST
from locum.wire.control.paging.page_request import Order, decode_1172
from locum.wire.control.paging.status import StatusAnswer
from locum.wire.errors import WireError

_REASONS: Mapping[type, CallReason] = {
    PacketCause: CallReason.PACKET,
    EventCause: CallReason.EVENT,
    CommandCause: CallReason.COMMAND,
}

_FORWARDING: Mapping[Order | None, PageForwarding | None] = {
    None: None,
    Order.BEFORE: PageForwarding.BEFORE,
    Order.WITH: PageForwarding.WITH,
    Order.AFTER: PageForwarding.AFTER,
}

QUIET_FAILED: Final = 1.0  # seconds without pages by packets, after one in vain
QUIET_MOST: Final = 5.0  # after which the limits are looked at again


@dataclass(frozen=True, slots=True)
class NotPaged(Exception):
    """A command to page a device that is not served, or is awake."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class HomePaging(Part):
    """Pages of the devices in `homes`."""

    def __init__(
        self,
        homes: Mapping[IPv4Address, Home],
        configuration: HomeAgentConfiguration,
        randomness: Randomness,
        redirect: Callable[[Home, Redirect | None], list[Action] | None],
        profile_of: Callable[[IPv4Address], KnownHome | None] = lambda _home_address: None,
    ) -> None:
        """`redirect` changes the forwarding of packets that page a device; None: there is no room for it."""
        self._brings = Brought(configuration, profile_of)
        self._homes, self._forwarding = homes, configuration.page_forwarding
        self._ahead = 0.0  # seconds that the wall clock is ahead of steady seconds
        self._of_v6: dict[Addr, IPv4Address] | None = None  # of all devices; made when it is first needed
        self._prepared: dict[
            Addr, tuple[bytes, int]
        ] = {}  # attempts of pages that forwarding has gone before
        self._paged_at: dict[Addr, Place] = {}  # by the last attempt
        self._called: dict[IPv4Address, int] = {}  # identification of the last call
        self.routine = PagingRoutine(
            configuration.pages, randomness, self._locate, self._concluded, self._genuine
        )
        self.routine.reached = self._reached
        self.redirections = Redirections(
            configuration.address, self._home, redirect, located=configuration.located
        )
        self._places = Places(configuration.location_server, self._resume)
        self._parts = Parts(self.redirections, self._places)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Packets, requests and answers that are about pages."""
        if isinstance(event, PageTriggered):
            return self._by_packet(event, now)
        if isinstance(event, WallClockStepped):
            self._ahead = event.ahead
        if (actions := self._parts.happened(event, now=now)) is not None:
            return actions
        if isinstance(event, Answered | NoAnswer):
            return self.routine.happened(event, now=now)
        if isinstance(event, Asked) and event.path == REQUEST:
            return self._by_request(event, now)
        return None

    def timeout(self, *, now: float) -> list[Action]:
        """Attempts and ends that are due."""
        return [*self._parts.timeout(now=now), *self.routine.timeout(now=now)]

    def deadline(self) -> float | None:
        """Steady seconds."""
        times = (self._parts.deadline(), self.routine.deadline())
        return min((at for at in times if at is not None), default=None)

    def command(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """Page the device for a person. Raises NotPaged."""
        home = self._homes.get(home_address)
        if home is None:
            raise NotPaged(f"{home_address} is not served here")
        if not home.asleep(now):
            raise NotPaged(f"{home_address} is awake: it is registered")
        return self.routine.page(home_address, CommandCause(), now=now)

    def registered(self, home: Home, *, now: float) -> list[Action]:
        """The device has registered, in full or for a very short time only."""
        if home.asleep(now):
            return []
        return [
            *self.redirections.registered(home, now=now),
            *self.routine.registered(home.mobile.home_address, now=now),
        ]

    def served(self, mobile: Mobile, before: Mobile | None = None) -> None:
        """The device is served from now on, or in another way than `before`."""
        if self._of_v6 is None:
            return
        if before is not None and before.home_address_v6 is not None:
            self._of_v6.pop(before.home_address_v6, None)
        if mobile.home_address_v6 is not None:
            self._of_v6[mobile.home_address_v6] = mobile.home_address

    def withdrawn(self, home: Home, *, now: float) -> list[Action]:
        """The home address is not served any more."""
        self._called.pop(home.mobile.home_address, None)
        if self._of_v6 is not None and home.mobile.home_address_v6 is not None:
            self._of_v6.pop(home.mobile.home_address_v6, None)
        return [
            *self.redirections.withdrawn(home, now=now),
            *self.routine.withdrawn(home.mobile.home_address, now=now),
        ]

    # Causes ------------------------------------------------------------------------------------------------------

    def _by_packet(self, event: PageTriggered, now: float) -> list[Action]:
        home = self._home(event.home_address)
        if home is None or not home.asleep(now):
            return [ReleasePaged(event.home_address)]  # it has woken, or gone, meanwhile
        cause = PacketCause(event.rule, event.flow, event.packet)
        return self.routine.page(home.mobile.home_address, cause, now=now)

    def _by_request(self, event: Asked, now: float) -> list[Action]:
        try:
            asked = decode_1172(event.body)
        except WireError as error:
            return [Count(f"1172-{error.reason}"), _answer(event, NO_PAGE, Outcome.MALFORMED)]
        home = self._home(asked.home_address)
        if home is None:
            return [_answer(event, asked.page, Outcome.UNKNOWN)]
        if asked.home_address not in event.authorised:
            return [Count("1172-not-authorised"), _answer(event, asked.page, Outcome.NOT_AUTHORISED)]
        if not home.asleep(now):
            return [_answer(event, asked.page, Outcome.REACHED)]
        cause = EventCause(asked.event.app, asked.event.kind)
        requester = (event.exchange, asked.page)
        forwarding = _FORWARDING[asked.order]
        return self.routine.page(
            home.mobile.home_address, cause, now=now, requester=requester, forwarding=forwarding
        )

    def _home(self, home_address: Addr) -> Home | None:
        """The device with this home address of either family."""
        if isinstance(home_address, IPv4Address):
            return self._homes.get(home_address)
        if self._of_v6 is None:
            every = (home.mobile for home in self._homes.values())
            self._of_v6 = {it.home_address_v6: it.home_address for it in every if it.home_address_v6}
        found = self._of_v6.get(home_address)
        return None if found is None else self._homes.get(found)

    # Where it goes, and its outcome ------------------------------------------------------------------------------

    def _locate(self, page: PageInProgress, now: float) -> Located | Delayed | None:
        """The place of the device, with a call that is signed for it; forwarding goes before or with the page."""
        home = self._home(page.home_address)
        if home is None or not home.signs(now):
            return None
        place = self._places.of(page, home, now)
        if not isinstance(place, Place):
            return place
        fast = self._fast(page, home, place)
        beside: list[Action] = []
        if fast is PageForwarding.BEFORE and self._prepared.get(page.home_address) != _attempt(page):
            self._prepared[page.home_address] = _attempt(page)
            return Delayed(tuple(self._redirect(page, home, place, now)), ASK_SECONDS + 1)
        if fast is PageForwarding.WITH:
            beside = self._redirect(page, home, place, now)
        self._paged_at[page.home_address] = place
        return Located(
            place.access_node,
            place.way or home.left.way,
            self._brings.provision(home),
            call=self._call(page, home, now, forwarded=fast is not PageForwarding.REGISTRATION),
            beside=tuple(beside),
        )

    def _call(self, page: PageInProgress, home: Home, now: float, *, forwarded: bool) -> bytes:
        # It is after every registration that the device has made, in whatever time its own clock has.
        # It is after the last call too, where the clock has been set back.
        known = None if home.association.replay is Replay.NONCE else home.binding.identification
        last = self._called.get(home.mobile.home_address)
        if last is not None and (known is None or difference(last, known) > 0):
            known = last
        identification = next_identification(now + self._ahead, known)
        self._called[home.mobile.home_address] = identification
        reason = _REASONS[type(page.cause)]
        call = PageCall(
            page.identifier,
            home.mobile.home_address,
            identification,
            reason,
            forwarded=forwarded,
            allocation=self._brings.allocation(home),
            detail=_in_words(page.cause),
        )
        return write_call(call, home.association)

    def _resume(self, home_address: Addr, now: float) -> list[Action]:
        return self.routine.resume(home_address, now=now)

    # Fast paging -------------------------------------------------------------------------------------------------

    def _fast(self, page: PageInProgress, home: Home, place: Place) -> PageForwarding:
        """Time at which forwarding changes for this attempt of the page."""
        wanted = page.forwarding or home.mobile.page_forwarding or self._forwarding
        paging = any(rule.verdict is RuleVerdict.PAGE for rule in home.matched())
        if not paging or not self.redirections.suits(home, place.access_node, place.care_of):
            return PageForwarding.REGISTRATION
        return wanted

    def _redirect(self, page: PageInProgress, home: Home, place: Place, now: float) -> list[Action]:
        """Ask the access node to hold the packets. A page that has waited for that goes on, whatever the answer."""

        def done(_answer: StatusAnswer, at: float) -> list[Action]:
            return self._resume(page.home_address, at)

        assert isinstance(place.care_of, IPv4Address)
        return self.redirections.begin(
            home, place.access_node, place.care_of, done, page=page.identifier, now=now
        )

    def _reached(self, page: PageInProgress, now: float) -> list[Action]:
        """The device has answered, or its access node for it."""
        home, place = self._home(page.home_address), self._paged_at.get(page.home_address)
        if home is None or place is None:
            return []
        if self._fast(page, home, place) is PageForwarding.AFTER:
            return self._redirect(page, home, place, now)
        return self.redirections.located(home) if page.answered_by is AnsweredBy.MOBILE_NODE else []

    def _genuine(self, page: PageInProgress, answer: PageAnswer) -> bool:
        """True if the device has signed this answer to this page."""
        home = self._home(page.home_address)
        try:
            said = read_call_answer(answer.proof)
        except WireError:
            return False
        if home is None or (said.page, said.home_address) != (page.identifier, home.mobile.home_address):
            return False
        refused = answer.outcome is Outcome.REFUSED
        if refused is not (said.decision is CallDecision.REFUSED):
            return False
        return said.proof is not None and said.proof.holds(home.association)

    def _concluded(self, ended: PageEnded) -> list[Action]:
        page = ended.page
        answers: list[Action] = [
            Answer(
                exchange,
                encode_page_answer(PageAnswer(identifier, ended.outcome, page.answered_by, ended.text)),
            )
            for exchange, identifier in page.requesters
        ]
        self._prepared.pop(page.home_address, None)
        self._paged_at.pop(page.home_address, None)
        self._places.ended(page.home_address)
        if ended.outcome is Outcome.REACHED:
            return answers  # the packets have gone out with the change of the binding
        home = self._home(page.home_address)
        restored: list[Action] = []
        if home is not None and not ended.limited:
            restored = self.redirections.end(home, now=ended.at, text="the page has failed")
        homes = [page.home_address]
        if home is not None and home.mobile.home_address_v6 is not None:
            homes.append(home.mobile.home_address_v6)
        quiet = min(ended.limited, QUIET_MOST) if ended.limited else QUIET_FAILED
        return [*restored, *(DropPaged(address, quiet) for address in homes), *answers]


def _attempt(page: PageInProgress) -> tuple[bytes, int]:
    return page.identifier, page.attempt


def _answer(asked: Asked, page: bytes, outcome: Outcome) -> Answer:
    return Answer(asked.exchange, encode_page_answer(PageAnswer(page, outcome)))


def _in_words(cause: Cause) -> str:
    """The cause for users of the device."""
    match cause:
        case PacketCause(flow=flow):
            return str(flow)
        case EventCause(app, kind):
            return "".join(sign for sign in f"{kind} of {app}" if sign.isprintable())
    return ""
