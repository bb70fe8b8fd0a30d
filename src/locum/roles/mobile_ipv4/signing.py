"""Authentication extensions of registrations and revocations, joined from the bytes (wire) and the keys (security).

It must not know the effects of a failure: these are each role's.
"""

from locum.security.association import Association
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extended import Extended
from locum.wire.mobile_ip.extensions import MN_AAA, AuthKind, GeneralizedAuthentication


def signed(message: bytes, kind: AuthKind, association: Association) -> bytes:
    """`message` with the authentication extension of that kind at its end (RFC 5944 section 3.5)."""
    return append_authentication(
        message,
        kind,
        association.outgoing_spi,
        association.digest,
        authenticator_bytes=association.algorithm.authenticator_bytes,
    )


def signed_for_aaa(message: bytes, association: Association) -> bytes:
    """`message` with the authentication extension for the AAA server at its end (RFC 4721 section 6)."""
    empty = bytes(association.algorithm.authenticator_bytes)
    unsigned = GeneralizedAuthentication(MN_AAA, association.outgoing_spi, empty).encode()
    covered = message + unsigned[: -len(empty)]
    return covered + association.digest(covered)


def authentic(message: Extended, kind: AuthKind, association: Association) -> bool:
    """True if the message bears a right authenticator of that kind under that association."""
    found = message.authentication(kind)
    if found is None or found.spi != association.spi:
        return False
    return association.verify(found.covered, found.authenticator)
