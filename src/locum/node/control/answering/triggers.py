"""The request `locum trigger take | release`: a trigger to a stand-in, sent from this node (C8)."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locum.node.coap.exchanges import NoReply
from locum.node.config.rule_table import selectors
from locum.node.config.settings import Address
from locum.node.config.toml_table import ConfigError, Table
from locum.node.control.server import RequestFailed
from locum.roles.action_values.flows import Selector
from locum.roles.rules import RuleRefused, one_reading, spoken
from locum.roles.trigger_requests import ANSWER_TIMEOUT, word
from locum.wire.control.answer import Status
from locum.wire.control.trigger import PATH, Operation, Trigger, decode_trigger_answer, encode_trigger
from locum.wire.errors import WireError

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

_MEANING = {
    Status.REFUSED: "it has no association for this home address, or the home agent refused its registration",
    Status.NOT_AUTHORISED: "its association with this node does not allow it; set may_trigger and home_addresses there",
    Status.MALFORMED: "it does not understand the request",
    Status.BUSY: "the home agent does not answer it; it goes on trying",
    Status.LIMIT: "it has no room for more rules",
}


async def trigger(node: "NodeView", arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the stand-in; returns when the home agent has switched. Raises RequestFailed."""
    operation = arguments.get("operation")
    if operation not in ("take", "release"):
        raise RequestFailed("operation: take or release")
    home_address, stand_in = _address(arguments, "home_address"), _address(arguments, "mnps")
    asked = Trigger(
        Operation.TAKE if operation == "take" else Operation.RELEASE,
        (home_address,),
        _selectors(arguments, home_address),
    )
    await ask_stand_in(node, stand_in, asked)
    return {"operation": operation, "home_address": str(home_address), "by": str(stand_in), "status": "ok"}


async def ask_stand_in(node: "NodeView", stand_in: Address, asked: Trigger) -> None:
    """Returns when it has done it: another node, or this one itself. Raises RequestFailed."""
    operation = asked.operation.name.lower()
    node.events.emit(
        "sent", PATH, asked.home_addresses[0], detail={"to": str(stand_in), "operation": operation}
    )
    own = node.settings.mnps
    try:
        if own is not None and stand_in == own.configuration.address:
            answer = await node.exchanges.ask_here(
                PATH, encode_trigger(asked), stand_in, asked.home_addresses
            )
        else:
            answer = await node.exchanges.ask(stand_in, PATH, encode_trigger(asked), ANSWER_TIMEOUT)
        status = decode_trigger_answer(answer)
    except NoReply as problem:
        raise RequestFailed(str(problem)) from None
    except WireError as problem:
        raise RequestFailed(f"{stand_in} gave an answer that cannot be read: {problem}") from None
    if status is not Status.OK:
        raise RequestFailed(f"{stand_in} answered {word(status)}: {_MEANING.get(status, 'see its events')}")


def _address(arguments: Mapping[str, Any], key: str) -> Address:
    value = arguments.get(key)
    try:
        return ip_address(str(value))
    except ValueError:
        raise RequestFailed(f"{key}: {value!r} is not an address") from None


def unambiguous(found: tuple[Selector, ...], *home_addresses: Address | None) -> tuple[Selector, ...]:
    """Selectors for the message: one without a family becomes a rule for both at the home agent. Raises
    RequestFailed for a family whose home address is not known.
    """
    try:
        return spoken(
            one_reading(found, (home_address for home_address in home_addresses if home_address is not None))
        )
    except RuleRefused as problem:
        raise RequestFailed(str(problem)) from None


def _selectors(arguments: Mapping[str, Any], home_address: Address) -> tuple[Selector, ...]:
    """The selectors; empty for all flows. Raises RequestFailed."""
    keys = arguments.get("selector") or {}
    if not isinstance(keys, Mapping):
        raise RequestFailed("selector: the keys of a rule's table")
    if not keys:
        return ()
    table = Table(Path("selector"), "", keys)
    try:
        found = selectors(table)
        table.close()
    except ConfigError as problem:
        raise RequestFailed(f"{problem.key}: {problem.problem}" if problem.key else problem.problem) from None
    return unambiguous(found, home_address)
