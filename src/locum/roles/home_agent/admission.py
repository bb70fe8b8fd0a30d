"""Decisions of a home agent about a registration (RFC 5944 section 3.8.2; features R3 to R8).

Decides over registrations, registrants and their rules; it keeps nothing, and does not know replies, the store or forwarding.
"""

from collections.abc import Container
from functools import lru_cache
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.registration import (
    ANY_HOME_AGENT,
    NO_OPTIONS,
    Options,
    PrefixAnswer,
    Refusal,
    RefusalReason,
    Registration,
    RegistrationFlag,
    RuleOperation,
)
from locum.roles.home_agent.binding import Binding, CareOf, Mobile, shared
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.registry import Home, Registrant
from locum.roles.home_agent.requested_changes import (
    cancelled,
    changed_rules,
    rules_without,
    together,
    usable,
)
from locum.roles.rules import KeptRule

_SIMULTANEOUS, _REVERSE = int(RegistrationFlag.SIMULTANEOUS), int(RegistrationFlag.REVERSE_TUNNEL)
_MINIMAL = int(RegistrationFlag.MINIMAL_ENCAPSULATION)
_unusable = lru_cache(4096)(lambda address: not usable(address))


class HomeAdmission:
    """The decisions of one home agent; `served` are the home addresses that it serves."""

    def __init__(self, configuration: HomeAgentConfiguration, served: Container[IPv4Address]) -> None:
        self._configuration, self._served = configuration, served
        self._own = configuration.addresses

    def decide(
        self,
        registration: Registration,
        held: Binding,
        registrant: Registrant,
        source: Source,
        now: float,
        seen: tuple[int | None, int | None],
    ) -> tuple[Binding, int, tuple[KeptRule, ...], tuple[PrefixAnswer, ...]]:
        """The registrant's binding after the registration, the lifetime granted, the rules of the home address, and the
        answer about IPv6. `seen` is the replay state from now on. Raises Refusal, and then nothing changes.
        """
        home, options = registrant.home, registration.options
        if registration.home_agent not in self._own:
            self._check_choice(registration)
        prefixes: tuple[PrefixAnswer, ...] = ()
        if options is not NO_OPTIONS:
            if options.problem is not None:
                raise Refusal(options.problem)
            prefixes = _prefix_answers(options, home.mobile)
        if options is not NO_OPTIONS or registrant is not home:
            self._check_options(options, registrant, now)
        over = registration.lifetime == 0 or registration.care_of == registration.home_address
        if over:
            granted, left = 0, held.keeping(cancelled(registration, held))
            care_of, ipv6 = left.care_of, left.ipv6
        else:
            granted = min(self._configuration.max_lifetime, registration.lifetime)
            care_of = self._registered(registration, held, registrant, source, now + granted, granted)
            ipv6 = any(prefix.bound for prefix in prefixes) if prefixes else False
        default = held.default if options.default is None else self._default(options, held, home)
        after = Binding(held.home_address, care_of, *seen, ipv6, default)
        rules = home.rules
        if options.rules or (rules and over):
            rules = self._rules(options, registrant, after, over, now)
        return after, granted, rules, prefixes

    def _check_choice(self, registration: Registration) -> None:
        """RFC 4433: a mobile node with an NAI that leaves the choice of its home agent to others. Raises Refusal."""
        dynamic = registration.home_agent in ANY_HOME_AGENT and registration.options.nai is not None
        if not dynamic or not self._configuration.assigned:
            raise Refusal(RefusalReason.OTHER_HOME_AGENT)
        if self._configuration.redirect is not None:
            raise Refusal(RefusalReason.REDIRECTED, self._configuration.redirect)

    def _registered(
        self,
        registration: Registration,
        held: Binding,
        registrant: Registrant,
        source: Source,
        expires_at: float,
        granted: int,
    ) -> tuple[CareOf, ...]:
        """The care-of addresses after a registration (section 3.8.2.1). Raises Refusal."""
        flags, options = int(registration.flags), registration.options
        own = registrant.stand_in is None
        identifier, stand_in = options.binding, options.stand_in
        care_of = CareOf(
            self._permitted(registration.care_of, flags, own),
            granted,
            expires_at,
            flags,
            shared(source.address),
            own and granted <= self._configuration.short_lifetime,
            None if identifier is None else identifier.number,
            options.weight,
            stand_in is not None and stand_in.ruled,
        )
        most = self._configuration.max_simultaneous
        return together(held, care_of, identifier, simultaneous=bool(flags & _SIMULTANEOUS), most=most)

    def _check_options(self, asked: Options, registrant: Registrant, now: float) -> None:
        """Check permissions for the requested extensions (R3, R4). Raises Refusal."""
        stand_in, role = registrant.stand_in, asked.stand_in
        if stand_in is None:
            if role is not None:
                raise Refusal(RefusalReason.PROHIBITED)
        elif role is None:
            raise Refusal(RefusalReason.MALFORMED)
        elif asked.default is not None or role.interface_address not in (
            stand_in.address,
            stand_in.address_v6,
        ):
            raise Refusal(RefusalReason.PROHIBITED)
        if asked.binding is not None:
            taken = any(
                care_of.bid == asked.binding.number
                for other in (registrant.home, *registrant.home.stand_ins)
                if other is not registrant
                for care_of in other.binding.without_expired(now).care_of
            )
            if taken or not self._configuration.multipath:
                raise Refusal(RefusalReason.MULTIPATH_NOT_ALLOWED)

    def _permitted(self, care_of: Addr, flags: int, own: bool) -> IPv4Address:
        """The care-of address, if it may be registered. Raises Refusal.

        A stand-in may live on this very host (R17); a mobile node that says so would be a loop.
        """
        if not isinstance(care_of, IPv4Address) or _unusable(care_of) or (own and care_of in self._own):
            raise Refusal(RefusalReason.MALFORMED)
        if care_of in self._served:
            raise Refusal(RefusalReason.PROHIBITED)  # a tunnel into another home address would loop
        if flags & _MINIMAL and not self._configuration.minimal_encapsulation:
            raise Refusal(RefusalReason.ENCAPSULATION_UNAVAILABLE)
        if self._configuration.reverse_tunnel_required and not flags & _REVERSE:
            raise Refusal(RefusalReason.REVERSE_TUNNEL_REQUIRED)
        found = shared(care_of)
        assert isinstance(found, IPv4Address)
        return found

    def _default(self, asked: Options, held: Binding, home: Home) -> IPv4Address | None:
        """The default CoA that the mobile node registers (R3), or the unspecified address. Raises Refusal."""
        if asked.default is None or not home.mobile.default_by_registration:
            return held.default
        address = asked.default
        if address.is_unspecified:
            return None
        if not isinstance(address, IPv4Address) or _unusable(address):
            raise Refusal(RefusalReason.MALFORMED)
        here = address in self._own
        if address in self._served or (here and not _lives_here(home.mobile, address)):
            raise Refusal(RefusalReason.PROHIBITED)
        return address

    def _rules(
        self, asked: Options, registrant: Registrant, accepted: Binding, over: bool, now: float
    ) -> tuple[KeptRule, ...]:
        """The rules after a request. A registrant that cancels everything loses its rules. Raises Refusal."""
        home, rules = registrant.home, registrant.home.rules
        if over:
            if any(rule.operation is not RuleOperation.REMOVE for rule in asked.rules):
                raise Refusal(RefusalReason.MALFORMED)
            if not accepted.care_of:
                return rules_without(rules, registrant.name)
        bids = {care_of.bid for care_of in accepted.care_of if care_of.bid is not None}
        for other in (home, *home.stand_ins):
            if other is not registrant:
                current = other.binding.without_expired(now).care_of
                bids.update(care_of.bid for care_of in current if care_of.bid is not None)
        return changed_rules(rules, asked.rules, registrant.name, bids, home.most_rules)


def _prefix_answers(options: Options, mobile: Mobile) -> tuple[PrefixAnswer, ...]:
    """The IPv6 home address is bound if it is this mobile node's (RFC 5454 section 3.2)."""
    return tuple(
        [
            PrefixAnswer(prefix, prefix.length == 128 and prefix.prefix == mobile.home_address_v6)
            for prefix in options.prefixes
        ]
    )


def _lives_here(mobile: Mobile, address: IPv4Address) -> bool:
    """True if a stand-in of the mobile node has this address of the home agent's host (R17)."""
    return address == mobile.stand_in or any(stand_in.address == address for stand_in in mobile.stand_ins)
