"""What a registrant of a home address asks for in its registration, and what that makes of its binding (R4, R8; RFC 7629).

The mobile node and each of its stand-ins are registrants: each with its own association, replay state and care-of
addresses. Pure functions over requests and bindings; forwarding, replies and the store are not known here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.action_values.flows import RuleVerdict, Selector
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
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import AuthKind, FlowAction, FlowBinding, Multipath, VendorNormal
from locum.wire.mobile_ip.registration import Code, RegistrationRequest
from locum.wire.mobile_ip.vendor import (
    DefaultCareOfAddress,
    FlowOperation,
    FlowRule,
    MnpsRole,
    Weight,
    decode_vendor,
)
from locum.wire.traffic_selector import UnknownSelector


class Refusal(Exception):
    """A request that is answered with a code and changes nothing."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One flow binding, and the name that came before it; one of the two may be missing.

    `other`: the same name came once more right behind it, for the other family.
    """

    named: FlowRule | None
    binding: FlowBinding | None
    other: FlowBinding | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the extensions of a request say that the home agent's authentication covers."""

    multipath: Multipath | None = None
    weight: int = 1
    role: MnpsRole | None = None
    default: DefaultCareOfAddress | None = None
    rules: tuple[RuleChange, ...] = ()


PLAIN = Wishes()


def wishes(request: RegistrationRequest) -> Wishes:
    """What the request asks for beside its fixed part. Raises Refusal."""
    multipath: Multipath | None = None
    weight, role, default = 1, None, None
    named: FlowRule | None = None
    rules: list[RuleChange] = []
    for each in request.protected(AuthKind.MN_HA):
        if isinstance(each, FlowBinding):
            last = rules[-1] if rules and named is not None else None
            if last is not None and last.named == named and last.binding is not None and last.other is None:
                rules[-1] = RuleChange(named, last.binding, each)
            else:
                rules.append(RuleChange(named, each))
            named = None
            continue
        if named is not None:
            raise Refusal(Code.POORLY_FORMED_REQUEST)  # a name whose flow binding does not follow
        if isinstance(each, Multipath):
            multipath = each
        elif isinstance(each, VendorNormal):
            match _vendor_value(each):
                case Weight(number):
                    weight = number
                case MnpsRole() as said:
                    role = said
                case DefaultCareOfAddress() as said:
                    default = said
                case FlowRule(operation=FlowOperation.REMOVE) as said:
                    rules.append(RuleChange(said, None))
                case FlowRule() as said:
                    named = said
    if named is not None or not weight:
        raise Refusal(Code.POORLY_FORMED_REQUEST)
    return Wishes(multipath, weight, role, default, tuple(rules))


def _vendor_value(extension: VendorNormal) -> object:
    try:
        return decode_vendor(extension)
    except WireError:
        raise Refusal(Code.POORLY_FORMED_REQUEST) from None


def cancelled(request: RegistrationRequest, held: Binding, multipath: Multipath | None) -> tuple[CareOf, ...]:
    """The care-of addresses that are left after a deregistration (RFC 5944 section 3.3, RFC 7629 section 5)."""
    if multipath is None:
        if request.care_of_address == request.home_address:
            return ()
        return tuple([each for each in held.care_of if each.address != request.care_of_address])
    if multipath.overwrite:
        raise Refusal(Code.POORLY_FORMED_REQUEST)
    if multipath.bulk or request.care_of_address == request.home_address:
        return ()
    return tuple([each for each in held.care_of if each.bid != multipath.binding])


