"""Settings -> roles: makes the machine of each role that a host plays. Holds no state and performs nothing.

The configuration of a role passes through here as one value; only facts of this host and this boot are put into it.
Each role is imported only where it is played: a daemon starts in half the time.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface
from random import SystemRandom
from typing import TYPE_CHECKING

from locum.node.config.listening import possible
from locum.node.config.settings import Settings, by_address
from locum.roles.actions import Role

if TYPE_CHECKING:
    from locum.dataplane.limits import Limits
    from locum.roles.foreign_agent.configuration import AccessLink
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.role import HomeAgent
    from locum.roles.mnps.role import StandIn
    from locum.roles.mobile_node.role import SleepingNode

LinkInterface = Callable[[str], IPv4Interface | None]

_FEW_BINDINGS, _FEW_FLOWS = 32_768, 16_384  # room in the tables of a node that has few home addresses
_MANY_BINDINGS, _MANY_FLOWS = 262_144, 65_536


def roles(settings: Settings, link_interface: LinkInterface) -> dict[str, Role]:
    """The roles by name, in the order in which they start. `link_interface` gives a link's IPv4 address and network."""
    made: dict[str, Role] = {}
    if settings.home_agent is not None:
        made["home_agent"] = home_agent(settings)
    if settings.foreign_agent is not None:
        made["foreign_agent"] = foreign_agent(settings, link_interface)
    if settings.mnps is not None:
        made["mnps"] = stand_in(settings)
    if settings.mobile_node is not None:
        made["mobile_node"] = mobile_node(settings)
    return made


def limits(settings: Settings) -> "Limits":
    """Tables as large as the roles can need, or as [node] sets them. Adopted tables keep their size."""
    from locum.dataplane.limits import Limits

    node, needed = settings.node, settings.home_addresses
    few = needed <= _FEW_BINDINGS // 2
    enough = _FEW_BINDINGS if few else max(_MANY_BINDINGS, 1 << (needed - 1).bit_length())
    return Limits(
        bindings=node.max_bindings or enough,
        flows=node.max_flows or (_FEW_FLOWS if few else _MANY_FLOWS),
        hold_packets=node.hold_packets,
        hold_bytes=node.hold_bytes,
    )


def home_agent(settings: Settings) -> "HomeAgent":
    """The home agent of [home_agent]; with [policy] it serves home addresses of profiles too."""
    from locum.roles.home_agent.profile_homes import Homes
    from locum.roles.home_agent.role import HomeAgent

    own = settings.home_agent
    assert own is not None
    homes = Homes(own.homes) if settings.policy is not None else None
    return HomeAgent(own.configuration, own.mobiles, by_address(own.foreign_agents), SystemRandom(), homes)


def foreign_agent(settings: Settings, link_interface: LinkInterface) -> "ForeignAgent":
    """The foreign agent of [foreign_agent], with the addresses that its access links have now."""
    from locum.roles.foreign_agent.role import ForeignAgent

    own = settings.foreign_agent
    assert own is not None

    def as_found(link: "AccessLink") -> "AccessLink":
        interface = link_interface(link.name)
        if interface is None:
            return link
        length = interface.network.prefixlen if own.prefix_lengths else None
        return replace(link, address=interface.ip, prefix_length=length)

    links = tuple(as_found(access_link) for access_link in own.configuration.links)
    return ForeignAgent(
        replace(own.configuration, links=links),
        by_address(own.home_agents),
        by_address(own.mobiles),
        own.static,
        SystemRandom(),
    )


def stand_in(settings: Settings) -> "StandIn":
    """The stand-in of [mnps]."""
    from locum.roles.mnps.role import StandIn

    own = settings.mnps
    assert own is not None
    return StandIn(own.configuration, SystemRandom())


def mobile_node(settings: Settings) -> "SleepingNode":
    """The mobile node of [mobile_node], with its sleep; it asks for no more than the kernel here can do."""
    from locum.node.boot import boot_id
    from locum.roles.mobile_node.role import SleepingNode
    from locum.roles.registrant.registrant import RegistrationClient

    own = settings.mobile_node
    assert own is not None
    configuration = replace(
        own.configuration, boot=boot_id(), listening=possible(own.configuration.listening)
    )
    mobile = RegistrationClient(configuration, by_address(own.foreign_agents), SystemRandom())
    return SleepingNode(mobile, own.stand_ins, SystemRandom())
