"""The table of which role of a host gets which message of registration and of agent discovery (RFC 5944, RFC 3543).

A role that should get a message has a row here, and nothing else in `node` names a role for a message. Sockets and the
rest of a message are not known here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from locum.node.config.settings import ROLES, Settings

# RFC 5944 sections 3.3 and 3.4, RFC 3543 sections 3.3 and 3.4: the first byte of a message to port 434.
REQUEST, REPLY, REVOCATION, ACKNOWLEDGMENT = 1, 3, 7, 15
EXPERIMENTAL = 255  # RFC 4064: calls of a page, and their answers
ADVERTISEMENT, SOLICITATION = 9, 10  # ICMP types


class Row(NamedTuple):
    """A role that gets a kind of message, if the host plays it; the first row that fits decides."""

    role: str
    own_address: bool = False  # only messages to the role's own address


# A message to the address of one role is that role's. Others go by their kind: an access link's requests to the
# foreign agent, and replies by a home address to the device; a stand-in on a host of its own gets them instead.
REGISTRATION: Mapping[int, tuple[Row, ...]] = {
    REQUEST: (
        Row("home_agent", own_address=True),
        Row("foreign_agent"),
        Row("home_agent"),
    ),
    REPLY: (
        Row("foreign_agent", own_address=True),
        Row("mnps", own_address=True),
        Row("mobile_node"),
        Row("mnps"),
    ),
    REVOCATION: (
        Row("home_agent", own_address=True),
        Row("foreign_agent", own_address=True),
        Row("mnps", own_address=True),
        Row("mobile_node"),
        Row("mnps"),
    ),
    ACKNOWLEDGMENT: (
        Row("home_agent", own_address=True),
        Row("foreign_agent", own_address=True),
    ),
    EXPERIMENTAL: (
        Row("mobile_node"),
        Row("foreign_agent"),
    ),
}

# On a link of the role. Solicitations and advertisements go to all hosts, so addresses tell nothing.
DISCOVERY: Mapping[int, tuple[str, ...]] = {
    SOLICITATION: ("foreign_agent",),
    ADVERTISEMENT: ("mobile_node", "mnps"),
}

# ICMP errors about messages that this host sent. Other senders repeat theirs (RFC 5944 section 3.6.3).
UNREACHABLE: Mapping[int, tuple[str, ...]] = {
    REQUEST: ("foreign_agent",),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a role of this host: its own address (packed IPv4; empty if none yet) and its access links."""

    address: bytes
    links: Collection[str]


def places(settings: Settings) -> dict[str, Place]:
    """The roles of a host that take part in registration."""
    found = {}
    if settings.home_agent is not None:
        found["home_agent"] = Place(settings.home_agent.configuration.address.packed, ())
    if settings.foreign_agent is not None:
        own = settings.foreign_agent
        found["foreign_agent"] = Place(own.configuration.care_of_address.packed, own.links)
    if settings.mobile_node is not None:
        found["mobile_node"] = Place(b"", settings.mobile_node.configuration.links)
    registration = settings.mnps.configuration.registration if settings.mnps is not None else None
    if registration is not None:
        found["mnps"] = Place(registration.address.packed, registration.links)
    return found


def _named() -> set[str]:
    """All roles that rows of the tables name."""
    rows = {row.role for rows in REGISTRATION.values() for row in rows}
    return rows.union(*DISCOVERY.values(), *UNREACHABLE.values())


class Receivers:
    """The tables above for the roles of one host: a look-up for each message instead of a search."""

    def __init__(self, here: Mapping[str, Place]) -> None:
        """`here` has the roles of this host. Raises ValueError for a row with a role that does not exist."""
        if unknown := _named() - set(ROLES):
            raise ValueError(f"rows of the tables name unknown roles: {sorted(unknown)}")
        self._addressed: dict[int, dict[bytes, str]] = {}
        self._others: dict[int, str] = {}
        for kind, rows in REGISTRATION.items():
            addressed = self._addressed[kind] = {}
            for row in rows:
                if row.role not in here:
                    continue
                if not row.own_address:
                    self._others[kind] = row.role
                    break
                addressed.setdefault(here[row.role].address, row.role)
        self._discovery = {
            (kind, link): role
            for kind, roles in DISCOVERY.items()
            for role in reversed(roles)  # the first role is entered last, and stays
            if role in here
            for link in here[role].links
        }
        self._unreachable = {
            kind: role for kind, roles in UNREACHABLE.items() for role in reversed(roles) if role in here
        }

    def registration(self, kind: int | None, destination: bytes) -> str | None:
        """The role for a message to port 434 of a packed IPv4 address; None when this host has none for it.

        `kind` is the first byte, None of an empty message.
        """
        if kind not in self._addressed:
            return None
        return self._addressed[kind].get(destination) or self._others.get(kind)

    def discovery(self, kind: int | None, link: str) -> str | None:
        """The role for an ICMP message of agent discovery on a link."""
        return self._discovery.get((kind, link)) if kind is not None else None

    def unreachable(self, quoted: bytes) -> str | None:
        """The role for an ICMP error that quotes the beginning of a message; one that quotes nothing may be about any."""
        if not quoted:
            return next(iter(self._unreachable.values()), None)
        return self._unreachable.get(quoted[0])

    @property
    def hears_errors(self) -> bool:
        """True if a role of this host gets ICMP errors at all."""
        return bool(self._unreachable)
