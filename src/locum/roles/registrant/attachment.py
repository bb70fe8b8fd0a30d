"""Attachment of a mobile node, and the states of its registration.

Values only; the mobile node moves between them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, ip_address
from typing import Literal

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    UseAgent,
)
from locum.roles.forwarding import NOTHING, Forwarding, forwarding
from locum.roles.mobile_ipv4.keepalives import REGISTRATION_PORT
from locum.roles.registrant.timing import RENEW_PART
from locum.roles.state_table import StateTable


@dataclass(frozen=True, slots=True)
class Attachment:
    """A path to the home agent: a foreign agent on a link, or a co-located care-of address.

    `relayed`: the care-of address is co-located, and a foreign agent of the link passes registrations on because it
    wants to (R bit, RFC 5944 section 3.1); packets do not go by it.
    """

    link: str
    agent: Addr  # receiver of requests: the foreign agent, or the home agent itself
    care_of: IPv4Address
    colocated: bool
    link_layer: bytes | None = None
    relayed: bool = False
    # That the tunnel is to have (G and M bits, section 3.3)
    encapsulation: Encapsulation = Encapsulation.IPIP
    broadcasts: bool = False  # those of the home network are asked for (B bit, section 3.3)

    @property
    def direct(self) -> bool:
        """True if requests go to the home agent without an agent in between."""
        return self.colocated and not self.relayed

    def use(self, home_addresses: tuple[Addr, ...]) -> UseAgent:
        """Send packets of these home addresses on this path."""
        return UseAgent(self.link, self.agent, self.link_layer, home_addresses, self.care_of, self.colocated)

    def to_row(self) -> Mapping[str, JSON]:
        """The part of a row."""
        return {
            "link": self.link,
            "agent": str(self.agent),
            "care_of": str(self.care_of),
            "colocated": self.colocated,
            "link_layer": None if self.link_layer is None else self.link_layer.hex(),
            "relayed": self.relayed,
            "encapsulation": self.encapsulation.value,
            "broadcasts": self.broadcasts,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "Attachment":
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        layer = row["link_layer"]
        return cls(
            link=str(row["link"]),
            agent=ip_address(str(row["agent"])),
            care_of=IPv4Address(str(row["care_of"])),
            colocated=bool(row["colocated"]),
            link_layer=None if layer is None else bytes.fromhex(str(layer)),
            relayed=bool(row.get("relayed")),
            encapsulation=Encapsulation(row.get("encapsulation", "gre" if row.get("gre") else "ipip")),
            broadcasts=bool(row.get("broadcasts")),
        )


class RegistrationTarget(Enum):
    """Target of the registration, set by the device's owner; all but NOTHING are pursued."""

    ORDINARY = "ordinary"  # full lifetime, renewed
    BRIEF = "brief"  # very short lifetime (R2), renewed: reachable, but the default CoA has the packets
    WITHDRAWN = "withdrawn"  # lifetime 0
    NOTHING = "nothing"  # no request is sent; the registration expires

    @property
    def renews(self) -> bool:
        """True if a registration is renewed before it expires."""
        return self in (RegistrationTarget.ORDINARY, RegistrationTarget.BRIEF)


