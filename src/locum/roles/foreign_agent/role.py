"""The foreign agent of an access node (RFC 5944 section 3.7; source text 507): messages and actions.

It joins its parts: visitor list, relay of registrations (601-604), revocation, probing, contexts and their transfer,
policy, and advertiser. It must not know sockets, the store or the kernel, nor the keys between a mobile node and its home
agent.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.forwarding import LocalEndpoint
from locum.roles.actions import (
    Action,
    Ask,
    Count,
    DeliveryMoved,
    Emit,
    Event,
    LinkDown,
    LinkUp,
    NoAnswer,
    Persist,
    Reply,
)
from locum.roles.foreign_agent.admission import Admission
from locum.roles.foreign_agent.advertising import Advertiser, Supported
from locum.roles.foreign_agent.classifier_pages import Classified, ClassifierPages
from locum.roles.foreign_agent.configuration import (
    ForeignAgentConfiguration,
    StaticVisitor,
)
from locum.roles.foreign_agent.configured_filters import policed, with_filters
from locum.roles.foreign_agent.contexts.book import ContextBook, KnownMobiles
from locum.roles.foreign_agent.contexts.context import classifier_rule, known_in_advance
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile
from locum.roles.foreign_agent.contexts.membership import Memberships
from locum.roles.foreign_agent.contexts.transfer import ContextTransfer
from locum.roles.foreign_agent.filter_room import FilterRoom
from locum.roles.foreign_agent.nat import AgentTraversal
from locum.roles.foreign_agent.page_delivery import PageDelivery
from locum.roles.foreign_agent.paged_arrivals import PagedArrivals
from locum.roles.foreign_agent.pages.holds import PageHolds
from locum.roles.foreign_agent.pages.profiles import PageProfiles
from locum.roles.foreign_agent.probing import Probing
from locum.roles.foreign_agent.relay import Concluded, RegistrationRelay
from locum.roles.foreign_agent.visitor import Visitor, translated_forwarding
from locum.roles.foreign_agent.visitor_keys import VisitorKeys
from locum.roles.foreign_agent.visitor_list import VisitorExpiry, VisitorList
from locum.roles.foreign_agent.visitor_locations import VisitorLocations
from locum.roles.foreign_agent.visitor_policy import PolicedVisitor, VisitorPolicy
from locum.roles.foreign_agent.visitor_revocation import VisitorRevocation
from locum.roles.forwarding import NOTHING, changes
from locum.roles.mobile_ipv4.messages import Kind, kind_of
from locum.roles.mobile_ipv4.page_calls import is_experimental
from locum.roles.mobile_ipv4.revocations import read_revocation
from locum.roles.parts import Parts
from locum.security.association import Association
from locum.wire.control import Notice618, encode_618
from locum.wire.errors import WireError

NOTICE_TIMEOUT = 3.0  # seconds for a 618


class ForeignAgent:
    """One foreign agent, its pending registrations and its visitors."""

    def __init__(
        self,
        configuration: ForeignAgentConfiguration,
        home_agents: Mapping[Addr, Association],
        mobiles: Mapping[Addr, Association],
        static: Iterable[StaticVisitor],
        randomness: Randomness,
    ) -> None:
        self.configuration = configuration
        care_of = configuration.care_of_address
        self._traversal = AgentTraversal(
            care_of,
            configuration.nat_traversal,
            configuration.keepalive,
            home_agents,
            lambda: {
                visitor.home_agent: visitor.home_address for visitor in self._visitors.all() if visitor.udp
            },
        )
        self._revocation = VisitorRevocation(care_of, home_agents, enabled=configuration.revocation)
        self._leaving = False
        self._parting: dict[IPv4Address, Visitor] = {}  # revoked by us, until the home agent has answered
        self.contexts = ContextBook(known_in_advance(configuration.contexts, mobiles))
        known = KnownMobiles(mobiles, self.contexts)
        self._admission = Admission(
            care_of,
            configuration.registration_lifetime,
            configuration.challenge,
            known,
            home_agents=None if configuration.open or not home_agents else frozenset(home_agents),
            assigns=configuration.assigns,
            minimal=configuration.minimal_encapsulation,
        )
        links, room = tuple(link.name for link in configuration.links), configuration.room
        filter_room = FilterRoom(configuration.filter_room if configuration.may_filter else None)
        self._visitors = VisitorList(
            care_of,
            static,
            tuple(home_agents),
            min(configuration.max_visitors, configuration.max_visitors if room is None else room),
            configuration.short_lifetime,
            links.__contains__,
            filter_room,
        )
        self._visitors.adjust(policed(configuration.filters))
        keys = VisitorKeys(configuration.visitor_keys, home_agents, randomness)
        self._relay = RegistrationRelay(care_of, self._visitors, self._admission, home_agents, known, keys)
        self._relay.additions += [
            self._traversal.fill,
            self._revocation.fill,
            keys.fill,
        ]
        self._probing = Probing(configuration.probing, self._visitors.get, self._visitors.all, care_of)
        self._flights = InFlight(
            care_of, self._visitors, configuration.tunnel_silence, configuration.hold_patience
        )
        self._visitors.adjust(self.contexts.police)
        self._policy = VisitorPolicy(self.contexts, self._visitors, enabled=configuration.policy)
        self._policy.revoke = self._disconnect
        self._memberships = Memberships(
            configuration.upstream, links, self._visitors, self.contexts, self._flights
        )
        self._transfer = ContextTransfer(
            care_of,
            configuration.access_nodes,
            self._visitors,
            self.contexts,
            self._flights,
            self._memberships,
            self._notice_in_reach,
            configuration.short_lifetime,
        )
        filter_room.expect(lambda: self._policy.asked + self._transfer.asked)
        self._relay.heralds.append(
            lambda asked, named, now: self._transfer.requesting.relayed(asked, named, now=now)
        )
        self._advertiser = Advertiser(
            configuration.links,
            care_of,
            configuration.advertise_interval,
            configuration.registration_lifetime,
            configuration.challenge,
            randomness,
            self._visitors,
            self._supported(),
            configuration.nai,
        )
        self._locations = VisitorLocations(configuration.reporting, care_of, configuration.short_lifetime)
        self._visitors.dismissed.append(self._locations.left)
        self._next_request = 1
        self._delivery = PageDelivery(
            links,
            self._visitors.get,
            answers=configuration.answers_pages,
            reaching=configuration.ways,
        )
        self._visitors.dismissed.append(self._delivery.left)
        self._holds = PageHolds(care_of, self._visitors, self._flights)
        self._page_profiles = PageProfiles(
            self.contexts,
            self._visitors,
            lambda event, now: self._delivery.happened(event, now=now),
            self._holds.look,
            configuration.policy_servers if configuration.policy else None,
        )
        self._holds.waits = self._page_profiles.pending
        arrivals = PagedArrivals(self._flights, lambda home: self._visitors.get(home) is not None)
        self._relay.heralds.append(arrivals.relayed)
        self._classifier = ClassifierPages(self._classified, randomness)
        self._parts = Parts(
            arrivals,  # before those that take pages
            self._page_profiles,  # before those that take pages and profiles
            self._holds,
            self._classifier,  # its request numbers are above those of reports
            self._locations.reports,  # its request numbers are above all others
            self._delivery,
            self.contexts,
            keys,
            self._visitors,
            self._relay,
            self._revocation.under_way,
            self._policy,
            self._memberships,
            self._transfer,  # its request numbers are above those of the triggers that probing sends
            self._probing,
            self._flights,
            self._traversal,
            VisitorExpiry(self._visitors),
            self._advertiser,
        )

    def _supported(self) -> Supported:
        return Supported(
            udp=self._traversal.enabled,
            required=self.configuration.registration_required,
            revocation=self._revocation.enabled,
            minimal=self.configuration.minimal_encapsulation,
        )

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the visitors of an earlier run, and advertise."""
        actions: list[Action] = [LocalEndpoint(self.configuration.care_of_address)]
        for visitor in self._visitors.all_static():
            named = translated_forwarding(visitor, self.configuration.care_of_address)
            actions += changes(NOTHING, with_filters(named, self.configuration.filters))
        return actions + self._parts.restore(rows, now=now)

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration message (UDP) or an ICMP message of agent discovery."""
        if is_experimental(message):
            return [*self._delivery.heard(message, source, now=now), *self._holds.heard(message, source)]
        kind = kind_of(message)
        if kind is Kind.ADVERTISEMENT:
            return []  # another agent on the link
        try:
            if kind is Kind.SOLICITATION:
                return self._advertiser.solicited(message, source, now=now)
            if kind is Kind.ANSWER:
                return self._reply(message, source, now)
            if kind in (Kind.REVOCATION, Kind.ACKNOWLEDGMENT):
                return self._revocation_message(message, source, now)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]
        if not self._advertiser.serves(source.link):
            return [Count("request-elsewhere")]
        challenges = self._advertiser.current_challenges(source.link)
        return self._relay.request(message, source, challenges, now=now)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Links, probes, counters of preconfigured home addresses (618''), and the answers to triggers and 618."""
        if (actions := self._parts.happened(event, now=now)) is not None:
            return actions
        match event:
            case LinkUp():
                self._advertiser.link_up(event.link, now)
                self._probing.link_up(event.link, now=now)
                return self._mend(event.link)
            case LinkDown():
                self._advertiser.link_down(event.link)
                return self._strand(event.link, now) + self._probing.link_down(event.link, now=now)
            case DeliveryMoved():
                static = self._visitors.static(event.home_address)
                if self._flights.outgoing(event.home_address) is not None:
                    return []  # what moves only passes through
                if static is not None and static.home_address not in self._visitors:
                    return self._notice(static.next_hop, static.home_address, event.active)
            case NoAnswer():
                return [Count("notice-unanswered")]
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Send advertisements, end pending registrations without an answer (code 78), and expired visits."""
        return self._parts.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds of whatever comes first."""
        return self._parts.deadline()

    def visitors(self) -> Collection[Visitor]:
        """The visitor list (R1), for users; preconfigured ones are `static_visitors`."""
        return self._visitors.all()

    def lost(self) -> frozenset[IPv4Address]:
        """Home addresses of visitors that do not answer any more (C11), for users."""
        return self._probing.lost()

    def static_visitors(self) -> Collection[StaticVisitor]:
        """Home addresses bound in advance (R11)."""
        return self._visitors.all_static()

    def profiles(self) -> list[PolicedVisitor]:
        """Visitors whose profile was requested from the policy server, for users."""
        return self._policy.known()

    def refresh_profile(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """Fetch that profile again now; the answer replaces the one in force. Raises KeyError."""
        return self._policy.refresh(home_address)

    # 603 -> 604 --------------------------------------------------------------------------------------------------

    def _reply(self, message: bytes, source: Source, now: float) -> list[Action]:
        """Handle a reply; home agents are not on access links, so replies from there are forged."""
        if self._advertiser.serves(source.link):
            return [Count("reply-from-access-link")]
        concluded = self._relay.reply(message, source, now=now)
        if not isinstance(concluded, Concluded):
            return concluded
        return [*concluded.learnt, *self._concluded(concluded, now)]

    def _concluded(self, concluded: Concluded, now: float) -> list[Action]:
        """Change the data plane before the reply goes out; a device about to move learns when it may go."""
        if self._leaving:
            visitor = self._granted(concluded, now) if concluded.accepted else None
            ended = "the agent ends"
            return [] if visitor is None else self._revocation.revoke(visitor, reason=ended, now=now)
        replies, request = self._replies(concluded), concluded.pending.request
        if not concluded.accepted or concluded.pending.colocated:
            return replies
        actions = self._admit(concluded, now)
        visitor = self._visitors.get(request.home_address)
        if visitor is None:
            return [*actions, *replies, *self._probing.deregistered(request.home_address)]
        pushing = self._transfer.requesting.pushing(visitor, concluded.instruction, replies, now=now)
        actions += replies if pushing is None else pushing
        return actions + self._probing.registered(visitor, now=now)

    def _replies(self, concluded: Concluded) -> list[Action]:
        reply, pending = concluded.reply, concluded.pending
        detail: dict[str, JSON] = {
            "to": str(reply.home_address),
            "link": pending.source.link,
            "code": concluded.code,
            "lifetime": reply.lifetime,
        }
        actions: list[Action] = [
            Reply(pending.source, concluded.message),
            Emit("sent", "604", reply.home_address, None, detail),
        ]
        if concluded.accepted:
            responsible = min(reply.lifetime, pending.request.lifetime) > self.configuration.short_lifetime
            peer = concluded.stand_in or reply.home_address
            actions += self._notice(peer, reply.home_address, responsible)
        return actions

    def _admit(self, concluded: Concluded, now: float) -> list[Action]:
        """The visitor list after an accepted registration."""
        request, said = concluded.pending.request, concluded.instruction
        visitor = self._granted(concluded, now)
        if visitor is None:
            before = self._visitors.get(request.home_address)
            sent_on = self._transfer.requesting.left(before, said, now=now) if before is not None else []
            return sent_on + self._visitors.dismiss(request.home_address)
        self._parting.pop(request.home_address, None)
        self._revocation.under_way.cancel(request.home_address, self.configuration.care_of_address)
        return [
            *self._transfer.requesting.arriving(visitor, said, now=now),
            *self._visitors.admit(visitor),
            *self._transfer.requesting.registered(visitor, said, now=now),
            *self._holds.admitted(visitor.home_address),
            *self._policy.registered(visitor.home_address, request.mobile_nai),
            *self._locations.registered(visitor, request.mobile_nai, now=now),
        ]

    def _granted(self, concluded: Concluded, now: float) -> Visitor | None:
        """The registered device; None if the registration was withdrawn."""
        request, source, granted = concluded.pending.request, concluded.pending.source, concluded.lifetime
        if granted == 0:
            return None
        udp, revocations = concluded.for_agent
        return Visitor(
            home_address=request.home_address,
            home_agent=request.home_agent,
            link=source.link,
            link_layer=source.link_layer,
            lifetime=granted,
            expires_at=now + granted,
            flags=int(request.flags),
            home_address_v6=concluded.home_address_v6,
            revocable=self._revocation.agreed(revocations),
            udp=self._traversal.agreed(concluded.reply.home_agent, udp, now),
            next_hop=concluded.stand_in,
        )

    # Context transfer and packets in flight ------------------------------------------------------------------------

    def _strand(self, link: str, now: float) -> list[Action]:
        """Packets of its visitors wait, if there are access nodes that may ask for them."""
        actions: list[Action] = []
        for visitor in self._visitors.all() if self._transfer.enabled else ():
            if (
                visitor.link == link
                and visitor.next_hop is None
                and not self._visitors.stood_in_for(visitor.home_address)
            ):
                mobile = Mobile(visitor.home_address, visitor.home_agent, visitor.home_address_v6)
                actions += self._flights.strand(mobile, now=now)
        return actions

    def _mend(self, link: str) -> list[Action]:
        actions: list[Action] = []
        for visitor in self._visitors.all():
            if visitor.link == link:
                actions += self._flights.mend(visitor.home_address)
        return actions

    def context_rows(self, *, now: float) -> list[dict[str, JSON]]:
        """The contexts kept here and packets in flight for each, for users."""
        return self._transfer.rows(now=now)

    # Revocation (RFC 3543) ---------------------------------------------------------------------------------------

    def revoke(self, home_address: IPv4Address, *, reason: str, now: float) -> list[Action]:
        """Stop serving this visitor, and notify its home agent; no action for other addresses.

        The visitor is notified if the home agent asks for that, or at once if it takes no revocations.
        """
        visitor = self._visitors.get(home_address)
        if visitor is None:
            return []
        actions = self._visitors.dismiss(home_address)
        told = self._revocation.revoke(visitor, reason=reason, now=now)
        if told:
            self._parting[home_address] = visitor
            return actions + told
        return actions + self._inform(visitor, now)

    def _disconnect(self, home_address: IPv4Address, now: float) -> list[Action]:
        return self.revoke(home_address, reason="the policy server ended it", now=now)

    def farewell(self, *, now: float) -> list[Action]:
        """Revoke every visitor at the end of a run. Complete when `leaving` is false."""
        self._leaving = self._admission.closed = True
        actions: list[Action] = []
        for home_address in [visitor.home_address for visitor in self._visitors.all()]:
            actions += self.revoke(home_address, reason="the agent ends", now=now)
        return actions

    @property
    def leaving(self) -> bool:
        """True while home agents have still to answer to `farewell`."""
        return bool(len(self._revocation.under_way))

    def _revocation_message(self, message: bytes, source: Source, now: float) -> list[Action]:
        """A home agent's revocation, or its answer to ours; raises WireError."""
        if self._advertiser.serves(source.link):
            return [Count("revocation-from-access-link")]
        if kind_of(message) is Kind.ACKNOWLEDGMENT:
            to_tell, actions = self._revocation.acknowledged(message, source)
            visitor = self._parting.pop(to_tell, None) if to_tell is not None else None
            return actions if visitor is None else actions + self._inform(visitor, now)
        notice = read_revocation(message)
        visitor = self._visitors.get(notice.home_address)
        if visitor is not None and visitor.home_agent != notice.home_agent:
            visitor = None
        answer, actions = self._revocation.believed(notice, visitor, source)
        if answer is None:
            return actions
        if visitor is not None:
            actions += self._visitors.dismiss(notice.home_address)
            detail: dict[str, JSON] = {"by": str(source.address), "inform": notice.inform}
            actions.append(Emit("visitor-revoked", None, notice.home_address, None, detail))
        actions.append(Reply(source, answer))
        return actions + self._inform(visitor, now) if visitor is not None and notice.inform else actions

    def _inform(self, visitor: Visitor, now: float) -> list[Action]:
        if visitor.link_layer is None:
            return []
        busy = self._leaving or self._visitors.full
        return self._advertiser.disown(
            visitor.link, visitor.home_address, visitor.link_layer, busy=busy, now=now
        )

    # Paging classifier -------------------------------------------------------------------------------------------

    def _classified(self, home_address: Addr, number: int) -> Classified | None:
        """The device, and the rule of its classifier that has this number in the filter."""
        for context in self.contexts.all():
            known = self._visitors.get(context.home_address) or self._visitors.static(context.home_address)
            if known is None or home_address not in (known.home_address, known.home_address_v6):
                continue
            rule = classifier_rule(context, number)
            return None if rule is None else Classified(known.home_address, known.home_agent, rule)
        return None

    # 618 ---------------------------------------------------------------------------------------------------------

    def _notice_in_reach(self, peer: Addr, home_address: IPv4Address, responsible: bool) -> list[Action]:
        """The same, unless it is a visitor that is lost (C11)."""
        return [] if peer in self._probing.lost() else self._notice(peer, home_address, responsible)

    def _notice(self, peer: Addr, home_address: IPv4Address, responsible: bool) -> list[Action]:
        """618 and 618'' (C6), to nodes that share an association with this one."""
        if peer not in self.configuration.notified:
            return []
        body = encode_618(Notice618(home_address, responsible, self.configuration.care_of_address))
        number, self._next_request = self._next_request, self._next_request + 1
        detail: dict[str, JSON] = {"to": str(peer), "responsible": responsible}
        return [
            Ask(number, peer, "618", body, NOTICE_TIMEOUT),
            Emit("sent", "618", home_address, None, detail),
        ]
