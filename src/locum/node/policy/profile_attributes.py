"""RADIUS attributes -> `Profile`. The dictionary is docs/policy-server.md in machine-readable form.

A reply that is authentic and still makes no sense is an error of a person; it is said with the attribute's name. Knows
nothing of sockets, nor of a profile's use.
"""

import io
from dataclasses import replace
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar

from pyrad.dictionary import Dictionary, ParseError
from pyrad.packet import PacketError

from locum.node.coap.learnt_associations import Grant
from locum.node.config.paging.event_table import entries
from locum.node.config.parts import association as association_in
from locum.node.config.rule_table import filter_rules, flow_rules, inline_table
from locum.node.config.settings import Address, ControlAssociation
from locum.node.config.toml_table import ConfigError
from locum.roles.action_values.flows import MAX_RULES, FilterRule, FilterVerdict, RuleVerdict
from locum.roles.paging.events import FIRST_PUSHED
from locum.roles.profile import (
    GrantedStandIn,
    Policing,
    PolicingChange,
    Profile,
    ProfileChange,
    too_many_filter_rules,
)
from locum.roles.rules import PROFILE, RESERVED_NAMES
from locum.security.association import FIRST_SPI, LAST_SPI, AaaAssociation, Algorithm, Association, Replay
from locum.wire.control.paging.entry import Entry
from locum.wire.control.paging.status import MAX_ITEM

T = TypeVar("T")
D = TypeVar("D")  # a default
A = TypeVar("A", IPv4Address, IPv6Address)

