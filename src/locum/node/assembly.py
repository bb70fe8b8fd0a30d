"""Settings -> roles: makes the machine of each role that a host plays. Holds no state and performs nothing.

Each role is imported only where it is played: a daemon starts in half the time.
"""

from collections.abc import Callable
from ipaddress import IPv4Interface
from random import SystemRandom
from typing import TYPE_CHECKING

from locum.node.config.listening import possible
from locum.node.config.settings import Settings
from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Role

if TYPE_CHECKING:
    from locum.dataplane.limits import Limits
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.home_agent.profile_homes import Homes
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
    """Tables as large as the roles can need, unless [node] says. Tables that are taken over keep the size they have."""
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
    """The home agent of [home_agent]."""
    from locum.roles.home_agent.admission import HomeAgentConfiguration
    from locum.roles.home_agent.binding import Mobile
    from locum.roles.home_agent.nat import TraversalPolicy
    from locum.roles.home_agent.role import HomeAgent

    own = settings.home_agent
    assert own is not None
    return HomeAgent(
        HomeAgentConfiguration(
            address=own.address,
            max_lifetime=own.max_lifetime,
            short_lifetime=own.short_lifetime,
            max_simultaneous=own.max_simultaneous,
            reverse_tunnel_required=own.reverse_tunnel_required,
            multipath=own.multipath,
            traversal=TraversalPolicy(own.nat_traversal, own.nat_forced, own.keepalive_interval),
            revocation=own.revocation,
            trigger_on_expiry=own.trigger_on_expiry,
        ),
        [
            Mobile(
                home_address=each.home_address,
                association=each.association,
                home_address_v6=each.home_address_v6,
                default_care_of=each.default_coa,
                stand_in=each.mnps,
                stand_in_v6=each.mnps_v6,
                stand_ins=each.stand_ins,
                rules=each.rules,
                default_by_registration=each.default_coa_by_registration,
                default_ruled=each.default_coa_ruled,
            )
            for each in own.mobiles
        ],
        {each.address: each.association for each in own.foreign_agents},
        SystemRandom(),
        _homes(settings) if settings.policy is not None else None,
    )


def _homes(settings: Settings) -> "Homes":
    """Home addresses from profiles and pools, beside those of [[home_agent.mobile]]."""
    from locum.roles.home_agent.pools import Pools
    from locum.roles.home_agent.profile_homes import Homes
    from locum.roles.profile import Pool

    own = settings.home_agent
    assert own is not None
    configured: list[Addr] = [own.address]
    for each in own.mobiles:
        configured += [it for it in (each.home_address, each.home_address_v6) if it is not None]
    pools = Pools(Pool(each.name, each.first, each.last) for each in own.pools)
    care_of = [each.default_coa for each in own.mobiles if each.default_coa is not None]
    return Homes(configured, own.home_prefixes, pools, care_of)


