"""A stand-in's own registrations (601'', 604''; features R4, R7; Figs. 7, 8, 10): one for each device it stands in for.

The machinery of the mobile node under the stand-in's associations, with what only a stand-in says: its role, its
binding identifier, the flows it is to get. It must not know handovers; they set targets, and read the registered state.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from locum.roles.action_values.addresses import Addr, Randomness, Source
from locum.roles.action_values.registration import (
    ANYWHERE,
    BindingIdentifier,
    ContextTransferRequest,
    Options,
    ReceivedAnswer,
    RefusalReason,
    RuleChange,
    RuleOperation,
    StandInRole,
)
from locum.roles.actions import Action, Count, Event, LinkDown, LinkUp, Persist, WallClockStepped
from locum.roles.flow_selectors import PRIORITY, PRIORITY_SELECTED, flow_selector
from locum.roles.mnps.configuration import StandInRegistrationConfiguration, StoodInFor
from locum.roles.mnps.parts import WaitingPart
from locum.roles.mobile_ipv4.answers import read_answer
from locum.roles.mobile_ipv4.messages import Kind, kind_of
from locum.roles.mobile_ipv4.revocations import read_revocation
from locum.roles.registrant.attachment import (
    Attachment,
    RegistrationAccepted,
    RegistrationDenied,
    RegistrationTarget,
    Settled,
)
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.roles.registrant.rows import TABLE
from locum.wire.control import Flow
from locum.wire.errors import WireError
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

Part = Flow | Ipv4Selector | Ipv6Selector  # packets of a rule: one flow, or a selector's

MAX_FLOWS = 60  # of one device; the home agent keeps 64 rules for each home address
# Changes of rules in one request, which must not be fragmented: an access link takes no fragments
AT_ONCE = 12


class StandInPart:
    """A stand-in's request extensions: its identity, and changes of its rules until they are as wanted."""

    def __init__(self, address: IPv4Address, device: StoodInFor) -> None:
        self.takes = Takes.RULED
        self.access_node: Addr | None = None
        self._address = address
        self._device = device
        self._wanted: dict[int, Part] = {}
        self._there: dict[int, Part] = {}  # confirmed by the home agent
        self._asked: tuple[dict[int, Part], tuple[int, ...]] = ({}, ())
        self._told: tuple[Addr | None, Takes] | None = None  # performed by the access node here
        self._telling: tuple[Addr | None, Takes] | None = None  # the same of the request that is on its way
        self._context_at: Addr | None = None  # the device's access node, as far as it is known

    def want(self, flows: Iterable[Part]) -> None:
        """Rules for exactly these. Each keeps its identifier; a new one gets the first that is free."""
        listed = list(dict.fromkeys(flows))
        known = {flow: number for number, flow in {**self._there, **self._wanted}.items()}
        kept = {known[flow]: flow for flow in listed if flow in known}
        taken = {*kept, *self._there}
        first = self._device.binding << 8
        free = (number for number in range(first + 1, first + 256) if number not in taken)
        self._wanted = kept | {next(free): flow for flow in listed if flow not in known}

    @property
    def parts(self) -> Mapping[int, Part]:
        """Wanted parts, by the identifiers of the rules."""
        return self._wanted

    def forget(self) -> None:
        """The home agent has no rule of this stand-in any more."""
        self._there, self._asked = {}, ({}, ())
        self._told = self._telling = self._context_at = None

    @property
    def holds(self) -> bool:
        """The home agent's rules are those that are wanted."""
        return self._wanted == self._there

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """Role and binding always; as many changes as one request takes."""
        device = self._device
        own = replace(
            options,
            binding=BindingIdentifier(device.binding),
            stand_in=StandInRole(self._address, self.takes is Takes.RULED),
        )
        if not lifetime:
            # The context goes back to the device's access node, and packets in flight follow (620'').
            return replace(own, transfer=self._context_from(self._context_at, attachment))
        self._telling = (self.access_node, self.takes)
        transfer = None
        if self._telling != self._told:
            transfer = self._context_from(self.access_node, attachment)
        gone = [number for number, flow in self._there.items() if self._wanted.get(number) != flow][:AT_ONCE]
        new = [number for number in self._wanted if number not in self._there][: AT_ONCE - len(gone)]
        self._asked = ({number: self._wanted[number] for number in new}, tuple(gone))
        changes = [RuleChange(number, RuleOperation.REMOVE) for number in gone]
        changes += [self._added(number) for number in new]
        return replace(own, weight=device.weight, transfer=transfer, rules=tuple(changes))

    def _added(self, number: int) -> RuleChange:
        part = self._wanted[number]
        if isinstance(part, Flow):
            priority, selector = PRIORITY, flow_selector(part)
        else:
            priority, selector = PRIORITY_SELECTED + number, part
        return RuleChange(number, priority=priority, selectors=(selector,), to=(self._device.binding,))

    @staticmethod
    def _context_from(access_node: Addr | None, attachment: Attachment) -> ContextTransferRequest | None:
        """Access node that has the context; without an access node here (Fig. 8) there is no context."""
        return None if attachment.colocated else ContextTransferRequest(access_node or ANYWHERE)

    def _follow(self, telling: tuple[Addr | None, Takes], learnt: Addr | None) -> None:
        """The access node here has acted; if the device's place was unknown, the next request asks again."""
        known = learnt or telling[0]
        if known is not None:
            self._told, self._context_at = telling, known

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The home agent makes all changes of a request or none."""
        if reply.accepted:
            new, gone = self._asked
            if reply.lifetime:
                left = {number: flow for number, flow in self._there.items() if number not in gone}
                self._there = left | new
                if self._telling is not None and self._telling != self._told:
                    self._follow(self._telling, reply.answer.device_at)
            else:
                self.forget()
            self._asked = ({}, ())
        return ()


class Standing:
    """State of the stand-in's registration with one device's home agent."""

    def __init__(
        self, configuration: StandInRegistrationConfiguration, device: StoodInFor, chance: Randomness
    ):
        self.device = device
        self.refused: int | None = None  # the code of the last refusal, until something else is wanted
        self.part = StandInPart(configuration.address, device)
        self.client = RegistrationClient(
            MobileNodeConfiguration(
                home_address=device.home_address,
                home_agent=device.home_agent,
                links=configuration.links,
                association=device.association,
                home_address_v6=device.home_address_v6,
                colocated=configuration.colocated,
                care_of_address=configuration.address if configuration.colocated else None,
                lifetime=configuration.lifetime,
                on_behalf=configuration.address,
            ),
            {},
            chance,
        )
        self.client.ride(self.part)
        self._takes: Takes | None = None
        self._starting_over = False

    @property
    def takes(self) -> Takes | None:
        """Packets that it registers for; None: none."""
        return self._takes

    @property
    def holds(self) -> bool:
        """True if the wanted registration is in force at the home agent."""
        if not isinstance(self.client.state, Settled) or self._starting_over:
            return False
        if self._takes is None:
            return self.client.target is RegistrationTarget.NOTHING
        return self.client.registered is not None and self.part.holds

    def want(
        self, takes: Takes | None, flows: Iterable[Part], access_node: Addr | None, now: float
    ) -> list[Action]:
        """Set the wanted packets; None: none. A registration in force is not requested again."""
        listed = list(flows) if takes is Takes.RULED else []
        before, self._takes = self._takes, takes
        self.refused = None
        self.part.want(listed)
        if takes is None:
            return [] if before is None else self.client.set_target(RegistrationTarget.WITHDRAWN, now=now)
        self.part.takes, self.part.access_node = takes, access_node or self.part.access_node
        if before is takes and self.holds:
            return []
        return self.client.set_target(RegistrationTarget.ORDINARY, now=now)

    def follow(self, now: float) -> list[Action]:
        """Handle outcomes of the registration."""
        outcomes, self.client.outcomes = self.client.outcomes, []
        actions: list[Action] = []
        for outcome in outcomes:
            match outcome:
                case RegistrationAccepted(target=RegistrationTarget.WITHDRAWN):
                    self.part.forget()
                    if self._starting_over:
                        self._starting_over = False
                        actions += self.client.set_target(RegistrationTarget.ORDINARY, now=now)
                case RegistrationAccepted() if not self.part.holds:
                    actions += self.client.set_target(RegistrationTarget.ORDINARY, now=now)
                case RegistrationDenied(code=RefusalReason.UNKNOWN_IDENTIFIER) if not self._starting_over:
                    # An answer was lost: the home agent has other rules of ours than we know. It forgets them all.
                    self._starting_over = True
                    actions += self.client.set_target(RegistrationTarget.WITHDRAWN, now=now)
                case RegistrationDenied(code=code):
                    self.refused, self._starting_over = code, False
        return actions

    def expired(self) -> None:
        """The registration has expired, and with it the home agent's rules."""
        self.part.forget()


