"""[home_agent] -> `HomeAgentSettings` (features R3 to R8)."""

import re
from collections.abc import Container, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from locum.node.config.parts import LONGEST_LIFETIME, agent_key, association, links, own_association
from locum.node.config.policy import pools
from locum.node.config.rule_table import flow_rules
from locum.node.config.settings import Address, HomeAgentSettings, NodeSettings, Prefix
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.action_values.flows import MAX_RULES, RuleVerdict
from locum.roles.action_values.paging import PageForwarding, PageProfile
from locum.roles.home_agent.binding import AuthorisedStandIn, Mobile
from locum.roles.home_agent.configuration import (
    HomeAgentConfiguration,
    ProfileHomesConfiguration,
    TraversalPolicy,
)
from locum.roles.paging.left_rules import OTHERWISE
from locum.roles.paging.limits import PageLimits
from locum.roles.profile import Pool
from locum.roles.rules import DEFAULT, MN, RESERVED_NAMES, STAND_IN, KeptRule
from locum.wire.control.paging.status import MAX_LIFETIME
from locum.wire.mobile_ip.extensions import MAX_BINDING, MIN_BINDING

_FORWARDINGS = tuple(choice.value for choice in PageForwarding)
_PROFILES = tuple(choice.value for choice in PageProfile)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")


def home_agent(table: Table, node: NodeSettings) -> HomeAgentSettings:
    """The table [home_agent]. Raises ConfigError."""
    configuration = HomeAgentConfiguration(
        address=table.address4("address"),
        public_address=table.optional4("public_address"),
        max_lifetime=table.integer("max_lifetime", 1800, least=1, most=LONGEST_LIFETIME),
        short_lifetime=table.integer("short_lifetime", 10, least=0, most=LONGEST_LIFETIME),
        max_simultaneous=table.integer("max_simultaneous", 4, least=1, most=4),
        reverse_tunnel_required=table.boolean("reverse_tunnel_required", True),
        minimal_encapsulation=table.boolean("minimal_encapsulation", True),
        multipath=table.boolean("multipath", True),
        traversal=TraversalPolicy(
            willing=table.boolean("nat_traversal", True),
            forced=table.boolean("nat_forced", True),
            interval=table.integer("keepalive_interval", 0, most=0xFFFF),
        ),
        revocation=table.boolean("revocation", True),
        assigned=table.boolean("dynamic_assignment", True),
        redirect=table.optional4("redirect"),
        timestamp_tolerance=table.seconds("timestamp_tolerance", 7.0, least=1.0, most=600.0),
        key_lifetime=table.integer("key_lifetime", 86_400, least=60, most=31_536_000),
        trigger_on_expiry=table.boolean("trigger_on_expiry", False),
        location_server=table.optional("location_server"),
        left_lifetime=table.integer("page_rules_lifetime", 604_800, least=1, most=MAX_LIFETIME),
        pages=PageLimits(
            seconds=table.seconds("page_seconds", 20.0, least=1.0, most=600.0),
            wake_seconds=table.seconds("page_wake_seconds", 45.0, least=1.0, most=600.0),
            per_hour=table.integer("pages_per_hour", 60, least=1, most=3600),
            burst=table.integer("page_burst", 6, least=1, most=1000),
            rule_interval=table.seconds("page_rule_interval", 5.0, least=0.0, most=3600.0),
        ),
        page_forwarding=PageForwarding(
            table.choice("page_forwarding", _FORWARDINGS, PageForwarding.REGISTRATION.value)
        ),
        page_profile=PageProfile(table.choice("page_profile", _PROFILES, PageProfile.NONE.value)),
    )
    prefixes = table.prefixes("home_prefixes")
    # A longer prefix has no broadcast address (RFC 3021)
    networks = [prefix for prefix in prefixes if isinstance(prefix, IPv4Network) and prefix.prefixlen <= 30]
    configuration = replace(configuration, networks=tuple(networks))
    otherwise = _otherwise(table, RuleVerdict.AGENT)
    mobiles = tuple(_mobile(item, otherwise) for item in table.tables("mobile"))
    settings = HomeAgentSettings(
        configuration,
        mobiles,
        foreign_agents=tuple(agent_key(item) for item in table.tables("foreign_agent")),
        broadcast_links=links(table, "broadcast_links", node) if "broadcast_links" in table else (),
        homes=replace(
            _homes(configuration, mobiles, prefixes, pools(table.tables("pool"), prefixes)),
            asleep_otherwise=otherwise,
        ),
    )
    table.close()
    if configuration.short_lifetime >= configuration.max_lifetime:
        raise table.error("short_lifetime", "must be below max_lifetime")
    if configuration.redirect in configuration.addresses:
        raise table.error("redirect", "is this home agent's own address; name another one, or leave it out")
    if configuration.public_address == configuration.address:
        raise table.error(
            "public_address", "equals address; name the one that a NAT gives it, or leave it out"
        )
    seen: set[Address] = set()
    for number, mobile in enumerate(mobiles, 1):
        for address in (mobile.home_address, mobile.home_address_v6):
            if address is None:
                continue
            if not _within(address, prefixes):
                raise ConfigError(
                    table.file,
                    f"home_agent.mobile #{number}",
                    "home_address",
                    f"{address} is in none of home_prefixes",
                )
            if address in configuration.addresses:
                raise ConfigError(
                    table.file,
                    f"home_agent.mobile #{number}",
                    "home_address",
                    f"{address} is the home agent's",
                )
            if address in seen:
                raise ConfigError(
                    table.file, f"home_agent.mobile #{number}", "home_address", f"{address} appears twice"
                )
            seen.add(address)
    _check_loops(table, settings, seen)
    return settings


