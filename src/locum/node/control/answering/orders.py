"""Requests about a device's orders: `locum order`. Files pass through, a piece at a time, and are never stored here."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from locum.node.apps.data import DataError, checked_name
from locum.node.coap.exchanges import NoReply
from locum.node.config.settings import Address
from locum.node.control.answering.stored import stored
from locum.node.control.server import RequestFailed
from locum.roles.action_values.app_orders import OrderError, read_order
from locum.roles.action_values.apps import CONSUME, EMISSION, WHEN, AppOrder, When
from locum.roles.actions import Action
from locum.roles.app_results import outcome
from locum.roles.mobile_node.handover import BULK_TIMEOUT, CONTROL_TIMEOUT
from locum.roles.mobile_node.order_rows import Condition, Order
from locum.roles.mobile_node.orders import OrderRefused, OwnOrders, of_order
from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.states import Up
from locum.wire.control.answer import Status
from locum.wire.control.order import (
    DIGEST,
    MAX_DATA,
    MAX_OTHERS,
    PATH,
    Operation,
    OrderAnswer,
    OrderRequest,
    decode_order_answer,
    encode_order,
)
from locum.wire.errors import WireError

if TYPE_CHECKING:
    from locum.node.control.view import NodeView
    from locum.roles.mobile_node.role import SleepingNode

Row = dict[str, Any]
WHOLE = 1000 << 10
"""Bytes of a file that one message of CoAP over TCP carries; reads of more would be in blocks, and mix with others."""
BEGINS = "it begins when the device sleeps"
BEGINS_NOW = "it begins now"
BEGINS_LATER = "the device sleeps already; it begins with its next sleep"
UNCHECKED = "the stand-in could not check it, which it does when the device sleeps"
_SECRET = ("password", "secret", "token", "authorization", "private")  # in a key: its value is not shown
_DIGEST_TIMEOUT = 600.0  # seconds in which a stand-in reads a file of a hundred gigabytes
_ENDING = 30.0  # seconds in which a stand-in gives an order back
_ASKING = 5.0  # seconds in which a stand-in answers about running orders
_AGAIN = (Status.BUSY,)
_MEANING = {
    Status.NOT_AUTHORISED: "its association with this device does not allow it; set home_addresses there",
    Status.MALFORMED: "it does not know the request; it may be of an older version",
}


class _Unanswered(Exception):
    """The stand-in gave no answer, or is busy: the same request may succeed later."""


# Orders ---------------------------------------------------------------------------------------------------------------


async def add(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Order a job, after the stand-in has checked it, if it can be reached. Raises RequestFailed."""
    role = _role(node)
    settings = arguments.get("settings")
    default = role.awake_orders.default(
        str(arguments.get("kind")), settings if isinstance(settings, dict) else {}
    )
    app = _app(arguments, default)
    stand_in = _stand_in(role)
    if reason := role.awake_orders.refusal(app):
        raise RequestFailed(f"order {app.name}: {reason}")
    try:
        role.orders.check(app)
    except OrderRefused as problem:
        raise RequestFailed(str(problem)) from None
    unreached = await _checked(node, stand_in, app)
    warning = f"{UNCHECKED}: {unreached}" if unreached else ""
    if arguments.get("later"):  # its files come first
        role.awake_orders.held.add(app.name)
    await _perform(node, lambda orders, now: orders.add(app, now=now))
    return _row(node, role.orders.get(app.name)) | {
        "note": BEGINS_LATER
        if not isinstance(role.state, Up)
        else (BEGINS_NOW if app.when is When.ALWAYS and not arguments.get("later") else BEGINS),
        "warning": warning,
        "unreached": unreached,
    }


async def _checked(node: "NodeView", stand_in: Address, app: AppOrder) -> str:
    """Empty if the stand-in could run it, otherwise why that is not known. Raises RequestFailed."""
    home = _role(node).mobile.configuration.home_address
    others = tuple(tuple(other.to_json()) for other in _role(node).orders.unfinished())
    request = OrderRequest(Operation.CHECK, home, app.name, tuple(app.to_json()), others[:MAX_OTHERS])
    try:
        answer = await _ask(node, stand_in, request)
        # Files that an order of this name left, before the device lost its state, are no part of the new one.
        if answer.status is Status.OK:
            await _ask(node, stand_in, OrderRequest(Operation.REMOVE, home, app.name))
    except _Unanswered as problem:
        return str(problem)
    if answer.status is not Status.OK:
        raise RequestFailed(of_order(_said(answer), app.name))
    return ""


