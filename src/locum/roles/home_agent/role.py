"""The home agent (RFC 5944 section 3.8; source text 532): registrations, and destinations of packets.

Requests in, replies and differences of forwarding out. It must not know sockets, the store or the kernel, nor what
becomes of packets at a care-of address. `admission.py` decides about requests, `bindings.py` keeps the results, and
`forwarding_choice.py` derives the forwarding.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.forwarding import LocalEndpoint
from locum.roles.action_values.registration import (
    NO_OPTIONS,
    Received,
    Refusal,
    RefusalReason,
    Registration,
    RegistrationAnswer,
)
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.actions import Action, Count, Emit, Event, Forget, HomeBroadcast, Persist, WallClockStepped
from locum.roles.home_agent.admission import HomeAdmission
from locum.roles.home_agent.binding import Binding, Mobile, text
from locum.roles.home_agent.bindings import Bindings
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.device_location import device_location
from locum.roles.home_agent.expiry_triggers import ExpiryTriggers
from locum.roles.home_agent.keying.derived_keys import TABLE as KEY_TABLE
from locum.roles.home_agent.keying.derived_keys import HomeKeys
from locum.roles.home_agent.paging.pages import HomePaging
from locum.roles.home_agent.paging.rules import LeftRules
from locum.roles.home_agent.profile_homes import Homes, KnownHome
from locum.roles.home_agent.profile_server import ServedByProfile
from locum.roles.home_agent.registry import (
    Home,
    Registrant,
    RuleLine,
    VisitorListEntry,
    line,
    rule_lines,
)
from locum.roles.home_agent.replies import Replies
from locum.roles.home_agent.requested_changes import rules_without
from locum.roles.home_agent.revocation import HomeRevocation
from locum.roles.home_agent.revocation_messages import BindingRevocation
from locum.roles.home_agent.timestamps import HomeTimestamps
from locum.roles.home_agent.tunnel_end import PLAIN, TunnelEnd, tunnel_end
from locum.roles.mobile_ipv4.messages import read_for_home_agent
from locum.roles.mobile_ipv4.replies import write_reply
from locum.roles.parts import Parts
from locum.roles.rules import (
    KeptRule,
    RuleRefused,
    added,
    stored,
)
from locum.security.association import AaaAssociation, Association, Replay
from locum.security.replay import (
    NonceWindow,
    Verdict,
    mobile_nonce,
    nonce_identification,
)

_NONCES = NonceWindow()


class HomeAgent:
    """One home agent and all its bindings."""

    def __init__(
        self,
        configuration: HomeAgentConfiguration,
        mobiles: Iterable[Mobile],
        foreign_agents: Mapping[Addr, Association],
        randomness: Randomness,
        profiles: Homes | None = None,
    ) -> None:
        """With `profiles`, home addresses are also served that the policy server knows."""
        self.configuration = configuration
        self._triggers = ExpiryTriggers(enabled=configuration.trigger_on_expiry)
        room, networks = configuration.room, configuration.networks
        self._bindings = Bindings(configuration.address, mobiles, self._triggers, room, networks)
        self._bindings.located = configuration.located
        self._homes = self._bindings.homes
        self._admission = HomeAdmission(configuration, self._homes)
        self._replies = Replies(configuration.addresses, foreign_agents, randomness)
        self._exchange = BindingRevocation(
            configuration.address,
            foreign_agents,
            enabled=configuration.revocation,
            known_as=configuration.public_address,
        )
        self.revocation = HomeRevocation(self._homes, self._exchange, self._bindings.drop)
        self._keys = HomeKeys(self._homes, configuration.key_lifetime, randomness)
        self._timestamps = HomeTimestamps(configuration.timestamp_tolerance)
        self._profiles: ServedByProfile | None = None
        if profiles is not None:
            self._profiles = ServedByProfile(profiles, self._homes, self._replies, self, self._decide)
        profile_of = (lambda _home_address: None) if profiles is None else profiles.of
        self.paging = HomePaging(self._homes, configuration, randomness, self._bindings.redirect, profile_of)
        self._left = LeftRules(
            self._homes,
            self._bindings,
            self.paging,
            configuration.left_lifetime,
            located=configuration.located,
        )
        self._parts = Parts(
            *(() if self._profiles is None else (self._profiles,)),
            self.paging,
            self._left,
            self._keys,
            self._bindings,
            self._exchange.under_way,
            self._triggers,
        )

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; every home address with a default CoA is bound to it from the first moment (R2)."""
        actions: list[Action] = [LocalEndpoint(self.configuration.address)]
        actions += self._parts.restore(rows, now=now)
        self._timestamps.restore(self._bindings.accepted_last(), now=now)
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration request: 602 or 602'', or 601 and 601'' of a registrant with a co-located care-of address."""
        said = read_for_home_agent(message)
        if isinstance(said, Registration):
            return self.register(Received(said, source, len(message), write_reply), now=now)
        if isinstance(said, Revocation):
            return self.revocation.receive(said, source)
        if isinstance(said, Acknowledgment):
            return self._exchange.acknowledged(said, source)
        return [Count(said.counter)]

    def register(self, received: Received, *, now: float) -> list[Action]:
        """A registration of any signalling version; `received.write` spells the answer."""
        home = self._homes.get(received.registration.home_address)
        if home is None and self._profiles is not None:
            return self._profiles.receive(received, now=now)
        return self._decide(received, home, now)

    def _decide(self, received: Received, home: Home | None, now: float) -> list[Action]:
        registration = received.registration
        registrant = None if home is None else self._keys.registrant(home, registration.proof, now)
        offer = None
        if home is not None and registrant is None and registration.aaa_proof is not None:
            offer = self._keys.offer(home, received)
            if offer is not None:
                registrant, received = home, offer.received
        if registrant is None:
            aaa = registration.aaa_proof is not None
            reason = RefusalReason.AAA_NOT_AUTHENTIC if aaa else RefusalReason.NOT_AUTHENTIC
            return self._replies.unsigned(received, reason)
        if home is not None and registrant.stand_in is None:
            received = self._keys.with_agent_key(home, received)
        held = registrant.binding.without_expired(now)
        if not self._fresh(registration, held, registrant.association, now):
            return self._mismatch(received, held, registrant, now)
        try:
            actions = self._accept(received, held, registrant, now)
        except Refusal as refusal:
            association, redirect = registrant.association, refusal.redirect
            return self._replies.refuse(
                received, association, refusal.reason, nonce=held.nonce, redirect=redirect
            )
        if offer is None or home is None:
            return actions
        return [*self._keys.adopt(home, offer, now), *actions]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Answers of the policy server and of stand-ins, and steps of the wall clock."""
        if (actions := self._parts.happened(event, now=now)) is not None:
            return actions
        if isinstance(event, HomeBroadcast):
            return self._bindings.broadcast(event.packet, now=now)
        if isinstance(event, WallClockStepped):
            self._timestamps.stepped(event.ahead)
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """Everything that is due: care-of addresses, profiles, revocations, triggers."""
        return self._parts.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds of whatever is due next."""
        return self._parts.deadline()

    # For users, and for other roles ------------------------------------------------------------------------------

    def profiles(self) -> tuple[KnownHome, ...]:
        """Home addresses that are served because of a profile."""
        return () if self._profiles is None else tuple(self._profiles.profiles.known())

    def refresh_profile(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """Fetch the profile of this home address now. Raises KeyError for one that has none."""
        if self._profiles is None:
            raise KeyError(home_address)
        return self._profiles.profiles.refresh(home_address, now=now)

    @property
    def timestamps(self) -> HomeTimestamps:
        """The clock by which registrations are judged."""
        return self._timestamps

    def forget_identification(self, home_address: IPv4Address | None, *, now: float) -> list[Action]:
        """Forget identifications that lie in the future, of this home address or of all: an administrator's way out.

        No action: there is none. Requests of the time in which the clock was ahead could be sent again by others when
        the wall clock comes there, unless the registrant has got another key.
        """
        homes = [
            home for served, home in self._homes.items() if home_address is None or served == home_address
        ]
        actions = self._bindings.forget_identifications(
            homes, lambda last: self._timestamps.beyond(last, now=now)
        )
        if actions or home_address is None:
            self._timestamps.forget(self._bindings.accepted_last(), now=now)
        return actions

    def visitor_list(self, *, now: float) -> tuple[VisitorListEntry, ...]:
        """The registrations (R1)."""
        return tuple(line(home, self.configuration.address, now) for home in self._homes.values())

    def list_rules(self, home_address: IPv4Address | None = None) -> tuple[RuleLine, ...]:
        """The rules of that home address, or of all, in the order in which they are matched."""
        if home_address is not None:
            home = self._homes.get(home_address)
            return () if home is None else rule_lines(home, self.configuration.address)
        own = self.configuration.address
        return tuple(line for home in self._homes.values() for line in rule_lines(home, own))

    def add_rule(self, home_address: IPv4Address, rule: KeptRule, *, now: float) -> list[Action]:
        """Add a rule of an administrator: owner ADMIN, it survives a restart. Raises RuleRefused."""
        return self._bindings.add_rule(home_address, rule)

    def numbered(self, home_address: IPv4Address, rule: KeptRule) -> KeptRule:
        """The rule with an identifier that no rule of that home address has. Raises RuleRefused."""
        return self._bindings.numbered(home_address, rule)

    def remove_rule(self, home_address: IPv4Address, identifier: int, *, now: float) -> list[Action]:
        """Remove a rule that was signalled or added by an administrator. Raises RuleRefused for others."""
        return self._bindings.remove_rule(home_address, identifier)

    def serve(self, mobile: Mobile, *, now: float) -> list[Action]:
        """Serve this home address from now on, by `mobile`; its registrations stay (R3).

        Rules in `mobile` with identifiers that are taken take their place. Stand-ins that are not authorised any more
        lose their registrations.
        """
        home = self._homes.get(mobile.home_address)
        if home is None:
            home = self._homes[mobile.home_address] = Home(mobile)
            self.paging.served(mobile)
            return self._bindings.forward(home)
        before, kept = home.rules, {stand_in.name: stand_in for stand_in in home.stand_ins}
        actions: list[Action] = []
        told: list[Action] = []
        home.changing(self.configuration.address)
        self.paging.served(mobile, home.mobile)
        home.configure(mobile)
        for stand_in in home.stand_ins:
            if (old := kept.pop(stand_in.name, None)) is not None:
                self._bindings.cancel(old)
                self._bindings.keep(stand_in, old.binding)
        for gone in kept.values():
            self._bindings.cancel(gone)
            actions.append(Forget(gone.table, gone.key))
            told += self.revocation.tell(gone, gone.binding.care_of, "not authorised any more", now)
        rules, home.rules = mobile.rules, before
        for rule in rules_without(before, *kept):
            with suppress(RuleRefused):
                rules = added(rules, rule, home.most_rules) if stored(rule) else rules
        actions += [*self._bindings.keep_rules(home, rules), *self._left.refit(home)]
        return [*actions, *self._bindings.forward(home), *told]

    def withdraw(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """The home address is not served any more: it loses its default CoA too, and all that was registered (R2)."""
        home = self._homes.pop(home_address, None)
        if home is None:
            return []
        actions: list[Action] = []
        told: list[Action] = []
        for registrant in (home, *home.stand_ins):
            self._bindings.cancel(registrant)
            actions.append(Forget(registrant.table, registrant.key))
            told += self.revocation.tell(registrant, registrant.binding.care_of, "not served any more", now)
        actions += self._bindings.forget(home)
        if isinstance(home.mobile.association, AaaAssociation):
            actions.append(Forget(KEY_TABLE, home.key))
        actions += self.paging.withdrawn(home, now=now)
        actions.append(Emit("withdrawn", None, home_address, None, {}))
        return actions + told

    def disconnect(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """The policy server ends the registrations of this home address: they are revoked."""
        return self.revocation.revoke(home_address, reason="the policy server ended it", now=now)

    # Decisions ---------------------------------------------------------------------------------------------------

    def _fresh(self, registration: Registration, held: Binding, association: Association, now: float) -> bool:
        """Section 5.7."""
        if association.replay is Replay.NONCE:
            return _NONCES.check(registration.identification, held.nonce) is Verdict.OK
        return self._timestamps.fresh(registration.identification, held.identification, now=now)

    def _accept(self, received: Received, held: Binding, registrant: Registrant, now: float) -> list[Action]:
        """Raises Refusal, and then nothing has changed."""
        registration, source = received.registration, received.source
        options = registration.options
        if self._replies.agent_fails(registration, source):
            raise Refusal(RefusalReason.AGENT_NOT_AUTHENTIC)
        identification = registration.identification
        seen: tuple[int | None, int | None] = (identification, held.nonce)
        if registrant.association.replay is Replay.NONCE:
            nonce = self._replies.new_nonce(held.nonce)
            seen = (held.identification, nonce)
            identification = nonce_identification(nonce, mobile_nonce(identification))
        decided = self._admission.decide(registration, held, registrant, source, now, seen)
        accepted, granted, rules, prefixes = decided
        answer = RegistrationAnswer(None, granted, identification)
        if options is not NO_OPTIONS:
            device_at = None
            if registrant.stand_in is not None:
                device_at = device_location(options.transfer, registrant.home.binding, now)
            end = self._tunnel_end(registration, source, now) if granted else PLAIN
            accepted = end.of(accepted)
            answer = RegistrationAnswer(
                None, granted, identification, prefixes, device_at, end.udp, end.revocations
            )
        before = registrant.binding.care_of
        actions = self._bindings.admit(registrant, accepted, rules)
        actions.append(self._replies.sign(received, registrant.association, answer))
        actions.append(self._sent(registrant, source, granted))
        if granted and registrant.stand_in is None:
            actions += self._triggers.registered(registrant.home.mobile)
            actions += self.paging.registered(registrant.home, now=now)
        return actions + self.revocation.left(registrant, before, registration.care_of, source, now)

    def _tunnel_end(self, registration: Registration, source: Source, now: float) -> TunnelEnd:
        """The registration's options about its tunnel end. Raises Refusal."""
        policy, known = self.configuration.traversal, self._replies.knows(source)
        end = tunnel_end(registration, source, policy, self._exchange, agent_known=known, now=now)
        if end.outer is not None and end.outer.address in self._homes:
            raise Refusal(RefusalReason.PROHIBITED)  # a tunnel into another home address would loop
        return end

    # Answers -----------------------------------------------------------------------------------------------------

    def _sent(self, registrant: Registrant, source: Source, granted: int) -> Emit:
        """The event of an acceptance: 603, and 603'' to a stand-in."""
        home = registrant.home
        detail: dict[str, JSON] = {
            "to": text(source.address),
            "code": 0,
            "lifetime": granted,
            "care_of": [text(care_of.address) for care_of in registrant.binding.care_of],
            "in_force": [text(address) for address in home.in_force(self.configuration.address)],
        }
        if home.rules:
            detail["rules"] = len(home.rules)
        if registrant is home:
            return Emit("sent", "603", home.mobile.home_address, None, detail)
        detail["registrant"] = registrant.name
        return Emit("sent", "603''", home.mobile.home_address, None, detail)

    def _mismatch(
        self, received: Received, held: Binding, registrant: Registrant, now: float
    ) -> list[Action]:
        """A refusal with the data to resynchronise a registrant; a replay learns no more than that."""
        actions: list[Action] = []
        asked = received.registration.identification
        if registrant.association.replay is Replay.TIMESTAMP:
            identification = self._timestamps.mismatch(asked, held.identification, now=now)
        else:
            if held.nonce is None:
                nonce = self._replies.new_nonce(None)
                held = Binding(
                    held.home_address, held.care_of, held.identification, nonce, held.ipv6, held.default
                )
                home = registrant.home
                actions += self._bindings.change(registrant, held, home.rules, home.left)
            identification = nonce_identification(held.nonce or 0, mobile_nonce(asked))
        return actions + self._replies.refuse(
            received,
            registrant.association,
            RefusalReason.NOT_FRESH,
            nonce=held.nonce,
            identification=identification,
        )
