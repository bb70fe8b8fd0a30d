"""Configuration file -> `Settings`: TOML read once at start, strictly.

Every unknown, missing or senseless key is a `ConfigError` that names file, table and key. Secrets stand in files of
their own, in hexadecimal, mode 0600.
"""

import os
import pickle
import pickletools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from locum.node.config.foreign_agent import foreign_agent, with_other_tables
from locum.node.config.home_agent import check_ends, home_agent
from locum.node.config.location import location
from locum.node.config.mnps import mnps
from locum.node.config.mobile_node import mobile_node
from locum.node.config.parts import links
from locum.node.config.policy import policy
from locum.node.config.settings import (
    COAP_PORT,
    Address,
    ControlAssociation,
    ControlSettings,
    NodeSettings,
    Settings,
)
from locum.node.config.toml_table import ConfigError, Table
from locum.node.config.wireguard.table import wireguard
from locum.roles.action_values.paging import PageProfile

__all__ = ["ConfigError", "load", "load_to_keep"]

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")
_MOST_BINDINGS = 4 << 20  # about 460 MiB of tables
_MOST_FLOWS = _MOST_HELD = 1 << 20
_MOST_SECONDS_HELD = 120  # how long TCP expects a packet to live (RFC 9293 section 3.4.1)


def load_to_keep(path: Path | str) -> Settings:
    """The same in little memory: for a process that runs for long, and has one thread as yet. Raises ConfigError.

    The tree of the text takes several times the memory of the settings; what is made while it is there holds pages that
    both share. So another process reads the file, and hands over the settings alone.
    """
    try:
        packed = _read_apart(path)
    except OSError:
        packed = None
    if packed is None:
        return load(path)  # and raise its errors here
    settings: Settings = pickle.loads(packed)
    return settings


def _read_apart(path: Path | str) -> bytes | None:
    """The settings, packed by another process; None if it fails. Raises OSError if there can be no such process."""
    readable, writable = os.pipe()
    with open(readable, "rb") as pipe:
        try:
            child = os.fork()
            if not child:
                _hand_over(path, writable)
        finally:
            os.close(writable)
        packed = pipe.read()
    return None if os.waitpid(child, 0)[1] else packed


def _hand_over(path: Path | str, writable: int) -> NoReturn:
    """Write the settings to a pipe, and end this process; its exit code is 0 if they are there."""
    try:
        packed = pickle.dumps(load(path), pickle.HIGHEST_PROTOCOL)
        with open(writable, "wb") as pipe:
            pipe.write(
                pickletools.optimize(packed)
            )  # else the reader keeps every part of a value until the end
        os._exit(0)
    finally:
        os._exit(1)


