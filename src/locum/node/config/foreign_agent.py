"""[foreign_agent] -> settings of an access node's agent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from locum.node.config.paging.ways import ways
from locum.node.config.parts import (
    LONGEST_LIFETIME,
    agent_key,
    keepalive,
    links,
    nat_traversal,
    own_nai,
    visitor_key,
)
from locum.node.config.policing import visitor_filters
from locum.node.config.rule_table import filter_rules
from locum.node.config.settings import ForeignAgentSettings, NodeSettings, Settings, SourceCheck
from locum.node.config.toml_table import Table
from locum.roles.action_values.flows import MAX_RULES, PLAIN_VERDICTS, FilterVerdict
from locum.roles.foreign_agent.configuration import (
    AccessLink,
    ForeignAgentConfiguration,
    KeyMode,
    ProbingConfiguration,
    ReportingConfiguration,
    StaticVisitor,
)
from locum.roles.profile import Policing
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

if TYPE_CHECKING:
    from locum.wire.control.context_blocks import BlockContent

_SHORTEST_PROBE = 0.05  # seconds; every visitor is asked that often


def foreign_agent(table: Table, node: NodeSettings) -> ForeignAgentSettings:
    """The whole table. Raises ConfigError."""
    care_of_address = table.address4("care_of_address")
    short_lifetime = table.integer("short_lifetime", 10, least=0, most=LONGEST_LIFETIME)
    configuration = ForeignAgentConfiguration(
        care_of_address=care_of_address,
        links=tuple(AccessLink(name, care_of_address) for name in links(table, "links", node)),
        # RFC 5944 section 2.3: at most 1/3 of the advertised lifetime; RFC 1256 allows no less than 3 s, MIP lowers it
        advertise_interval=table.seconds("advertise_interval", 1.0, least=0.05, most=1800.0),
        registration_lifetime=table.integer("registration_lifetime", 1800, least=1, most=0xFFFF),
        max_visitors=table.integer("max_visitors", 1024, least=1, most=1_000_000),
        short_lifetime=short_lifetime,
        challenge=table.boolean("challenge", False),
        open=table.boolean("open", False),
        revocation=table.boolean("revocation", True),
        nat_traversal=nat_traversal(table, "off"),
        keepalive=keepalive(table),
        probing=ProbingConfiguration(
            interval=table.seconds("probe_interval", 0.0, least=0.0, most=3600.0),
            misses=table.integer("probe_misses", 3, least=1, most=1000),
            stand_ins=table.addresses("mnps", ()),
            short_lifetime=short_lifetime,
        ),
        filters=visitor_filters(table.tables("filter")),
        upstream=table.string("multicast_link", None),
        contexts=_contexts(table.tables("profile")),
        tunnel_silence=table.seconds("tunnel_silence", 5.0, least=0.1, most=600.0),
        registration_required=table.boolean("registration_required", False),
        minimal_encapsulation=table.boolean("minimal_encapsulation", True),
        nai=own_nai(table),
        visitor_keys=KeyMode(
            table.choice("visitor_keys", tuple(mode.value for mode in KeyMode), KeyMode.OFFERED.value)
        ),
        assigns=table.optional4("assigns_home_agent"),
        reporting=ReportingConfiguration(table.optional("location_server")),
        answers_pages=table.boolean("answers_pages", False),
        ways=ways(table),
        hold_patience=table.seconds("hold_patience", 10.0, least=0.1, most=600.0),
    )
    settings = ForeignAgentSettings(
        configuration,
        home_agents=tuple(agent_key(item) for item in table.tables("home_agent")),
        mobiles=tuple(visitor_key(item) for item in table.tables("mobile")),
        static=tuple(_static_visitor(item, node) for item in table.tables("static")),
        prefix_lengths=table.boolean("prefix_lengths", True),
        source_check=SourceCheck(
            table.choice(
                "source_check", tuple(check.value for check in SourceCheck), SourceCheck.ADDRESS.value
            )
        ),
        source_networks=table.prefixes("source_networks", ()),
    )
    table.close()
    known = {key.address for key in settings.home_agents}
    if known and not configuration.open and configuration.assigns not in {None, *known}:
        raise table.error("assigns_home_agent", "is none of [[foreign_agent.home_agent]], and open is false")
    if configuration.upstream is not None:
        _check_multicast(table, settings, node)
    if 0 < configuration.probing.interval < _SHORTEST_PROBE:
        raise table.error("probe_interval", f"is 0 for no probes, or at least {_SHORTEST_PROBE:g} s")
    return settings


def with_other_tables(settings: Settings) -> Settings:
    """The settings with that part of the foreign agent's configuration which follows from the tables of others.

    618 and contexts go to peers of [control], [policy] says that profiles are asked for, and [mnps] may be the next hop.
    """
    own, mnps = settings.foreign_agent, settings.mnps
    if own is None:
        return settings
    peers = settings.control.associations if settings.control is not None else ()
    configuration = replace(
        own.configuration,
        notified=frozenset(peer.peer for peer in peers),
        access_nodes={peer.peer: frozenset(peer.home_addresses) for peer in peers if peer.access_node},
        policy=settings.policy is not None,
        policy_servers=frozenset(server.address for server in settings.policy.servers)
        if settings.policy is not None
        else frozenset(),
        reporting=replace(
            own.configuration.reporting,
            own=None if settings.control is None else settings.control.address,
        ),
    )
    static = tuple(
        replace(visitor, here=mnps is not None and visitor.next_hop == mnps.configuration.address)
        for visitor in own.static
    )
    return replace(settings, foreign_agent=replace(own, configuration=configuration, static=static))


def _check_multicast(table: Table, settings: ForeignAgentSettings, node: NodeSettings) -> None:
    upstream = settings.configuration.upstream
    if upstream not in node.interfaces:
        raise table.error("multicast_link", f"{upstream!r} is not among interfaces of [node]")
    if upstream in settings.links:
        raise table.error("multicast_link", "is one of links: groups are joined towards the network")


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


@dataclass(frozen=True, slots=True)
class VisitorProfile:
    """Data about a visitor known in advance at an access node (R20, P16); it moves with the device (C4)."""

    home_address: IPv4Address
    to_visitor: Policing
    from_visitor: Policing
    paging: Policing


def _contexts(tables: Sequence[Table]) -> dict[IPv4Address, Sequence["BlockContent"]]:
    """The blocks of each [[foreign_agent.profile]] by home address."""
    profiles = [_profile(table) for table in tables]
    if not profiles:
        return {}
    from locum.roles.foreign_agent.contexts.context import preconfigured

    return {profile.home_address: preconfigured(profile) for profile in profiles}


def _profile(table: Table) -> VisitorProfile:
    profile = VisitorProfile(
        home_address=table.address4("home_address"),
        to_visitor=_policing(table, "to_visitor"),
        from_visitor=_policing(table, "from_visitor"),
        paging=_policing(table, "paging"),
    )
    table.close()
    return profile


def _policing(table: Table, key: str) -> Policing:
    pages = key == "paging"
    rules = tuple(rule for item in table.tables(key) for rule in filter_rules(item, pages=pages))
    verdicts = tuple(verdict.value for verdict in PLAIN_VERDICTS)
    otherwise = FilterVerdict(table.choice(f"{key}_otherwise", verdicts, "allow"))
    for kind in (Ipv4Selector, Ipv6Selector):
        of_family = [rule.identifier for rule in rules if isinstance(rule.selector, kind)]
        if len(set(of_family)) != len(of_family):
            raise table.error(key, "two rules have one id")
        if len(of_family) > MAX_RULES // 2:
            raise table.error(key, f"has more than {MAX_RULES // 2} rules of one family")
    return Policing(rules, otherwise)
