"""Packets that come to an access node before the device that they page has registered (1210, P10, P17).

The home agent asks for it. They wait until the device answers the call, and are then delivered in order, before anything newer, as
to a visitor; without an answer they are dropped when the home agent says so, or after HOLD_SECONDS. Packets go to no other link-layer
address than that of the device's last visit: who has none here waits for its registration. It must not know the course of a page.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeVar

from locum.roles.action_values.addresses import JSON, Addr, Source
from locum.roles.action_values.page_calls import CallDecision
from locum.roles.action_values.registration import RegistrationFlag
from locum.roles.actions import Action, Answer, Asked, Count, Emit, Event
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile, Waiting
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.mobile_ipv4.page_calls import read_call_answer
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage, is_direct
from locum.wire.control.paging.redirect import PATH, Redirect1210, ToDevice, ToPaging, decode_1210
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, encode_status_answer
from locum.wire.errors import WireError

K_ = TypeVar("K_")
V_ = TypeVar("V_")

HOLD_SECONDS: Final = 60.0  # from the last message about a device; held packets grow no older
MOST_HOLDS: Final = 4096  # devices at once
MOST_KNOWN: Final = 16_384  # visits, answers and senders that are remembered; beyond, the oldest is forgotten


@dataclass(frozen=True, slots=True)
class _Held:
    """A device whose packets come here. `visitor`: as it would be one; None: its link is not known."""

    mobile: Mobile
    page: bytes | None
    visitor: Visitor | None
    listening: bool = False


@dataclass(frozen=True, slots=True)
class _Heard:
    """The device's answer to a call."""

    page: bytes
    link: str
    link_layer: bytes | None
    direct: bool = False  # it may sleep on: only a hold of this very page is for one that wakes


