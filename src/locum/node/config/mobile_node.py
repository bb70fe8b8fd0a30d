"""The table [mobile_node] of a configuration: a device, its registration and its stand-ins."""

from ipaddress import IPv4Address
from typing import Any

from locum.node.config.apps import app_orders
from locum.node.config.exclusions import exclusions
from locum.node.config.keep_alive import keep_alive_rules
from locum.node.config.listening import listening
from locum.node.config.location import sip_uris
from locum.node.config.paging.directions import directed
from locum.node.config.paging.own_paging import own_paging
from locum.node.config.paging.ways import own_way
from locum.node.config.parts import (
    LONGEST_LIFETIME,
    agent_key,
    keepalive,
    links,
    nat_traversal,
    own_association,
    own_nai,
)
from locum.node.config.settings import MobileNodeSettings, NodeSettings
from locum.node.config.toml_table import Table
from locum.node.config.uses.traffic import uses
from locum.roles.action_values.flows import Encapsulation
from locum.roles.home_agent.requested_changes import usable
from locum.roles.mnps.configuration import MAX_BID
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.routing import Routing
from locum.security.association import AaaAssociation

_BY_DEFAULT_COA, _BY_REGISTRATION = "default-coa", "register"


def mobile_node(table: Table, node: NodeSettings) -> MobileNodeSettings:
    """The whole table. Raises ConfigError."""
    mode = table.choice("mode", ("fa", "colocated"), "fa")
    stand_ins, nai = _stand_ins(table), own_nai(table)
    dynamic = table.boolean("dynamic_home_agent", False)
    configuration = MobileNodeConfiguration(
        home_address=table.address4("home_address", IPv4Address(0) if nai else Table.REQUIRED),
        nai=nai,
        home_address_v6=table.optional6("home_address_v6"),
        home_agent=table.address4("home_agent"),
        links=links(table, "links", node),
        colocated=mode == "colocated",
        care_of_address=_care_of_address(table),
        dynamic=dynamic,
        fixed=dynamic and "home_address" in table,
        broadcasts=table.boolean("broadcasts", False),
        home_network=table.prefix4("home_network", None),
        encapsulation=Encapsulation(table.choice("encapsulation", ("ipip", "gre", "minimal"), "ipip")),
        lifetime=table.integer("lifetime", 300, least=1, most=0xFFFF),
        brief_lifetime=table.integer("brief_lifetime", 10, least=1, most=LONGEST_LIFETIME),
        association=own_association(table),
        agent_keys=table.boolean("foreign_agent_keys", False),
        stranded=table.seconds("stranded_seconds", 5.0, least=0.5, most=3600.0),
        nat_traversal=nat_traversal(table, "auto"),
        keepalive=keepalive(table),
        context_transfer=table.boolean("context_transfer", False),
        routing=_routing(table),
        listening=listening(table),
        apps=app_orders(table),
        location_server=table.optional("location_server"),
        directed=directed(table),
        sip_uris=sip_uris(table, "sip_uris"),
        own_way=own_way(table, links(table, "links", node)),
    )
    settings = MobileNodeSettings(
        configuration,
        foreign_agents=tuple(agent_key(item) for item in table.tables("foreign_agent")),
        freeze=table.choice("freeze", ("auto", "cgroup", "stop"), "auto"),
        sleep_seconds=table.seconds("sleep_seconds", 30.0, least=1.0, most=3600.0),
        stand_ins=stand_ins,
        exclusions=exclusions(table),
        keep_alive=keep_alive_rules(table),
        paging=own_paging(table),
        accept_seconds=table.seconds("accept_seconds", 60.0, least=1.0, most=3600.0),
        uses=uses(table),
        suspend=table.choice("suspend", ("logind", "none"), "logind") == "logind",
    )
    table.close()
    if configuration.dynamic and nai is None:
        raise table.error("dynamic_home_agent", "needs a nai: home agents know the device by it (RFC 4433)")
    _check_home_network(table, configuration)
    if configuration.agent_keys and not isinstance(configuration.association, AaaAssociation):
        raise table.error(
            "foreign_agent_keys", 'needs association_with = "aaa": they follow from that key (RFC 3957)'
        )
    default, home_address = configuration.routing.default, configuration.home_address
    if default == home_address and not home_address.is_unspecified:
        raise table.error("default_coa", "is the home address itself; name an access node, or a stand-in")
    return settings


def _check_home_network(table: Table, configuration: MobileNodeConfiguration) -> None:
    network, home_address = configuration.home_network, configuration.home_address
    if network is None:
        return
    if not configuration.broadcasts:
        raise table.error("home_network", "is for broadcasts alone; add broadcasts = true")
    if network.prefixlen > 30:
        raise table.error(
            "home_network", "has no broadcast address; its prefix has at most 30 bits (RFC 3021)"
        )
    if not home_address.is_unspecified and home_address not in network:
        raise table.error("home_network", f"does not contain home_address, {home_address}")


def _routing(table: Table) -> Routing:
    return Routing(
        binding=table.integer("bid", None, least=1, most=MAX_BID),
        weight=table.integer("weight", 1, least=1, most=0xFFFF),
        default=table.converted(
            "default_coa", _default_care_of, "an IPv4 address of a host, or 0.0.0.0 to take one back", None
        ),
    )


def _default_care_of(value: Any) -> IPv4Address:
    if not isinstance(value, str):
        raise TypeError
    address = IPv4Address(value)
    if not address.is_unspecified and not usable(address):
        raise ValueError
    return address


def _stand_ins(table: Table) -> tuple[OwnStandIn, ...]:
    """The one of the key mnps first: it gets packets by the default care-of address, unless a table says more of it."""
    listed = [_stand_in(subtable) for subtable in table.tables("stand_in")]
    first = table.optional("mnps")
    for taken in ([stand_in.name for stand_in in listed], [stand_in.address for stand_in in listed]):
        if len(set(taken)) != len(taken):
            raise table.error("stand_in", "two stand-ins have one name or one address")
    if first is None:
        return tuple(listed)
    if all(stand_in.address != first for stand_in in listed):
        if any(stand_in.name == "mnps" for stand_in in listed):
            raise table.error("mnps", "is the name of another stand-in; give that one another name")
        listed.insert(0, OwnStandIn("mnps", first))
    return tuple(sorted(listed, key=lambda stand_in: stand_in.address != first))


def _stand_in(table: Table) -> OwnStandIn:
    way = table.choice("handover", (_BY_DEFAULT_COA, _BY_REGISTRATION), _BY_REGISTRATION)
    stand_in = OwnStandIn(
        name=table.string("name"), address=table.address("address"), registers=way == _BY_REGISTRATION
    )
    table.close()
    return stand_in


def _care_of_address(table: Table) -> IPv4Address | None:
    """An address, or "auto" (the default) for the one that the link has."""
    if table.string("care_of_address", "auto") == "auto":
        return None
    return table.address4("care_of_address")