def _homes(
    configuration: HomeAgentConfiguration,
    mobiles: Sequence[Mobile],
    prefixes: tuple[Prefix, ...],
    pools: tuple[Pool, ...],
) -> ProfileHomesConfiguration:
    """The bounds on home addresses from profiles and pools, beside those of [[home_agent.mobile]]."""
    addresses = (
        it for mobile in mobiles for it in (mobile.home_address, mobile.home_address_v6) if it is not None
    )
    return ProfileHomesConfiguration(
        configured=(*configuration.addresses, *addresses),
        prefixes=prefixes,
        pools=pools,
        care_of=[mobile.default_care_of for mobile in mobiles if mobile.default_care_of is not None],
    )


def _check_loops(table: Table, settings: HomeAgentSettings, served: Container[Address]) -> None:
    """Refuse care-of addresses that lead into a home address, an endless tunnel. Raises ConfigError."""
    for number, mobile in enumerate(settings.mobiles, 1):
        name = f"home_agent.mobile #{number}"
        leads: list[tuple[str, str, Address | None]] = [
            (name, "default_coa", mobile.default_care_of),
            (name, "mnps", mobile.stand_in),
            (name, "mnps_v6", mobile.stand_in_v6),
        ]
        for index, stand_in in enumerate(mobile.stand_ins, 1):
            leads.append((f"{name}.stand_in #{index}", "address", stand_in.address))
            leads.append((f"{name}.stand_in #{index}", "address_v6", stand_in.address_v6))
        for where, key, address in leads:
            if address is not None and address in served:
                raise ConfigError(
                    table.file,
                    where,
                    key,
                    f"{address} is a home address of this home agent; packets would come back here",
                )


def check_ends(file: Path, home: HomeAgentSettings, ends: Container[Address]) -> None:
    """A default care-of address at the home agent's own address needs a role of this host that takes its packets: one
    of `ends`, the addresses of its stand-in and its foreign agent (R17). Raises ConfigError.
    """
    address = home.configuration.address
    for number, mobile in enumerate(home.mobiles, 1):
        if mobile.default_care_of == address and address not in ends:
            raise ConfigError(
                file,
                f"home_agent.mobile #{number}",
                "default_coa",
                f"{address} is the home agent's own address, and no [mnps] or [foreign_agent] of this file has it",
            )


