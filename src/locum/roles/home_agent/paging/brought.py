"""Provisions of a page: for the access node the device's profile, or a pointer to it (P8); for the device its allocation (P9).

Values only. It must not know the course of a page.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.paging import PageProfile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.profile_homes import KnownHome
from locum.roles.home_agent.registry import Home
from locum.roles.profile import policy_blocks
from locum.wire.control.context import ContextBlock
from locum.wire.control.context_blocks import encode_block, kind_of
from locum.wire.control.paging.provision import NO_PROVISION, Allocation, Pointer, Provision

VERSION = 1  # of each block: an access node numbers those that it keeps itself


class Brought:
    """The provisions of one home agent's pages. `profile_of` finds the profile of a device, if it has one."""

    def __init__(
        self, configuration: HomeAgentConfiguration, profile_of: Callable[[IPv4Address], KnownHome | None]
    ) -> None:
        self._form, self._server = configuration.page_profile, configuration.policy_server
        self._profile_of, self._own = profile_of, configuration.addresses[0]

    def allocation(self, home: Home) -> tuple[IPv4Address, IPv4Address] | None:
        """The home address of a pool that the device has now, and this home agent; None: its address is its own."""
        known = self._profile_of(home.mobile.home_address)
        if known is None or known.nai is None or known.profile.pool is None:
            return None
        return known.home_address, self._own

    def provision(self, home: Home) -> Provision:
        """For a page of this device."""
        given = self.allocation(home)
        return replace(self._profile(home), allocation=None if given is None else Allocation(*given))

    def _profile(self, home: Home) -> Provision:
        home_address = home.mobile.home_address
        known = self._profile_of(home_address)
        if self._form is PageProfile.POINTER and self._server is not None:
            nai = None if known is None else known.nai
            return Provision(pointer=Pointer(self._server, nai or str(home_address)))
        if self._form is PageProfile.WHOLE and known is not None:
            blocks = policy_blocks(known.profile)
            return Provision(
                tuple(ContextBlock(int(kind_of(block)), VERSION, encode_block(block)) for block in blocks)
            )
        return NO_PROVISION
