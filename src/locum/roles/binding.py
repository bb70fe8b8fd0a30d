"""The home agent's visitor list (R1): what is registered for a home address, and where its packets go (R2, R5).

Values and pure functions: what a binding means. Whether a registration is accepted is the home agent's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from locum.roles.actions import (
    JSON,
    AcceptTunnel,
    Action,
    Addr,
    BindingEntry,
    Encapsulation,
    InstallBinding,
    RefuseTunnel,
    RemoveBinding,
    Side,
    Tunnel,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.nat import Outer, outer_of
from locum.roles.revocation import Revocable, said_by
from locum.security.association import Association

# Few agents have most mobile nodes: what follows from their addresses is made once.
text = lru_cache(4096)(str)


@dataclass(frozen=True, slots=True)
class Mobile:
    """A home address that the home agent serves, with its association, default CoA (R3) and stand-in (peer rule)."""

    home_address: IPv4Address
    association: Association
    home_address_v6: IPv6Address | None = None
    default_care_of: Addr | None = None
    stand_in: IPv4Address | None = None
    stand_in_v6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class CareOf:
    """One dynamic care-of address. A brief one (R2) carries no packets while there is a default CoA."""

    address: IPv4Address
    lifetime: int  # seconds granted
    expires_at: float  # wall-clock seconds
    flags: int  # of the request (RFC 5944 section 3.3)
    agent: Addr  # where the request came from: the FA, or the MN itself
    brief: bool = False
    gre: bool = False
    outer: Outer | None = None  # where it is seen from here, when its tunnel is packed in UDP (RFC 3519)
    revocable: Revocable | None = None  # its end takes revocations (RFC 3543)

    @property
    def seen_at(self) -> IPv4Address:
        """Where the packets of its tunnel come from: itself, or the NAT before it."""
        return self.address if self.outer is None else self.outer.address


@dataclass(frozen=True, slots=True)
class Binding:
    """All that is known of a home address; the replay state outlives its care-of addresses."""

    home_address: IPv4Address
    care_of: tuple[CareOf, ...] = ()
    identification: int | None = None  # accepted last (timestamps)
    nonce: int | None = None  # expected next (nonces)
    ipv6: bool = False  # the IPv6 home address follows the binding (RFC 5454)

    def without_expired(self, now: float) -> "Binding":
        """The binding as it is at `now`."""
        for each in self.care_of:
            if each.expires_at <= now:
                return self.keeping(tuple(each for each in self.care_of if each.expires_at > now))
        return self

    def keeping(self, care_of: tuple[CareOf, ...]) -> "Binding":
        """With these care-of addresses; without any, IPv6 is not bound either."""
        if care_of == self.care_of:
            return self
        ipv6 = self.ipv6 and bool(care_of)
        return Binding(self.home_address, care_of, self.identification, self.nonce, ipv6)

    def forwards_as(self, other: "Binding") -> bool:
        """Whether all that forwarding depends on is the same: a renewal leaves it as it is."""
        if self.ipv6 is not other.ipv6 or len(self.care_of) != len(other.care_of):
            return False
        for one, two in zip(self.care_of, other.care_of, strict=True):
            if one.address != two.address or one.brief is not two.brief or one.gre is not two.gre:
                return False
            if one.outer != two.outer:
                return False
        return True

    def next_expiry(self) -> float | None:
        """Wall-clock seconds of the first care-of address to expire."""
        return min((each.expires_at for each in self.care_of), default=None)

    def to_row(self) -> Mapping[str, JSON]:
        """As a row of the table "binding"."""
        return {
            "identification": self.identification,
            "nonce": self.nonce,
            "ipv6": self.ipv6,
            "care_of": [
                {
                    "address": text(each.address),
                    "lifetime": each.lifetime,
                    "expires_at": each.expires_at,
                    "flags": each.flags,
                    "agent": text(each.agent),
                    "brief": each.brief,
                    "gre": each.gre,
                    "outer": None if each.outer is None else each.outer.to_row(),
                    "revocable": None if each.revocable is None else each.revocable.to_row(),
                }
                for each in self.care_of
            ],
        }

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "Binding":
        """The binding in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        listed = row["care_of"]
        if not isinstance(listed, list):
            raise ValueError("care_of is not a list")
        return cls(
            home_address=IPv4Address(key),
            care_of=tuple(_care_of(each) for each in listed),
            identification=_number_or_none(row["identification"]),
            nonce=_number_or_none(row["nonce"]),
            ipv6=bool(row["ipv6"]),
        )


def _care_of(row: Mapping[str, JSON]) -> CareOf:
    expires_at = row["expires_at"]
    lifetime, flags = _number_or_none(row["lifetime"]), _number_or_none(row["flags"])
    if not isinstance(expires_at, int | float) or lifetime is None or flags is None:
        raise ValueError("a care-of address needs lifetime, expires_at and flags")
    return CareOf(
        address=IPv4Address(str(row["address"])),
        lifetime=lifetime,
        expires_at=float(expires_at),
        flags=flags,
        agent=ip_address(str(row["agent"])),
        brief=bool(row["brief"]),
        gre=bool(row["gre"]),
        outer=outer_of(row),
        revocable=said_by(row),
    )