def _within(address: Address, prefixes: tuple[Prefix, ...]) -> bool:
    return any(address.version == prefix.version and address in prefix for prefix in prefixes)


def _otherwise(table: Table, default: RuleVerdict) -> RuleVerdict:
    """The key asleep_otherwise: packets to a sleeper that nothing names."""
    words = tuple(verdict.value for verdict in OTHERWISE)
    return RuleVerdict(table.choice("asleep_otherwise", words, default.value))


def _mobile(table: Table, otherwise: RuleVerdict) -> Mobile:
    mobile = Mobile(
        home_address=table.address4("home_address"),
        home_address_v6=table.optional6("home_address_v6"),
        association=own_association(table),
        default_care_of=table.optional4("default_coa"),
        stand_in=table.optional4("mnps"),
        stand_in_v6=table.optional6("mnps_v6"),
        default_by_registration=table.boolean("default_coa_by_registration", True),
        default_ruled=table.choice("default_coa_takes", ("all", "ruled"), "all") == "ruled",
        page_forwarding=(
            PageForwarding(table.choice("page_forwarding", _FORWARDINGS, "registration"))
            if "page_forwarding" in table
            else None
        ),
        stand_ins=tuple(_stand_in(item) for item in table.tables("stand_in")),
        rules=flow_rules(table.tables("rule")),
        asleep_otherwise=_otherwise(table, otherwise),
    )
    table.close()
    _check_registrants(table, mobile)
    peers = {mobile.stand_in, *(stand_in.address for stand_in in mobile.stand_ins)} - {None}
    own = max(0, len(peers) - 1)  # rules of the home agent's own: an entry has room for one peer
    own += mobile.asleep_otherwise is not RuleVerdict.AGENT
    if (over := len(mobile.rules) + own - MAX_RULES) > 0:
        raise table.error(
            "rule",
            f"{len(mobile.rules)} rules and {own} for stand-ins and the rest: {over} more than {MAX_RULES}",
        )
    for rule in mobile.rules:
        _check_targets(table, rule, mobile)
    return mobile


def _stand_in(table: Table) -> AuthorisedStandIn:
    """[[home_agent.mobile.stand_in]]: a registrant beside the mobile node (R4)."""
    found = AuthorisedStandIn(
        name=table.string("name", STAND_IN),
        association=association(table),
        address=table.address4("address"),
        address_v6=table.optional6("address_v6"),
        translate=table.boolean("translate", False),
    )
    table.close()
    if not _NAME.match(found.name) or found.name in RESERVED_NAMES:
        raise table.error("name", f"{found.name!r} cannot be the name of a stand-in; take another word")
    return found


def _check_registrants(table: Table, mobile: Mobile) -> None:
    """Check that registrants differ by SPI, stand-ins by name and address. Raises ConfigError."""
    spis = [mobile.association.spi, *(stand_in.association.spi for stand_in in mobile.stand_ins)]
    names = [stand_in.name for stand_in in mobile.stand_ins]
    addresses = [stand_in.address for stand_in in mobile.stand_ins]
    for key, values in (("spi", spis), ("name", names), ("address", addresses)):
        if len(set(values)) != len(values):
            raise table.error(
                "stand_in", f"{key} is the same twice; every stand-in (and the mobile node) needs its own"
            )


def _check_targets(table: Table, rule: KeptRule, mobile: Mobile) -> None:
    """Raises ConfigError for a target that can never be registered."""
    known = {MN, STAND_IN, DEFAULT, *(stand_in.name for stand_in in mobile.stand_ins)}
    for target in rule.to:
        if isinstance(target, str) and target not in known:
            raise table.error(
                "rule", f"{rule.identifier} leads to {target!r}; known are {', '.join(sorted(known))}"
            )
        if isinstance(target, int) and not MIN_BINDING <= target <= MAX_BINDING:
            raise table.error(
                "rule", f"{rule.identifier} leads to {target}; binding identifiers are 1 to 254"
            )
