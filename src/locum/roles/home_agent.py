"""The home agent (RFC 5944 section 3.8; source text 532): who may register what, and where packets go.

Requests in, replies and differences of forwarding out. It must not know sockets, the store or the kernel, nor what
becomes of packets at a care-of address. What a request asks for is read in `registrants.py`, what follows for packets
in `choice.py`, and which rules there may be in `rules.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address

from locum.roles.actions import (
    JSON,
    Action,
    Addr,
    Count,
    Emit,
    Event,
    Forget,
    LocalEndpoint,
    Persist,
    ProfileFetched,
    ProfileRefused,
    ProfileUnavailable,
    Randomness,
    Reply,
    Source,
)
from locum.roles.binding import AuthorisedStandIn, Binding, CareOf, Mobile, text
from locum.roles.choice import (
    NOTHING,
    Registered,
    changes,
    in_force,
    installed,
    live_rules,
    most_rules,
)
from locum.roles.home_replies import Replies, nai_again
from locum.roles.homes import (
    Admitted,
    Altered,
    Declined,
    Homes,
    Outcome,
    Unserved,
    Waiting,
    Withdrawn,
)
from locum.roles.registrants import (
    PLAIN,
    Refusal,
    Wishes,
    cancelled,
    changed_rules,
    rules_without,
    together,
    usable,
    wishes,
)
from locum.roles.rules import (
    ADMIN,
    CONFIGURATION,
    FIRST_ASSIGNED,
    MN,
    PROFILE,
    KeptRule,
    RuleRefused,
    added,
    free_identifier,
    without,
)
from locum.roles.served_by_profile import mobile_of
from locum.roles.signing import authentic
from locum.roles.timers import Deadlines
from locum.security.association import Association, Replay
from locum.security.replay import (
    NonceWindow,
    TimestampWindow,
    Verdict,
    mismatch_identification,
    mobile_nonce,
    nonce_identification,
)
from locum.wire.errors import WireError
from locum.wire.extensions import AuthKind, Ipv6PrefixReply, Ipv6PrefixRequest, PrefixCode, VendorCritical
from locum.wire.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.vendor import Takes

TABLE = "binding"
STAND_IN_TABLE = "stand_in"  # what stand-ins registered; the key is the home address and the stand-in's name
RULE_TABLE = (
    "rule"  # rules that were signalled or made by people; the key is the home address and the identifier
)
MAX_LIFETIME = 1800  # seconds granted at most; RFC 5944 leaves it to the home agent (section 3.8.2.2)
SHORT_LIFETIME = 10  # seconds; up to this a registration is "very short" (R2)
MAX_SIMULTANEOUS = 4  # section 3.8.3.1, code 135: what the data plane has room for
_TIMESTAMPS = TimestampWindow()
_NONCES = NonceWindow()
_S, _M, _G, _T = int(Flag.S), int(Flag.M), int(Flag.G), int(Flag.T)
_unusable = lru_cache(4096)(lambda address: not usable(address))


@dataclass(frozen=True, slots=True)
class HomeAgentConfiguration:
    """Times in seconds."""

    address: IPv4Address
    max_lifetime: int = MAX_LIFETIME
    short_lifetime: int = SHORT_LIFETIME
    max_simultaneous: int = MAX_SIMULTANEOUS  # care-of addresses of one registrant
    reverse_tunnel_required: bool = True
    multipath: bool = True  # EnableMultipathSupport of RFC 7629


@dataclass(frozen=True, slots=True)
class RegistrantLine:
    """What a stand-in has registered, for people."""

    name: str
    address: IPv4Address  # its interface address
    care_of: tuple[CareOf, ...]
    spi: int
    ipv6: bool


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of a home address, for people."""

    home_address: IPv4Address
    rule: KeptRule
    live: tuple[int, ...]  # IP versions for whose packets the kernel has it


