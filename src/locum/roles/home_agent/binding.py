"""The home agent's bindings (R1): served home addresses, and their registrations.

Values only. The home agent decides about registrations, their effect on packets is in
`forwarding_choice.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import Encapsulation, RuleVerdict
from locum.roles.action_values.paging import PageForwarding
from locum.roles.action_values.registration import ENCAPSULATIONS, RegistrationFlag, encapsulation_of
from locum.roles.nat import Outer, outer_of
from locum.roles.revocation import Revocable, said_by
from locum.roles.rules import KeptRule
from locum.security.association import Association
from locum.wire.values import value

# Few agents have most mobile nodes: what follows from their addresses is made once.
text = lru_cache(4096)(str)


@lru_cache(4096)
def shared(address: Addr) -> Addr:
    """An equal address that others have as well."""
    return address


@lru_cache(4096)
def _read_address(said: str) -> Addr:
    return shared(ip_address(said))


@lru_cache(4096)
def _read_ipv4(said: str) -> IPv4Address:
    found = _read_address(said)
    if not isinstance(found, IPv4Address):
        raise ValueError(f"{said} is no IPv4 address")
    return found


_CO_LOCATED = int(RegistrationFlag.CO_LOCATED)


@dataclass(frozen=True, slots=True)
class AuthorisedStandIn:
    """A stand-in that may register for a home address, and its association (R4, R7)."""

    name: str  # unique for its home address; none of RESERVED_NAMES
    association: Association  # its SPI is no other registrant's of the home address
    address: IPv4Address  # its interface address: packets from there to the home address mean the mobile node
    address_v6: IPv6Address | None = None
    translate: bool = False  # it wants packets under its interface address, not the home address (R12)


@dataclass(frozen=True, slots=True)
class Mobile:
    """A home address that the home agent serves, with its association, default CoA (R3), stand-ins and rules."""

    home_address: IPv4Address
    association: Association
    home_address_v6: IPv6Address | None = None
    default_care_of: IPv4Address | None = None
    stand_in: IPv4Address | None = None  # an interface address of a stand-in that need not register (Fig. 6)
    stand_in_v6: IPv6Address | None = None
    stand_ins: tuple[AuthorisedStandIn, ...] = ()
    rules: tuple[KeptRule, ...] = ()  # that no signalling changes
    default_by_registration: bool = True  # the mobile node may say where its default CoA is (R3)
    default_ruled: bool = False  # the default CoA gets only what rules send there (R6)
    asleep_otherwise: RuleVerdict = RuleVerdict.AGENT  # for packets that nothing names while it sleeps (P1)
    page_forwarding: PageForwarding | None = None  # of packets that page it (P10); None: as the home agent's


@value
class CareOf:
    """One dynamic care-of address. A brief one (R2) carries packets only without an alternative."""

    address: IPv4Address
    lifetime: int  # seconds granted
    expires_at: float  # steady seconds
    flags: int  # of the registration: RegistrationFlag
    agent: Addr  # where the request came from: the FA, or the registrant itself
    brief: bool = False
    bid: int | None = None  # binding identifier (RFC 7629), unique for the home address
    weight: int = 1  # share of flows among equals (R8)
    ruled: bool = False  # of a stand-in: it gets only what rules send there (R6)
    outer: Outer | None = None  # where it is seen from here, when its tunnel is packed in UDP (RFC 3519)
    revocable: Revocable | None = None  # its end takes revocations (RFC 3543)

    @property
    def co_located(self) -> bool:
        """True if the tunnel ends at the registrant itself, not at a foreign agent."""
        return bool(self.flags & _CO_LOCATED)

    @property
    def encapsulation(self) -> Encapsulation:
        """The encapsulation of its tunnel, unless that is packed in UDP."""
        return encapsulation_of(self.flags)

    @property
    def seen_at(self) -> IPv4Address:
        """Source address of its tunnel's packets: itself, or the NAT before it."""
        return self.address if self.outer is None else self.outer.address

    def to_row(self) -> Mapping[str, JSON]:
        """The item of a binding's row, without default values."""
        row: dict[str, JSON] = {
            "address": text(self.address),
            "lifetime": self.lifetime,
            "expires_at": self.expires_at,
            "flags": self.flags,
            "agent": text(self.agent),
        }
        if self.brief:
            row["brief"] = True
        if self.bid is not None:
            row["bid"] = self.bid
        if self.weight != 1:
            row["weight"] = self.weight
        if self.ruled:
            row["ruled"] = True
        if self.outer is not None:
            row["outer"] = self.outer.to_row()
        if self.revocable is not None:
            row["revocable"] = self.revocable.to_row()
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "CareOf":
        """The care-of address in an item of our own; raises ValueError, KeyError or TypeError for anything else."""
        expires_at, weight = row["expires_at"], row.get("weight", 1)
        lifetime, flags = _number_or_none(row["lifetime"]), _number_or_none(row["flags"])
        if not isinstance(expires_at, int | float) or lifetime is None or flags is None:
            raise ValueError("a care-of address needs lifetime, expires_at and flags")
        if not isinstance(weight, int):
            raise ValueError("a weight is a whole number")
        return cls(
            address=_read_ipv4(str(row["address"])),
            lifetime=_shared_number(lifetime),
            expires_at=float(expires_at),
            flags=flags,
            agent=_read_address(str(row["agent"])),
            brief=bool(row.get("brief", False)),
            bid=_number_or_none(row.get("bid")),
            weight=weight,
            ruled=bool(row.get("ruled", False)),
            outer=outer_of(row),
            revocable=said_by(row),
        )