SHORTEST_SECRET = 16  # bytes of an OSCORE master secret
LONGEST_ID = 7  # bytes of an identifier (RFC 8613 section 3.3 with a nonce of 12 or 13 bytes)
MAX_STAND_INS = 16  # of one mobile node: as many interface addresses as a home agent can tell apart
_STANDARD = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE Session-Timeout 27 integer
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Message-Authenticator 80 octets
VALUE Service-Type Call-Check 10
"""
_ALGORITHM = {
    "HMAC-MD5": Algorithm.HMAC_MD5,
    "HMAC-SHA-256": Algorithm.HMAC_SHA_256,
    "HMAC-SHA-1": Algorithm.HMAC_SHA_1,
}
_KEY_WITH = {"Home-Agent": Association, "AAA": AaaAssociation}
_REPLAY = {"Timestamp": Replay.TIMESTAMP, "Nonce": Replay.NONCE}
_OTHERWISE = {"Allow": FilterVerdict.ALLOW, "Drop": FilterVerdict.DROP}
_ASLEEP = {
    "Agent": RuleVerdict.AGENT,
    "Drop": RuleVerdict.DROP,
    "Hold": RuleVerdict.HOLD,
    "Forward": RuleVerdict.FORWARD,
}


class ProfileError(Exception):
    """An authentic answer without a valid profile; names the attribute and the reason, without secrets."""


def dictionary(path: Path | None) -> Any:
    """The attributes of RFC 2865 that are used here and ours, or those of the file at `path`. Raises OSError."""
    if path is None:
        ours = files("locum.node.policy").joinpath("dictionary.locum").read_text("utf-8")
    else:
        ours = path.read_text("utf-8")
    try:
        return Dictionary(io.StringIO(_STANDARD), io.StringIO(ours))
    except ParseError as problem:
        raise OSError(f"{path or 'dictionary.locum'} is not a RADIUS dictionary: {problem}") from None


def profile_of(answer: Any) -> Profile:
    """The profile in an authentic Access-Accept of pyrad. Raises ProfileError."""
    try:
        return _profile(answer)
    except ConfigError as problem:
        raise ProfileError(str(problem)) from None
    except PacketError as problem:
        raise ProfileError(f"an attribute cannot be read: {problem}") from None


def _profile(answer: Any) -> Profile:
    association, stand_ins = _association(answer), _stand_ins(answer)
    if association is not None and any(stand_in.association.spi == association.spi for stand_in in stand_ins):
        raise ProfileError(
            f"Locum-SPI and a Locum-MNPS are both {association.spi}; the SPI identifies the registrant"
        )
    to_visitor, paging = _policing(answer, "Locum-Filter-To"), _policing(answer, "Locum-Paging")
    if too_many_filter_rules(to_visitor, paging):
        raise ProfileError(
            f"Locum-Filter-To and Locum-Paging have more than {MAX_RULES} rules together, the most of one filter"
        )
    return Profile(
        lifetime=_one(answer, "Session-Timeout", int),
        home_address=_address4(answer, "Locum-Home-Address"),
        home_address_v6=_address6(answer, "Locum-Home-Address-V6"),
        pool=_one(answer, "Locum-Pool", str),
        association=association,
        default_care_of=_address4(answer, "Locum-Default-CoA"),
        stand_ins=stand_ins,
        rules=flow_rules(
            (inline_table("Locum-Rule", text) for text in _all(answer, "Locum-Rule", str)), PROFILE
        ),
        to_visitor=to_visitor,
        from_visitor=_policing(answer, "Locum-Filter-From"),
        paging=paging,
        asleep_otherwise=_choice(answer, "Locum-Asleep-Otherwise", _ASLEEP, None),
        version=_one(answer, "Locum-Version", int),
    )


# Pushed changes ------------------------------------------------------------------------------------------------------

EMPTY = "none"  # as the only value of a kind of rules: there are none any more
_PUSHED = (
    "Locum-Rule", "Locum-Filter-To", "Locum-Filter-To-Otherwise", "Locum-Filter-From",
    "Locum-Filter-From-Otherwise", "Locum-Paging", "Locum-Paging-Otherwise", "Locum-Asleep-Otherwise",
    "Locum-Event",
)  # fmt: skip


def pushed_numbers(known: Any) -> tuple[int, frozenset[int], frozenset[int]]:
    """Our enterprise number, the attributes that name a mobile node, and those that a CoA-Request may have beside them."""
    numbers = {name: attribute.code for name, attribute in known.attributes.items()}
    changes = frozenset(numbers[name] for name in (*_PUSHED, "Locum-Version"))
    return known.vendors.GetForward("Locum"), frozenset((numbers["Locum-Home-Address"],)), changes


def home_address_of(request: Any) -> IPv4Address | None:
    """The home address that a request names by our attribute. Raises ProfileError."""
    return _address4(request, "Locum-Home-Address")


def change_of(request: Any) -> ProfileChange | None:
    """The change in a CoA-Request of pyrad; None: it has nothing to change. Raises ProfileError, KeyError without a version."""
    try:
        return _change(request)
    except ConfigError as problem:
        raise ProfileError(str(problem)) from None
    except PacketError as problem:
        raise ProfileError(f"an attribute cannot be read: {problem}") from None


def _change(request: Any) -> ProfileChange | None:
    version = _one(request, "Locum-Version", int)
    texts = _listed(request, "Locum-Rule")
    rules = None if texts is None else (inline_table("Locum-Rule", text) for text in texts)
    change = ProfileChange(
        version=0 if version is None else version,
        rules=None if rules is None else flow_rules(rules, PROFILE),
        to_visitor=_policing_change(request, "Locum-Filter-To"),
        from_visitor=_policing_change(request, "Locum-Filter-From"),
        paging=_policing_change(request, "Locum-Paging"),
        asleep_otherwise=_choice(request, "Locum-Asleep-Otherwise", _ASLEEP, None),
        entries=_entries(request),
    )
    if change == ProfileChange(change.version):
        return None
    if version is None:
        raise KeyError("Locum-Version")
    return change


def fetched_entries(answer: Any) -> ProfileChange | None:
    """Entries for an event table in an authentic Access-Accept; None: it has none. Raises ProfileError."""
    try:
        found, version = _entries(answer), _one(answer, "Locum-Version", int)
    except ConfigError as problem:
        raise ProfileError(str(problem)) from None
    if found is None:
        return None
    if version is None:
        raise ProfileError("Locum-Event in a profile needs Locum-Version")
    return ProfileChange(version, entries=found)


def _entries(request: Any) -> tuple[Entry, ...] | None:
    """Entries for the event table of a stand-in, under the identifiers that a policy server's have there."""
    texts = _listed(request, "Locum-Event")
    if texts is None:
        return None
    found = entries(tuple(inline_table("Locum-Event", text) for text in texts))
    if any(FIRST_PUSHED + entry.identifier > MAX_ITEM for entry in found):
        raise ProfileError(f"Locum-Event: identifiers end at {MAX_ITEM - FIRST_PUSHED}")
    return tuple(replace(entry, identifier=FIRST_PUSHED + entry.identifier) for entry in found)


