"""Authentication extensions (RFC 5944 section 3.5) as proofs. No key is known here."""

from locum.roles.action_values.registration import Proof
from locum.wire.mobile_ip.extended import Extended
from locum.wire.mobile_ip.extensions import Authentication, AuthKind


def proof(message: Extended, kind: AuthKind) -> Proof | None:
    """What the authentication extension of that kind in a message proves."""
    found = message.authentication(kind)
    return None if found is None else Proof(found.spi, found.covered, found.authenticator)


def proofs(message: Extended) -> tuple[Proof | None, Proof | None]:
    """What the mobile-home extension of a message proves, and what the foreign-home extension does."""
    mobile = agent = None
    for each in message.extensions:
        if isinstance(each, Authentication):
            if each.kind is AuthKind.MN_HA:
                mobile = Proof(each.spi, each.covered, each.authenticator)
            elif each.kind is AuthKind.FA_HA:
                agent = Proof(each.spi, each.covered, each.authenticator)
    return mobile, agent
