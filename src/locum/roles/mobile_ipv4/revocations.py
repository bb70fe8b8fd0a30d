"""Revocations and their acknowledgments (RFC 3543 sections 3.3 and 3.4), read with their proofs and written signed.

Between agents the foreign-home extension signs, between a home agent and a mobile node the mobile-home extension. This
file must not know whether a revocation is believed.
"""

from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.mobile_ipv4.proofs import proofs
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment


def read_revocation(message: bytes) -> Revocation:
    """The revocation in the payload of a UDP datagram. Raises WireError."""
    notice = RegistrationRevocation.decode(message)
    return Revocation(
        notice.home_address,
        notice.home_domain_address,
        notice.foreign_domain_address,
        notice.identifier,
        notice.from_home_agent,
        notice.inform,
        *proofs(notice),
    )


def read_acknowledgment(message: bytes) -> Acknowledgment:
    """The acknowledgment in the payload of a UDP datagram. Raises WireError."""
    answer = RevocationAcknowledgment.decode(message)
    return Acknowledgment(answer.home_address, answer.identifier, answer.inform, *proofs(answer))


def write_revocation(revocation: Revocation, association: Association, *, between_agents: bool) -> bytes:
    """The signed message."""
    notice = RegistrationRevocation(
        home_address=revocation.home_address,
        home_domain_address=revocation.home_agent,
        foreign_domain_address=revocation.care_of,
        identifier=revocation.identifier,
        from_home_agent=revocation.from_home_agent,
        inform=revocation.inform,
    )
    return signed(notice.encode(), _kind(between_agents), association)


def write_acknowledgment(
    acknowledgment: Acknowledgment, association: Association, *, between_agents: bool
) -> bytes:
    """The signed message."""
    answer = RevocationAcknowledgment(
        acknowledgment.home_address, acknowledgment.identifier, acknowledgment.inform
    )
    return signed(answer.encode(), _kind(between_agents), association)


def _kind(between_agents: bool) -> AuthKind:
    return AuthKind.FA_HA if between_agents else AuthKind.MN_HA
