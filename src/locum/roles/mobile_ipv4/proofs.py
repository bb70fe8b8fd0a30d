"""Authentication extensions (RFC 5944 section 3.5) as proofs. No key is known here."""

from locum.roles.action_values.registration import Proof
from locum.wire.mobile_ip.extended import Extended
from locum.wire.mobile_ip.extensions import Authentication, AuthKind


def proof(message: Extended, kind: AuthKind) -> Proof | None:
    """The proof in a message's authentication extension of that kind; None without one."""
    found = message.authentication(kind)
    return None if found is None else Proof(found.spi, found.covered, found.authenticator)


def aaa_proof(message: Extended) -> Proof | None:
    """The proof in a message's authentication extension for the AAA server (RFC 4721); None without one."""
    found = message.to_aaa
    return None if found is None else Proof(found.spi, found.covered, found.authenticator)


def proofs(message: Extended) -> tuple[Proof | None, Proof | None]:
    """The proofs in the mobile-home and the foreign-home extension of a message."""
    mobile = agent = None
    for extension in message.extensions:
        if isinstance(extension, Authentication):
            if extension.kind is AuthKind.MN_HA:
                mobile = Proof(extension.spi, extension.covered, extension.authenticator)
            elif extension.kind is AuthKind.FA_HA:
                agent = Proof(extension.spi, extension.covered, extension.authenticator)
    return mobile, agent
