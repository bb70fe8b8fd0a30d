"""The mobile node's registration (RFC 5944 section 3.6; source text 504): attachment, movement, requests, renewal.

The target is a `RegistrationTarget` of the machine above it (mobile_node/role.py), which reads `outcomes`. It must not know
sessions, the stand-in, sockets or the kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.registration import ReceivedAnswer
from locum.roles.actions import (
    Action,
    Count,
    EchoAnswered,
    Emit,
    Event,
    LinkDown,
    LinkUp,
    Persist,
    Reply,
    WallClockStepped,
)
from locum.roles.mobile_ipv4.answers import read_answer
from locum.roles.mobile_ipv4.messages import Kind, kind_of
from locum.roles.profile_requests import OwnHomeAddress
from locum.roles.registrant.attachment import (
    STATES,
    Attachment,
    AttachmentLost,
    Change,
    Outcome,
    Registered,
    Registering,
    RegistrationAccepted,
    RegistrationDenied,
    RegistrationTarget,
    Searching,
    Settled,
    State,
    Waiting,
)
from locum.roles.registrant.candidates import CareOfCandidates
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.dialogue import RegistrationDialogue, RegistrationPart, ReplyCheck
from locum.roles.registrant.discovery import Hearing
from locum.roles.registrant.in_use import AttachmentInUse
from locum.roles.registrant.movement import CannotMove
from locum.roles.registrant.own_parts import OwnParts
from locum.roles.registrant.refusals import (
    AwaitChallenge,
    Refused,
    SendAgain,
    after_refusal,
    holds_nothing,
    so_far,
)
from locum.roles.registrant.requests import request_actions, requested_lifetime
from locum.roles.registrant.rows import (
    TABLE,
    kept_home_address,
    kept_registration,
    registration_row,
    row_key,
)
from locum.roles.registrant.timing import AGENT_PATIENCE, RETRY_FIRST, RETRY_MAX
from locum.security.association import Association
from locum.wire.errors import WireError
from locum.wire.takes import Takes


class RegistrationClient:
    """Registers a device, for the device itself or for a stand-in of it.

    `foreign_agents` are associations with agents by their address (MN-FA).
    """

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        foreign_agents: Mapping[Addr, Association],
        randomness: Randomness,
    ) -> None:
        self.configuration = configuration
        self.outcomes: list[Outcome] = []
        behalf = configuration.on_behalf is not None  # a stand-in registers once it is asked to
        self.state: State = Settled() if behalf else Searching()
        self.registered: Registered | None = None
        self._parts = OwnParts(configuration, foreign_agents, randomness)
        self.dialogue = RegistrationDialogue(
            configuration.home_address,
            self._parts.home_agent,
            self._parts.keys,
            self._parts.agent_keys,
            randomness,
            one_of_many=behalf,
        )
        self._answered = "604''" if behalf else "604"
        self._traversal, self._revocation = self._parts.traversal, self._parts.revocation
        self.routing, self.movement = self._parts.routing, self._parts.movement
        self.home_agent = self._parts.home_agent
        for part in self._parts.in_order:
            self.ride(part)
        self._candidates = CareOfCandidates(configuration, randomness)
        self._discovery = self._candidates.discovery
        self._target = RegistrationTarget.NOTHING if behalf else RegistrationTarget.ORDINARY
        self._lasting: RegistrationTarget | None = None  # the target of the next run, while this one leaves
        self.in_use = AttachmentInUse(configuration, on_behalf=behalf)
        self._patient_until = float("-inf")  # steady seconds

    def ride(self, part: RegistrationPart) -> None:
        """Add this part to every request from now on, behind the others."""
        self.dialogue.parts.append(part)

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; a registration that still holds is used without asking again."""
        actions: list[Action] = []
        for row in rows:
            if row.table == TABLE and row.key == row_key(self.configuration):
                try:
                    actions += self._from_row(row.value, now)
                except (ValueError, KeyError, TypeError):
                    actions.append(Count("unreadable-row"))
        if self.registered is not None:
            if self.routing.holds:
                self._enter("restore", Settled())
            actions += self._use(self.registered.attachment)
        if self._target is not RegistrationTarget.NOTHING:
            self._discovery.search(now)
        return actions + self._pursue(now)

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A reply (604, or 603 with a co-located care-of address), an advertisement, or a revocation."""
        try:
            match kind_of(message):
                case Kind.ADVERTISEMENT:
                    return self._advertised(message, source, now)
                case Kind.REVOCATION:
                    return self._revoked(message, source, now)
                case _:
                    return self._replied(read_answer(message), source, now)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Links come and go; the wall clock is set."""
        match event:
            case LinkUp() if event.link in self.configuration.links:
                self._candidates.link_up(event.link, event.addresses)
                if self.registered is None and not isinstance(self.state, Settled):
                    self._discovery.settle()
                    self._discovery.search(now)
                return self._pursue(now) + self._discovery.timeout(now)
            case LinkDown() if event.link in self.configuration.links:
                self._candidates.link_down(event.link)
                return self._moved(now)
            case EchoAnswered():
                self._traversal.answered(event.identifier, event.sequence, now)
            case WallClockStepped(ahead):
                self.dialogue.wall_ahead = ahead
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Retransmission, renewal, expiry, silence of an agent, solicitation."""
        self._discovery.forget_silent(now)
        actions = self._moved(now)
        if self.registered is not None and self.registered.expires_at <= now:
            actions += self._expired(now)
        return actions + self._kept_open(now) + self._pursue(now) + self._discovery.timeout(now)

    def deadline(self) -> float | None:
        """Steady seconds of whatever comes first."""
        times = [self._discovery.deadline(), self._traversal.deadline()]
        if self.attachment is not None and not self._candidates.in_reach(self.attachment):
            times.append(self._patient_until)
        if isinstance(self.state, Registering | Waiting):
            times.append(self.state.retry_at)
        if self.registered is not None:
            times.append(self.registered.expires_at)
            if isinstance(self.state, Settled) and self._target.renews:
                times.append(self.registered.renew_at)
        return min((at for at in times if at is not None), default=None)

    def set_target(self, target: RegistrationTarget, *, now: float) -> list[Action]:
        """Set the target of the registration; it is requested even if it is in force already."""
        self._target = target
        self._candidates.avoid_none()
        if target is RegistrationTarget.NOTHING:
            self._enter("want nothing", Settled())
            self._discovery.settle()
            return [self._persist()]
        self._enter("want", Searching())
        return [self._persist(), *self._pursue(now), *self._discovery.timeout(now)]

    def leave(self, *, now: float) -> list[Action]:
        """Deregister at the end of a run (section 3.6.1.2), on the path in use. The next run registers again.

        Nothing when there is nothing to take back or no way to say it; over when `leaving` is false.
        """
        asked = self.state.attachment if isinstance(self.state, Registering) else None
        attachment = self.attachment or asked  # the target may be registered already
        if (
            attachment is None
            or not self._candidates.in_reach(attachment)
            or self._target is not RegistrationTarget.ORDINARY
        ):
            return []
        self._lasting, self._target = self._target, RegistrationTarget.WITHDRAWN
        return self._register(now, RETRY_FIRST)

    @property
    def leaving(self) -> bool:
        """`leave` has been called and not been answered."""
        return self._lasting is not None and isinstance(self.state, Registering)

    def gives_way(self, switch: Takes | None) -> bool:
        """True if a stand-in that switches by `switch` needs our registration to be very short.

        It is so without a registration of its own (R2), and where flow rules may lead to us: they go before it (R5).
        """
        return switch is None or self.routing.binding is not None

    @property
    def target(self) -> RegistrationTarget:
        """The target."""
        return self._target

    @property
    def attachment(self) -> Attachment | None:
        """The path in use."""
        return self.in_use.attachment

    def _enter(self, change: Change, state: State) -> None:
        self.state = STATES.change(self.state, change, state)

    def _told(self, kind: str, detail: Mapping[str, JSON] | None = None) -> Emit:
        return Emit(kind, None, self.configuration.home_address, None, detail or {})

    # Attachment and movement -------------------------------------------------------------------------------------

    def _advertised(self, message: bytes, source: Source, now: float) -> list[Action]:
        hearing, address = self._discovery.receive(message, source, now)
        if hearing is Hearing.UNUSABLE:
            return []
        actions: list[Action] = []
        ours = self.attachment is not None and (self.attachment.link, self.attachment.agent) == (
            source.link,
            address,
        )
        if hearing is Hearing.REBOOTED and ours and self._target.renews:
            actions.append(self._told("agent-rebooted", {"agent": str(address)}))
            self._enter("agent rebooted", Searching())
        if isinstance(self.state, Waiting) and self.state.challenge:
            self._enter("challenge heard", Searching())
        elsewhere = self._target.renews and self._candidates.bypasses(self.attachment, now)  # section 3.1
        if isinstance(self.state, Settled) and (
            elsewhere or self.movement.ready(self._candidates, self.attachment, now)
        ):
            self._enter("better attachment", Searching())
        return actions + self._pursue(now)

    def move(self, to: str, *, now: float) -> list[Action]:
        """Change to the access node `to`: a link with one in reach, its address, or its care-of address.

        The present one hands over first (predictive). Raises CannotMove.
        """
        if self.configuration.colocated or not self.movement.enabled:
            raise CannotMove("needs a foreign agent, and context_transfer = true in [mobile_node]")
        if self.registered is None or not isinstance(self.state, Settled) or self.attachment is None:
            raise CannotMove("not registered; wait until it is")
        if self._target is not RegistrationTarget.ORDINARY:
            raise CannotMove("not while asleep, or on the way to sleep or back")
        self.movement.begin(to, self._candidates, self.attachment, now)
        return self._register(now, RETRY_FIRST)

    def _moved(self, now: float) -> list[Action]:
        """Take another path if the one in use is gone (section 2.4.2.1)."""
        attempted = self.state.attachment if isinstance(self.state, Registering) else None
        if attempted is not None and not self._candidates.in_reach(attempted):
            self._enter("attachment lost", Searching())
        gone = self.attachment
        if gone is None or self._candidates.in_reach(gone) or self._awaiting_first_advertisement(gone, now):
            return self._pursue(now) if isinstance(self.state, Searching) else []
        self.outcomes.append(AttachmentLost(gone))
        actions = self._use(None)
        actions.append(self._told("attachment-lost", {"link": gone.link}))
        if self._target is not RegistrationTarget.NOTHING:
            self._enter("attachment lost", Searching())
            self._discovery.search(now)
        return actions + self._pursue(now)

    def _awaiting_first_advertisement(self, attachment: Attachment, now: float) -> bool:
        """True after a restart until the agent in use had time to advertise."""
        return self._discovery.is_up(attachment.link) and now < self._patient_until

    def _use(self, attachment: Attachment | None, *, ipv6: bool = True) -> list[Action]:
        homes = self.configuration.home_addresses
        return self.in_use.change(attachment, homes, udp=self._traversal.udp, ipv6=ipv6)

    # 601 ---------------------------------------------------------------------------------------------------------

    def _pursue(self, now: float) -> list[Action]:
        """Take the next step of the state."""
        if self._target is RegistrationTarget.NOTHING:
            return []
        match self.state:
            case Settled():
                if self._target.renews and self.registered is not None and self.registered.renew_at <= now:
                    return self._register(now, RETRY_FIRST)
            case Searching():
                return self._register(now, RETRY_FIRST)
            case Waiting() if self.state.retry_at <= now:
                return self._register(now, RETRY_FIRST)
            case Registering() if self.state.retry_at <= now:
                return self._register(now, min(RETRY_MAX, 2 * self.state.interval))
        return []

    def _register(self, now: float, interval: float, *, resynchronised: bool = False) -> list[Action]:
        available = self._candidates.available(now, self.attachment, self.movement.preferred)
        if not available:
            self._enter("nothing in reach", Searching())
            self._discovery.search(now)
            return []
        self._discovery.settle()
        attachment = available[0]
        lifetime = requested_lifetime(self.configuration, self._target, self._candidates, attachment)
        number = self.dialogue.next_identification(now)
        resynchronised, denied = so_far(self.state, resynchronised=resynchronised)
        asked = Registering(
            attachment, lifetime, number, now, now + interval, interval, resynchronised, denied
        )
        self._enter("request", asked)
        assigned = self.configuration.nai is not None and not self.configuration.fixed
        if assigned and self._target is not RegistrationTarget.WITHDRAWN:
            # Without a registration the address may be assigned to another node: ask for one, mostly the same.
            own = self.home_agent.allocated if self.registered is None else self.configuration.home_address
            self.dialogue.home_address = own
        self._revocation.now = now
        sent = request_actions(
            self.configuration, self.dialogue, self._candidates, attachment, lifetime, number, self._target
        )
        return [self._persist(), *sent]

    # 604 ---------------------------------------------------------------------------------------------------------

    def _replied(self, reply: ReceivedAnswer, source: Source, now: float) -> list[Action]:
        """Section 3.6.2."""
        state = self.state
        if not isinstance(state, Registering):
            return [Count("reply-unexpected")]
        # A co-located stand-in may be on a router or on its home agent's host: replies come by any link, or none (R17).
        anywhere = self.configuration.on_behalf is not None and state.attachment.colocated
        if source.link != state.attachment.link and not anywhere:
            return [Count("reply-unexpected")]
        check = self.dialogue.check_reply(reply, state.attachment, state.identification)
        if check not in (ReplyCheck.AGENT, ReplyCheck.AUTHENTIC):
            return [Count(check.value)]
        told = self.dialogue.tell_parts(reply, state.attachment) if check is ReplyCheck.AUTHENTIC else []
        if reply.accepted and not holds_nothing(reply, state, now):
            return told + self._accepted(reply, state, now) + self._pursue(now)
        return told + self._denied(reply, state, now)

    def _accepted(self, reply: ReceivedAnswer, state: Registering, now: float) -> list[Action]:
        granted, target = min(reply.lifetime, state.lifetime), self._target
        self._enter("accepted", Settled())
        actions = self._assigned(reply.home_address)
        if granted:
            self._parts.home_agent.accepted(reply.home_agent)
            attachment = self._served(state.attachment)
            self.registered = Registered.since(state.sent_at, attachment, self._target, granted)
            actions += self._use(attachment, ipv6=any(prefix.bound for prefix in reply.answer.prefixes))
            self.movement.registered(attachment)
            if self.movement.ready(self._candidates, self.attachment, now):
                self._enter("better attachment", Searching())
        else:
            self.registered = None
            self._target = RegistrationTarget.NOTHING
            actions += self._use(None)
        self._traversal.settled(bool(granted), now)
        self.outcomes.append(RegistrationAccepted(target, granted))
        detail: dict[str, JSON] = {
            "agent": str(state.attachment.agent),
            "lifetime": granted,
            "care_of": str(state.attachment.care_of),
        }
        return [
            self._persist(),
            *actions,
            Emit("registered", self._answered, self.configuration.home_address, None, detail),
        ]

    def _served(self, attachment: Attachment) -> Attachment:
        """Follow the choice of the home agent (RFC 4433); the attachment, with it as its receiver if there is no other."""
        home_agent = self._parts.home_agent.address
        if home_agent == self.configuration.home_agent:
            return attachment
        self.configuration = replace(self.configuration, home_agent=home_agent)
        self._candidates.home_agent = self.in_use.home_agent = home_agent
        self._parts.serve(home_agent)
        return replace(attachment, agent=home_agent) if attachment.direct else attachment

    def _assigned(self, home_address: IPv4Address) -> list[Action]:
        """The home agent has assigned our home address (RFC 2794)."""
        before = self.configuration.home_address
        if home_address in (before, IPv4Address(0)) or self.configuration.nai is None:
            return []
        actions = self._use(None)
        self.configuration = replace(self.configuration, home_address=home_address)
        self.dialogue.home_address = self._candidates.home_address = home_address
        self._parts.assign(home_address)
        return [*actions, OwnHomeAddress(home_address, None if before.is_unspecified else before)]

    def _denied(self, reply: ReceivedAnswer, state: Registering, now: float) -> list[Action]:
        code = reply.code
        detail: dict[str, JSON] = {"code": code, "agent": str(state.attachment.agent)}
        actions: list[Action] = [
            Count(f"denied-{code}"),
            Emit("registration-denied", self._answered, self.configuration.home_address, None, detail),
        ]
        if self._parts.home_agent.redirected(reply.answer.redirect):
            self._served(state.attachment)
            return actions + self._register(now, RETRY_FIRST)
        match after_refusal(reply, state, self.dialogue, self._candidates, self.attachment, now):
            case SendAgain(resynchronised):
                return actions + self._register(now, RETRY_FIRST, resynchronised=resynchronised)
            case AwaitChallenge(waiting):
                self._enter("refused", waiting)
                self._discovery.search(now)
                return actions + self._discovery.timeout(now)
            case Refused(waiting):
                self.outcomes.append(RegistrationDenied(self._target, code))
                if reply.accepted:  # the home agent has deregistered us (section 3.4)
                    actions += [*self._unregistered(now), *self._use(None)]
                if waiting is None:
                    return actions + self._register(now, RETRY_FIRST)
                self._enter("refused", waiting)
        return actions

    def _unregistered(self, now: float) -> list[Action]:
        if self.registered is not None:
            self._parts.home_agent.forget()
            self._served(self.registered.attachment)
        self.registered = None
        self._traversal.settled(False, now)
        return [self._persist()]

    def _expired(self, now: float) -> list[Action]:
        actions: list[Action] = [*self._unregistered(now), self._told("registration-expired")]
        if self._target.renews and not isinstance(self.state, Registering | Waiting):
            self._enter("expired", Searching())
        return actions

    # From outside ------------------------------------------------------------------------------------------------

    def _revoked(self, message: bytes, source: Source, now: float) -> list[Action]:
        """The home agent has ended the registration (RFC 3543): say so, and register anew if that is the target."""
        answer, actions = self._revocation.believed(message, self.attachment)
        if answer is None:
            return actions
        actions.append(Reply(source, answer))
        if self.registered is None:
            return actions
        actions.append(self._told("registration-revoked", {"by": str(source.address)}))
        actions += [*self._unregistered(now), *self._use(None)]
        if self._target.renews:
            self._enter("revoked", Searching())
        return actions + self._pursue(now)

    def _kept_open(self, now: float) -> list[Action]:
        """Send keepalives; if the NAT has dropped us, register again from the new outer address."""
        if self.attachment is None:
            return []
        if not self._traversal.lost(now):
            return self._traversal.timeout(self.attachment, now)
        actions: list[Action] = [self._told("nat-mapping-lost")]
        if self._target.renews and isinstance(self.state, Settled):
            self._enter("NAT mapping lost", Searching())
        return actions

    # Rows --------------------------------------------------------------------------------------------------------

    def _persist(self) -> Persist:
        held = self.registered if self._lasting is None else None
        target = self._lasting or self._target
        return registration_row(self.configuration, self.dialogue, self._parts, target, held)

    def _from_row(self, row: Mapping[str, JSON], now: float) -> list[Action]:
        assigned = self._assigned(kept_home_address(row))
        self.dialogue.from_row(row)
        self._target = RegistrationTarget(row["wish"])
        self._parts.from_row(row)
        if (held := kept_registration(row, now)) is not None:
            self.registered = held
            self._served(held.attachment)
            self._traversal.from_row(row.get("nat"), now)
            self._patient_until = now + AGENT_PATIENCE
        return assigned
