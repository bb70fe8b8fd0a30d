"""Requests about application proxies at a stand-in: `locum app list | kinds | show | log` (A1)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from locum.node.control.server import RequestFailed
from locum.node.events import flow_text
from locum.roles.app_results import RESULT, plain

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.node.apps.attending import Apps
    from locum.node.apps.running import Running
    from locum.node.control.view import NodeView

Row = dict[str, Any]


def _apps(node: "NodeView") -> "Apps":
    stand_in = node.stand_in
    if stand_in is None:
        raise RequestFailed("this node is no stand-in; ask the one whose configuration has [mnps]")
    return stand_in.apps


def app_list(node: "NodeView", _: Mapping[str, Any]) -> list[Row]:
    """Every proxy that runs, or is to. Raises RequestFailed."""
    return [_row(app) for app in _apps(node).all()]


def app_kinds(node: "NodeView", _: Mapping[str, Any]) -> list[Row]:
    """The kinds of proxies on this host. Raises RequestFailed."""
    return [
        {"kind": kind.name, "origin": kind.origin, "problem": kind.problem}
        for kind in _apps(node).catalogue.kinds()
    ]


def app_show(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """One proxy with its settings and sessions. Raises RequestFailed."""
    app = _one(node, arguments)
    return _row(app) | {
        "consume": str(app.order.consume),
        "emission": _emission(app),
        "settings": dict(app.order.shown()),
        "result": plain(app.state.get(RESULT)),
        "attends": [
            {
                "session": number,
                "flow": flow_text(attended.held.flow),
                "received": attended.held.spool.total,
                "shown": attended.shown,
                "answered": app.followed(number),
                "spoken": app.spoken(number),
                "replaced": app.replaced(number),
            }
            for number, attended in app.sessions.items()
        ],
    }


def _emission(app: "Running") -> Row:
    """Its rules (None: it may send everything), and the packets of its process that left, and that the kernel refused."""
    sent, refused = (0, 0) if app.outlet is None else app.outlet.policy.counts()
    rules = app.order.emission
    return {
        "rules": None if rules is None else [str(rule) for rule in rules],
        "sent": sent,
        "refused": refused,
    }


def app_log(node: "NodeView", arguments: Mapping[str, Any]) -> Row:
    """The last lines of one proxy. Raises RequestFailed."""
    return {"lines": list(_one(node, arguments).lines)}


def _row(app: "Running") -> Row:
    process = app.process
    return {
        "app": app.order.name,
        "kind": app.order.kind,
        "device": str(app.device),
        "handover": app.handover.hex(),
        "state": app.condition,
        "sessions": len(app.sessions),
        "events": app.events,
        "spoken": sum(app.spoken(number) for number in app.sessions),
        "restarts": app.restarts,
        "pid": None if process is None else process.pid or None,
        "memory": None if process is None else process.memory(),
        "problem": app.failure,
    }


def _one(node: "NodeView", arguments: Mapping[str, Any]) -> "Running":
    name, device = arguments.get("app"), arguments.get("device")
    found = [
        app
        for app in _apps(node).all()
        if app.order.name == name and (device is None or str(app.device) == device)
    ]
    if not found:
        raise RequestFailed(f"no proxy {name} runs here; `locum app list` names those that do")
    if len(found) > 1:
        devices = ", ".join(sorted({str(app.device) for app in found}))
        raise RequestFailed(f"several devices have a proxy {name}: name one with --device: {devices}")
    return found[0]
