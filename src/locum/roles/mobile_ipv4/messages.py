"""Messages of Mobile IPv4 by their type."""

from dataclasses import dataclass
from enum import Enum

from locum.roles.action_values.registration import Registration
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.mobile_ipv4.requests import read_request
from locum.roles.mobile_ipv4.revocations import read_acknowledgment, read_revocation
from locum.wire.errors import WireError
from locum.wire.mobile_ip.discovery import ROUTER_ADVERTISEMENT
from locum.wire.mobile_ip.revocation import REGISTRATION_REVOCATION, REVOCATION_ACKNOWLEDGMENT


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is dropped, and the name under which it is counted."""

    counter: str


def read_for_home_agent(message: bytes) -> Registration | Revocation | Acknowledgment | Unreadable:
    """The registration, revocation or acknowledgment in the payload of a UDP datagram."""
    kind = message[0] if message else None
    family = "registration"
    try:
        if kind == REGISTRATION_REVOCATION:
            family = "revocation"
            return read_revocation(message)
        if kind == REVOCATION_ACKNOWLEDGMENT:
            family = "revocation"
            return read_acknowledgment(message)
        return read_request(message)
    except WireError as error:
        return Unreadable(f"{family}-{error.reason}")


class Kind(Enum):
    """What a message to a registrant is."""

    ADVERTISEMENT = "advertisement"  # of a foreign agent
    REVOCATION = "revocation"
    ANSWER = "answer"  # or what cannot be read as one


def kind_for_registrant(message: bytes) -> Kind:
    """The kind of a message to a registrant, by its first byte."""
    kind = message[0] if message else None
    if kind == ROUTER_ADVERTISEMENT:
        return Kind.ADVERTISEMENT
    return Kind.REVOCATION if kind == REGISTRATION_REVOCATION else Kind.ANSWER
