"""The care-of addresses and rules of a registrant after its registration (R4, R8; RFC 7629).

The mobile node and each of its stand-ins are registrants: each with its own association, replay state and care-of
addresses. Pure functions over registrations and bindings; forwarding, replies and the store are not known here.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.flows import Selector
from locum.roles.action_values.registration import (
    BindingIdentifier,
    Refusal,
    RefusalReason,
    Registration,
    RuleChange,
    RuleOperation,
)
from locum.roles.home_agent.binding import Binding, CareOf
from locum.roles.rules import (
    UNNAMED,
    UNNAMED_PRIORITY,
    KeptRule,
    RuleRefused,
    added,
    both_families,
    free_identifier,
    without,
)


def cancelled(asked: Registration, held: Binding) -> tuple[CareOf, ...]:
    """The care-of addresses that are left after a deregistration (RFC 5944 section 3.3, RFC 7629 section 5)."""
    identifier = asked.options.binding
    if identifier is None:
        if asked.care_of == asked.home_address:
            return ()
        return tuple([earlier for earlier in held.care_of if earlier.address != asked.care_of])
    if identifier.overwrite:
        raise Refusal(RefusalReason.MALFORMED)
    if identifier.bulk or asked.care_of == asked.home_address:
        return ()
    return tuple([earlier for earlier in held.care_of if earlier.bid != identifier.number])


def together(
    held: Binding, care_of: CareOf, identifier: BindingIdentifier | None, *, simultaneous: bool, most: int
) -> tuple[CareOf, ...]:
    """The care-of addresses with this one. Raises Refusal when there would be more than `most`.

    Without S bit and binding identifier it is the only one (RFC 5944 section 3.6.1.2); with an identifier it stands
    beside those with others (RFC 7629 section 4.1).
    """
    if identifier is None:
        if not simultaneous:
            return (care_of,)
        kept = [earlier for earlier in held.care_of if earlier.address != care_of.address]
    elif identifier.overwrite:
        return (care_of,)
    else:
        kept = [earlier for earlier in held.care_of if not _replaced(earlier, care_of)]
        if identifier.bulk:
            lifetime, expires_at = care_of.lifetime, care_of.expires_at
            kept = [replace(earlier, lifetime=lifetime, expires_at=expires_at) for earlier in kept]
    if len(kept) >= most:
        raise Refusal(RefusalReason.TOO_MANY_CARE_OF_ADDRESSES)
    return (*kept, care_of)


def _replaced(old: CareOf, new: CareOf) -> bool:
    """The same binding, or one of the same care-of address that had no identifier yet."""
    return old.bid == new.bid or (old.bid is None and old.address == new.address)


def changed_rules(
    rules: tuple[KeptRule, ...], asked: Sequence[RuleChange], by: str, bids: Collection[int], most: int
) -> tuple[KeptRule, ...]:
    """The rules of a home address after those changes, all or none. Raises Refusal.

    `bids`: the binding identifiers that are registered, this request's among them. Flow bindings without a name are the
    whole of the registrant's unnamed ones: they replace its earlier ones.
    """
    try:
        if any(change.identifier is None for change in asked):
            rules = tuple([rule for rule in rules if rule.owner != by or rule.identifier not in UNNAMED])
        for change in asked:
            rules = _changed(rules, change, by, bids, most)
    except RuleRefused as refused:
        raise Refusal(refused.reason) from refused
    return rules


def _changed(
    rules: tuple[KeptRule, ...], change: RuleChange, by: str, bids: Collection[int], most: int
) -> tuple[KeptRule, ...]:
    if change.identifier is not None and change.operation is not RuleOperation.ADD:
        rules, _ = without(rules, change.identifier, by)
    if change.operation is RuleOperation.REMOVE:
        return rules
    selectors = _selectors(change)
    unknown = [bid for bid in change.to if bid not in bids]
    if unknown:  # RFC 7629 section 5.2
        raise RuleRefused(RefusalReason.UNKNOWN_IDENTIFIER, f"binding {unknown[0]} is not registered")
    identifier, priority, share = change.identifier, change.priority, change.share
    if identifier is None:
        identifier = free_identifier(rules, UNNAMED.start)
        priority, share = UNNAMED_PRIORITY + identifier - UNNAMED.start, False
    elif identifier in UNNAMED:
        raise RuleRefused(RefusalReason.MALFORMED, f"identifier {identifier} is given to rules without one")
    made = KeptRule(identifier, priority, change.verdict, selectors, change.to, share, by)
    # The answer was lost and the rule is asked for again, under another identification: it stands already.
    return rules if made in rules else added(rules, made, most)


def _selectors(change: RuleChange) -> tuple[Selector, ...]:
    """Of one rule, each family once. Raises RuleRefused."""
    if change.problem is not None:
        raise RuleRefused(RefusalReason.MALFORMED, change.problem)
    found = [selector for said in change.selectors for selector in both_families(said)]
    if len({type(selector) for selector in found}) != len(found):
        raise RuleRefused(RefusalReason.MALFORMED, "one rule has two selectors of one family")
    return tuple(found)


def rules_without(rules: tuple[KeptRule, ...], *owners: str) -> tuple[KeptRule, ...]:
    """The rules that are left when these registrants are gone; the same tuple where they had none."""
    left = tuple([rule for rule in rules if rule.owner not in owners])
    return rules if len(left) == len(rules) else left


def usable(address: IPv4Address) -> bool:
    """True if a host can have this address."""
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved)
