"""The foreign agent's visitor list (R1): visitors by link, and their forwarding (R10, R11).

Values and pure functions; the foreign agent decides about visitors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import Translation, Tunnel
from locum.roles.action_values.forwarding import NeighbourEntry, OutboundEntry, Side, TunnelAcceptance
from locum.roles.action_values.registration import RegistrationFlag, encapsulation_of
from locum.roles.foreign_agent.configuration import StaticVisitor
from locum.roles.forwarding import Forwarding, forwarding
from locum.roles.nat import udp_tunnel
from locum.roles.revocation import Revocable, said_by


@dataclass(frozen=True, slots=True)
class Visitor:
    """A registered visitor. With `next_hop` it is a stand-in that registered for the home address (R4), reached there."""

    home_address: IPv4Address
    home_agent: IPv4Address
    link: str
    link_layer: bytes | None
    lifetime: int  # seconds granted
    expires_at: float  # steady seconds
    flags: int  # of the request
    home_address_v6: IPv6Address | None = None
    revocable: Revocable | None = None  # the home agent takes revocations, and sends them (RFC 3543)
    udp: bool = False  # the tunnel to the home agent is packed in UDP (RFC 3519)
    next_hop: Addr | None = None

    def to_row(self) -> Mapping[str, JSON]:
        """The row of the table "visitor"."""
        return {
            "home_agent": str(self.home_agent),
            "link": self.link,
            "link_layer": None if self.link_layer is None else self.link_layer.hex(),
            "lifetime": self.lifetime,
            "expires_at": self.expires_at,
            "flags": self.flags,
            "home_address_v6": None if self.home_address_v6 is None else str(self.home_address_v6),
            "revocable": None if self.revocable is None else self.revocable.to_row(),
            "udp": self.udp,
            "next_hop": None if self.next_hop is None else str(self.next_hop),
        }

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "Visitor":
        """The visitor in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        lifetime, expires_at, flags = row["lifetime"], row["expires_at"], row["flags"]
        if not isinstance(lifetime, int) or not isinstance(flags, int):
            raise ValueError("lifetime and flags are whole numbers")
        if not isinstance(expires_at, int | float):
            raise ValueError("expires_at is a number")
        link_layer, v6 = row["link_layer"], row["home_address_v6"]
        return cls(
            home_address=IPv4Address(key),
            home_agent=IPv4Address(str(row["home_agent"])),
            link=str(row["link"]),
            link_layer=None if link_layer is None else bytes.fromhex(str(link_layer)),
            lifetime=lifetime,
            expires_at=float(expires_at),
            flags=flags,
            home_address_v6=None if v6 is None else IPv6Address(str(v6)),
            revocable=said_by(row),
            udp=bool(row.get("udp")),
            next_hop=None if (next_hop := row.get("next_hop")) is None else ip_address(str(next_hop)),
        )


def visitor_forwarding(
    visitor: Visitor, care_of_address: IPv4Address, static: StaticVisitor | None = None
) -> Forwarding:
    """Decapsulate and deliver packets of the home agent; encapsulate those of the visitor, if it asked.

    A stand-in that is also the one of `static` is reached, and its packets translated (R12), as that says.
    """
    entries: list[TunnelAcceptance | OutboundEntry | NeighbourEntry | Translation] = []
    known = static if static is not None and _is_that_of(visitor, static) else None
    for home_address in (visitor.home_address, visitor.home_address_v6):
        if home_address is None:
            continue
        said = None if known is None else known.next_hop_of(home_address)
        next_hop: Addr = home_address
        if said is not None:
            next_hop = said
        elif visitor.next_hop is not None and visitor.next_hop.version == home_address.version:
            next_hop = visitor.next_hop
        hardware = visitor.link_layer if next_hop == home_address else None
        entries.append(_acceptance(visitor.home_agent, home_address, visitor.link, next_hop, hardware))
        # It is known under one address; packets of the other family use its link-layer address.
        if visitor.link_layer is not None and next_hop == home_address:
            entries.append(NeighbourEntry(visitor.link, home_address, visitor.link_layer))
        if visitor.flags & RegistrationFlag.REVERSE_TUNNEL:
            tunnel = _tunnel(visitor, care_of_address)
            entries.append(OutboundEntry(home_address, visitor.link, tunnel))
        if known is not None and known.translate and said is not None:
            entries.append(Translation(home_address, said))
    return forwarding(*entries)


def _is_that_of(visitor: Visitor, static: StaticVisitor) -> bool:
    """True if the home address is preconfigured for this stand-in."""
    return visitor.next_hop is not None and visitor.next_hop in (static.next_hop, static.next_hop_v6)


def _tunnel(visitor: Visitor, care_of_address: IPv4Address) -> Tunnel:
    if visitor.udp:
        return udp_tunnel(care_of_address, visitor.home_agent)
    return Tunnel(care_of_address, visitor.home_agent, encapsulation_of(visitor.flags))


def static_forwarding(static: StaticVisitor, care_of_address: IPv4Address) -> Forwarding:
    """The same for a home address bound in advance; reverse tunnelling always."""
    entries: list[TunnelAcceptance | OutboundEntry | Translation] = []
    for home_address, next_hop in _homes(static):
        entries.append(_acceptance(static.home_agent, home_address, static.link, next_hop or static.next_hop))
        tunnel = Tunnel(care_of_address, static.home_agent)
        entries.append(OutboundEntry(home_address, static.sends_on, tunnel))
        if static.translate and next_hop is not None:
            entries.append(Translation(home_address, next_hop))
    return forwarding(*entries)


def both_here(visitor: Forwarding, stand_in: Forwarding, *, to_stand_in: bool) -> Forwarding:
    """A visitor, and the stand-in for it on this very host (R17): both send, one of them is sent to."""
    found = replace(visitor, outbound={**stand_in.outbound, **visitor.outbound})
    if not to_stand_in:
        return found
    return replace(
        found,
        acceptances={**visitor.acceptances, **stand_in.acceptances},
        translations={**visitor.translations, **stand_in.translations},
    )


def translated_forwarding(static: StaticVisitor, care_of_address: IPv4Address) -> Forwarding:
    """For a stand-in whose packets the home agent has translated: they come, and their answers go, by its own address.

    Answers of flows that came so take the reverse tunnel; flows of the stand-in's host itself do not.
    """
    entries: list[TunnelAcceptance | OutboundEntry | Translation] = []
    for _, next_hop in _homes(static) if static.translated else ():
        if next_hop is None:
            continue
        entries.append(_acceptance(static.home_agent, next_hop, static.link, next_hop))
        tunnel = Tunnel(care_of_address, static.home_agent)
        entries.append(OutboundEntry(next_hop, static.sends_on, tunnel))
        entries.append(Translation(next_hop, next_hop))
    return forwarding(*entries)


def _homes(static: StaticVisitor) -> list[tuple[Addr, Addr | None]]:
    homes: list[tuple[Addr | None, Addr | None]] = [
        (static.home_address, static.next_hop),
        (static.home_address_v6, static.next_hop_v6),
    ]
    return [(home_address, next_hop) for home_address, next_hop in homes if home_address is not None]


def _acceptance(
    home_agent: Addr, home_address: Addr, link: str, next_hop: Addr, hardware: bytes | None = None
) -> TunnelAcceptance:
    return TunnelAcceptance(home_agent, home_address, Side.TO_HOME_ADDRESS, link, next_hop, hardware=hardware)