class PageHolds(Part):
    """The devices whose packets come here because they are paged."""

    def __init__(self, care_of_address: IPv4Address, visitors: VisitorList, flights: InFlight) -> None:
        self._care_of_address, self._visitors, self._flights = care_of_address, visitors, flights
        self._held: dict[IPv4Address, _Held] = {}
        self._due: Deadlines[IPv4Address] = Deadlines()
        self._visits: dict[IPv4Address, Visitor] = {}  # of those that left
        self._heard: dict[IPv4Address, _Heard] = {}
        self._sent: dict[tuple[Addr, IPv4Address], int] = {}  # milliseconds, by sender and device
        self.waits: Callable[[IPv4Address], bool] = lambda _home_address: False  # for its profile, say
        visitors.provisional = self.visitor
        visitors.dismissed.append(self.left)

    def visitor(self, home_address: IPv4Address) -> Visitor | None:
        """The device as a visitor that has not registered yet."""
        held = self._held.get(home_address)
        return None if held is None else held.visitor

    def left(self, visitor: Visitor) -> list[Action]:
        """A visit has ended."""
        if visitor.next_hop is None and visitor.link_layer is not None:
            _remember(self._visits, visitor.home_address, visitor)
        return []

    def admitted(self, home_address: IPv4Address) -> list[Action]:
        """The device has registered: it is a visitor like others. Call it when it is on the list."""
        if self._held.pop(home_address, None) is None:
            return []
        self._due.cancel(home_address)
        waits = self._flights.waiting(home_address) is Waiting.CALLED
        return self._flights.open(home_address) if waits else []

    # 1210 --------------------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A home agent says where packets of a device go."""
        if not isinstance(event, Asked) or event.path != PATH:
            return None
        try:
            message = decode_1210(event.body)
        except WireError as error:
            status = StatusAnswer(PagingStatus.MALFORMED, str(error))
            return [Count(f"1210-{error.reason}"), _answer(event, status)]
        homes = _homes(message)
        refusal = self._refusal(message, homes, event)
        if refusal is not None or homes is None:
            status = refusal or StatusAnswer(PagingStatus.REFUSED)
            return [Count(f"1210-{status.status.name.lower().replace('_', '-')}"), _answer(event, status)]
        _remember(self._sent, (event.peer, homes[0]), message.sent)
        if isinstance(message.to, ToPaging):
            return [*self._end(homes[0], "the home agent says so"), _answer(event, _OK)]
        return [*self._hold(message, homes, event.peer, now), _answer(event, _OK)]

    def _refusal(
        self,
        message: Redirect1210,
        homes: tuple[IPv4Address, IPv6Address | None] | None,
        event: Asked,
    ) -> StatusAnswer | None:
        if not set(message.home_addresses) <= set(event.authorised):
            return StatusAnswer(
                PagingStatus.NOT_AUTHORISED, "the association is not for these home addresses"
            )
        if homes is None or not isinstance(message.home_agent or event.peer, IPv4Address):
            return StatusAnswer(PagingStatus.REFUSED, "a device has one IPv4 home address, and a home agent")
        if message.sent < self._sent.get((event.peer, homes[0]), 0):
            return StatusAnswer(PagingStatus.STALE, "a later message is known")
        if isinstance(message.to, ToPaging):
            return None
        if not isinstance(message.to, ToDevice) or message.to.care_of != self._care_of_address:
            return StatusAnswer(
                PagingStatus.REFUSED, f"packets are held at the care-of address {self._care_of_address} alone"
            )
        visitor = self._visitors.get(homes[0])
        if self._visitors.static(homes[0]) is not None or (
            visitor is not None and visitor.next_hop is not None
        ):
            return StatusAnswer(PagingStatus.REFUSED, "a stand-in of the device has this care-of address")
        if homes[0] not in self._held and len(self._held) >= MOST_HOLDS:
            return StatusAnswer(PagingStatus.LIMIT, "packets of too many devices are held")
        return None

    def _hold(
        self,
        message: Redirect1210,
        homes: tuple[IPv4Address, IPv6Address | None],
        peer: Addr,
        now: float,
    ) -> list[Action]:
        home_address, v6 = homes
        home_agent = message.home_agent or peer
        assert isinstance(home_agent, IPv4Address)
        before = self._held.get(home_address)
        visit = self._visitors.get(home_address) or self._visits.get(home_address)
        if visit is not None:
            flags = visit.flags | int(RegistrationFlag.REVERSE_TUNNEL)
            visit = replace(
                visit, home_agent=home_agent, home_address_v6=v6, flags=flags, udp=False, revocable=None
            )
        held = _Held(Mobile(home_address, home_agent, v6), message.page, visit)
        heard = self._heard.get(home_address)
        if (
            message.page is None
            and heard is not None
            and (before is None or before.page not in (None, heard.page))
        ):
            del self._heard[home_address]  # to an earlier page: it may sleep again since
        listening = before is not None and before.listening and before.page == message.page
        held = replace(held, listening=listening or self._has_answered(held))
        self._held[home_address] = held
        self._due.set(home_address, now + HOLD_SECONDS)
        detail: dict[str, JSON] = {"listening": held.listening, "known": visit is not None}
        told = Emit("page-holding", PATH, home_address, None, detail)
        if held.listening:
            return [*self._visitors.refresh(home_address), told]
        return [*self._flights.call(held.mobile, now + HOLD_SECONDS), told]

    # The device ----------------------------------------------------------------------------------------------------

    def heard(self, message: bytes, source: Source) -> list[Action]:
        """A device's answer to a call: it listens, unless it refuses, or is not where it was."""
        try:
            if is_direct(message):
                told = DirectMessage.decode(message)
                heard = _Heard(told.page, source.link, source.link_layer, direct=True)
                return self._heard_from(told.home_address, heard) if told.kind is DirectKind.ANSWER else []
            answer = read_call_answer(message)
        except WireError:
            return []  # counted by the page
        if answer.decision is CallDecision.REFUSED:
            return []
        return self._heard_from(answer.home_address, _Heard(answer.page, source.link, source.link_layer))

    def _heard_from(self, home_address: IPv4Address, heard: _Heard) -> list[Action]:
        _remember(self._heard, home_address, heard)
        return self.look(home_address)

    def look(self, home_address: IPv4Address) -> list[Action]:
        """Deliver what waits if nothing stands against it any more."""
        held = self._held.get(home_address)
        if held is None or held.listening or not self._has_answered(held):
            return []
        self._held[home_address] = replace(held, listening=True)
        detail: dict[str, JSON] = {"link": None if held.visitor is None else held.visitor.link}
        told = Emit("page-delivering", PATH, home_address, None, detail)
        if self._flights.waiting(home_address) is not Waiting.CALLED:
            return [*self._visitors.refresh(home_address), told]
        return [*self._flights.open(home_address), told]

    def _has_answered(self, held: _Held) -> bool:
        """True if the device has answered this page from the place of its last visit."""
        heard, visitor = self._heard.get(held.mobile.home_address), held.visitor
        if self.waits(held.mobile.home_address):
            return False
        if heard is None or visitor is None or held.page not in (None, heard.page):
            return False
        if heard.direct and held.page is None:
            return False
        return (heard.link, heard.link_layer) == (visitor.link, visitor.link_layer)

    # Ends ----------------------------------------------------------------------------------------------------------

    def timeout(self, *, now: float) -> list[Action]:
        """The device has not registered in time."""
        return [
            action for home_address in self._due.due(now) for action in self._end(home_address, "in vain")
        ]

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _end(self, home_address: IPv4Address, reason: str) -> list[Action]:
        """Packets that still wait are dropped and counted; a visitor, who registered before the change came, gets them."""
        if self._held.pop(home_address, None) is None:
            return []
        self._due.cancel(home_address)
        ended = Emit("page-hold-ended", PATH, home_address, None, {"reason": reason})
        waits = self._flights.waiting(home_address) is Waiting.CALLED
        if waits and self._visitors.get(home_address) is not None:
            return [*self._flights.open(home_address), ended]
        return [*self._flights.call_off(home_address), *self._visitors.refresh(home_address), ended]


_OK: Final = StatusAnswer(PagingStatus.OK)


def _remember(among: dict[K_, V_], key: K_, value: V_) -> None:
    """Keep the value as the newest one."""
    among.pop(key, None)
    among[key] = value
    if len(among) > MOST_KNOWN:
        del among[next(iter(among))]


def _homes(message: Redirect1210) -> tuple[IPv4Address, IPv6Address | None] | None:
    """The home addresses of a device; None: they cannot be those of one."""
    v4 = [address for address in message.home_addresses if isinstance(address, IPv4Address)]
    v6 = [address for address in message.home_addresses if isinstance(address, IPv6Address)]
    return (v4[0], v6[0] if v6 else None) if len(v4) == 1 and len(v6) <= 1 else None


def _answer(asked: Asked, status: StatusAnswer) -> Answer:
    return Answer(asked.exchange, encode_status_answer(status))
