"""Decisions about direct pages (P5): [[mobile_node.direction]], a program and its output; and the keys of direct pages."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from locum.node.config.paging.event_table import entries, information, patterns
from locum.node.config.paging.own_paging import agent_rules
from locum.node.config.settings import Address, ControlAssociation
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.action_values.direct_pages import DeciderCommand, DirectedDevice, Direction
from locum.roles.paging.direct_calls import ROOM, fits
from locum.security.sealing import SealingKeys, sealing_keys
from locum.wire.control.paging.direct_page import NO_DIRECTIONS, Decision, DirectDecision, Directions

LONGEST_COMMAND = 30.0
"""Seconds: the stand-in repeats a page for 45 seconds at most."""
_MOST_ARGUMENTS = 64
MOST_DIRECTIONS = 64
DECISIONS = {"wake": Decision.WAKING, "stay": Decision.GO_ON}


def directed(table: Table) -> DirectedDevice:
    """The settings of [mobile_node] for direct pages; the keys of stand-ins are not known here. Raises ConfigError."""
    tables = table.tables("direction")
    if len(tables) > MOST_DIRECTIONS:
        raise tables[MOST_DIRECTIONS].error(None, f"there are at most {MOST_DIRECTIONS} tables direction")
    return DirectedDevice(directions=tuple(map(_direction, tables)), command=_command(table))


def _direction(table: Table) -> Direction:
    found = Direction(patterns(table), *_decided(table))
    table.close()
    if not fits(DirectDecision(found.decision, found.directions)):
        raise table.error(None, f"is too long: one datagram has room for {ROOM} bytes of directions")
    return found


def _command(table: Table) -> DeciderCommand | None:
    command, seconds = (
        table.strings("page_command", ()),
        table.seconds("page_command_seconds", 5.0, least=0.1, most=LONGEST_COMMAND),
    )
    if not command:
        return None
    if not command[0].startswith("/") or len(command) > _MOST_ARGUMENTS:
        problem = "is a program with its whole path, and its arguments; no shell reads them"
        raise table.error("page_command", problem)
    if any("\0" in argument for argument in command):
        raise table.error("page_command", "has a character that no argument can have")
    return DeciderCommand(command, seconds)


def decision(content: Mapping[str, Any]) -> DirectDecision:
    """The decision in the JSON object that a program has printed. Raises ValueError with the reason."""
    table = Table(Path("output"), "", content)
    try:
        found = DirectDecision(*_decided(table))
        table.close()
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return found


def _decided(table: Table) -> tuple[Decision, Directions]:
    """The keys decision, entry, information and agent_rule. Raises ConfigError."""
    decision = DECISIONS[table.choice("decision", tuple(DECISIONS))]
    below = table.tables("entry")
    for entry in below:
        if "id" not in entry:
            problem = "is missing; an entry replaces the one of the event table that has its id"
            raise entry.error("id", problem)
    found = Directions(
        entries(below), information(table.table("information")), agent_rules(table.tables("agent_rule"))
    )
    if decision is Decision.WAKING and found != NO_DIRECTIONS:
        raise table.error("decision", 'is "wake"; entry, information and agent_rule belong to "stay"')
    return decision, found


def keys_of_devices(associations: Iterable[ControlAssociation]) -> dict[Address, SealingKeys]:
    """At a stand-in: the keys of each device, by its home addresses. Its association has one of them as the peer."""
    return {
        home_address: _keys(association)
        for association in associations
        if association.peer in association.home_addresses
        for home_address in association.home_addresses
    }


def keys_of_stand_ins(
    associations: Iterable[ControlAssociation], stand_ins: Iterable[Address]
) -> dict[Address, SealingKeys]:
    """At a device: the keys of each stand-in, by its address."""
    wanted = set(stand_ins)
    return {
        association.peer: _keys(association) for association in associations if association.peer in wanted
    }


def _keys(association: ControlAssociation) -> SealingKeys:
    return sealing_keys(association.secret, association.salt, association.sender_id, association.recipient_id)
