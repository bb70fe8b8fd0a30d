"""[foreign_agent] -> settings of an access node's agent."""

from locum.node.config.parts import LONGEST_LIFETIME, agent_key, association, links, own_nai, traversal
from locum.node.config.policing import visitor_filters
from locum.node.config.rule_table import filter_rules
from locum.node.config.settings import (
    ForeignAgentSettings,
    NodeSettings,
    StaticVisitor,
    VisitorKey,
    VisitorProfile,
)
from locum.node.config.toml_table import Table
from locum.roles.action_values.flows import MAX_RULES, FilterVerdict
from locum.roles.profile import Policing
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

_SHORTEST_PROBE = 0.05  # seconds; every visitor is asked that often


def foreign_agent(table: Table, node: NodeSettings) -> ForeignAgentSettings:
    """The whole table. Raises ConfigError."""
    settings = ForeignAgentSettings(
        care_of_address=table.address4("care_of_address"),
        links=links(table, "links", node),
        # RFC 5944 section 2.3: at most 1/3 of the advertised lifetime; RFC 1256 allows no less than 3 s, MIP lowers it
        advertise_interval=table.seconds("advertise_interval", 1.0, least=0.05, most=1800.0),
        registration_lifetime=table.integer("registration_lifetime", 1800, least=1, most=0xFFFF),
        max_visitors=table.integer("max_visitors", 1024, least=1, most=1_000_000),
        short_lifetime=table.integer("short_lifetime", 10, least=0, most=LONGEST_LIFETIME),
        challenge=table.boolean("challenge", False),
        home_agents=tuple(agent_key(item) for item in table.tables("home_agent")),
        mobiles=tuple(_visitor_key(item) for item in table.tables("mobile")),
        static=tuple(_static_visitor(item, node) for item in table.tables("static")),
        open=table.boolean("open", False),
        revocation=table.boolean("revocation", True),
        traversal=traversal(table, "off"),
        probe_interval=table.seconds("probe_interval", 0.0, least=0.0, most=3600.0),
        probe_misses=table.integer("probe_misses", 3, least=1, most=1000),
        mnps=table.addresses("mnps", ()),
        filters=visitor_filters(table.tables("filter")),
        multicast_link=table.string("multicast_link", None),
        profiles=tuple(_profile(item) for item in table.tables("profile")),
        tunnel_silence=table.seconds("tunnel_silence", 5.0, least=0.1, most=600.0),
        registration_required=table.boolean("registration_required", False),
        nai=own_nai(table),
        prefix_lengths=table.boolean("prefix_lengths", True),
        hold_patience=table.seconds("hold_patience", 10.0, least=0.1, most=600.0),
    )
    table.close()
    if settings.multicast_link is not None:
        _check_multicast(table, settings, node)
    if 0 < settings.probe_interval < _SHORTEST_PROBE:
        raise table.error("probe_interval", f"is 0 for no probes, or at least {_SHORTEST_PROBE:g} s")
    return settings


def _check_multicast(table: Table, settings: ForeignAgentSettings, node: NodeSettings) -> None:
    if settings.multicast_link not in node.interfaces:
        raise table.error("multicast_link", f"{settings.multicast_link!r} is not among interfaces of [node]")
    if settings.multicast_link in settings.links:
        raise table.error("multicast_link", "is one of links: groups are joined towards the network")


def _visitor_key(table: Table) -> VisitorKey:
    key = VisitorKey(home_address=table.address4("home_address"), association=association(table))
    table.close()
    return key


def _static_visitor(table: Table, node: NodeSettings) -> StaticVisitor:
    visitor = StaticVisitor(
        home_address=table.address4("home_address"),
        home_address_v6=table.optional6("home_address_v6"),
        home_agent=table.address4("home_agent"),
        link=table.string("link"),
        next_hop=table.address4("next_hop"),
        next_hop_v6=table.optional6("next_hop_v6"),
        translate=table.boolean("translate", False),
        translated=table.boolean("translated", False),
    )
    table.close()
    if visitor.translate and visitor.translated:
        raise table.error("translate", "and translated: the home agent has done it already")
    if visitor.link not in node.interfaces:
        raise table.error("link", f"{visitor.link!r} is not among interfaces of [node]; add it there")
    return visitor


def _profile(table: Table) -> VisitorProfile:
    """[[foreign_agent.profile]]: data known of a visitor in advance, which moves with it (C4)."""
    profile = VisitorProfile(
        home_address=table.address4("home_address"),
        to_visitor=_policing(table, "to_visitor"),
        from_visitor=_policing(table, "from_visitor"),
        paging=_policing(table, "paging"),
    )
    table.close()
    return profile


def _policing(table: Table, key: str) -> Policing:
    rules = tuple(each for item in table.tables(key) for each in filter_rules(item))
    verdicts = tuple(each.value for each in FilterVerdict)
    otherwise = FilterVerdict(table.choice(f"{key}_otherwise", verdicts, "allow"))
    for kind in (Ipv4Selector, Ipv6Selector):
        of_family = [each.identifier for each in rules if isinstance(each.selector, kind)]
        if len(set(of_family)) != len(of_family):
            raise table.error(key, "two rules have one id")
        if len(of_family) > MAX_RULES // 2:
            raise table.error(key, f"has more than {MAX_RULES // 2} rules of one family")
    return Policing(rules, otherwise)