@value
class Binding:
    """Care-of addresses of one registrant of a home address, and its longer-lived replay state."""

    home_address: IPv4Address
    care_of: tuple[CareOf, ...] = ()  # in the order of registration
    identification: int | None = None  # accepted last (timestamps)
    nonce: int | None = None  # expected next (nonces)
    ipv6: bool = False  # the IPv6 home address follows the binding (RFC 5454)
    # The default CoA that the mobile node registered (R3); outlives care_of too
    default: IPv4Address | None = None
    last: IPv4Address | None = None  # without a care-of address: the access node that the device was at

    @property
    def access_node(self) -> IPv4Address | None:
        """The access node of the device, or the last one; None if it was at none."""
        at = [care_of.address for care_of in self.care_of if not care_of.co_located]
        return at[-1] if at else self.last

    def after(self, before: "Binding") -> "Binding":
        """This binding, which follows `before`; without care-of addresses it knows the last access node."""
        last = None if self.care_of else before.access_node
        return self if last == self.last else replace(self, last=last)

    def without_expired(self, now: float) -> "Binding":
        """The binding as it is at `now`."""
        for entry in self.care_of:
            if entry.expires_at <= now:
                return self.keeping(tuple(held for held in self.care_of if held.expires_at > now))
        return self

    def keeping(self, care_of: tuple[CareOf, ...]) -> "Binding":
        """With these care-of addresses; without any, IPv6 is not bound either, and the last access node is known."""
        if care_of == self.care_of:
            return self
        ipv6 = self.ipv6 and bool(care_of)
        last = self.last if care_of else self.access_node
        return Binding(self.home_address, care_of, self.identification, self.nonce, ipv6, self.default, last)

    def forwards_as(self, other: "Binding") -> bool:
        """True if all fields that forwarding depends on are equal, as after a renewal."""
        if self.ipv6 is not other.ipv6 or len(self.care_of) != len(other.care_of):
            return False
        for one, two in zip(self.care_of, other.care_of, strict=True):
            if one.address != two.address or one.brief is not two.brief:
                return False
            if (one.flags ^ two.flags) & ENCAPSULATIONS:
                return False
            if one.bid != two.bid or one.weight != two.weight or one.ruled is not two.ruled:
                return False
            if one.outer != two.outer:
                return False
        return self.default == other.default

    def next_expiry(self) -> float | None:
        """Steady seconds of the first care-of address to expire."""
        if len(self.care_of) == 1:
            return self.care_of[0].expires_at
        return min((entry.expires_at for entry in self.care_of), default=None)

    def to_row(self) -> Mapping[str, JSON]:
        """The row of the table "binding" (the mobile node) or "stand_in", without default values."""
        row: dict[str, JSON] = {
            "identification": self.identification,
            "care_of": [entry.to_row() for entry in self.care_of],
        }
        if self.nonce is not None:
            row["nonce"] = self.nonce
        if self.ipv6:
            row["ipv6"] = True
        if self.default is not None:
            row["default"] = text(self.default)
        if self.last is not None:
            row["last"] = text(self.last)
        return row

    @classmethod
    def from_row(cls, home_address: IPv4Address, row: Mapping[str, JSON]) -> "Binding":
        """The binding in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        listed, default, last = row["care_of"], row.get("default"), row.get("last")
        if not isinstance(listed, list):
            raise ValueError("care_of is not a list")
        return cls(
            home_address=home_address,
            care_of=tuple(CareOf.from_row(row_item) for row_item in listed),
            identification=_number_or_none(row["identification"]),
            nonce=_number_or_none(row.get("nonce")),
            ipv6=bool(row.get("ipv6", False)),
            default=None if default is None else IPv4Address(str(default)),
            last=None if last is None else _read_ipv4(str(last)),
        )


_shared_number = lru_cache(256)(lambda number: number)


def _number_or_none(value: JSON) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise ValueError(f"{value!r} is not a whole number")