def together(
    held: Binding, care_of: CareOf, multipath: Multipath | None, *, simultaneous: bool, most: int
) -> tuple[CareOf, ...]:
    """The care-of addresses with this one. Raises Refusal when there would be more than `most`.

    Without S bit and binding identifier it is the only one (RFC 5944 section 3.6.1.2); with an identifier it stands
    beside those with others (RFC 7629 section 4.1).
    """
    if multipath is None:
        if not simultaneous:
            return (care_of,)
        kept = [each for each in held.care_of if each.address != care_of.address]
    elif multipath.overwrite:
        return (care_of,)
    else:
        kept = [each for each in held.care_of if not _replaced(each, care_of)]
        if multipath.bulk:
            lifetime, expires_at = care_of.lifetime, care_of.expires_at
            kept = [replace(each, lifetime=lifetime, expires_at=expires_at) for each in kept]
    if len(kept) >= most:
        raise Refusal(Code.TOO_MANY_SIMULTANEOUS_BINDINGS)
    return (*kept, care_of)


def _replaced(old: CareOf, new: CareOf) -> bool:
    """The same binding, or one of the same care-of address that had no identifier yet."""
    return old.bid == new.bid or (old.bid is None and old.address == new.address)


def changed_rules(
    rules: tuple[KeptRule, ...], asked: Sequence[RuleChange], by: str, bids: Collection[int], most: int
) -> tuple[KeptRule, ...]:
    """The rules of a home address after those changes, all or none. Raises Refusal.

    `bids`: the binding identifiers that are registered, this request's among them. Flow bindings without a name are the
    whole of what the registrant says without names: they take the place of those it said before.
    """
    try:
        if any(each.named is None for each in asked):
            rules = tuple([each for each in rules if each.owner != by or each.identifier not in UNNAMED])
        for each in asked:
            rules = _changed(rules, each, by, bids, most)
    except RuleRefused as refused:
        raise Refusal(refused.code) from refused
    return rules


def _changed(
    rules: tuple[KeptRule, ...], change: RuleChange, by: str, bids: Collection[int], most: int
) -> tuple[KeptRule, ...]:
    named, binding = change.named, change.binding
    if named is not None and named.operation is not FlowOperation.ADD:
        rules, _ = without(rules, named.identifier, by)
    if binding is None:
        return rules
    selectors = _selectors(binding, change.other)
    unknown = [each for each in binding.bindings if each not in bids]
    if unknown:  # RFC 7629 section 5.2
        raise RuleRefused(Code.INVALID_FB_IDENTIFIER, f"binding {unknown[0]} is not registered")
    if named is None:
        identifier = free_identifier(rules, UNNAMED.start)
        priority, share = UNNAMED_PRIORITY + identifier - UNNAMED.start, False
    elif named.identifier in UNNAMED:
        raise RuleRefused(
            Code.POORLY_FORMED_REQUEST, f"identifier {named.identifier} is given to rules without one"
        )
    else:
        identifier, priority, share = named.identifier, named.priority, named.share
    verdict = RuleVerdict.DROP if binding.action is FlowAction.DROP else RuleVerdict.FORWARD
    made = KeptRule(identifier, priority, verdict, selectors, binding.bindings, share, by)
    # The answer was lost and the rule is asked for again, under another identification: it stands already.
    return rules if made in rules else added(rules, made, most)


def _selectors(binding: FlowBinding, other: FlowBinding | None) -> tuple[Selector, ...]:
    """Of one rule, each family once. Raises RuleRefused."""
    found: list[Selector] = []
    for each in (binding,) if other is None else (binding, other):
        if isinstance(each.selector, UnknownSelector):
            raise RuleRefused(Code.POORLY_FORMED_REQUEST, "the selector's format is not known")
        if (each.action, each.bindings) != (binding.action, binding.bindings):
            raise RuleRefused(Code.POORLY_FORMED_REQUEST, "one rule leads to different places")
        found += both_families(each.selector)
    if len({type(each) for each in found}) != len(found):
        raise RuleRefused(Code.POORLY_FORMED_REQUEST, "one rule has two selectors of one family")
    return tuple(found)


def rules_without(rules: tuple[KeptRule, ...], *owners: str) -> tuple[KeptRule, ...]:
    """The rules that are left when these registrants are gone; the same tuple where they had none."""
    left = tuple([each for each in rules if each.owner not in owners])
    return rules if len(left) == len(rules) else left


def usable(address: IPv4Address) -> bool:
    """Whether a host can have this address."""
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved)
