"""Messages of Mobile IPv4 by their type."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from locum.roles.action_values.registration import Registration
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.mobile_ipv4.requests import read_request
from locum.roles.mobile_ipv4.revocations import read_acknowledgment, read_revocation
from locum.wire.errors import WireError
from locum.wire.mobile_ip.discovery import ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION
from locum.wire.mobile_ip.registration import REGISTRATION_REPLY
from locum.wire.mobile_ip.revocation import REGISTRATION_REVOCATION, REVOCATION_ACKNOWLEDGMENT


class Kind(Enum):
    """Kinds of messages, on UDP port 434 and of agent discovery."""

    REGISTRATION = "registration"  # or a message of unknown kind
    ANSWER = "answer"
    REVOCATION = "revocation"
    ACKNOWLEDGMENT = "acknowledgment"
    ADVERTISEMENT = "advertisement"
    SOLICITATION = "solicitation"


_KINDS = {
    REGISTRATION_REPLY: Kind.ANSWER,
    REGISTRATION_REVOCATION: Kind.REVOCATION,
    REVOCATION_ACKNOWLEDGMENT: Kind.ACKNOWLEDGMENT,
    ROUTER_ADVERTISEMENT: Kind.ADVERTISEMENT,
    ROUTER_SOLICITATION: Kind.SOLICITATION,
}

# Each reader, and the first part of the counter's name for messages that it cannot read.
_Reader: TypeAlias = tuple[Callable[[bytes], Registration | Revocation | Acknowledgment], str]
_REQUESTS: _Reader = (read_request, "registration")
_READERS: dict[int, _Reader] = {
    REGISTRATION_REVOCATION: (read_revocation, "revocation"),
    REVOCATION_ACKNOWLEDGMENT: (read_acknowledgment, "revocation"),
}


def kind_of(message: bytes) -> Kind:
    """The kind of a message, by its first byte."""
    return _KINDS.get(message[0], Kind.REGISTRATION) if message else Kind.REGISTRATION


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is dropped, and the name under which it is counted."""

    counter: str


def read_for_home_agent(message: bytes) -> Registration | Revocation | Acknowledgment | Unreadable:
    """The registration, revocation or acknowledgment in the payload of a UDP datagram."""
    read, family = _READERS.get(message[0], _REQUESTS) if message else _REQUESTS
    try:
        return read(message)
    except WireError as error:
        return Unreadable(f"{family}-{error.reason}")
