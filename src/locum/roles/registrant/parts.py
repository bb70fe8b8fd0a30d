"""Parts of every request of a mobile node: its NAI, and its IPv6 home address.

They must not know when or by which way a request is sent.
"""

from collections.abc import Sequence
from ipaddress import IPv6Address

from locum.roles.actions import Action
from locum.roles.registrant.attachment import Attachment
from locum.wire.mobile_ip.extensions import Extension, Ipv6PrefixRequest, Ipv6TunnelingMode, Nai
from locum.wire.mobile_ip.registration import RegistrationReply


class OwnNai:
    """The mobile node's NAI rides along (RFC 2794 section 2); without one nothing does."""

    def __init__(self, nai: str | None) -> None:
        self._extensions = () if nai is None else (Nai(nai),)

    def extensions(self, attachment: Attachment, lifetime: int) -> Sequence[Extension]:
        """Always: a home agent that has forgotten us finds our profile by it."""
        return self._extensions

    def replied(self, reply: RegistrationReply, attachment: Attachment) -> Sequence[Action]:
        """The reply's home address is handled by the registration's user."""
        return ()


class Ipv6Registration:
    """The IPv6 home address rides along (RFC 5454); without one nothing does."""

    def __init__(self, home_address: IPv6Address | None) -> None:
        self._home_address = home_address

    def extensions(self, attachment: Attachment, lifetime: int) -> Sequence[Extension]:
        """The home address, and how its packets are to be tunnelled where the tunnel ends at its owner."""
        if self._home_address is None or not lifetime:
            return ()
        request = Ipv6PrefixRequest(self._home_address)
        return (request, Ipv6TunnelingMode()) if attachment.colocated else (request,)

    def replied(self, reply: RegistrationReply, attachment: Attachment) -> Sequence[Action]:
        """The acceptance is handled by the registration's user."""
        return ()
