"""The home agent of a registrant: the configured one, or the one that is assigned to it (RFC 4433).

A part of its requests. It must not know links, tunnels or the states of a registration.
"""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.registration import ANY_HOME_AGENT, Options, ReceivedAnswer
from locum.roles.actions import Action
from locum.roles.registrant.attachment import Attachment

MAX_REDIRECTIONS = 4  # in a row; home agents that refer to each other must not keep a device busy


class HomeAgentChoice:
    """`proposed` is the configured home agent: the only one, or with `dynamic` the one that is asked first."""

    def __init__(self, proposed: IPv4Address, *, dynamic: bool) -> None:
        self._proposed, self._dynamic = proposed, dynamic
        self._first = proposed
        self._assigned: IPv4Address | None = None
        self._redirections = 0
        # Home address that a request without a registration asks for; 0.0.0.0: any (RFC 2794)
        self.allocated = IPv4Address(0)

    @property
    def named(self) -> IPv4Address:
        """The home agent's address in a request (section 5.1): none as long as none is assigned."""
        if not self._dynamic:
            return self._proposed
        return self._assigned or ANY_HOME_AGENT[0]

    @property
    def address(self) -> IPv4Address:
        """The address to which requests go: the assigned home agent, else the proposed one."""
        return self._assigned or self._proposed

    @property
    def assigned(self) -> IPv4Address | None:
        """The home agent that has accepted; None without `dynamic`."""
        return self._assigned

    def accepted(self, home_agent: IPv4Address) -> None:
        """That home agent has registered us: it is ours from now on."""
        if self._dynamic and home_agent not in ANY_HOME_AGENT:
            self._assigned, self._redirections = home_agent, 0

    def allocate(self, home_address: IPv4Address, home_agent: IPv4Address) -> None:
        """A page says where this home address is ours (P9): the next registration asks for it, and that home agent first."""
        self.allocated = home_address
        if self._dynamic and self._assigned is None and home_agent not in ANY_HOME_AGENT:
            self._proposed = home_agent

    def redirected(self, home_agent: IPv4Address | None) -> bool:
        """True if a refusal names another home agent that is to be asked at once (section 5.1)."""
        if not self._dynamic or home_agent is None or home_agent == self.address:
            return False
        if home_agent in ANY_HOME_AGENT or self._redirections == MAX_REDIRECTIONS:
            self._proposed, self._redirections = self._first, 0
            return False
        self._assigned, self._proposed = None, home_agent
        self._redirections += 1
        return True

    def forget(self) -> None:
        """The registration is over: the next one may be anywhere."""
        self._assigned, self._proposed = None, self._first

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """The proposal rides along until one is assigned."""
        if not self._dynamic or self._assigned is not None:
            return options
        return replace(options, proposed=self._proposed)

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The registration's user handles the answer; what a page allocated is for one request."""
        self.allocated = IPv4Address(0)
        return ()