@dataclass(frozen=True, slots=True)
class Registered:
    """The home agent has accepted; times are steady seconds, counted from when the request was sent."""

    attachment: Attachment
    target: RegistrationTarget
    lifetime: int
    expires_at: float
    renew_at: float

    @classmethod
    def since(
        cls, sent_at: float, attachment: Attachment, target: RegistrationTarget, lifetime: int
    ) -> "Registered":
        """A registration that was requested at that time and granted for `lifetime` seconds."""
        renew_at = sent_at + lifetime * RENEW_PART
        return cls(attachment, target, lifetime, sent_at + lifetime, renew_at)

    def to_row(self) -> Mapping[str, JSON]:
        """Return it as part of a row."""
        return {
            "attachment": self.attachment.to_row(),
            "wish": self.target.value,
            "lifetime": self.lifetime,
            "expires_at": self.expires_at,
            "renew_at": self.renew_at,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "Registered":
        """Read it from part of a row; raises ValueError, KeyError or TypeError for a malformed one."""
        attachment, lifetime = row["attachment"], row["lifetime"]
        expires_at, renew_at = row["expires_at"], row["renew_at"]
        if not isinstance(attachment, Mapping) or not isinstance(lifetime, int):
            raise ValueError("a registration needs attachment and lifetime")
        if not isinstance(expires_at, int | float) or not isinstance(renew_at, int | float):
            raise ValueError("times are numbers")
        return cls(
            Attachment.from_row(attachment),
            RegistrationTarget(row["wish"]),
            lifetime,
            float(expires_at),
            float(renew_at),
        )


@dataclass(frozen=True, slots=True)
class Searching:
    """No path to the home agent is known."""


@dataclass(frozen=True, slots=True)
class Registering:
    """A request is on its way (RFC 5944 section 3.6.3)."""

    attachment: Attachment
    lifetime: int
    identification: int
    sent_at: float
    retry_at: float
    interval: float  # seconds until the next retransmission
    resynchronised: bool = False  # code 133 has been met, and no acceptance since
    denied: float = 0.0  # seconds waited after the last refusal; 0: none since the last acceptance


@dataclass(frozen=True, slots=True)
class Waiting:
    """Refused; try again later."""

    retry_at: float
    interval: float
    code: int
    challenge: bool = False  # the next advertisement of the agent ends the waiting


@dataclass(frozen=True, slots=True)
class Settled:
    """The target is in force (or there is no target)."""


State = Searching | Registering | Waiting | Settled

Change = Literal[
    "restore",
    "want",
    "want nothing",
    "request",
    "accepted",
    "refused",
    "challenge heard",
    "better attachment",
    "attachment lost",
    "agent rebooted",
    "nothing in reach",
    "expired",
    "revoked",
    "NAT mapping lost",
]
_ALWAYS: dict[Change, type] = {
    "request": Registering,
    "want": Searching,
    "want nothing": Settled,
    "attachment lost": Searching,
    "agent rebooted": Searching,
    "nothing in reach": Searching,
    "revoked": Searching,
}
STATES: StateTable[Change] = StateTable(
    "Registration",
    "The registration of a mobile node, or of a stand-in for one, which begins with nothing to register.",
    {
        Searching: {**_ALWAYS, "restore": Settled, "expired": Searching},
        Registering: {**_ALWAYS, "accepted": Settled, "refused": Waiting},
        Waiting: {**_ALWAYS, "challenge heard": Searching},
        Settled: {
            **_ALWAYS,
            "restore": Settled,
            "better attachment": Searching,
            "NAT mapping lost": Searching,
            "expired": Searching,
        },
    },
    start=(Searching, Settled),
)


@dataclass(frozen=True, slots=True)
class RegistrationAccepted:
    """For the owner: this target is in force now."""

    target: RegistrationTarget
    lifetime: int


@dataclass(frozen=True, slots=True)
class RegistrationDenied:
    """For the machine above: refused with this code; the mobile node goes on trying."""

    target: RegistrationTarget
    code: int


@dataclass(frozen=True, slots=True)
class AttachmentLost:
    """For the machine above: the agent or link in use is gone."""

    attachment: Attachment


Outcome = RegistrationAccepted | RegistrationDenied | AttachmentLost


def colocated_forwarding(
    attachment: Attachment | None,
    home_agent: Addr,
    home_addresses: tuple[Addr, ...],
    *,
    encapsulation: Encapsulation = Encapsulation.IPIP,
) -> Forwarding:
    """Local tunnel end (R9): decapsulate the home agent's packets, encapsulate the home address's."""
    if attachment is None or not attachment.colocated:
        return NOTHING
    entries: list[LocalEndpoint | TunnelAcceptance | OutboundEntry] = [LocalEndpoint(attachment.care_of)]
    port = REGISTRATION_PORT if encapsulation is Encapsulation.UDP else 0
    tunnel = Tunnel(attachment.care_of, home_agent, encapsulation, port, port)
    for home_address in home_addresses:
        entries.append(TunnelAcceptance(home_agent, home_address, Side.TO_HOME_ADDRESS))
        entries.append(OutboundEntry(home_address, None, tunnel))
    return forwarding(*entries)


def with_broadcasts(
    found: Forwarding,
    attachment: Attachment,
    home_agent: Addr,
    home_address: Addr,
    destinations: Iterable[IPv4Address],
) -> Forwarding:
    """The forwarding, with broadcasts to these `destinations` that the home agent forwards (section 4.3).

    They come in the tunnel to a co-located care-of address; through a foreign agent in a second one, to the home address.
    """
    acceptances = [
        TunnelAcceptance(home_agent, destination, Side.TO_HOME_ADDRESS) for destination in destinations
    ]
    own = () if attachment.colocated else (LocalEndpoint(home_address),)
    more = forwarding(*own, *acceptances)
    return replace(
        found,
        endpoints=found.endpoints | more.endpoints,
        acceptances={**found.acceptances, **more.acceptances},
    )