def foreign_agent(settings: Settings, link_interface: LinkInterface) -> "ForeignAgent":
    """The foreign agent of [foreign_agent]; 618 goes to peers with an association in [control]."""
    from locum.roles.foreign_agent.configuration import (
        AccessLink,
        ForeignAgentConfiguration,
        ProbingConfiguration,
        StaticVisitor,
    )
    from locum.roles.foreign_agent.contexts.context import preconfigured
    from locum.roles.foreign_agent.role import ForeignAgent
    from locum.roles.nat import TraversalMode

    own = settings.foreign_agent
    assert own is not None
    notified: frozenset[Addr] = frozenset(
        each.peer for each in (settings.control.associations if settings.control else ())
    )
    access_nodes: dict[Addr, frozenset[Addr]] = {
        each.peer: frozenset(each.home_addresses)
        for each in (settings.control.associations if settings.control else ())
        if each.access_node
    }

    def access_link(name: str) -> AccessLink:
        interface = link_interface(name)
        if interface is None:
            return AccessLink(name, own.care_of_address)
        return AccessLink(name, interface.ip, interface.network.prefixlen if own.prefix_lengths else None)

    return ForeignAgent(
        ForeignAgentConfiguration(
            care_of_address=own.care_of_address,
            links=tuple(access_link(each) for each in own.links),
            advertise_interval=own.advertise_interval,
            registration_lifetime=own.registration_lifetime,
            max_visitors=own.max_visitors,
            short_lifetime=own.short_lifetime,
            challenge=own.challenge,
            nai=own.nai,
            registration_required=own.registration_required,
            notified=notified,
            open=own.open,
            revocation=own.revocation,
            nat_traversal=TraversalMode(own.traversal.mode),
            keepalive=own.traversal.keepalive,
            filters=own.filters,
            policy=settings.policy is not None,
            access_nodes=access_nodes,
            tunnel_silence=own.tunnel_silence,
            hold_patience=own.hold_patience,
            upstream=own.multicast_link,
            contexts={each.home_address: preconfigured(each) for each in own.profiles},
            probing=ProbingConfiguration(own.probe_interval, own.probe_misses, own.mnps, own.short_lifetime),
        ),
        {each.address: each.association for each in own.home_agents},
        {each.home_address: each.association for each in own.mobiles},
        [
            StaticVisitor(
                home_address=each.home_address,
                home_agent=each.home_agent,
                link=each.link,
                next_hop=each.next_hop,
                home_address_v6=each.home_address_v6,
                next_hop_v6=each.next_hop_v6,
                translate=each.translate,
                translated=each.translated,
                here=settings.mnps is not None and each.next_hop == settings.mnps.address,
            )
            for each in own.static
        ],
        SystemRandom(),
    )


def stand_in(settings: Settings) -> "StandIn":
    """The MNPS of [mnps]."""
    from locum.roles.mnps.configuration import (
        Quota,
        StandInConfiguration,
        StandInRegistrationConfiguration,
        StoodInFor,
    )
    from locum.roles.mnps.role import StandIn

    own = settings.mnps
    assert own is not None
    colocated = own.register_via == "colocated"
    registration = None
    if own.devices:
        devices = (
            StoodInFor(
                home_address=each.home_address,
                home_agent=each.home_agent,
                association=each.association,
                binding=each.bid,
                home_address_v6=each.home_address_v6,
                weight=each.weight,
            )
            for each in own.devices
        )
        registration = StandInRegistrationConfiguration(
            own.address, own.links, tuple(devices), colocated, own.lifetime
        )
    return StandIn(
        StandInConfiguration(
            address=own.address,
            access_node=own.access_node,
            home_prefixes=own.home_prefixes,
            max_sessions=own.max_sessions,
            quota=Quota(own.max_held, own.device_sessions, own.device_bytes),
            registration=registration,
            address_v6=own.address_v6,
            translated=own.translate,
            emission=own.emission,
            services=own.services,
        ),
        SystemRandom(),
    )


def mobile_node(settings: Settings) -> "SleepingNode":
    """The mobile node of [mobile_node], with its sleep."""
    from locum.node.boot import boot_id
    from locum.roles.mobile_node.role import SleepingNode
    from locum.roles.nat import TraversalMode
    from locum.roles.registrant.configuration import MobileNodeConfiguration
    from locum.roles.registrant.registrant import MobileNode

    own = settings.mobile_node
    assert own is not None
    mobile = MobileNode(
        MobileNodeConfiguration(
            home_address=own.home_address,
            home_agent=own.home_agent,
            links=own.links,
            association=own.association,
            home_address_v6=own.home_address_v6,
            colocated=own.mode == "colocated",
            care_of_address=own.care_of_address,
            lifetime=own.lifetime,
            brief_lifetime=own.brief_lifetime,
            nat_traversal=TraversalMode(own.traversal.mode),
            keepalive=own.traversal.keepalive,
            nai=own.nai,
            context_transfer=own.context_transfer,
            routing=own.routing,
            boot=boot_id(),
            stranded=own.stranded_seconds,
            listening=possible(own.listening),
        ),
        {each.address: each.association for each in own.foreign_agents},
        SystemRandom(),
    )
    return SleepingNode(mobile, own.stand_ins, SystemRandom())
