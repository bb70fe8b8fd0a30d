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
from locum.node.config.paging.directions import keys_of_devices, keys_of_stand_ins
from locum.node.config.settings import Settings, by_address
from locum.roles.actions import Role

if TYPE_CHECKING:
    from locum.dataplane.limits import Limits
    from locum.roles.foreign_agent.configuration import AccessLink
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.role import HomeAgent
    from locum.roles.location.role import LocationServer
    from locum.roles.mnps.role import StandIn
    from locum.roles.mobile_node.role import SleepingNode
    from locum.roles.room import FilterPlaces, Places

LinkInterface = Callable[[str], IPv4Interface | None]

_FEW_BINDINGS, _FEW_FLOWS = 32_768, 16_384  # room in the tables of a node that has few home addresses
_MANY_BINDINGS, _MANY_FLOWS = 262_144, 65_536


def roles(settings: Settings, link_interface: LinkInterface) -> dict[str, Role]:
    """The roles by name, in the order in which they start. `link_interface` gives a link's IPv4 address and network."""
    made: dict[str, Role] = {}
    if settings.home_agent is not None:
        made["home_agent"] = home_agent(settings)
    if settings.location is not None:
        made["location"] = location_server(settings)
    if settings.foreign_agent is not None:
        made["foreign_agent"] = foreign_agent(settings, link_interface)
    if settings.mnps is not None:
        made["mnps"] = stand_in(settings)
    if settings.mobile_node is not None:
        made["mobile_node"] = mobile_node(settings)
    return made


def limits(settings: Settings) -> "Limits":
    """Tables as large as the roles can need, or as [node] sets them.

    A quarter of the places is for visitors' outbound entries and for the rarer kinds; a foreign agent needs many of those.
    """
    from locum.dataplane.limits import Limits

    node, needed = settings.node, settings.home_addresses
    few = needed <= _FEW_BINDINGS // 2
    least = _FEW_BINDINGS if few or settings.foreign_agent is None else _MANY_BINDINGS
    enough = max(least, 1 << (needed - 1).bit_length())
    return Limits(
        bindings=node.max_bindings or enough,
        flows=node.max_flows or (_FEW_FLOWS if few else _MANY_FLOWS),
        hold_packets=node.hold_packets,
        hold_bytes=node.hold_bytes,
        hold_packets_each=node.hold_packets_each,
        hold_bytes_each=node.hold_bytes_each,
        hold_age=node.hold_age,
    )


def home_agent(settings: Settings) -> "HomeAgent":
    """The home agent of [home_agent]; with [policy] it serves home addresses of profiles too."""
    from locum.roles.home_agent.profile_homes import Homes
    from locum.roles.home_agent.role import HomeAgent

    own = settings.home_agent
    assert own is not None
    homes = Homes(own.homes) if settings.policy is not None else None
    located = settings.location is not None
    server = settings.policy.servers[0].address if settings.policy is not None else None
    configuration = replace(own.configuration, room=room(settings), located=located, policy_server=server)
    return HomeAgent(configuration, own.mobiles, by_address(own.foreign_agents), SystemRandom(), homes)


def room(settings: Settings) -> "Places":
    """The home agent's part of the data plane's tables; what visitors and a stand-in of this host may need is left."""
    from locum.dataplane.limits import leaving_room
    from locum.roles.room import Places

    sizes = limits(settings).sizes()
    visitors = settings.visited_addresses
    shared = settings.foreign_agent is not None or settings.mnps is not None
    return Places(
        bindings=max(sizes["bindings"] - visitors, 0),
        extended=sizes["binding_more"],
        ruled=sizes["rules"],
        small_rules=leaving_room(sizes["rules_few"]),  # rules that are replaced keep their place for a while
        large_rules=leaving_room(sizes["rules_many"]),
        rule_counters=sizes["rule_count"] // 2 if shared else sizes["rule_count"],
        acceptances=max(sizes["acceptances"] - 2 * visitors, sizes["acceptances"] // 2),
        translations=sizes["translations"] // 2 if shared else sizes["translations"],
    )


def visitors_room(settings: Settings) -> int:
    """The most visitors that the data plane has room for: each has two home addresses, with an entry for the packets of each.

    A profile or a context may bring filters of each, in both directions, and a stand-in of this host one of what it emits.
    """
    sizes = limits(settings).sizes()
    addresses = sizes["outbound"]
    own = settings.foreign_agent
    if own is not None:
        configured = own.configuration
        brought = settings.policy is not None or configured.contexts or configured.access_nodes
        filters = (2 if brought else 0) + (1 if settings.mnps is not None else 0)
        if filters:
            addresses = min(addresses, (sizes["filters"] - len(configured.filters)) // filters)
    return max(addresses - settings.static_addresses, 0) // 2


def filter_room(settings: Settings) -> "FilterPlaces":
    """The data plane's places for filters of visitors, without those of a home agent's rules and a stand-in's filters."""
    from locum.dataplane.limits import leaving_room
    from locum.roles.foreign_agent.filter_room import filter_places
    from locum.roles.room import FilterPlaces

    sizes = limits(settings).sizes()
    counters = leaving_room(sizes["rule_count"])
    if settings.home_agent is not None:
        counters -= room(settings).rule_counters
    counters -= min(
        settings.visited_addresses, sizes["visited"]
    )  # each has one when its visitor is elsewhere
    own = filter_places(settings.emitted)
    large = leaving_room(sizes["filters_many"])  # filters that are replaced keep their place for a while
    return FilterPlaces(max(large - own.large, 0), max(counters - own.counters, 0))


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
        replace(
            own.configuration, links=links, room=visitors_room(settings), filter_room=filter_room(settings)
        ),
        by_address(own.home_agents),
        by_address(own.mobiles),
        own.static,
        SystemRandom(),
    )


def stand_in(settings: Settings) -> "StandIn":
    """The stand-in of [mnps]."""
    from locum.node.apps.catalogue import catalogue
    from locum.roles.mnps.role import StandIn

    own, control = settings.mnps, settings.control
    assert own is not None
    sealing = keys_of_devices(control.associations) if control is not None else {}
    return StandIn(replace(own.configuration, sealing=sealing), SystemRandom(), catalogue().check)


def location_server(settings: Settings) -> "LocationServer":
    """The location server of [location]; roles of this host report to it and ask it as well."""
    from locum.roles.location.role import LocationServer

    own, control = settings.location, settings.control
    assert own is not None
    return LocationServer(replace(own.configuration, own=None if control is None else control.address))


def mobile_node(settings: Settings) -> "SleepingNode":
    """The mobile node of [mobile_node], with its sleep; it asks for no more than the kernel here can do."""
    from locum.node.boot import boot_id
    from locum.node.clock import utc_offset
    from locum.roles.mobile_node.role import SleepingNode
    from locum.roles.registrant.registrant import RegistrationClient

    own = settings.mobile_node
    assert own is not None
    associations = () if settings.control is None else settings.control.associations
    keys = keys_of_stand_ins(associations, (stand_in.address for stand_in in own.stand_ins))
    configuration = replace(
        own.configuration,
        boot=boot_id(),
        listening=possible(own.configuration.listening),
        directed=replace(own.configuration.directed, keys=keys),
    )
    mobile = RegistrationClient(configuration, by_address(own.foreign_agents), SystemRandom())
    control = settings.control
    peers = frozenset(association.peer for association in (control.associations if control else ()))
    paging = replace(own.paging, peers=peers | ({control.address} if control else set()))
    role = SleepingNode(mobile, own.stand_ins, SystemRandom(), paging)
    if own.paging.offset is None:
        role.paging.offset = utc_offset()
    return role