def load(path: Path | str) -> Settings:
    """The settings in the TOML file at `path`. Raises ConfigError."""
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(file, "", None, "there is no such file") from None
    except OSError as problem:
        raise ConfigError(file, "", None, f"cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(file, "", None, "is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(file, "", None, f"is not TOML: {problem}") from None
    top = Table(file, "", content)
    node_table = top.table("node")
    if node_table is None:
        raise ConfigError(file, "node", None, "is missing; every node needs [node] with name and interfaces")
    node = _node(node_table)
    control, home, foreign, mobile, mnps_table = (
        top.table(name) for name in ("control", "home_agent", "foreign_agent", "mobile_node", "mnps")
    )
    policy_table, location_table = top.table("policy"), top.table("location")
    wireguard_table = top.table("wireguard")
    top.close()
    settings = Settings(
        file=file,
        node=node,
        control=_control(control) if control else None,
        home_agent=home_agent(home, node) if home else None,
        foreign_agent=foreign_agent(foreign, node) if foreign else None,
        mobile_node=mobile_node(mobile, node) if mobile else None,
        mnps=mnps(mnps_table, node) if mnps_table else None,
        location=location(location_table) if location_table is not None else None,
        policy=policy(policy_table, node.name) if policy_table else None,
        wireguard=wireguard(wireguard_table) if wireguard_table is not None else None,
        warnings=tuple(top.warnings),
    )
    _check_whole(settings)
    return with_other_tables(settings)


def _check_whole(settings: Settings) -> None:
    """Checks across several tables. Raises ConfigError."""
    without_role = settings.wireguard or (settings.control and settings.control.associations)
    if not settings.roles and not without_role:
        raise ConfigError(
            settings.file,
            "",
            None,
            "names no role; write [home_agent], [foreign_agent], [mobile_node], [mnps] or [location], "
            "[wireguard], or [control] with an association for a correspondent's agent",
        )
    if settings.mnps is not None and settings.control is None:
        raise ConfigError(
            settings.file, "control", None, "is missing; [mnps] is asked over CoAP and needs it"
        )
    alone = settings.home_agent is None and settings.location is not None
    if alone and settings.control is None:
        raise ConfigError(
            settings.file, "control", None, "is missing; [location] is asked over CoAP and needs it"
        )
    if settings.policy is None and settings.home_agent is not None and settings.home_agent.homes.pools:
        raise ConfigError(
            settings.file, "policy", None, "is missing; whose home address comes from a pool, a profile says"
        )
    home = settings.home_agent
    if settings.policy is None and home and home.configuration.page_profile is not PageProfile.NONE:
        said = "is missing; the profiles that page_profile of [home_agent] brings come from its server"
        raise ConfigError(settings.file, "policy", None, said)
    pushed = settings.policy is not None and settings.policy.changes is not None
    served = (settings.home_agent, settings.foreign_agent, settings.mnps)
    if pushed and not any(served):
        said = "no role of this node has profiles; home agents, access nodes and stand-ins do"
        raise ConfigError(settings.file, "policy.changes", None, said)
    foreign = settings.foreign_agent
    if settings.home_agent is not None:
        ends = [
            *([settings.mnps.configuration.address] if settings.mnps is not None else []),
            *([foreign.configuration.care_of_address] if foreign is not None else []),
        ]
        check_ends(settings.file, settings.home_agent, ends)
    _check_room(settings)
    _check_peers(settings)
    _check_shared(settings)


def _check_peers(settings: Settings) -> None:
    """Check that every peer of CoAP has an association."""
    foreign, mobile = settings.foreign_agent, settings.mobile_node
    asked = [
        (stand_in, "foreign_agent")
        for stand_in in (foreign.configuration.probing.stand_ins if foreign else ())
    ]
    asked += [(stand_in.address, "mobile_node") for stand_in in (mobile.stand_ins if mobile else ())]
    home, mnps = settings.home_agent, settings.mnps
    used = [
        ("foreign_agent", foreign.configuration.reporting.server if foreign else None),
        ("mobile_node", mobile.configuration.location_server if mobile else None),
        ("home_agent", home.configuration.location_server if home else None),
        ("mnps", mnps.configuration.location_server if mnps else None),
    ]
    _check_location_servers(settings, used)
    known = {association.peer for association in (settings.control.associations if settings.control else ())}
    for peer, table in asked:
        if peer not in known:
            raise ConfigError(
                settings.file,
                "control.association",
                "peer",
                f"no association with the mnps {peer} of [{table}]",
            )


def _check_location_servers(settings: Settings, used: Sequence[tuple[str, Address | None]]) -> None:
    """Check that the location servers of these tables can be reached: by an association, or here."""
    control = settings.control
    known = {association.peer for association in (control.associations if control else ())}
    if settings.location is not None and control is not None:
        known.add(control.address)
    for table, server in used:
        if server is not None and server not in known:
            raise ConfigError(
                settings.file,
                table,
                "location_server",
                f"no association with {server} in [control]; add one, or [location] here",
            )


def _check_shared(settings: Settings) -> None:
    """An access node and a stand-in on one host (R17): whose a packet is must be seen by its addresses."""
    foreign, mnps = settings.foreign_agent, settings.mnps
    if foreign is None or mnps is None:
        return

    own, registration = mnps.configuration, mnps.configuration.registration

    def wrong(table: str, key: str, problem: str) -> ConfigError:
        return ConfigError(settings.file, table, key, problem)

    if registration is not None and own.address == foreign.configuration.care_of_address:
        raise wrong("mnps", "address", "is care_of_address of [foreign_agent]; to register it needs another")
    from_here = registration is not None and registration.colocated
    if registration is not None and not from_here and set(mnps.links) <= set(foreign.links):
        raise wrong("mnps", "register_via", 'this host is the agent on all of links; say "colocated"')
    registered = {device.home_address for device in mnps.devices if from_here}
    for number, visitor in enumerate(foreign.static, 1):
        table = f"foreign_agent.static #{number}"
        if visitor.next_hop != own.address:
            continue
        if visitor.next_hop_v6 not in (None, own.address_v6):
            raise wrong(table, "next_hop_v6", "is not address_v6 of [mnps], but next_hop is its address")
        if visitor.home_address in registered:
            raise wrong(table, "home_address", "is in [[mnps.mobile]] as well; its stand-in here registers")


def _check_room(settings: Settings) -> None:
    """The data plane must have room for every home address that the configuration allows."""
    room, needed = settings.node.max_bindings, settings.home_addresses
    if room is not None and room < needed:
        raise ConfigError(
            settings.file,
            "node",
            "max_bindings",
            f"{room} is too few: the roles of this node may need {needed}",
        )


def _node(table: Table) -> NodeSettings:
    name = table.string("name")
    if not _NAME.match(name):
        raise table.error("name", f"{name!r} must be 1 to 32 letters, digits, '.', '_' or '-'")
    interfaces = links(table, "interfaces")
    settings = NodeSettings(
        name=name,
        interfaces=interfaces,
        state_dir=table.path("state_dir", Path("/var/lib/locum")),
        run_dir=table.path("run_dir", Path("/run/locum")),
        bpf_dir=table.path("bpf_dir", Path("/sys/fs/bpf")),
        log_events=table.path("log_events", None),
        event_bytes=table.size("event_bytes", 256 << 20),
        max_bindings=table.integer("max_bindings", None, least=1024, most=_MOST_BINDINGS),
        max_flows=table.integer("max_flows", None, least=1024, most=_MOST_FLOWS),
        hold_packets=table.integer("hold_packets", 65_536, least=64, most=_MOST_HELD),
        hold_bytes=table.size("hold_bytes", 64 << 20, least=1 << 20, most=16 << 30),
        hold_packets_each=table.integer("hold_packets_each", 8192, least=16, most=_MOST_HELD),
        hold_bytes_each=table.size("hold_bytes_each", 16 << 20, least=64 << 10, most=16 << 30),
        hold_age=table.integer("hold_age", 60, least=1, most=_MOST_SECONDS_HELD),
        path_mtu_probes=table.boolean("path_mtu_probes", False),
    )
    table.close()
    return settings


def _control(table: Table) -> ControlSettings:
    settings = ControlSettings(
        address=table.address("address"),
        port=table.integer("port", COAP_PORT, least=1, most=65535),
        associations=tuple(_control_association(item) for item in table.tables("association")),
    )
    table.close()
    recipients = [association.recipient_id for association in settings.associations]
    if len(set(recipients)) != len(recipients):
        raise table.error("association", "two associations have one recipient_id; give each peer its own")
    return settings


def _control_association(table: Table) -> ControlAssociation:
    association = ControlAssociation(
        peer=table.address("peer"),
        sender_id=table.hexadecimal("sender_id", most=7),  # RFC 8613 section 3.3 with a 12 or 13 byte nonce
        recipient_id=table.hexadecimal("recipient_id", most=7),
        secret=table.secret("secret_file"),
        salt=table.hexadecimal("salt", b""),
        home_addresses=table.addresses("home_addresses", ()),
        may_trigger=table.boolean("may_trigger", False),
        access_node=table.boolean("access_node", False),
    )
    table.close()
    if association.sender_id == association.recipient_id:
        raise table.error(
            "recipient_id", "equals sender_id; the two ends of an association need different ids"
        )
    return association
