"""[home_agent] -> `HomeAgentSettings` (features R3 to R8)."""

from locum.node.config_parts import LONGEST_LIFETIME, agent_key, association
from locum.node.config_policy import pools
from locum.node.settings import Address, HomeAgentSettings, MobileSettings, Prefix
from locum.node.toml_table import ConfigError, Table


def home_agent(table: Table) -> HomeAgentSettings:
    """The table [home_agent]. Raises ConfigError."""
    settings = HomeAgentSettings(
        address=table.address4("address"),
        home_prefixes=table.prefixes("home_prefixes"),
        max_lifetime=table.integer("max_lifetime", 1800, least=1, most=LONGEST_LIFETIME),
        short_lifetime=table.integer("short_lifetime", 10, least=0, most=LONGEST_LIFETIME),
        max_simultaneous=table.integer("max_simultaneous", 4, least=1, most=4),
        reverse_tunnel_required=table.boolean("reverse_tunnel_required", True),
        mobiles=tuple(_mobile(item) for item in table.tables("mobile")),
        foreign_agents=tuple(agent_key(item) for item in table.tables("foreign_agent")),
        pools=pools(table.tables("pool"), table.prefixes("home_prefixes")),
    )
    table.close()
    if settings.short_lifetime >= settings.max_lifetime:
        raise table.error("short_lifetime", "must be below max_lifetime")
    seen: set[Address] = set()
    for number, mobile in enumerate(settings.mobiles, 1):
        for address in (mobile.home_address, mobile.home_address_v6):
            if address is None:
                continue
            if not _within(address, settings.home_prefixes):
                raise ConfigError(
                    table.file,
                    f"home_agent.mobile #{number}",
                    "home_address",
                    f"{address} is in none of home_prefixes",
                )
            if address in seen:
                raise ConfigError(
                    table.file, f"home_agent.mobile #{number}", "home_address", f"{address} appears twice"
                )
            seen.add(address)
    return settings


def _within(address: Address, prefixes: tuple[Prefix, ...]) -> bool:
    return any(address.version == prefix.version and address in prefix for prefix in prefixes)


def _mobile(table: Table) -> MobileSettings:
    settings = MobileSettings(
        home_address=table.address4("home_address"),
        home_address_v6=table.optional6("home_address_v6"),
        association=association(table),
        default_coa=table.optional4("default_coa"),
        mnps=table.optional4("mnps"),
        mnps_v6=table.optional6("mnps_v6"),
    )
    table.close()
    return settings