async def begin(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """The files of a new order are at the stand-in: it may begin. Raises RequestFailed."""
    order = _order(node, arguments)
    _role(node).awake_orders.held.discard(order.name)
    await _asked_about(node)
    return _row(node, _order(node, arguments))


async def _asked_about(node: "NodeView") -> None:
    """Ask about orders that run while the device is awake, and take those back that are done; without an answer, go on."""
    role = _role(node)
    if not isinstance(role.state, Up) or not any(
        order.app.when is When.ALWAYS for order in role.orders.all()
    ):
        return
    node.driver.command("mobile_node", lambda _, now: role.hurry_orders(now=now))
    await _until(node, lambda: not role.awake_orders.busy, _ASKING)


async def _until(node: "NodeView", done: Callable[[], bool], seconds: float) -> bool:
    """Wait for this in the role; False if it has not come in time."""
    slot = node.driver.slots["mobile_node"]
    stepped = asyncio.Event()
    slot.told.add(stepped.set)
    try:
        async with asyncio.timeout(seconds):
            while not done():
                stepped.clear()
                await stepped.wait()
    except TimeoutError:
        return False
    finally:
        slot.told.discard(stepped.set)
    return True


async def order_list(node: "NodeView", _: Mapping[str, Any]) -> list[Row]:
    """Every order that the device knows. Raises RequestFailed."""
    await _asked_about(node)
    return [_row(node, order) for order in _role(node).orders.all()]


async def show(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """One order with its settings and result. Raises RequestFailed."""
    await _asked_about(node)
    order = _order(node, arguments)
    found = outcome(order.state)
    return _row(node, order) | {
        "stand_ins": [str(stand_in) for stand_in in order.stand_ins],
        "settings": _shown(order.app.settings),
        WHEN: order.app.when.value,
        CONSUME: order.app.consume.value,
        EMISSION: None if order.app.emission is None else [str(rule) for rule in order.app.emission],
        "files": [{"file": file.name, "bytes": file.size, "sha256": file.digest} for file in found.files],
    }


async def cancel(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Forget an order; returns when the stand-in has removed its files, or does not answer. Raises RequestFailed."""
    name, role = _name(arguments), _role(node)
    running = role.partial_handovers.orders
    node.driver.command("mobile_node", lambda _, now: role.end_order(name, now=now))
    try:
        if isinstance(role.state, Up) and not await _until(node, lambda: name not in running(), _ENDING):
            raise RequestFailed(f"{name} runs at the stand-in, which has not answered; try again")
        await _perform(node, lambda orders, now: orders.cancel(name, now=now))
    finally:
        role.awake_orders.held.discard(name)
    left = await _files_left(node, name)
    return {"order": name, "files": f"removed at the next sleep: {left}" if left else "removed"}


async def collected(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """The files of an order are at the device. Raises RequestFailed."""
    name = _name(arguments)
    await _perform(node, lambda orders, now: orders.collected(name, now=now))
    await _files_left(node, name)
    return _row(node, _role(node).orders.get(name))


async def _files_left(node: "NodeView", name: str) -> str:
    """Wait for the removal of its files: empty if they are gone, or why not."""
    orders = _role(node).orders
    await _until(node, lambda: not orders.removing(name), CONTROL_TIMEOUT)
    left = [str(removal.stand_in) for removal in orders.removals() if removal.name == name]
    return f"{', '.join(left)} did not do it now" if left else ""


# Files ----------------------------------------------------------------------------------------------------------------


async def files(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """The files of an order at the stand-in; those of its result with the digest. Raises RequestFailed."""
    await _asked_about(node)
    order = _order(node, arguments)
    if order.condition is Condition.COLLECTED:  # also where the stand-in cannot be reached
        return {"order": order.name, "state": order.condition.value, "files": [], "missing": []}
    digests = {file.name: file.digest for file in outcome(order.state).files}
    try:
        answer = await _request(node, order, Operation.LIST)
    except _Unanswered as problem:
        return {"again": str(problem)}
    listed = [
        {"file": name, "bytes": size, "sha256": digests.get(name, ""), "result": name in digests}
        for name, size in answer.files
        if _is_plain(name)
    ]
    there = {row["file"] for row in listed}
    missing = [name for name in digests if name not in there]
    return {"order": order.name, "state": order.condition.value, "files": listed, "missing": missing}


async def read(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Bytes of a file in base64, and the size of the file. Raises RequestFailed."""
    order, file = _order(node, arguments), _file(arguments)
    offset, limit = _whole(arguments, "offset"), min(_whole(arguments, "limit"), WHOLE)
    try:
        answer = await _request(node, order, Operation.READ, file=file, offset=offset, size=limit)
    except _Unanswered as problem:
        return {"again": str(problem)}
    data = await asyncio.to_thread(base64.b64encode, answer.data)
    return {"data": data.decode(), "bytes": answer.size}


async def digest(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """SHA-256 of a file at the stand-in. Raises RequestFailed."""
    order, file = _order(node, arguments), _file(arguments)
    try:
        answer = await _request(node, order, Operation.DIGEST, timeout=_DIGEST_TIMEOUT, file=file)
    except _Unanswered as problem:
        return {"again": str(problem)}
    return {"sha256": answer.digest.hex(), "bytes": answer.size}


async def write(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """Send bytes of a file; the number of bytes that the stand-in has then. Raises RequestFailed."""
    order, file, offset = _order(node, arguments), _file(arguments), _whole(arguments, "offset")
    try:
        data = base64.b64decode(str(arguments.get("data", "")), validate=True)
    except binascii.Error:
        raise RequestFailed("data: base64 is expected") from None
    if len(data) > MAX_DATA:
        raise RequestFailed(f"data: at most {MAX_DATA} bytes are sent at once")
    stand_in = _place(node, order)
    if stand_in not in order.stand_ins:  # so that a cancelled order has them removed
        await _perform(node, lambda orders, _now: orders.used(order.name, stand_in))
    try:
        answer = await _request(node, order, Operation.WRITE, file=file, offset=offset, data=data)
    except _Unanswered as problem:
        return {"again": str(problem)}
    return {"bytes": answer.size}


async def commit(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """The file that was sent is whole: it gets its name at the stand-in. Raises RequestFailed."""
    order, file, size = _order(node, arguments), _file(arguments), _whole(arguments, "bytes")
    try:
        whole = bytes.fromhex(str(arguments.get("sha256", "")))
    except ValueError:
        whole = b""
    if len(whole) != DIGEST:
        raise RequestFailed("sha256: 64 hexadecimal digits are expected")
    try:
        await _request(
            node, order, Operation.COMMIT, timeout=_DIGEST_TIMEOUT, file=file, size=size, digest=whole
        )
    except _Unanswered as problem:
        return {"again": str(problem)}
    return {"order": order.name, "file": file, "bytes": size}


# The stand-in ---------------------------------------------------------------------------------------------------------


async def _request(
    node: "NodeView", order: Order, operation: Operation, *, timeout: float = BULK_TIMEOUT, **parts: Any
) -> OrderAnswer:
    """The stand-in's answer about files of an order. Raises _Unanswered or RequestFailed."""
    home = _role(node).mobile.configuration.home_address
    request = OrderRequest(operation, home, order.name, **parts)
    bulk = operation is not Operation.LIST
    answer = await _ask(node, _place(node, order), request, bulk=bulk, timeout=timeout)
    if answer.status is not Status.OK:
        raise RequestFailed(_said(answer))
    return answer


async def _ask(
    node: "NodeView",
    stand_in: Address,
    request: OrderRequest,
    *,
    bulk: bool = False,
    timeout: float = CONTROL_TIMEOUT,
) -> OrderAnswer:
    """The answer to one request. Raises _Unanswered or RequestFailed."""
    own, body = node.settings.mnps, encode_order(request)
    try:
        if own is not None and stand_in == own.configuration.address:
            data = await node.exchanges.ask_here(PATH, body, stand_in, (request.home_address,))
        elif bulk and request.operation is not Operation.READ:
            data = await node.exchanges.ask_alone(stand_in, PATH, body, timeout)
        else:
            data = await node.exchanges.ask(stand_in, PATH, body, timeout, bulk=bulk)
        answer = decode_order_answer(data)
    except NoReply as problem:
        raise _Unanswered(str(problem)) from None
    except WireError as problem:
        raise RequestFailed(f"{stand_in} gave an answer that cannot be read: {problem}") from None
    if answer.status in _AGAIN:
        raise _Unanswered(f"{stand_in} is busy: {answer.reason or 'ask again'}")
    return answer


def _said(answer: OrderAnswer) -> str:
    word = answer.status.name.lower().replace("_", " ")
    return answer.reason or f"the stand-in answered {word}: {_MEANING.get(answer.status, 'see its events')}"


def _place(node: "NodeView", order: Order) -> Address:
    """The stand-in that has the files of an order: where it ran last, or the first of the device."""
    return order.stand_ins[0] if order.stand_ins else _stand_in(_role(node))


def _stand_in(role: "SleepingNode") -> Address:
    try:
        return role.stand_in().address
    except NotPossible as problem:
        raise RequestFailed(str(problem)) from None


# Arguments and rows ---------------------------------------------------------------------------------------------------


def _role(node: "NodeView") -> "SleepingNode":
    slot = node.driver.slots.get("mobile_node")
    if slot is None:
        raise RequestFailed("this node is no mobile node; ask the one whose configuration has [mobile_node]")
    return cast("SleepingNode", slot.role)


async def _perform(node: "NodeView", command: Any) -> None:
    """Give the role a command; returns when it is on the disk. Raises RequestFailed."""
    orders: OwnOrders = _role(node).orders

    def decide(_: object, now: float) -> list[Action]:
        made: list[Action] = command(orders, now)
        return made

    try:
        node.driver.command("mobile_node", decide)
    except OrderRefused as problem:
        raise RequestFailed(str(problem)) from None
    await stored(node, "mobile_node")


def _app(arguments: Mapping[str, Any], when: When) -> AppOrder:
    limits = arguments.get("limits") or {}
    if isinstance(limits, dict):
        limits = {WHEN: str(when), **limits}
    item = [arguments.get("name"), arguments.get("kind"), arguments.get("settings", {})]
    try:
        return read_order([*item, limits] if limits else item)
    except OrderError as problem:
        raise RequestFailed(of_order(str(problem), problem.app)) from None


def _name(arguments: Mapping[str, Any]) -> str:
    name = arguments.get("name")
    if not isinstance(name, str):
        raise RequestFailed("name: the name of an order")
    return name


def _order(node: "NodeView", arguments: Mapping[str, Any]) -> Order:
    try:
        return _role(node).orders.get(_name(arguments))
    except OrderRefused as problem:
        raise RequestFailed(str(problem)) from None


def _file(arguments: Mapping[str, Any]) -> str:
    try:
        return checked_name(str(arguments.get("file", "")))
    except DataError as problem:
        raise RequestFailed(f"file: {problem}") from None


def _is_plain(name: str) -> bool:
    with contextlib.suppress(DataError):
        return bool(checked_name(name))
    return False


def _whole(arguments: Mapping[str, Any], key: str) -> int:
    value = arguments.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RequestFailed(f"{key}: a number of bytes")
    return value


def _row(node: "NodeView", order: Order) -> Row:
    running = order.condition is Condition.RUNNING
    seen = _role(node).awake_orders.seen.get(order.name) if running else None
    found = outcome(order.state) if seen is None else seen
    return {
        "order": order.name,
        "kind": order.app.kind,
        "state": order.condition.value,
        "progress": found.progress if order.condition is not Condition.COLLECTED else None,
        "files": len(found.files) if order.condition is not Condition.COLLECTED else None,
        "bytes": sum(file.size for file in found.files) or None,
        "changed_at": node.clock.for_people(order.at),
        "reason": order.reason,
    }


def _shown(settings: Any) -> Any:
    """Settings without passwords."""
    match settings:
        case Mapping():
            return {
                key: "(not shown)" if any(word in key.lower() for word in _SECRET) else _shown(value)
                for key, value in settings.items()
            }
        case list():
            return [_shown(item) for item in settings]
    return settings
