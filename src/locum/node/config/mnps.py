"""The table [mnps] of a configuration: a stand-in, the devices it registers for, and services of its own."""

from ipaddress import IPv4Address
from typing import Any

from locum.node.config.apps import emission_rules
from locum.node.config.parts import association, links
from locum.node.config.policing import emission_filters
from locum.node.config.settings import AppLimits, MnpsSettings, NodeSettings
from locum.node.config.toml_table import Table
from locum.roles.action_values.paging import PageForwarding
from locum.roles.mnps.configuration import (
    MAX_BID,
    MAX_HANDOVERS,
    MOST_SECONDS,
    Quota,
    StandInConfiguration,
    StandInRegistrationConfiguration,
    StoodInFor,
)
from locum.roles.paging.limits import PageLimits
from locum.sessions.datagrams.spool import DatagramBounds
from locum.wire.control import MAX_SESSIONS

_FORWARDINGS = (PageForwarding.AFTER.value, PageForwarding.REGISTRATION.value)
_PROTOCOLS = {"tcp": 6, "udp": 17}
_LONGEST_HELD = 30 * 86400  # seconds; the kernel's count of quiet milliseconds has 32 bits
_MOST_HANDOVERS = 65_536  # each proxy with a network has a number of 16 bits
_MOST_PORTS = 64  # of one table; the data plane has room for 1024 services


def mnps(table: Table, node: NodeSettings) -> MnpsSettings:
    """The whole table. Raises ConfigError."""
    home_agent = table.optional4("home_agent")
    mode = table.choice("mode", ("preconfigured", "register"), "preconfigured")
    devices = tuple(_device(subtable, home_agent) for subtable in table.tables("mobile"))
    memory, disk = table.size("memory_bound", 64 << 20), table.size("disk_bound", 4 << 30)
    most = table.integer("max_sessions", MAX_SESSIONS, least=1, most=MAX_SESSIONS)
    address, names = table.address4("address"), links(table, "links", node)
    registration = StandInRegistrationConfiguration(
        address,
        names,
        devices,
        colocated=table.choice("register_via", ("fa", "colocated"), "fa") == "colocated",
        lifetime=table.integer("lifetime", 300, least=1, most=0xFFFF),
    )
    configuration = StandInConfiguration(
        address=address,
        address_v6=table.optional6("address_v6"),
        access_node=table.address4("access_node"),
        home_prefixes=table.prefixes("home_prefixes"),
        max_sessions=most,
        max_handovers=table.integer("max_handovers", MAX_HANDOVERS, least=1, most=_MOST_HANDOVERS),
        quota=Quota(
            held_seconds=table.integer("max_held_seconds", 7 * 86400, least=1, most=_LONGEST_HELD),
            sessions=table.integer("max_sessions_per_device", most, least=1, most=most),
            stored=table.size("device_bytes", memory + disk),
        ),
        registration=registration if mode == "register" else None,
        home_agent=home_agent,
        translated=table.addresses("translate", ()),
        emission=emission_filters(table.tables("emission")),
        services=tuple(service for item in table.tables("service") for service in _services(item)),
        location_server=table.optional("location_server"),
        pages=PageLimits(
            seconds=table.seconds("page_seconds", 20.0, least=1.0, most=MOST_SECONDS),
            wake_seconds=table.seconds("page_wake_seconds", 45.0, least=1.0, most=600.0),
            per_hour=table.integer("pages_per_hour", 60, least=1, most=3600),
            burst=table.integer("page_burst", 6, least=1, most=1000),
        ),
        page_forwarding=PageForwarding(
            table.choice("page_forwarding", _FORWARDINGS, PageForwarding.REGISTRATION.value)
        ),
    )
    settings = MnpsSettings(
        configuration,
        links=names,
        memory_bound=memory,
        disk_bound=disk,
        session_least=table.size("session_least", 4 << 20),
        session_most=table.size("session_most", 1 << 30),
        datagrams=DatagramBounds(
            seconds=table.seconds("udp_seconds", 300.0, least=1.0, most=7 * 86400.0),
            number=table.integer("udp_datagrams", 1000, least=1, most=1_000_000),
            size=table.size("udp_bytes", 1 << 20, least=1 << 16),
        ),
        spool_dir=table.path("spool_dir", node.state_dir / f"{node.name}.spool"),
        holder=table.path("holder", None),
        app_dir=table.path("app_dir", node.state_dir / f"{node.name}.apps"),
        app_limits=AppLimits(
            memory=table.size("app_memory", 256 << 20, least=64 << 20),
            processor=table.integer("app_processor_seconds", 3600, least=1, most=_LONGEST_HELD),
            disk=table.size("app_disk", 1 << 30),
            days=table.integer("app_data_days", 30, least=1, most=3650),
            trust=table.path("app_trust", None),
            emission=emission_rules(table, "app_emission"),
        ),
    )
    table.close()
    _check(table, settings, mode, devices)
    return settings


def _check(table: Table, settings: MnpsSettings, mode: str, devices: tuple[StoodInFor, ...]) -> None:
    """Checks across several keys. Raises ConfigError."""
    configuration = settings.configuration
    prefixes = configuration.home_prefixes
    for address in configuration.translated:
        if not any(address.version == prefix.version and address in prefix for prefix in prefixes):
            raise table.error("translate", f"{address} is in none of home_prefixes")
        if address.version == 6 and configuration.address_v6 is None:
            raise table.error("translate", f"{address} needs address_v6, which it is to become")
    if settings.session_least > settings.session_most:
        raise table.error("session_least", "is more than session_most")
    if not prefixes:
        raise table.error(
            "home_prefixes", "needs at least one prefix; the stand-in receives for its addresses"
        )
    if mode == "register" and not devices:
        raise table.error("mode", 'is "register"; name at least one device in [[mnps.mobile]]')
    if devices and mode != "register":
        raise table.error("mobile", 'is of no use unless mode = "register"')
    for device in devices:
        if not any(device.home_address in prefix for prefix in prefixes if prefix.version == 4):
            raise table.error("mobile", f"{device.home_address} is in none of home_prefixes")
    if len({device.home_address for device in devices}) != len(devices):
        raise table.error("mobile", "two tables have one home_address")


def _services(table: Table) -> list[tuple[int, int]]:
    """Protocol and port of each service of one [[mnps.service]]."""
    protocol = table.choice("protocol", tuple(_PROTOCOLS))
    first, last = table.converted("port", _ports, 'a port, or a range such as "8000-8003"')
    table.close()
    if last - first >= _MOST_PORTS:
        raise table.error(
            "port", f"names more than {_MOST_PORTS} ports; only listening ports have to be named"
        )
    return [(_PROTOCOLS[protocol], port) for port in range(first, last + 1)]


def _ports(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        first, last = (int(word) for word in value.split("-", 1))
    elif isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    else:
        raise TypeError
    if not 1 <= first <= last <= 0xFFFF:
        raise ValueError
    return first, last


def _device(table: Table, home_agent: IPv4Address | None) -> StoodInFor:
    device = StoodInFor(
        home_address=table.address4("home_address"),
        home_address_v6=table.optional6("home_address_v6"),
        home_agent=table.address4("home_agent", home_agent) if home_agent else table.address4("home_agent"),
        association=association(table),
        binding=table.integer("bid", least=1, most=MAX_BID),
        weight=table.integer("weight", 1, least=1, most=0xFFFF),
    )
    table.close()
    return device