class StandInRegistration(WaitingPart):
    """All of one stand-in's registrations."""

    def __init__(self, configuration: StandInRegistrationConfiguration, randomness: Randomness) -> None:
        self.configuration = configuration
        self._standings = {
            device.home_address: Standing(configuration, device, randomness)
            for device in configuration.devices
        }
        self._of_v6 = {
            device.home_address_v6: device.home_address
            for device in configuration.devices
            if device.home_address_v6 is not None
        }

    def standing(self, home_addresses: Iterable[Addr]) -> Standing | None:
        """State for the device with one of these home addresses; None without an association."""
        for home_address in home_addresses:
            own = self._of_v6.get(home_address) if isinstance(home_address, IPv6Address) else home_address
            if isinstance(own, IPv4Address) and own in self._standings:
                return self._standings[own]
        return None

    def all(self) -> Collection[Standing]:
        """Of every device."""
        return self._standings.values()

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Restore identifications and registrations of an earlier run; targets follow."""
        actions: list[Action] = []
        for standing in self.all():
            home = str(standing.device.home_address)
            own = [_dormant(row) for row in rows if row.table == TABLE and row.key == home]
            actions += standing.client.restore(own, now=now)
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """Advertisements, replies to one of the registrations, and revocations of one."""
        if kind_of(message) is Kind.ADVERTISEMENT:
            concerned = list(self.all())
        else:
            try:
                home_address = _home_address_of(message)
            except WireError as error:
                return [Count(f"registration-{error.reason}")]
            if home_address not in self._standings:
                return [Count("reply-unexpected")]
            concerned = [self._standings[home_address]]
        return [
            action
            for standing in concerned
            for action in (*standing.client.receive(message, source, now=now), *standing.follow(now))
        ]

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Links come and go; the wall clock is set."""
        if not isinstance(event, LinkUp | LinkDown | WallClockStepped):
            return None
        return [
            action
            for standing in self.all()
            for action in (*standing.client.happened(event, now=now), *standing.follow(now))
        ]

    def timeout(self, *, now: float) -> list[Action]:
        """Renewals and retransmissions."""
        actions: list[Action] = []
        for standing in self.all():
            before = standing.client.registered
            actions += [*standing.client.timeout(now=now), *standing.follow(now)]
            if before is not None and standing.client.registered is None:
                standing.expired()
        return actions

    def deadline(self) -> float | None:
        """Steady seconds of whatever comes first."""
        times = (standing.client.deadline() for standing in self.all())
        return min((at for at in times if at is not None), default=None)


def _dormant(row: Persist) -> Persist:
    """The registration may have other rules than wanted: it is requested anew, or not at all."""
    if not (value := row.value):
        return row
    # Rows of a store are of another class, which `replace` cannot make.
    dormant = {**value, "wish": RegistrationTarget.NOTHING.value, "registered": None}
    return Persist(row.table, row.key, dormant)


def _home_address_of(message: bytes) -> IPv4Address:
    """Home address of a reply or a revocation; raises WireError."""
    if kind_of(message) is Kind.REVOCATION:
        return read_revocation(message).home_address
    return read_answer(message).home_address