def _number_or_none(value: JSON) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise ValueError(f"{value!r} is not a whole number")


@dataclass(frozen=True, slots=True)
class VisitorListEntry:
    """A line of `locum binding list`."""

    home_address: IPv4Address
    home_agent: IPv4Address
    home_address_v6: IPv6Address | None
    care_of: tuple[CareOf, ...]
    default_care_of: Addr | None
    in_force: tuple[Addr, ...]  # where packets go now; empty: natively
    spi: int
    ipv6: bool


def carriers(binding: Binding, mobile: Mobile, home_address: Addr) -> tuple[CareOf, ...]:
    """The dynamic care-of addresses that packets to `home_address` take; none means the default CoA (R2)."""
    if not binding.ipv6 and home_address.version == 6:
        return ()
    for each in binding.care_of:
        if each.brief:
            break
    else:
        return binding.care_of
    ordinary = tuple([each for each in binding.care_of if not each.brief])
    if ordinary or mobile.default_care_of is not None:
        return ordinary
    return binding.care_of


def in_force(binding: Binding, mobile: Mobile) -> tuple[Addr, ...]:
    """Where packets to the IPv4 home address go: dynamic care-of addresses, else the default CoA, else nowhere."""
    dynamic: tuple[Addr, ...] = tuple(each.address for each in carriers(binding, mobile, mobile.home_address))
    if dynamic or mobile.default_care_of is None:
        return dynamic
    return (mobile.default_care_of,)


def forwarding_changes(
    before: Binding | None, after: Binding, mobile: Mobile, home_agent: IPv4Address
) -> list[Action]:
    """What the data plane of the home agent has to do when one binding follows another (None: there was nothing).

    Differences only. Permissions come before the binding that needs them and are taken away last.
    """
    accepted: list[Action] = []
    bindings: list[Action] = []
    refused: list[Action] = []
    homes: tuple[tuple[Addr, Addr | None], ...] = ((mobile.home_address, mobile.stand_in),)
    if mobile.home_address_v6 is not None:
        homes = (*homes, (mobile.home_address_v6, mobile.stand_in_v6))
    for home_address, stand_in in homes:
        old = _tunnel_sources(before, mobile, home_address)
        new = _tunnel_sources(after, mobile, home_address)
        for each in new:
            if each not in old:
                accepted.append(AcceptTunnel(TunnelAcceptance(each, home_address, Side.FROM_HOME_ADDRESS)))
        for each in old:
            if each not in new:
                refused.append(RefuseTunnel(TunnelAcceptance(each, home_address, Side.FROM_HOME_ADDRESS)))
        had = _ways(before, mobile, home_agent, home_address, stand_in)
        ways = _ways(after, mobile, home_agent, home_address, stand_in)
        if ways is None:
            if had is not None:
                bindings.append(RemoveBinding(home_address))
        elif ways != had:
            bindings.append(InstallBinding(BindingEntry(home_address, Verdict.ENCAPSULATE, *ways)))
    return accepted + bindings + refused


def _ways(
    binding: Binding | None,
    mobile: Mobile,
    home_agent: IPv4Address,
    home_address: Addr,
    stand_in: Addr | None,
) -> tuple[tuple[Tunnel, ...], Addr | None, Tunnel | None] | None:
    """The tunnels of a binding entry, its peer and that one's tunnel; None: no entry, packets go natively."""
    if binding is None:
        return None
    dynamic = carriers(binding, mobile, home_address)
    if dynamic:
        first = _tunnel(home_agent, dynamic[0].address, dynamic[0].gre)
        if len(dynamic) == 1:
            return (first,), None, None
        return (first, *[_tunnel(home_agent, each.address, each.gre) for each in dynamic[1:]]), None, None
    if mobile.default_care_of is None:
        return None
    default = (_tunnel(home_agent, mobile.default_care_of, False),)
    reachable = binding.care_of if home_address.version == 4 or binding.ipv6 else ()
    if stand_in is None or not reachable:
        return default, None, None
    return default, stand_in, _tunnel(home_agent, reachable[-1].address, reachable[-1].gre)


@lru_cache(4096)
def _tunnel(home_agent: IPv4Address, care_of: Addr, gre: bool) -> Tunnel:
    return Tunnel(home_agent, care_of, Encapsulation.GRE if gre else Encapsulation.IPIP)


def _tunnel_sources(binding: Binding | None, mobile: Mobile, home_address: Addr) -> list[Addr]:
    """Reverse tunnels (R10): from registered care-of addresses and the default CoA, from nowhere else."""
    if binding is None:
        return []
    sources: list[Addr] = []
    if binding.ipv6 or home_address.version == 4:
        sources += [each.address for each in binding.care_of]
    if mobile.default_care_of is not None and mobile.default_care_of not in sources:
        sources.append(mobile.default_care_of)
    return sources
