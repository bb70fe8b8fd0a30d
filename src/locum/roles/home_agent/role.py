"""The home agent (RFC 5944 section 3.8; source text 532): who may register what, and where packets go.

Requests in, replies and differences of forwarding out. It must not know sockets, the store or the kernel, nor what
becomes of packets at a care-of address. What is granted is decided in `home_admission.py`, what follows for packets in
`forwarding_choice.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.forwarding import LocalEndpoint
from locum.roles.actions import Action, Count, Emit, Event, Forget, Persist, Reply, WallClockStepped
from locum.roles.home_agent.admission import HomeAdmission, HomeAgentConfiguration
from locum.roles.home_agent.binding import Binding, CareOf, Mobile, text
from locum.roles.home_agent.device_location import told_to_stand_in
from locum.roles.home_agent.expiry_triggers import ExpiryTriggers
from locum.roles.home_agent.forwarding_choice import NOTHING, changes, in_force, installed, most_rules
from locum.roles.home_agent.nat import TraversalRefused
from locum.roles.home_agent.profile_homes import (
    Admitted,
    Altered,
    Declined,
    Homes,
    KnownHome,
    Outcome,
    Unserved,
    Waiting,
    Withdrawn,
)
from locum.roles.home_agent.registry import (
    STAND_IN_TABLE,
    TABLE,
    Home,
    Registrant,
    RuleLine,
    VisitorListEntry,
    line,
    rule_lines,
)
from locum.roles.home_agent.replies import Replies, nai_again
from locum.roles.home_agent.request_extensions import Refusal, rules_without
from locum.roles.home_agent.revocation import HomeRevocation
from locum.roles.home_agent.revocation_messages import BindingRevocation
from locum.roles.home_agent.served_by_profile import mobile_of
from locum.roles.home_agent.timestamps import HomeTimestamps
from locum.roles.home_agent.tunnel_end import PLAIN, TunnelEnd, tunnel_end
from locum.roles.profile_requests import ProfileFetched, ProfileRefused, ProfileUnavailable
from locum.roles.rules import (
    ADMIN,
    FIRST_ASSIGNED,
    KeptRule,
    RuleRefused,
    added,
    free_identifier,
    stored,
    without,
)
from locum.roles.signing import authentic
from locum.roles.timers import Deadlines
from locum.security.association import Association, Replay
from locum.security.replay import (
    NonceWindow,
    Verdict,
    mobile_nonce,
    nonce_identification,
)
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import AuthKind, Extension
from locum.wire.mobile_ip.registration import Code, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.revocation import REGISTRATION_REVOCATION, REVOCATION_ACKNOWLEDGMENT

_REVOCATION, _ACKNOWLEDGMENT = bytes((REGISTRATION_REVOCATION,)), bytes((REVOCATION_ACKNOWLEDGMENT,))
RULE_TABLE: Final = "rule"  # signalled or made by people; the key is the home address and the identifier
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
        self._profiles = profiles
        self._homes = {each.home_address: Home(each) for each in mobiles}
        self._admission = HomeAdmission(configuration, self._homes)
        self._replies = Replies(configuration.address, foreign_agents, randomness)
        self._exchange = BindingRevocation(
            configuration.address, foreign_agents, enabled=configuration.revocation
        )
        self.revocation = HomeRevocation(self._homes, self._exchange, self._drop)
        self._expiries: Deadlines[Registrant] = Deadlines()
        self._timestamps = HomeTimestamps()
        self._triggers = ExpiryTriggers(enabled=configuration.trigger_on_expiry)

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; every home address with a default CoA is bound to it from the first moment (R2)."""
        actions: list[Action] = [LocalEndpoint(self.configuration.address)]
        if self._profiles is not None:
            actions += self._profiles.restore(rows, now=now)
            for each in self._profiles.known():
                self._homes[each.home_address] = Home(mobile_of(each.home_address, each.profile))
        for row in rows:
            if row.table in (TABLE, STAND_IN_TABLE):
                actions += self._restore_binding(row)
        for row in rows:
            if row.table == RULE_TABLE:
                actions += self._restore_rule(row)
        for home in self._homes.values():
            gone: list[str] = []
            for registrant in (home, *home.stand_ins):
                held = registrant.binding
                current = held.without_expired(now)
                self._keep(registrant, current)
                if current != held:
                    actions.append(Persist(registrant.table, registrant.key, current.to_row()))
                if registrant is not home and not current.care_of:
                    gone.append(registrant.name)
            if gone and home.rules:
                actions += self._keep_rules(home, rules_without(home.rules, *gone))
            actions += self._forward(home)
        self._timestamps.restore(self._accepted_last(), now=now)
        return actions

    def _accepted_last(self) -> Iterator[int]:
        """Timestamps, of every registrant."""
        for home in self._homes.values():
            for each in (home, *home.stand_ins):
                last = each.binding.identification
                if last is not None and each.association.replay is Replay.TIMESTAMP:
                    yield last

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration request: 602 or 602'', or 601 and 601'' of a registrant with a co-located care-of address."""
        kind = message[:1]
        if kind == _REVOCATION:
            return self.revocation.receive(message, source)
        if kind == _ACKNOWLEDGMENT:
            return self._exchange.acknowledged(message, source)
        try:
            request = RegistrationRequest.decode(message)
        except WireError as error:
            return [Count(f"registration-{error.reason}")]
        home = self._homes.get(request.home_address)
        if home is None and self._profiles is not None:
            return self._by_profile(Waiting(request, source, len(message)), self._profiles, now)
        return self._request(request, home, source, len(message), now)

    def _by_profile(self, waiting: Waiting, profiles: Homes, now: float) -> list[Action]:
        """A request for a home address that is not configured: of a profile, or to wait for one."""
        request = waiting.request
        home_address = profiles.address(request)
        home = self._homes.get(home_address)
        if home is not None:
            known = replace(request, home_address=home_address)
            return self._request(known, home, waiting.source, waiting.size, now)
        try:
            return profiles.ask(waiting, now=now)
        except Unserved as unserved:
            refusal = self._replies.unsigned(request, unserved.code, waiting.source, waiting.size)
            return [Count(unserved.reason), *refusal]

    def _follow(self, actions: list[Action], outcomes: Iterable[Outcome], now: float) -> list[Action]:
        """What follows from what the policy server said."""
        assert self._profiles is not None
        for each in outcomes:
            match each:
                case Admitted():
                    actions += self.serve(mobile_of(each.home_address, each.profile), now=now)
                    for waiting in each.waiting:
                        actions += self._by_profile(waiting, self._profiles, now)
                case Altered():
                    actions += self.serve(mobile_of(each.home_address, each.profile), now=now)
                case Withdrawn():
                    actions += self.withdraw(each.home_address, now=now)
                case Declined():
                    for waiting in each.waiting:
                        request, source, size = waiting.request, waiting.source, waiting.size
                        actions += self._replies.unsigned(request, each.code, source, size)
        return actions

    def _request(
        self, request: RegistrationRequest, home: Home | None, source: Source, size: int, now: float
    ) -> list[Action]:
        registrant: Registrant | None = home
        if home is None or not authentic(request, AuthKind.MN_HA, home.association):
            registrant = _stand_in(home, request)
        if registrant is None:
            code = Code.MOBILE_NODE_FAILED_AUTHENTICATION
            return self._replies.unsigned(request, code, source, size)
        held = registrant.binding.without_expired(now)
        if not self._fresh(request, held, registrant.association, now):
            return self._mismatch(request, held, registrant, source, size, now)
        try:
            return self._accept(request, held, registrant, source, now)
        except Refusal as refusal:
            association = registrant.association
            return self._replies.refuse(request, association, refusal.code, source, size, nonce=held.nonce)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """What the policy server said, what stand-ins say to triggers, and that the wall clock was set."""
        if isinstance(event, WallClockStepped):
            self._timestamps.stepped(event.ahead)
            return []
        if isinstance(event, ProfileFetched | ProfileRefused | ProfileUnavailable) and self._profiles:
            return self._follow(*self._profiles.happened(event, now=now), now)
        return self._triggers.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Expiry of care-of addresses: the next in the order of choice takes over (R2, R5)."""
        actions: list[Action] = []
        for registrant in self._expiries.due(now):
            home, held = registrant.home, registrant.binding
            current = held.without_expired(now)
            lost: list[JSON] = [str(each.address) for each in held.care_of if each not in current.care_of]
            rules = home.rules
            if registrant is not home and not current.care_of:
                rules = rules_without(rules, registrant.name)
            actions += self._change(registrant, current, rules)
            detail: dict[str, JSON] = {
                "care_of": lost,
                "in_force": [str(each) for each in in_force(home.v4)],
            }
            if registrant is not home:
                detail["registrant"] = registrant.name
            actions.append(Emit("expired", None, current.home_address, None, detail))
            if registrant is home and not current.care_of:
                actions += self._triggers.expired(home.mobile, held.care_of)
        if self._profiles is not None:
            actions += self._follow(*self._profiles.timeout(now=now), now)
        return actions + self._exchange.under_way.timeout(now=now) + self._triggers.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds of the next expiry, of a care-of address or a profile, or repetition of a revocation."""
        due = self._expiries.next()
        others = (self._exchange.under_way, self._triggers, self._profiles)
        for each in others:
            at = None if each is None else each.deadline()
            if at is not None and (due is None or at < due):
                due = at
        return due

    # For people, and for those who know who is served ------------------------------------------------------------

    def profiles(self) -> tuple[KnownHome, ...]:
        """Home addresses that are served because of a profile."""
        return () if self._profiles is None else tuple(self._profiles.known())

    def refresh_profile(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """Fetch the profile of this home address now. Raises KeyError for one that has none."""
        if self._profiles is None:
            raise KeyError(home_address)
        return self._profiles.refresh(home_address, now=now)

    def visitor_list(self, *, now: float) -> tuple[VisitorListEntry, ...]:
        """What is registered (R1)."""
        return tuple(line(home, self.configuration.address, now) for home in self._homes.values())

    def list_rules(self, home_address: IPv4Address | None = None) -> tuple[RuleLine, ...]:
        """The rules of that home address, or of all, in the order in which they are matched."""
        if home_address is not None:
            home = self._homes.get(home_address)
            return () if home is None else rule_lines(home)
        return tuple(each for home in self._homes.values() for each in rule_lines(home))

    def add_rule(self, home_address: IPv4Address, rule: KeptRule, *, now: float) -> list[Action]:
        """A rule made by people: its owner is ADMIN, it survives a restart. Raises RuleRefused."""
        home = self._home(home_address)
        rules = added(home.rules, replace(rule, owner=ADMIN), most_rules(home.mobile))
        return [*self._keep_rules(home, rules), *self._forward(home)]

    def numbered(self, home_address: IPv4Address, rule: KeptRule) -> KeptRule:
        """The rule with an identifier that no rule of that home address has. Raises RuleRefused."""
        return replace(rule, identifier=free_identifier(self._home(home_address).rules, FIRST_ASSIGNED))

    def remove_rule(self, home_address: IPv4Address, identifier: int, *, now: float) -> list[Action]:
        """Take away a rule that was signalled or made by people. Raises RuleRefused for others."""
        home = self._home(home_address)
        rules, _ = without(home.rules, identifier, ADMIN)
        return [*self._keep_rules(home, rules), *self._forward(home)]

    def serve(self, mobile: Mobile, *, now: float) -> list[Action]:
        """Serve this home address from now on, or as `mobile` says from now on; what is registered stays (R3).

        Rules in `mobile` with identifiers that are taken take their place. Stand-ins that are not authorised any more
        lose what they registered.
        """
        home = self._homes.get(mobile.home_address)
        if home is None:
            home = self._homes[mobile.home_address] = Home(mobile)
            return self._forward(home)
        before, kept = home.rules, {each.name: each for each in home.stand_ins}
        actions: list[Action] = []
        told: list[Action] = []
        home.configure(mobile)
        for each in home.stand_ins:
            if (old := kept.pop(each.name, None)) is not None:
                self._expiries.cancel(old)
                self._keep(each, old.binding)
        for gone in kept.values():
            self._expiries.cancel(gone)
            actions.append(Forget(gone.table, gone.key))
            told += self.revocation.tell(gone, gone.binding.care_of, "not authorised any more", now)
        rules, home.rules = mobile.rules, before
        for rule in rules_without(before, *kept):
            with suppress(RuleRefused):
                rules = added(rules, rule, most_rules(mobile)) if stored(rule) else rules
        return [*actions, *self._keep_rules(home, rules), *self._forward(home), *told]

    def withdraw(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """The home address is not served any more: it loses its default CoA too, and all that was registered (R2)."""
        home = self._homes.pop(home_address, None)
        if home is None:
            return []
        actions: list[Action] = []
        told: list[Action] = []
        for registrant in (home, *home.stand_ins):
            self._expiries.cancel(registrant)
            actions.append(Forget(registrant.table, registrant.key))
            told += self.revocation.tell(registrant, registrant.binding.care_of, "not served any more", now)
        actions += [
            Forget(RULE_TABLE, f"{home.key} {each.identifier}") for each in home.rules if stored(each)
        ]
        for address, had in ((home.mobile.home_address, home.v4), (home.mobile.home_address_v6, home.v6)):
            if address is not None:
                actions += changes(address, had, NOTHING)
        actions.append(Emit("withdrawn", None, home_address, None, {}))
        return actions + told

    def _fresh(
        self, request: RegistrationRequest, held: Binding, association: Association, now: float
    ) -> bool:
        """Section 5.7."""
        if association.replay is Replay.NONCE:
            return _NONCES.check(request.identification, held.nonce) is Verdict.OK
        return self._timestamps.fresh(request.identification, held.identification, now=now)

    # Decisions ---------------------------------------------------------------------------------------------------

    def _accept(
        self, request: RegistrationRequest, held: Binding, registrant: Registrant, source: Source, now: float
    ) -> list[Action]:
        """Raises Refusal, and then nothing has changed."""
        if self._replies.agent_fails(request, source):
            raise Refusal(Code.FOREIGN_AGENT_FAILED_AUTHENTICATION)
        identification = request.identification
        seen: tuple[int | None, int | None] = (identification, held.nonce)
        if registrant.association.replay is Replay.NONCE:
            nonce = self._replies.new_nonce(held.nonce)
            seen = (held.identification, nonce)
            identification = nonce_identification(nonce, mobile_nonce(identification))
        decided = self._admission.decide(request, held, registrant, source, now, seen)
        accepted, granted, rules, replies = decided
        told: tuple[Extension, ...] = ()
        if registrant.stand_in is not None:
            told = told_to_stand_in(request, registrant.home.binding, now)
        end = PLAIN
        if granted and len(request.extensions) > 1:
            end = self._tunnel_end(request, source, now)
            accepted = end.of(accepted)
        reply = RegistrationReply(
            Code.ACCEPTED,
            granted,
            request.home_address,
            self.configuration.address,
            identification,
            (*replies, *told, *end.to_mobile, *nai_again(request)) if len(request.extensions) > 1 else (),
        )
        before = registrant.binding.care_of
        actions = self._change(registrant, accepted, rules)
        message = self._replies.sign(reply, registrant.association, source, end.to_agent)
        actions.append(Reply(source, message))
        actions.append(self._sent(registrant, source, granted))
        if granted and registrant.stand_in is None:
            actions += self._triggers.registered(registrant.home.mobile)
        return actions + self.revocation.left(registrant, before, request.care_of_address, source, now)

    def _tunnel_end(self, request: RegistrationRequest, source: Source, now: float) -> TunnelEnd:
        """What the request says of its end of the tunnel. Raises Refusal."""
        policy, known = self.configuration.traversal, self._replies.knows(source)
        try:
            end = tunnel_end(request, source, policy, self._exchange, agent_known=known, now=now)
        except TraversalRefused as refused:
            raise Refusal(refused.code) from refused
        if end.outer is not None and end.outer.address in self._homes:
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)  # a tunnel into another home address would loop
        return end

    # Answers -----------------------------------------------------------------------------------------------------

    def _sent(self, registrant: Registrant, source: Source, granted: int) -> Emit:
        """The event of an acceptance: 603, and 603'' to a stand-in."""
        home = registrant.home
        detail: dict[str, JSON] = {
            "to": text(source.address),
            "code": 0,
            "lifetime": granted,
            "care_of": [text(each.address) for each in registrant.binding.care_of],
            "in_force": [text(each) for each in in_force(home.v4)],
        }
        if home.rules:
            detail["rules"] = len(home.rules)
        if registrant is home:
            return Emit("sent", "603", home.mobile.home_address, None, detail)
        detail["registrant"] = registrant.name
        return Emit("sent", "603''", home.mobile.home_address, None, detail)

    def _mismatch(
        self,
        request: RegistrationRequest,
        held: Binding,
        registrant: Registrant,
        source: Source,
        bound: int,
        now: float,
    ) -> list[Action]:
        """Code 133 with what the registrant needs to come into step again; a replay learns no more than that."""
        actions: list[Action] = []
        if registrant.association.replay is Replay.TIMESTAMP:
            identification = self._timestamps.mismatch(request.identification, now=now)
        else:
            if held.nonce is None:
                nonce = self._replies.new_nonce(None)
                held = Binding(
                    held.home_address, held.care_of, held.identification, nonce, held.ipv6, held.default
                )
                actions += self._change(registrant, held, registrant.home.rules)
            identification = nonce_identification(held.nonce or 0, mobile_nonce(request.identification))
        return actions + self._replies.refuse(
            request,
            registrant.association,
            Code.IDENTIFICATION_MISMATCH,
            source,
            bound,
            nonce=held.nonce,
            identification=identification,
        )

    # Revocation (RFC 3543) ---------------------------------------------------------------------------------------

    def _drop(self, registrant: Registrant, gone: Sequence[CareOf], reason: str) -> list[Action]:
        home, held = registrant.home, registrant.binding
        kept = held.keeping(tuple(each for each in held.care_of if each not in gone))
        rules = home.rules
        if registrant is not home and not kept.care_of:
            rules = rules_without(rules, registrant.name)
        actions = self._change(registrant, kept, rules)
        detail: dict[str, JSON] = {
            "care_of": [str(each.address) for each in gone],
            "reason": reason,
            "in_force": [str(each) for each in in_force(home.v4)],
        }
        return [*actions, Emit("revoked", None, home.mobile.home_address, None, detail)]

    # State -------------------------------------------------------------------------------------------------------

    def _home(self, home_address: IPv4Address) -> Home:
        home = self._homes.get(home_address)
        if home is None:
            raise RuleRefused(Code.ADMINISTRATIVELY_PROHIBITED, f"{home_address} is not served here")
        return home

    def _restore_binding(self, row: Persist) -> list[Action]:
        address, _, name = row.key.partition(" ")
        try:
            binding = Binding.from_row(address, row.value)
        except (ValueError, KeyError, TypeError):
            return [Count("unreadable-row")]
        home = self._homes.get(binding.home_address)
        if home is None:
            return []
        if row.table == TABLE:
            home.binding = binding
            return []
        for each in home.stand_ins:
            if each.name == name:
                each.binding = binding
                return []
        return [Forget(row.table, row.key)]  # it is not authorised any more

    def _restore_rule(self, row: Persist) -> list[Action]:
        """What does not go together with the configuration any more is forgotten."""
        address, _, number = row.key.partition(" ")
        try:
            home = self._homes.get(IPv4Address(address))
            rule = KeptRule.from_row(int(number), row.value)
            if home is not None:
                home.rules = added(home.rules, rule, most_rules(home.mobile))
        except RuleRefused:
            return [Forget(row.table, row.key), Count("rule-does-not-fit")]
        except (ValueError, KeyError, TypeError):
            return [Count("unreadable-row")]
        return []

    def _keep(self, registrant: Registrant, binding: Binding) -> None:
        registrant.binding = binding
        expiry = binding.next_expiry()
        if expiry is None:
            self._expiries.cancel(registrant)
        else:
            self._expiries.set(registrant, expiry)

    def _change(self, registrant: Registrant, after: Binding, rules: tuple[KeptRule, ...]) -> list[Action]:
        """Keep, persist, and let the data plane follow."""
        home, before = registrant.home, registrant.binding
        self._keep(registrant, after)
        actions: list[Action] = [Persist(registrant.table, registrant.key, after.to_row())]
        if rules is not home.rules:
            actions += self._keep_rules(home, rules)
        elif before.forwards_as(after):
            return actions
        return actions + self._forward(home)

    def _keep_rules(self, home: Home, rules: tuple[KeptRule, ...]) -> list[Action]:
        """Keep and persist the differences."""
        before, home.rules = home.rules, rules
        gone = [each for each in before if each not in rules and stored(each)]
        new = [each for each in rules if each not in before and stored(each)]
        if not gone and not new:
            return []
        named = {each.identifier for each in new}
        actions: list[Action] = [
            Forget(RULE_TABLE, f"{home.key} {each.identifier}")
            for each in gone
            if each.identifier not in named
        ]
        actions += [Persist(RULE_TABLE, f"{home.key} {each.identifier}", each.to_row()) for each in new]
        detail: dict[str, JSON] = {
            "removed": sorted(each.identifier for each in gone if each.identifier not in named),
            "set": sorted(named),
            "rules": len(rules),
        }
        return [*actions, Emit("rules-changed", None, home.mobile.home_address, None, detail)]

    def _forward(self, home: Home) -> list[Action]:
        """The data plane follows what is registered, with differences only."""
        registered, mobile, address = home.registered(), home.mobile, self.configuration.address
        before, home.v4 = home.v4, installed(registered, mobile.home_address, address)
        actions = changes(mobile.home_address, before, home.v4)
        if mobile.home_address_v6 is not None:
            before, home.v6 = home.v6, installed(registered, mobile.home_address_v6, address)
            actions += changes(mobile.home_address_v6, before, home.v6)
        return actions


def _stand_in(home: Home | None, request: RegistrationRequest) -> Registrant | None:
    """The stand-in of that home address that signed the request; each has its own SPI (R4)."""
    if home is None:
        return None
    for each in home.stand_ins:
        if authentic(request, AuthKind.MN_HA, each.association):
            return each
    return None