def _listed(request: Any, name: str) -> list[str] | None:
    """The values of a kind of rules; None: nothing is said about them."""
    texts = _all(request, name, str)
    return None if not texts else [] if texts == [EMPTY] else texts


def _policing_change(request: Any, name: str) -> PolicingChange:
    texts = _listed(request, name)
    rules = None if texts is None else _filter_rules(name, texts)
    return PolicingChange(rules, _choice(request, f"{name}-Otherwise", _OTHERWISE, None))


def _association(answer: Any) -> Association | None:
    """MN-HA or MN-AAA, from Locum-Key and the attributes that belong to it; None without a key."""
    text, spi = _one(answer, "Locum-Key", str), _one(answer, "Locum-SPI", int)
    if text is None and spi is None:
        return None
    if text is None or spi is None:
        raise ProfileError("Locum-Key and Locum-SPI belong together, and one is missing")
    kind = _choice(answer, "Locum-Key-With", _KEY_WITH, Association)
    algorithm = _choice(answer, "Locum-Algorithm", _ALGORITHM, Algorithm.HMAC_SHA_256)
    replay = _choice(answer, "Locum-Replay", _REPLAY, Replay.TIMESTAMP)
    try:
        return kind(spi, _key("Locum-Key", text), algorithm, replay)
    except ValueError as problem:
        raise ProfileError(f"Locum-Key, Locum-SPI: {problem}") from None


def _stand_ins(answer: Any) -> tuple[GrantedStandIn, ...]:
    """Each Locum-MNPS with the key that Locum-MNPS-Key has for its SPI."""
    keys: dict[int, bytes] = {}
    for text in _all(answer, "Locum-MNPS-Key", str):
        spi, _, key = text.partition(" ")
        if not spi.isdecimal() or int(spi) in keys:
            raise ProfileError("Locum-MNPS-Key is an SPI, a space and a key, each SPI once")
        keys[int(spi)] = _key("Locum-MNPS-Key", key)
    found = tuple(_stand_in(text, keys) for text in _all(answer, "Locum-MNPS", str))
    if keys:
        raise ProfileError(f"no Locum-MNPS has the SPI {next(iter(keys))} of a Locum-MNPS-Key")
    names = [stand_in.name for stand_in in found]
    if len(set(names)) != len(names) or RESERVED_NAMES & set(names):
        raise ProfileError(
            f"each Locum-MNPS needs a name of its own, not {', '.join(sorted(RESERVED_NAMES))}"
        )
    if len(found) > MAX_STAND_INS:
        raise ProfileError(f"there are {len(found)} Locum-MNPS; {MAX_STAND_INS} are the most")
    return found


def _stand_in(text: str, keys: dict[int, bytes]) -> GrantedStandIn:
    table = inline_table("Locum-MNPS", text)
    key = keys.pop(table.integer("spi", least=FIRST_SPI, most=LAST_SPI), None)
    if key is None:
        raise table.error("spi", "has no Locum-MNPS-Key of its own")
    try:
        granted = GrantedStandIn(
            name=table.string("name"),
            address=table.address4("address"),
            association=association_in(table, key),
            address_v6=table.optional6("address_v6"),
        )
    except ValueError as problem:
        raise ProfileError(f"Locum-MNPS-Key: {problem}") from None
    table.close()
    return granted


# The second association ----------------------------------------------------------------------------------------------


def grant_of(answer: Any, stand_in: Address, home_address: IPv4Address) -> Grant | None:
    """Association between a home address and a stand-in (C9), from an authentic Access-Accept.

    `stand_in` is the address of its [control]. None: the profile has none with it. Raises ProfileError.
    """
    try:
        return _grant(answer, stand_in, home_address)
    except ConfigError as problem:
        raise ProfileError(str(problem)) from None
    except PacketError as problem:
        raise ProfileError(f"an attribute cannot be read: {problem}") from None