@dataclass(frozen=True, slots=True)
class VisitorListEntry:
    """A line of `locum binding list`."""

    home_address: IPv4Address
    home_agent: IPv4Address
    home_address_v6: Addr | None
    care_of: tuple[CareOf, ...]
    default_care_of: Addr | None
    in_force: tuple[Addr, ...]  # where packets go now that no rule takes; empty: natively
    spi: int
    ipv6: bool
    stand_ins: tuple[RegistrantLine, ...]
    rules: tuple[RuleLine, ...]


class _Registrant:
    """A stand-in that may register, and its binding. Found once for a message; a key by what it is."""

    __slots__ = ("association", "binding", "home", "key", "name", "stand_in", "table")
    stand_in: AuthorisedStandIn | None  # None: the mobile node
    key: str  # of its row in `table`

    def __init__(self, home: "_Home", stand_in: AuthorisedStandIn) -> None:
        self.home, self.stand_in = home, stand_in
        self.name, self.association = stand_in.name, stand_in.association
        self.table, self.key = STAND_IN_TABLE, f"{home.key} {stand_in.name}"
        self.binding = Binding(home.mobile.home_address)


class _Home(_Registrant):
    """A mobile node that the home agent serves: the first registrant of its home address, its stand-ins and rules."""

    __slots__ = ("mobile", "rules", "stand_ins", "v4", "v6")

    def __init__(self, mobile: Mobile) -> None:
        self.home, self.stand_in, self.name, self.table = self, None, MN, TABLE
        self.key = str(mobile.home_address)
        self.binding = Binding(mobile.home_address)
        self.v4 = self.v6 = NOTHING  # what the data plane has
        self.configure(mobile)

    def configure(self, mobile: Mobile) -> None:
        """What is registered is not touched."""
        self.mobile, self.association, self.rules = mobile, mobile.association, mobile.rules
        self.stand_ins = tuple([_Registrant(self, each) for each in mobile.stand_ins])

    def registered(self) -> Registered:
        binding, stand_ins = self.binding, self.stand_ins
        if not stand_ins:
            return Registered(self.mobile, binding, (), self.rules)
        present = [
            (each.stand_in, each.binding) for each in stand_ins if each.binding.care_of and each.stand_in
        ]
        return Registered(self.mobile, binding, tuple(present), self.rules)


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
        self._homes = {each.home_address: _Home(each) for each in mobiles}
        self._replies = Replies(configuration.address, foreign_agents, randomness)
        self._expiries: Deadlines[_Registrant] = Deadlines()

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; every home address with a default CoA is bound to it from the first moment (R2)."""
        actions: list[Action] = [LocalEndpoint(self.configuration.address)]
        if self._profiles is not None:
            actions += self._profiles.restore(rows, now=now)
            for each in self._profiles.known():
                self._homes[each.home_address] = _Home(mobile_of(each.home_address, each.profile))
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
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """A registration request: 602 or 602'', or 601 and 601'' of a registrant with a co-located care-of address."""
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
        self, request: RegistrationRequest, home: "_Home | None", source: Source, size: int, now: float
    ) -> list[Action]:
        registrant: _Registrant | None = home
        if home is None or not authentic(request, AuthKind.MN_HA, home.association):
            registrant = _stand_in(home, request)
        if registrant is None:
            code = Code.MOBILE_NODE_FAILED_AUTHENTICATION
            return self._replies.unsigned(request, code, source, size)
        held = registrant.binding.without_expired(now)
        if not _fresh(request, held, registrant.association, now):
            return self._mismatch(request, held, registrant, source, size, now)
        try:
            return self._accept(request, held, registrant, source, now)
        except Refusal as refusal:
            association = registrant.association
            return self._replies.refuse(request, association, refusal.code, source, size, nonce=held.nonce)

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """What the policy server said; the home agent waits for nothing else."""
        if isinstance(event, ProfileFetched | ProfileRefused | ProfileUnavailable) and self._profiles:
            return self._follow(*self._profiles.happened(event, now=now), now)
        return []

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
        if self._profiles is not None:
            actions += self._follow(*self._profiles.timeout(now=now), now)
        return actions

    def deadline(self) -> float | None:
        """Wall-clock seconds of the next expiry, of a care-of address or a profile."""
        expiry = self._expiries.next()
        if self._profiles is None:
            return expiry
        return min((at for at in (expiry, self._profiles.deadline()) if at is not None), default=None)

    # For people, and for those who know who is served ------------------------------------------------------------

    def visitor_list(self, *, now: float) -> tuple[VisitorListEntry, ...]:
        """What is registered (R1)."""
        return tuple(self._line(home, now) for home in self._homes.values())

    def list_rules(self, home_address: IPv4Address | None = None) -> tuple[RuleLine, ...]:
        """The rules of that home address, or of all, in the order in which they are matched."""
        if home_address is not None:
            home = self._homes.get(home_address)
            return () if home is None else _rule_lines(home)
        return tuple(line for home in self._homes.values() for line in _rule_lines(home))

    def add_rule(self, home_address: IPv4Address, rule: KeptRule, *, now: float) -> list[Action]:
        """A rule made by people: its owner is ADMIN, it survives a restart. Raises RuleRefused.

        With identifier 0 it gets a free one, which is the last of `list_rules` that was not there before.
        """
        home = self._home(home_address)
        identifier = rule.identifier or free_identifier(home.rules, FIRST_ASSIGNED)
        made = KeptRule(identifier, rule.priority, rule.verdict, rule.selectors, rule.to, rule.share, ADMIN)
        rules = added(home.rules, made, most_rules(home.mobile))
        return [*self._keep_rules(home, rules), *self._forward(home)]

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
            home = self._homes[mobile.home_address] = _Home(mobile)
            return self._forward(home)
        actions, kept = [], {each.name: each for each in home.stand_ins}
        rules = home.rules
        home.configure(mobile)
        for each in home.stand_ins:
            if (old := kept.pop(each.name, None)) is not None:
                self._expiries.cancel(old)
                self._keep(each, old.binding)
        for gone in kept.values():
            self._expiries.cancel(gone)
            actions.append(Forget(gone.table, gone.key))
            rules = rules_without(rules, gone.name)
        home.rules, before = mobile.rules, rules
        for rule in before:
            if rule.owner not in (CONFIGURATION, PROFILE):
                try:
                    home.rules = added(home.rules, rule, most_rules(mobile))
                except RuleRefused:
                    actions.append(Forget(RULE_TABLE, f"{home.key} {rule.identifier}"))
        return [*actions, *self._forward(home)]

    def withdraw(self, home_address: IPv4Address, *, now: float) -> list[Action]:
        """The home address is not served any more: it loses its default CoA too, and all that was registered (R2)."""
        home = self._homes.pop(home_address, None)
        if home is None:
            return []
        actions: list[Action] = []
        for registrant in (home, *home.stand_ins):
            self._expiries.cancel(registrant)
            actions.append(Forget(registrant.table, registrant.key))
        actions += [
            Forget(RULE_TABLE, f"{home.key} {each.identifier}") for each in home.rules if _stored(each)
        ]
        for address, had in ((home.mobile.home_address, home.v4), (home.mobile.home_address_v6, home.v6)):
            if address is not None:
                actions += changes(address, had, NOTHING)
        actions.append(Emit("withdrawn", None, home_address, None, {}))
        return actions

    # Decisions ---------------------------------------------------------------------------------------------------

    def _accept(
        self, request: RegistrationRequest, held: Binding, registrant: _Registrant, source: Source, now: float
    ) -> list[Action]:
        """Raises Refusal, and then nothing has changed."""
        home = registrant.home
        if self._replies.agent_fails(request, source):
            raise Refusal(Code.FOREIGN_AGENT_FAILED_AUTHENTICATION)
        if request.home_agent != self.configuration.address:
            raise Refusal(Code.UNKNOWN_HOME_AGENT)
        replies: tuple[Ipv6PrefixReply, ...] = ()
        asked = PLAIN
        if len(request.extensions) > 1:  # the first that there must be is the authentication
            _check_critical(request)
            asked = wishes(request)
            replies = _prefix_replies(request, home.mobile)
        if asked is not PLAIN or registrant is not home:
            self._check_wishes(asked, registrant, now)
        over = request.lifetime == 0 or request.care_of_address == request.home_address
        if over:
            granted, left = 0, held.keeping(cancelled(request, held, asked.multipath))
            care_of, ipv6 = left.care_of, left.ipv6
        else:
            granted = min(request.lifetime, self.configuration.max_lifetime)
            care_of = self._registered(request, held, registrant, asked, source, now + granted, granted)
            ipv6 = any(reply.accepted for reply in replies) if replies else False
        identification, nonce = request.identification, held.nonce
        last: int | None = identification
        if registrant.association.replay is Replay.NONCE:
            nonce = self._replies.new_nonce(nonce)
            identification, last = (
                nonce_identification(nonce, mobile_nonce(identification)),
                held.identification,
            )
        default = held.default if asked.default is None else self._default(asked, held, home)
        accepted = Binding(held.home_address, care_of, last, nonce, ipv6, default)
        rules = home.rules
        if asked.rules or (rules and over):
            rules = self._rules(asked, registrant, accepted, over, now)
        reply = RegistrationReply(
            Code.ACCEPTED,
            granted,
            request.home_address,
            self.configuration.address,
            identification,
            (*replies, *nai_again(request)) if len(request.extensions) > 1 else (),
        )
        actions = self._change(registrant, accepted, rules)
        actions.append(Reply(source, self._replies.sign(reply, registrant.association, source)))
        actions.append(self._sent(registrant, source, granted))
        return actions

    def _registered(
        self,
        request: RegistrationRequest,
        held: Binding,
        registrant: _Registrant,
        asked: Wishes,
        source: Source,
        expires_at: float,
        granted: int,
    ) -> tuple[CareOf, ...]:
        """The care-of addresses after a registration (section 3.8.2.1). Raises Refusal."""
        flags = int(request.flags)
        own = registrant.stand_in is None
        self._check_care_of(request.care_of_address, flags, own)
        multipath, role = asked.multipath, asked.role
        care_of = CareOf(
            request.care_of_address,
            granted,
            expires_at,
            flags,
            source.address,
            own and granted <= self.configuration.short_lifetime,
            bool(flags & _G),
            None if multipath is None else multipath.binding,
            asked.weight,
            role is not None and role.takes is Takes.RULED,
        )
        most = self.configuration.max_simultaneous
        return together(held, care_of, multipath, simultaneous=bool(flags & _S), most=most)

    def _check_wishes(self, asked: Wishes, registrant: _Registrant, now: float) -> None:
        """Who may ask for what (R3, R4). Raises Refusal."""
        stand_in, role = registrant.stand_in, asked.role
        if stand_in is None:
            if role is not None:
                raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)
        elif role is None:
            raise Refusal(Code.POORLY_FORMED_REQUEST)
        elif asked.default is not None or role.interface_address not in (
            stand_in.address,
            stand_in.address_v6,
        ):
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)
        if asked.multipath is not None:
            taken = any(
                each.bid == asked.multipath.binding
                for other in (registrant.home, *registrant.home.stand_ins)
                if other is not registrant
                for each in other.binding.without_expired(now).care_of
            )
            if taken or not self.configuration.multipath:
                raise Refusal(Code.MULTIPATH_NOT_ALLOWED)

    def _check_care_of(self, care_of: IPv4Address, flags: int, own: bool) -> None:
        """A stand-in may live on this very host (R17); a mobile node that says so would be a loop."""
        if _unusable(care_of) or (own and care_of == self.configuration.address):
            raise Refusal(Code.POORLY_FORMED_REQUEST)
        if care_of in self._homes:
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)  # a tunnel into another home address would loop
        if flags & _M:
            raise Refusal(Code.REQUESTED_ENCAPSULATION_UNAVAILABLE)
        if self.configuration.reverse_tunnel_required and not flags & _T:
            raise Refusal(Code.REVERSE_TUNNEL_MANDATORY)

    def _default(self, asked: Wishes, held: Binding, home: _Home) -> IPv4Address | None:
        """The default CoA that the mobile node says (R3); the unspecified address takes it back. Raises Refusal."""
        if asked.default is None or not home.mobile.default_by_registration:
            return held.default
        address = asked.default.address
        if address.is_unspecified:
            return None
        if not isinstance(address, IPv4Address) or _unusable(address):
            raise Refusal(Code.POORLY_FORMED_REQUEST)
        here = address == self.configuration.address
        if address in self._homes or (here and not _lives_here(home.mobile, address)):
            raise Refusal(Code.ADMINISTRATIVELY_PROHIBITED)
        return address

    def _rules(
        self, asked: Wishes, registrant: _Registrant, accepted: Binding, over: bool, now: float
    ) -> tuple[KeptRule, ...]:
        """The rules after a request. Who cancels all that he registered takes his rules with him. Raises Refusal."""
        home, rules = registrant.home, registrant.home.rules
        if over:
            if any(each.binding is not None for each in asked.rules):
                raise Refusal(Code.POORLY_FORMED_REQUEST)
            if not accepted.care_of:
                return rules_without(rules, registrant.name)
        bids = {each.bid for each in accepted.care_of if each.bid is not None}
        for other in (home, *home.stand_ins):
            if other is not registrant:
                current = other.binding.without_expired(now).care_of
                bids.update(each.bid for each in current if each.bid is not None)
        return changed_rules(rules, asked.rules, registrant.name, bids, most_rules(home.mobile))

    # Answers -----------------------------------------------------------------------------------------------------

    def _sent(self, registrant: _Registrant, source: Source, granted: int) -> Emit:
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
        registrant: _Registrant,
        source: Source,
        bound: int,
        now: float,
    ) -> list[Action]:
        """Code 133 with what the registrant needs to come into step again; a replay learns no more than that."""
        actions: list[Action] = []
        if registrant.association.replay is Replay.TIMESTAMP:
            identification = mismatch_identification(request.identification, now)
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

    # State -------------------------------------------------------------------------------------------------------

    def _home(self, home_address: IPv4Address) -> _Home:
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

    def _keep(self, registrant: _Registrant, binding: Binding) -> None:
        registrant.binding = binding
        expiry = binding.next_expiry()
        if expiry is None:
            self._expiries.cancel(registrant)
        else:
            self._expiries.set(registrant, expiry)

    def _change(self, registrant: _Registrant, after: Binding, rules: tuple[KeptRule, ...]) -> list[Action]:
        """Keep, persist, and let the data plane follow."""
        home, before = registrant.home, registrant.binding
        self._keep(registrant, after)
        actions: list[Action] = [Persist(registrant.table, registrant.key, after.to_row())]
        if rules is not home.rules:
            actions += self._keep_rules(home, rules)
        elif before.forwards_as(after):
            return actions
        return actions + self._forward(home)

    def _keep_rules(self, home: _Home, rules: tuple[KeptRule, ...]) -> list[Action]:
        """Keep and persist the differences."""
        before, home.rules = home.rules, rules
        gone = [each for each in before if each not in rules and _stored(each)]
        new = [each for each in rules if each not in before and _stored(each)]
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

    def _forward(self, home: _Home) -> list[Action]:
        """The data plane follows what is registered, with differences only."""
        registered, mobile, address = home.registered(), home.mobile, self.configuration.address
        before, home.v4 = home.v4, installed(registered, mobile.home_address, address)
        actions = changes(mobile.home_address, before, home.v4)
        if mobile.home_address_v6 is not None:
            before, home.v6 = home.v6, installed(registered, mobile.home_address_v6, address)
            actions += changes(mobile.home_address_v6, before, home.v6)
        return actions

    def _line(self, home: _Home, now: float) -> VisitorListEntry:
        binding, mobile = home.binding.without_expired(now), home.mobile
        return VisitorListEntry(
            home_address=mobile.home_address,
            home_agent=self.configuration.address,
            home_address_v6=mobile.home_address_v6,
            care_of=binding.care_of,
            default_care_of=home.registered().default,
            in_force=in_force(home.v4),
            spi=mobile.association.spi,
            ipv6=binding.ipv6,
            stand_ins=tuple(_registrant_line(each, now) for each in home.stand_ins),
            rules=_rule_lines(home),
        )


def _stand_in(home: _Home | None, request: RegistrationRequest) -> _Registrant | None:
    """The stand-in of that home address that signed the request; each has its own SPI (R4)."""
    if home is None:
        return None
    for each in home.stand_ins:
        if authentic(request, AuthKind.MN_HA, each.association):
            return each
    return None


def _fresh(request: RegistrationRequest, held: Binding, association: Association, now: float) -> bool:
    """Section 5.7."""
    if association.replay is Replay.NONCE:
        return _NONCES.check(request.identification, held.nonce) is Verdict.OK
    return _TIMESTAMPS.check(request.identification, now, held.identification) is Verdict.OK


def _check_critical(request: RegistrationRequest) -> None:
    """RFC 3115: a critical vendor extension that nobody here knows; raises Refusal."""
    if any(isinstance(each, VendorCritical) for each in request.protected(AuthKind.MN_HA)):
        raise Refusal(Code.UNKNOWN_CRITICAL_FROM_MOBILE_NODE)
    if any(isinstance(each, VendorCritical) for each in request.extensions):
        raise Refusal(Code.UNKNOWN_CRITICAL_FROM_FOREIGN_AGENT)


def _prefix_replies(request: RegistrationRequest, mobile: Mobile) -> tuple[Ipv6PrefixReply, ...]:
    """RFC 5454 section 3.2: the IPv6 home address follows the binding if it is this mobile node's."""
    replies: list[Ipv6PrefixReply] = []
    for each in request.protected(AuthKind.MN_HA):
        if not isinstance(each, Ipv6PrefixRequest):
            continue
        ours = each.prefix_length == 128 and each.prefix == mobile.home_address_v6
        code = PrefixCode.TUNNELED_TO_CARE_OF_ADDRESS if ours else PrefixCode.ADMINISTRATIVELY_PROHIBITED
        replies.append(Ipv6PrefixReply(code, each.prefix, each.prefix_length))
    return tuple(replies)


def _lives_here(mobile: Mobile, address: IPv4Address) -> bool:
    """Whether a stand-in of the mobile node has this address of the home agent's host (R17)."""
    return address == mobile.stand_in or any(each.address == address for each in mobile.stand_ins)


def _stored(rule: KeptRule) -> bool:
    """What the configuration and profiles say is not kept: they say it again."""
    return rule.owner not in (CONFIGURATION, PROFILE)


def _registrant_line(registrant: _Registrant, now: float) -> RegistrantLine:
    assert registrant.stand_in is not None
    binding = registrant.binding.without_expired(now)
    return RegistrantLine(
        registrant.name,
        registrant.stand_in.address,
        binding.care_of,
        registrant.association.spi,
        binding.ipv6,
    )


def _rule_lines(home: _Home) -> tuple[RuleLine, ...]:
    live = {4: live_rules(home.v4), 6: live_rules(home.v6)}
    return tuple(
        RuleLine(
            home.mobile.home_address,
            each,
            tuple(version for version, known in live.items() if each.identifier in known),
        )
        for each in home.rules
    )
