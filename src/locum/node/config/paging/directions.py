"""Decisions about direct pages (P5) as their program prints them, and keys of direct pages."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from locum.node.config.settings import Address, ControlAssociation
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.action_values.direct_pages import DeciderCommand, DirectedDevice
from locum.security.sealing import SealingKeys, sealing_keys
from locum.wire.control.paging.direct_page import Decision, DirectDecision, Directions
from locum.wire.control.paging.entry import MAX_VALUE, information_of
from locum.wire.errors import WireError

LONGEST_COMMAND = 30.0
"""Seconds: the stand-in repeats a page for 45 seconds at most."""
_MOST_ARGUMENTS = 64
DECISIONS = {"wake": Decision.WAKING, "stay": Decision.GO_ON}


def directed(table: Table) -> DirectedDevice:
    """The settings of [mobile_node] for direct pages; the keys of stand-ins are not known here. Raises ConfigError."""
    return DirectedDevice(command=_command(table))


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
        found = DirectDecision(DECISIONS[table.choice("decision", tuple(DECISIONS))], _directions(table))
        table.close()
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return found


def _directions(table: Table) -> Directions:
    return Directions(information=_information(table))


def _information(table: Table) -> Mapping[str, object]:
    def convert(value: Any) -> Mapping[str, object]:
        try:
            return information_of(value, "information")
        except WireError as error:
            raise ValueError(error.reason) from None

    wanted = f"names and values: numbers, true, false, or texts of at most {MAX_VALUE} characters"
    return table.converted("information", convert, wanted, {})


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