def _grant(answer: Any, stand_in: Address, home_address: IPv4Address) -> Grant | None:
    named = _address4(answer, "Locum-Home-Address")
    if named not in (None, home_address):
        raise ProfileError(f"Locum-Home-Address is {named}; the request was about {home_address}")
    six = _address6(answer, "Locum-Home-Address-V6")
    speaks_for: tuple[Address, ...] = (home_address,) if six is None else (home_address, six)
    keys: dict[Address, bytes] = {}
    for text in _all(answer, "Locum-Control-Key", str):
        address, _, key = text.partition(" ")
        try:
            owner = ip_address(address)
        except ValueError:
            owner = None
        if owner is None or owner in keys:
            raise ProfileError("Locum-Control-Key is an address, a space and a key, each address once")
        keys[owner] = _key("Locum-Control-Key", key)
    found = [_control(text, keys, home_address, speaks_for) for text in _all(answer, "Locum-Control", str)]
    if keys:
        raise ProfileError(f"no Locum-Control has the address {next(iter(keys))} of a Locum-Control-Key")
    own = next((association for address, association in found if address == stand_in), None)
    return None if own is None else Grant(own, _one(answer, "Session-Timeout", int))


def _control(
    text: str, keys: dict[Address, bytes], home_address: IPv4Address, speaks_for: tuple[Address, ...]
) -> tuple[Address, ControlAssociation]:
    """One Locum-Control, with the key that Locum-Control-Key has for its address, which is taken out of `keys`."""
    table = inline_table("Locum-Control", text)
    address = table.address("address")
    secret = keys.pop(address, None)
    if secret is None:
        raise table.error("address", "has no Locum-Control-Key of its own")
    if len(secret) < SHORTEST_SECRET:
        raise ProfileError(
            f"Locum-Control-Key has {len(secret)} bytes; {SHORTEST_SECRET} are the least (RFC 8613 section 12.3)"
        )
    association = ControlAssociation(
        peer=home_address,
        sender_id=table.hexadecimal("mnps_id", most=LONGEST_ID),
        recipient_id=table.hexadecimal("mn_id", most=LONGEST_ID),
        secret=secret,
        salt=table.hexadecimal("salt", b""),
        home_addresses=speaks_for,
    )
    table.close()
    if association.sender_id == association.recipient_id:
        raise table.error("mnps_id", "equals mn_id; the two ends of an association need different ids")
    return address, association


def _policing(answer: Any, name: str) -> Policing:
    rules = _filter_rules(name, _all(answer, name, str))
    return Policing(rules, _choice(answer, f"{name}-Otherwise", _OTHERWISE, FilterVerdict.ALLOW))


def _filter_rules(name: str, texts: list[str]) -> tuple[FilterRule, ...]:
    rules: list[FilterRule] = []
    identifiers: set[int] = set()
    for text in texts:
        found = filter_rules(inline_table(name, text), pages=name == "Locum-Paging")
        if found[0].identifier in identifiers:
            raise ProfileError(f"{name}: two rules have the id {found[0].identifier}")
        identifiers.add(found[0].identifier)
        rules += found
    if len(identifiers) > MAX_RULES:
        raise ProfileError(f"{name} has {len(identifiers)} rules; {MAX_RULES} are the most")
    return tuple(rules)


# Attributes ---------------------------------------------------------------------------------------------------------


def _all(answer: Any, name: str, kind: type[T]) -> list[T]:
    """The values of an attribute, in order. Raises ProfileError for a value of another kind."""
    try:
        values = answer.get(name, [])
    except (PacketError, ValueError, TypeError) as problem:
        raise ProfileError(f"{name} cannot be read: {problem}") from None
    for value in values:
        if not isinstance(value, kind):
            raise ProfileError(f"{name} has a value that cannot be read (is the shared secret right?)")
    return list(values)


def _one(answer: Any, name: str, kind: type[T]) -> T | None:
    values = _all(answer, name, kind)
    if len(values) > 1:
        raise ProfileError(f"{name} is there {len(values)} times")
    return values[0] if values else None


def _choice(answer: Any, name: str, options: dict[str, T], otherwise: D) -> T | D:
    value = _one(answer, name, object)
    if value is None:
        return otherwise
    if value not in options:
        raise ProfileError(f"{name} is {value}, which is none of {', '.join(options)}")
    return options[str(value)]


def _address4(answer: Any, name: str) -> IPv4Address | None:
    text = _one(answer, name, str)
    return None if text is None else _of_a_host(name, IPv4Address(text))


def _address6(answer: Any, name: str) -> IPv6Address | None:
    text = _one(answer, name, str)
    return None if text is None else _of_a_host(name, IPv6Address(text))


def _of_a_host(name: str, address: A) -> A:
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved:
        raise ProfileError(f"{name} is {address}, which is no host's")
    return address


def _key(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ProfileError(f"{name} is not an even number of hexadecimal digits") from None
