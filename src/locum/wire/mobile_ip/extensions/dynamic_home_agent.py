"""Dynamic home agent, 139 (RFC 4433 section 3.4): a home agent that is requested, or to which a node is redirected."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from locum.wire.mobile_ip.extensions.framing import Extension, Frame, Unknown, short, unknown

DYNAMIC_HOME_AGENT = 139


class HomeAgentUse(IntEnum):
    """Sub-types."""

    REQUESTED = 1  # in a request: the mobile node proposes this one
    REDIRECTED = 2  # in a reply with code 143: ask this one


@dataclass(frozen=True, slots=True)
class DynamicHomeAgent(Extension):
    """The address of a home agent, and its meaning."""

    use: HomeAgentUse
    address: IPv4Address

    def encode(self) -> bytes:
        """The whole extension."""
        return short(DYNAMIC_HOME_AGENT, self.use, self.address.packed)


def decode_dynamic_home_agent(frame: Frame) -> DynamicHomeAgent | Unknown:
    """Type 139; it is skippable, so an unknown sub-type is kept as it is. Bytes behind the address are ignored."""
    cursor = frame.cursor()
    number = cursor.u8("home-agent.sub-type")
    if number not in tuple(HomeAgentUse):
        return unknown(frame)
    return DynamicHomeAgent(HomeAgentUse(number), cursor.address4("home-agent"))
