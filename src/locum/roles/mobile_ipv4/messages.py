"""Messages to UDP port 434 of a home agent, each read by its type."""

from dataclasses import dataclass

from locum.roles.action_values.registration import Registration
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.mobile_ipv4.requests import read_request
from locum.roles.mobile_ipv4.revocations import read_acknowledgment, read_revocation
from locum.wire.errors import WireError
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
