"""Parts of every request of a mobile node: its NAI, and its IPv6 home address.

They must not know when or by which way a request is sent.
"""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address

from locum.roles.action_values.registration import HomePrefix, Options, ReceivedAnswer
from locum.roles.actions import Action
from locum.roles.registrant.attachment import Attachment


class OwnNai:
    """The mobile node's NAI rides along (RFC 2794 section 2); without one nothing does."""

    def __init__(self, nai: str | None) -> None:
        self._nai = nai

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """Always: a home agent that has forgotten us finds our profile by it."""
        return replace(options, nai=self._nai)

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The reply's home address is handled by the registration's user."""
        return ()


class Ipv6Registration:
    """Adds the IPv6 home address to each request (RFC 5454); adds nothing without one."""

    def __init__(self, home_address: IPv6Address | None) -> None:
        self._home_address = home_address

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """The home address, unless all is cancelled."""
        if self._home_address is None or not lifetime:
            return options
        return replace(options, prefixes=(HomePrefix(self._home_address),))

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The acceptance is handled by the registration's user."""
        return ()
